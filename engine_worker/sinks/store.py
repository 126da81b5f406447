"""An output that keeps every snapshot: it reads the log that the markets hand over to. Floor 3."""

from collections.abc import Callable
from typing import Protocol

from engine_worker.batch import SnapshotBatch
from engine_worker.fifo_mailbox import FifoMailbox, P
from engine_worker.sinks.base import ThreadedSink, Writer
from engine_worker.snapshot_log import SnapshotLog


class Store(Protocol):
    """What the feed thread needs of one."""

    def follow(self, log: SnapshotLog) -> None:
        """Read a log from now on. Before its first snapshot."""

    def draw(self) -> None:
        """Take in all that is handed over; what finds no room is dropped and counted."""

    @property
    def encode_ns(self) -> int:
        """What encoding one snapshot of the last batch took, on the thread of the output; 0 before the first."""


class ThreadedStore(ThreadedSink[P]):
    """A queue that takes in what is handed over, and the thread that writes what is in it."""

    def __init__(
        self, name: str, mailbox: FifoMailbox[P], writer: Writer[P], form: Callable[[SnapshotBatch], P]
    ) -> None:
        """``form`` makes of snapshots what the queue keeps of them."""
        super().__init__(name, mailbox, writer)
        self._queue = mailbox
        self._form = form

    def follow(self, log: SnapshotLog) -> None:
        self._queue.source = log.reader(self._form)

    def draw(self) -> None:
        self._queue.draw()
