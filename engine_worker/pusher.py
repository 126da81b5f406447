"""What the web sees, and when: the newest snapshot of each changed book, every PUSH_MS. Floor 3.

Independent of what is stored. A book is shown at event ends only; one that is in mid-event waits for the next look.
A picture is shown only where it tells something new: none does behind a run that stopped at MAX_MSGS.

To show a book costs as much as some hundred records, here and on the thread that encodes it. Of the thousands that a
venue has, those that somebody looks at are shown every PUSH_MS, and the others by turns.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

import numpy as np

from engine_worker.books import RunBooks
from engine_worker.run import Run
from engine_worker.sinks.broadcast import FEW, LiveBook, LiveSink
from engine_worker.tracks import Numbers, Track, Waiting
from orderbook.book.mbo import Side
from orderbook.book.protocol import OrderBook
from orderbook.book.snapshot import BookSnapshot
from orderbook.live import LIVE_DEPTH

COMPLETE_EVERY_NS: Final = 10**9
COMPLETE_FEW: Final = 128
CROWDED_NS: Final = 10**8
"""The least that a round takes in which not all have their turn, however short PUSH_MS is: records come first."""
NEVER: Final = 2**63 - 1


class Turns:
    """Who is shown when more wait than there is time for: all that are watched, and of the others ``few`` a round."""

    def __init__(self, every_ns: int, few: int) -> None:
        self.every_ns = every_ns
        self.next_round = 0
        """Of the caller's clock, ns."""
        self.left = few
        self.crowded = False
        """Whether somebody waits for the next round."""
        self._few = few

    def __call__(self, books: RunBooks, waiting: Waiting, watched: Numbers, now: int) -> Iterator[int]:
        """Yield the books to show now, those first that are watched, and then those first that have waited longest."""
        if now >= self.next_round:
            self.next_round, self.left, self.crowded = now + self.every_ns, self._few, False
        yield from filter(books.is_whole, waiting.due(now, watched))
        if self.left:
            others = list(islice(filter(books.is_whole, waiting.due(now)), self.left + 1))
            if len(others) > self.left:
                self.next_round, self.crowded = max(self.next_round, now + CROWDED_NS), True
            for number in others[: self.left]:
                self.left -= 1
                yield number


class Pusher:
    """Hands snapshots over to the live sink. Times are ns of the caller's clock."""

    def __init__(self, live: LiveSink, push_ms: int) -> None:
        self.pushes = 0
        self.newest: dict[str, BookSnapshot] = {}
        """What is shown of each book of the run; replaced, never emptied, so that others may read it."""
        self._shown: dict[tuple[str, int | None], BookSnapshot] = {}  # by symbol and depth, over all runs
        self._live = live
        self._turns, self._complete_turns = Turns(push_ms * 10**6, FEW), Turns(COMPLETE_EVERY_NS, COMPLETE_FEW)
        self._run_id = ""

    @property
    def complete(self) -> dict[str, BookSnapshot]:
        """Every level of each book of the run, at most a second old; any thread may ask."""
        shown = {symbol: snapshot for (symbol, depth), snapshot in self._shown.copy().items() if depth is None}
        return {symbol: shown[symbol] for symbol in self.newest.copy() if symbol in shown}

    def push(self, run: Run, now: int, *, everything: bool = False) -> None:
        """Push the changed books that are due, or all of them; none in mid-event."""
        if run.is_hidden:
            return
        if run.run_id != self._run_id and run.tracks:
            self._run_id, self.newest = run.run_id, {}
        books = run.books
        watched = books.numbers_of(self._live.watched)
        for waiting, turns, depth in (
            (books.unpushed, self._turns, LIVE_DEPTH),
            (books.incomplete, self._complete_turns, None),
        ):
            due = filter(books.is_whole, waiting.due(NEVER)) if everything else turns(books, waiting, watched, now)
            for number in due:
                since = waiting.shown(number, now + turns.every_ns)
                if turns.crowded and number not in watched:
                    since = 0  # how long one waits for a turn says nothing of the engine
                snapshot = self._show(run, books.track(number), depth, since)
                if depth is not None:
                    self.newest[snapshot.symbol] = snapshot

    def due(self, run: Run) -> int:
        """Return when the next push is due; NEVER when no book waits for one."""
        if run.is_hidden:
            return NEVER
        books, turns = run.books, self._turns
        dues = books.unpushed.dues(None if turns.left else books.numbers_of(self._live.watched))
        first = next((due for due, number in dues if books.is_whole(number)), NEVER)
        return first if turns.left else min(first, turns.next_round)

    def _show(self, run: Run, track: Track, depth: int | None, since_ns: int) -> BookSnapshot:
        """Hand a book over, unless it is a picture of what is shown already. Returns what is shown from now on."""
        shown = self._shown.get((track.symbol, depth))
        if run.is_picture and shown is not None and _is_of(shown, track.book, depth):
            return shown
        snapshot = track.pushed_snapshot(run.run_id, run.books.records(track), depth)
        self._shown[track.symbol, depth] = snapshot
        if depth is None:
            self._live.offer(LiveBook(snapshot, complete=True))
        else:
            self._live.offer(LiveBook(snapshot, complete=False, traded=run.trades.take(track.key), since_ns=since_ns))
            self.pushes += 1
        return snapshot


def _is_of(snapshot: BookSnapshot, book: OrderBook, depth: int | None) -> bool:
    """Say whether a snapshot shows a book as it is; one time and sequence may have several events."""
    return (
        (snapshot.ts_event, snapshot.sequence) == (book.ts_event, book.sequence)
        and np.array_equal(snapshot.bids, book.levels(Side.BID, depth))
        and np.array_equal(snapshot.asks, book.levels(Side.ASK, depth))
    )
