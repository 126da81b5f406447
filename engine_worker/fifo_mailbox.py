"""A queue that keeps all that it takes, in order, and refuses what is newest when it is full. Floor 3."""

import time
from collections import deque
from itertools import islice
from typing import Final, Protocol, TypeVar

from engine_worker.mailbox import Mailbox

_LEAST_LOOK_S: Final = 0.001


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
