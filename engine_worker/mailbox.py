"""What threads share: slots that keep the newest, and what a queue that keeps everything is like too. Floor 3.

Both are bounded, both count under the lock that each item changes hands under, and neither makes the giver wait. What
a full one does: the queue (fifo_mailbox.py) refuses what is newest, the slots replace. What was taken stays inside
until its taker says that it is done, so that nothing is between two places when a process dies.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from itertools import islice
from threading import Condition, Lock
from typing import Generic, NamedTuple, TypeVar

from engine_worker.metrics import SinkCounters

T = TypeVar("T")


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


class LatestMailbox(Mailbox[T]):
    """One slot for each key: a newer item replaces the one that waits there, counted as conflated.

    Bounded by the number of keys. Each item counts as one snapshot. At most ``batch`` are taken at once, those first
    whose slots have been filled longest.
    """

    def __init__(self, key: Callable[[T], Hashable], batch: int) -> None:
        super().__init__()
        self._key = key
        self._batch = batch
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
            self._taken = [self._slots.pop(key) for key in list(islice(self._slots, self._batch))]
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
