"""Snapshots into the feed file: one JSON line each, appended, whole lines only, by one engine. Floor 3."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine_worker.batch import SnapshotBatch
from engine_worker.mailbox import FifoMailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from orderbook.book.encoding import LineEncoder

QUEUE_BYTES: Final = 64 << 20  # of 50 levels a side: 27,000 snapshots
BATCH_SNAPSHOTS: Final = 2_000
BATCH_AGE_S: Final = 0.1
_TAIL_BYTES: Final = 1 << 20


class JsonlWriter:
    """An append-only file. A write that fails is taken back to the last whole line, and the batch is kept.

    The file is locked while it is open, or two engines would cut off each other's lines. Lines are made and written a
    buffer at a time, without the GIL: whatever a batch holds, this needs no more memory.
    """

    def __init__(self, path: Path, depth: int) -> None:
        self.target = str(path)
        self._path = path
        self._encoder = LineEncoder(depth)
        self._file = -1
        self._whole = 0  # bytes up to the end of the last whole line of the last whole batch

    def write(self, batch: list[SnapshotBatch]) -> Written:
        """Append a batch. Raises SinkUnavailable when the disk, the folder or another engine refuses it."""
        if not batch:
            return Written(0)
        try:
            self._open()
            self._append(batch)
        except OSError as error:
            self._take_back()
            raise SinkUnavailable(f"{self._path}: {error.strerror or error}") from error
        return Written(sum(map(len, batch)))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        """Open the file of that name, again when somebody moved or removed the one that is open."""
        if self._file >= 0:
            try:
                if os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                    return
            except FileNotFoundError:
                pass
            self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _locked(self._path)
        self._whole = _end_of_last_line(self._file)
        os.ftruncate(self._file, self._whole)  # a line that a killed process left unfinished

    def _append(self, batch: list[SnapshotBatch]) -> None:
        end = self._whole
        for lines in self._encoder.encode(batch):
            end += len(lines)
            while lines:
                lines = lines[os.write(self._file, lines) :]
        self._whole = end

    def _take_back(self) -> None:
        """Cut off what a failed write left; closing makes the next try look at the file afresh."""
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, self._whole)
            self.close()


def jsonl_sink(path: Path, depth: int) -> ThreadedSink[SnapshotBatch]:
    """Return the sink of the feed file. What its queue has no room for is dropped, counted and told."""
    return ThreadedSink(
        "jsonl", FifoMailbox[SnapshotBatch](QUEUE_BYTES, BATCH_SNAPSHOTS, BATCH_AGE_S), JsonlWriter(path, depth)
    )


def _locked(path: Path) -> int:
    """Open a file that nobody else has locked. Raises OSError, SinkUnavailable when somebody has."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise SinkUnavailable(f"{path}: another engine is writing to this file") from error
        raise
    return file


def _end_of_last_line(file: int) -> int:
    """Return the offset just behind the last newline, 0 without one. Cost: reads backwards from the end."""
    end = os.fstat(file).st_size
    while end > 0:
        begin = max(end - _TAIL_BYTES, 0)
        newline = os.pread(file, end - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0
