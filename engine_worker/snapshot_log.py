"""The way of snapshots from the books to the stores: written once, read by each store at its own pace. Floor 3.

A market hands a snapshot over by counting it in the block that it lies in (orderbook/book/snapshot_tape.py), also in
mid-pass: a reader needs neither the thread that feeds it nor the interpreter to have been there. The log is what says
which blocks come one behind the other, and what the books in them are called.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from engine_worker.batch import SnapshotBatch, part_of
from engine_worker.book_names import BookName
from orderbook.book.snapshot_kernel import handed
from orderbook.book.snapshot_tape import SnapshotBlock, SnapshotRule, SnapshotTape

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Stretch:
    """Snapshots of one run that lie one behind the other in one block, of books that are called the same throughout.

    Who keeps one keeps all that come behind it: what is read is not to know it.
    """

    run_id: str
    block: SnapshotBlock
    names: Sequence[BookName]
    begin: int = 0
    end: int = 0
    """Where it ends, once there is a next one."""
    next: "_Stretch | None" = None


class SnapshotLog:
    """Stretches, each of which knows the next. One thread adds some; who has read one holds it no longer."""

    def __init__(self) -> None:
        self._last = _Stretch("", SnapshotTape(SnapshotRule(1, 0, 1)).block, ())

    def follow(self, run_id: str, block: SnapshotBlock, names: Sequence[BookName]) -> None:
        """Take it that what is handed over from now on lies there, of books that are called so. Cost: 0.2 us mostly.

        The names may grow, and one may get a tick while no snapshot of its book is handed over.
        """
        last = self._last
        if last.block is not block or last.names is not names or last.run_id != run_id:
            last.end = handed(last.block.handed)
            self._last = last.next = _Stretch(run_id, block, names, handed(block.handed))

    def reader(self, form: Callable[[SnapshotBatch], T]) -> "LogReader[T]":
        """Return a reader of all that is handed over from now on, in the form that its store keeps."""
        return LogReader(self._last, handed(self._last.block.handed), form)


class LogReader(Generic[T]):
    """One store's place in the log. One thread at a time: the store's queue reads under its lock."""

    def __init__(self, stretch: _Stretch, begin: int, form: Callable[[SnapshotBatch], T]) -> None:
        self._stretch, self._begin, self._form = stretch, begin, form

    def peek(self) -> T | None:
        """Return what comes next, all that is handed over of one stretch; None where nothing is. Cost: 3 us."""
        while True:
            stretch = self._stretch
            end = handed(stretch.block.handed)  # before the next stretch is looked for, which may lie in this block
            if stretch.next is not None:
                end = stretch.end
            if end > self._begin:
                return self._form(part_of(stretch.run_id, stretch.block, self._begin, end, stretch.names))
            if stretch.next is None:
                return None
            self._stretch, self._begin = stretch.next, stretch.next.begin

    def move(self, snapshots: int) -> None:
        """Go on behind so many snapshots of what came next."""
        self._begin += snapshots
