"""Which marks are durable: those before which every snapshot has reached the stores that it must reach. Floor 3.

The feed thread offers marks, the thread of the database takes the newest that is reached and writes it down. Nothing
travels through the stores for it: they are queues, and a mark notes how much each had been given by then.

PostgreSQL has all of it, or the mark is not reached. The feed file has all of it too, unless its queue has dropped
since: what a full queue drops is counted there and never comes, so that marks wait for no disk for ever.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from threading import Event, Lock
from typing import Final, NamedTuple, Protocol

from engine_worker.mailbox import Progress
from engine_worker.mark import FilePlace, Mark, first_mark

MOST: Final = 16
"""Of 20,000 books each has 3 MB."""

Loader = Callable[[Mark, Event], Mark | None]
"""Returns the newest mark that was written down, else writes the one given; None when it cannot say."""


class Store(Protocol):
    """What takes snapshots, in order."""

    @property
    def progress(self) -> Progress: ...


class FeedFile(Store, Protocol):
    """The feed file, which can be gone on with from a place."""

    @property
    def place(self) -> FilePlace | None:
        """The end of what this process has written; None before its first line."""

    def place_at_start(self) -> FilePlace:
        """Where the file ends. To be asked before this process writes to it."""

    def resume(self, place: FilePlace) -> None:
        """Expect that snapshots behind a place come again, and leave out those that are there."""


class _Entry(NamedTuple):
    mark: Mark
    database: int  # snapshots taken by each store before the mark
    feed: Progress


class Ledger:
    """Marks that wait for the stores, at most ``MOST``: of more every other one is forgotten."""

    def __init__(self, database: Store, feed: FeedFile | None, load: Loader) -> None:
        """To be made before any thread runs: it looks where the feed file ends."""
        self._load = load
        self._database, self._feed = database, feed
        self._feed_start = None if feed is None else feed.place_at_start()
        self._entries: deque[_Entry] = deque()
        self._lock = Lock()

    def load(self, stop: Event) -> Mark | None:
        """Return the mark that a process before us left; None when that cannot be said. Gives up when the event is set.

        Where none was left there is one from now on: what comes behind it is known to be ours.
        """
        return self._load(first_mark(self._feed_start), stop)

    def offer(self, mark: Mark) -> None:
        """Take a mark of this moment, behind all that was offered to the stores. By the thread that offers there."""
        feed = Progress(0, 0, 0) if self._feed is None else self._feed.progress
        mark = replace(mark, feed=None if self._feed is None else self._feed.place)
        entry = _Entry(mark, self._database.progress.taken, feed)
        with self._lock:
            self._entries.append(entry)
            if len(self._entries) > MOST:
                self._entries = deque([*self._entries][::2])

    def reached(self) -> Mark | None:
        """Return the newest mark that is reached, once; None when there is no newer one."""
        mark: Mark | None = None
        with self._lock:
            database = self._database.progress
            feed = None if self._feed is None else self._feed.progress
            while self._entries and database.done >= self._entries[0].database and _has(feed, self._entries[0].feed):
                mark = self._entries.popleft().mark
        return mark if mark is None or mark.feed is not None else replace(mark, feed=self._feed_start)

    def resumed(self, mark: Mark) -> None:
        """Say that what was written behind a mark comes again."""
        if self._feed is not None and mark.feed is not None:
            self._feed.resume(mark.feed)


def _has(now: Progress | None, then: Progress) -> bool:
    """Say whether the feed file needs not be waited for any more."""
    return now is None or now.done >= then.taken or now.refused > then.refused
