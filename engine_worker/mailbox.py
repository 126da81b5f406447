"""The two objects that threads share: a queue that keeps everything, and slots that keep the newest. Floor 3.

Both are bounded. What a full one does: the queue makes the giver wait (or refuses, when the giver does not want to
wait), the slots replace. Both count it, under the lock that each item changes hands under.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from threading import Condition, Lock
from typing import Generic, TypeVar

T = TypeVar("T")

_RECHECK_S = 0.05


class Mailbox(ABC, Generic[T]):
    """What a sink needs of either. One thread takes; any may offer.

    Under ``lock``: ``offered = refused + conflated + waiting + taken + done``. An item that waits for room is not
    offered yet; one that was taken stays in ``taken`` until its taker puts it back or counts it as done itself.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.offered = 0
        self.refused = 0
        self.conflated = 0
        self.taken = 0
        self.blocked = 0
        self.blocked_ns = 0
        self._closed = False
        self._filled = Condition(self.lock)
        self._room = Condition(self.lock)

    @abstractmethod
    def offer(self, item: T, may_wait: Callable[[], bool]) -> bool:
        """Hand an item over. False when it was not taken: the mailbox is closed, or full and waiting is not wanted."""

    @abstractmethod
    def take(self, timeout_s: float) -> list[T]:
        """Return what there is, waiting at most ``timeout_s`` for the first item; none when nothing came."""

    @abstractmethod
    def put_back(self, items: Sequence[T]) -> None:
        """Return what was taken and could not be used."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many items wait."""

    def close(self) -> None:
        """Take nothing more. What is inside can still be taken."""
        with self.lock:
            self._closed = True
            self._filled.notify_all()
            self._room.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed


class FifoMailbox(Mailbox[T]):
    """A queue of at most ``capacity`` items (and what was put back), taken in batches by size and age.

    Full: ``offer`` waits for room as long as ``may_wait()`` holds; ``blocked`` counts the waits.
    """

    def __init__(self, capacity: int, batch: int, age_s: float) -> None:
        super().__init__()
        self.capacity = capacity
        self._batch = min(batch, capacity)
        self._age_s = age_s
        self._items: deque[T] = deque()

    def offer(self, item: T, may_wait: Callable[[], bool]) -> bool:
        with self.lock:
            has_room = len(self._items) < self.capacity or self._wait_for_room(may_wait)
            self.offered += 1
            if self._closed or not has_room:
                self.refused += 1
                return False
            self._items.append(item)
            # Only the first item and a full batch are worth waking the taker for.
            if len(self._items) in (1, self._batch):
                self._filled.notify()
            return True

    def _wait_for_room(self, may_wait: Callable[[], bool]) -> bool:
        begun = time.monotonic_ns()
        self.blocked += 1
        while len(self._items) >= self.capacity and not self._closed and may_wait():
            self._room.wait(_RECHECK_S)
        self.blocked_ns += time.monotonic_ns() - begun
        return len(self._items) < self.capacity

    def take(self, timeout_s: float) -> list[T]:
        with self.lock:
            if self._filled.wait_for(lambda: self._items or self._closed, timeout_s):
                self._filled.wait_for(lambda: len(self._items) >= self._batch or self._closed, self._age_s)
            taken = [self._items.popleft() for _ in range(min(self._batch, len(self._items)))]
            self.taken += len(taken)
            if taken:
                self._room.notify_all()
            return taken

    def put_back(self, items: Sequence[T]) -> None:
        with self.lock:
            self.taken -= len(items)
            self._items.extendleft(reversed(items))

    def __len__(self) -> int:
        return len(self._items)


class LatestMailbox(Mailbox[T]):
    """One slot for each key: a newer item replaces the one that waits there, counted in ``conflated``.

    Bounded by the number of keys; ``offer`` never waits.
    """

    def __init__(self, key: Callable[[T], Hashable]) -> None:
        super().__init__()
        self._key = key
        self._slots: dict[Hashable, T] = {}

    def offer(self, item: T, may_wait: Callable[[], bool]) -> bool:
        with self.lock:
            self.offered += 1
            if self._closed:
                self.refused += 1
                return False
            key = self._key(item)
            self.conflated += key in self._slots
            self._slots[key] = item
            self._filled.notify()
            return True

    def take(self, timeout_s: float) -> list[T]:
        with self.lock:
            self._filled.wait_for(lambda: self._slots or self._closed, timeout_s)
            taken = list(self._slots.values())
            self._slots.clear()
            self.taken += len(taken)
            return taken

    def put_back(self, items: Sequence[T]) -> None:
        """Return items; one that has a newer one in its slot by now is conflated."""
        with self.lock:
            self.taken -= len(items)
            for item in items:
                key = self._key(item)
                self.conflated += key in self._slots
                self._slots.setdefault(key, item)

    def __len__(self) -> int:
        return len(self._slots)
