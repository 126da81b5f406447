"""A queue in memory that goes on on the disk: nothing is dropped before both are full. Floor 3.

What waits is one sequence: chunks on disk first, then what is in memory, which is newer. Beyond half of the memory's
bound its oldest part moves to the disk, on a thread of the queue's own caller (``move``); the other half is for what
arrives meanwhile. Where that comes faster than the disk writes, the giver waits, so long as the disk goes on. What the
taker holds moves first: at every moment the target and the disk together have a beginning of what was offered, without
holes.
"""

import logging
from dataclasses import replace
from threading import Condition
from typing import Final

from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.metrics import SinkCounters
from engine_worker.named_rows import NamedRows, joined, packed, unpacked
from engine_worker.spill import Spill, SpillDamaged, SpillUnavailable

CHUNK_BYTES: Final = 4 << 20
_CHUNKS: Final = 64  # looked at for one batch

log = logging.getLogger(__name__)


class SpillMailbox(FifoMailbox[NamedRows]):
    """One thread takes and settles, one moves, any may offer. No I/O under the lock."""

    def __init__(self, capacity_bytes: int, batch: int, age_s: float, spill: Spill) -> None:
        super().__init__(capacity_bytes, batch, age_s)
        self.fault = ""
        """Why the disk takes nothing now; empty while it does or does not have to."""
        self.patience_s = 0.0
        """How long a giver waits for the disk to make room. To be set by whoever has a thread that moves."""
        self._spill = spill
        self._chunk_bytes = min(CHUNK_BYTES, capacity_bytes // 8, spill.capacity_bytes // 8)
        self._on_disk = 0  # snapshots in chunks
        self._spilled = 0
        self._moving = False
        self._parts = 0  # items at the head that are being moved
        self._taken_chunks = 0
        self._taken_on_disk = 0  # snapshots in them
        self._moved = Condition(self.lock)
        self._over = Condition(self.lock)
        self._has_left = Condition(self.lock)
        self._is_stuck = False  # a giver has waited in vain, and nothing has left since

    def recover(self) -> int:
        """Take over what killed engines left on disk: it is offered now. To be called before the threads start."""
        try:
            count = self._spill.recover()
        except SpillUnavailable as error:
            self.fault = str(error)
            return 0
        with self.lock:
            self._offered += count
            self._on_disk += count
        return count

    def take(self, timeout_s: float) -> list[NamedRows]:
        with self.lock:
            self._wait_for_batch(timeout_s)
            self._moved.wait_for(lambda: not self._moving)
            self._taken = self._taken_chunks = self._taken_on_disk = 0
            if not self._on_disk:
                return self._take_head()
        return self._take_chunks()

    def put_back(self) -> None:
        with self.lock:
            self._taken = self._taken_chunks = self._taken_on_disk = 0

    def settle(self, written: int, duplicates: int = 0, dropped: int = 0) -> None:
        with self.lock:
            self._moved.wait_for(lambda: not self._moving)  # what is done may be on its way to the disk just now
            chunks = self._taken_chunks
        super().settle(written, duplicates, dropped)
        self._spill.release(chunks)

    def move(self, timeout_s: float, *, everything: bool = False) -> bool:
        """Move one chunk to the disk when memory is more than half full, waiting for that at most ``timeout_s``.

        With ``everything`` also when it is not. False when nothing was moved.
        """
        with self.lock:
            if not self._over.wait_for(lambda: self._is_over() or everything, timeout_s) or not self._items:
                self.fault = self.fault if self._is_over() else ""
                return False
            parts = self._head_to_move()
            self._moving, self._parts = True, len(parts)
        whole = joined(parts)
        try:
            self._spill.append(packed(whole), len(whole))
        except SpillUnavailable as error:
            moved, self.fault = False, str(error)
        else:
            moved, self.fault = True, ""
        with self.lock:
            if moved:
                if self._taken:  # the taker still has them
                    self._taken, self._taken_chunks, self._taken_on_disk = 0, 1, len(whole)
                self._remove(len(parts))
                self._on_disk += len(whole)
                self._spilled += len(whole)
            self._moving, self._parts = False, 0
            self._moved.notify_all()
            self._filled.notify_all()
            self._has_left.notify_all()
        return moved

    def close(self) -> None:
        super().close()
        with self.lock:
            self._has_left.notify_all()

    def sync(self) -> None:
        """Make what is on disk outlive the machine. To be called by the thread that moves."""
        self._spill.sync()

    def leave(self) -> None:
        """Give the files back, for the next engine to find. To be called when no thread is left."""
        self._spill.close()

    @property
    def counters(self) -> SinkCounters:
        with self.lock:
            return replace(
                self._counters(),
                spilled=self._spilled,
                on_disk=self._on_disk,
                disk_bytes=self._spill.nbytes,
                disk_capacity_bytes=self._spill.capacity_bytes,
            )

    def _added(self, count: int) -> None:
        super()._added(count)
        if self._is_over():
            self._over.notify_all()

    def _make_room(self, item: NamedRows) -> bool:
        """Wait until there is room or no hope of any."""
        if self._may_take(item) or self._is_stuck:
            return True
        self._is_stuck = not self._has_left.wait_for(lambda: self._may_take(item), self.patience_s)
        return False

    def _may_take(self, item: NamedRows) -> bool:
        """Say whether there is room, or nothing that makes any: the disk is full or away, or the end has come."""
        return self._has_room(item.nbytes) or self._closed or bool(self.fault)

    def _remove(self, items: int) -> None:
        super()._remove(items)
        self._is_stuck = False
        self._has_left.notify_all()

    def _is_over(self) -> bool:
        return self._bytes * 2 > self.capacity_bytes

    @property
    def _held(self) -> int:
        return max(super()._held, self._parts)

    def _has_some(self) -> bool:
        return super()._has_some() or bool(self._on_disk)

    def _is_due(self) -> bool:
        return super()._is_due() or bool(self._on_disk)

    def _head_to_move(self) -> list[NamedRows]:
        """Return exactly what the taker has from memory, or whole items up to the size of a chunk."""
        parts: list[NamedRows] = []
        size = 0
        for number, item in enumerate(self._items):
            if number == self._taken if self._taken else size and size + item.nbytes > self._chunk_bytes:
                break
            parts.append(item)
            size += item.nbytes
        return parts

    def _take_chunks(self) -> list[NamedRows]:
        """Read the oldest chunks; what is damaged is dropped, counted and told."""
        parts: list[NamedRows] = []
        for chunk in self._spill.oldest(_CHUNKS):
            try:
                part = unpacked(self._spill.read(chunk))
            except SpillDamaged as error:
                if parts:
                    break  # those before it come first
                log.error("spill: %d snapshots are lost: %s", chunk.snapshots, error)
                with self.lock:
                    self._dropped += chunk.snapshots
                    self._on_disk -= chunk.snapshots
                self._spill.release(1)
                continue
            parts.append(part)
            with self.lock:
                self._taken_chunks += 1
                self._taken_on_disk += len(part)
            if self._taken_on_disk >= self._batch:
                break
        return parts

    def _forget_taken(self) -> None:
        super()._forget_taken()
        self._on_disk -= self._taken_on_disk
        self._taken_chunks = self._taken_on_disk = 0

    def _pending(self) -> int:
        return self._count + self._on_disk
