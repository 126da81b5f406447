"""What threads share: a queue that keeps what it takes, and slots that keep the newest. Floor 3.

Both are bounded, both count under the lock that each item changes hands under, and neither makes the giver wait. What a
full one does: the queue refuses what is newest, the slots replace. What was taken stays inside until its taker says
that it is done, so that nothing is between two places when a process dies.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from threading import Condition, Lock
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from engine_worker.metrics import SinkCounters

_LEAST_LOOK_S: Final = 0.001

T = TypeVar("T")


class Parcel(Protocol):
    """What a queue takes: some snapshots at once."""

    def __len__(self) -> int:
        """Return how many snapshots it is."""

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""

    def followed_by(self: "P", other: "P") -> "P | None":
        """Return both as one, where that costs nothing; else None."""


P = TypeVar("P", bound=Parcel)
Next = TypeVar("Next", covariant=True)


class Source(Protocol[Next]):
    """Where a queue finds by itself what is handed over."""

    def peek(self) -> Next | None:
        """Return what comes next; None where nothing does now."""

    def move(self, snapshots: int) -> None:
        """Go on behind so many snapshots, all of what came next."""


class Progress(NamedTuple):
    """How far a mailbox has come, in snapshots since the start. It is done with what it has taken in that order."""

    taken: int
    done: int
    refused: int


class Mailbox(ABC, Generic[T]):
    """What a sink needs of either. One thread takes, and settles or puts back what it took; any may offer.

    Under ``lock``: ``offered = written + duplicates + dropped + conflated + pending``, counted in snapshots.
    """

    capacity_bytes = 0
    """Bound of what is inside; 0: bounded otherwise."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._bytes = 0
        self.refused = 0
        """Snapshots that were not taken; part of what was dropped."""
        self._offered = self._written = self._duplicates = self._dropped = self._conflated = 0
        self._closed = False
        self._filled = Condition(self.lock)

    @abstractmethod
    def offer(self, item: T) -> bool:
        """Hand an item over, without waiting. False when it was not taken: the mailbox is closed or full."""

    @abstractmethod
    def take(self, timeout_s: float) -> list[T]:
        """Return what there is, waiting at most ``timeout_s`` for the first item; none when nothing came."""

    @abstractmethod
    def put_back(self) -> None:
        """Say that what was taken could not be used: the next ``take`` begins with it."""

    def settle(self, written: int, duplicates: int = 0, dropped: int = 0) -> None:
        """Say what became of all that was taken last."""
        with self.lock:
            self._written += written
            self._duplicates += duplicates
            self._dropped += dropped
            self._forget_taken()

    @property
    def counters(self) -> SinkCounters:
        with self.lock:
            return self._counters()

    @property
    def progress(self) -> Progress:
        with self.lock:
            taken = self._offered - self.refused
            return Progress(taken, taken - self._pending(), self.refused)

    def close(self) -> None:
        """Take nothing more. What is inside can still be taken."""
        with self.lock:
            self._closed = True
            self._filled.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def _counters(self) -> SinkCounters:
        return SinkCounters(
            offered=self._offered,
            written=self._written,
            duplicates=self._duplicates,
            dropped=self._dropped + self.refused,
            conflated=self._conflated,
            pending=self._pending(),
            queue_bytes=self._bytes,
            queue_capacity_bytes=self.capacity_bytes,
        )

    @abstractmethod
    def _forget_taken(self) -> None:
        """Remove what was taken. Called under the lock."""

    @abstractmethod
    def _pending(self) -> int:
        """Return how many snapshots are inside, those that are taken included. Called under the lock."""


class FifoMailbox(Mailbox[P]):
    """A queue of at most ``capacity_bytes``, taken in batches of about ``batch`` snapshots, or once ``age_s`` old.

    Full, it refuses all that comes until something has left: what is dropped is one stretch. An item larger than all of
    it is taken into an empty one only. The taker looks every ``age_s``, and takes what it finds then, in the source
    too: to wake it up for the first item would take the giver longer than all else, and would have it wait for the GIL.
    """

    def __init__(self, capacity_bytes: int, batch: int, age_s: float) -> None:
        super().__init__()
        self.capacity_bytes = capacity_bytes
        self._batch = batch
        self._age_s = age_s
        self._items: deque[P] = deque()
        self._count = 0  # snapshots in them
        self._taken = 0  # items at the head
        self._refuses = False
        self.source: Source[P] | None = None
        """To be set before anybody takes."""

    def offer(self, item: P) -> bool:
        with self.lock:
            self._make_room(item)
            return self._take_in(item)

    def draw(self) -> None:
        """Take in all that the source has; what finds no room is refused. To be called now and then by who fills it."""
        with self.lock:
            while self.source is not None and (item := self.source.peek()) is not None:
                if self._make_room(item):
                    self.source.move(len(item))
                    self._take_in(item)

    def _make_room(self, item: P) -> bool:
        """Wait for room, if it is worth it. False when others may have had the lock. Called under the lock."""
        return True

    def _take_in(self, item: P) -> bool:
        """Put an item behind the others, if there is room. Called under the lock."""
        count, nbytes = len(item), item.nbytes
        self._offered += count
        if self._closed or not self._has_room(nbytes):
            self.refused += count
            self._refuses = bool(self._items)
            return False
        self._append(item)
        self._count += count
        self._bytes += nbytes
        self._added(count)
        return True

    def _look(self) -> None:
        """Take in what the source has, while there is room; refusing is not for the taker. Called under the lock."""
        while self.source is not None and not self._closed and (item := self.source.peek()) is not None:
            if not self._has_room(item.nbytes):
                return
            self.source.move(len(item))
            self._take_in(item)

    def take(self, timeout_s: float) -> list[P]:
        with self.lock:
            self._wait_for_batch(timeout_s)
            return self._take_head()

    def put_back(self) -> None:
        with self.lock:
            self._taken = 0

    def _append(self, item: P) -> None:
        """Let the newest item grow, if nobody holds it: fewer of them cost the taker less. Called under the lock."""
        grown = self._items[-1].followed_by(item) if len(self._items) > self._held else None
        if grown is None:
            self._items.append(item)
        else:
            self._items[-1] = grown

    @property
    def _held(self) -> int:
        """How many items at the head somebody has taken, and not yet settled. Called under the lock."""
        return self._taken

    def _has_room(self, nbytes: int) -> bool:
        return not self._refuses and (not self._bytes or self._bytes + nbytes <= self.capacity_bytes)

    def _added(self, count: int) -> None:
        """Wake the taker: only a full batch is worth it. Called under the lock."""
        if self._count - count < self._batch <= self._count:
            self._filled.notify()

    def _wait_for_batch(self, timeout_s: float) -> None:
        """Wait for a full batch, or until what there is may be so old. Called under the lock."""
        self._look()
        if self._has_some():
            self._filled.wait_for(self._is_due, self._age_s)
            self._look()
            return
        end_s = time.monotonic() + timeout_s
        while not self._has_some() and not self._closed and (left_s := end_s - time.monotonic()) > 0:
            self._filled.wait_for(self._is_due, min(left_s, max(self._age_s, _LEAST_LOOK_S)))
            self._look()

    def _has_some(self) -> bool:
        return bool(self._items)

    def _is_due(self) -> bool:
        return self._count >= self._batch or self._closed

    def _take_head(self) -> list[P]:
        """Take whole items up to the first that makes the batch full."""
        count = 0
        self._taken = 0
        for item in self._items:
            if count >= self._batch:
                break
            count += len(item)
            self._taken += 1
        return list(islice(self._items, self._taken))

    def _forget_taken(self) -> None:
        self._remove(self._taken)
        self._taken = 0

    def _remove(self, items: int) -> None:
        self._refuses = self._refuses and not items
        for _ in range(items):
            item = self._items.popleft()
            self._count -= len(item)
            self._bytes -= item.nbytes

    def _pending(self) -> int:
        return self._count


class LatestMailbox(Mailbox[T]):
    """One slot for each key: a newer item replaces the one that waits there, counted as conflated.

    Bounded by the number of keys. Each item counts as one snapshot.
    """

    def __init__(self, key: Callable[[T], Hashable]) -> None:
        super().__init__()
        self._key = key
        self._slots: dict[Hashable, T] = {}
        self._taken: list[T] = []

    def offer(self, item: T) -> bool:
        with self.lock:
            self._offered += 1
            if self._closed:
                self.refused += 1
                return False
            key = self._key(item)
            self._conflated += key in self._slots
            self._slots[key] = item
            self._filled.notify()
            return True

    def take(self, timeout_s: float) -> list[T]:
        with self.lock:
            self._filled.wait_for(lambda: self._slots or self._closed, timeout_s)
            self._taken = list(self._slots.values())
            self._slots.clear()
            return self._taken

    def put_back(self) -> None:
        """Return items; one that has a newer one in its slot by now is conflated."""
        with self.lock:
            for item in self._taken:
                key = self._key(item)
                self._conflated += key in self._slots
                self._slots.setdefault(key, item)
            self._taken = []

    def _forget_taken(self) -> None:
        self._taken = []

    def _pending(self) -> int:
        return len(self._slots) + len(self._taken)
