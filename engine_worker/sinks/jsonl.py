"""Snapshots into the feed file: one JSON line each, appended, whole lines only, by one engine. Floor 3."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine_worker.batch import SnapshotBatch
from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.mark import FilePlace
from engine_worker.sinks.base import SinkUnavailable, Written
from engine_worker.sinks.overlap import Overlap, read_overlap
from engine_worker.sinks.store import ThreadedStore
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
        self.encode_ns = 0
        self._file = -1
        self._whole = 0  # bytes up to the end of the last whole line of the last whole batch
        self.place: FilePlace | None = None
        """Behind it is all that is to come: the end of the file, or where the lines begin that come again.

        None before the first line. Replaced, so that other threads may read it.
        """
        self._resume_from: FilePlace | None = None
        self._overlap: Overlap | None = None

    def place_at_start(self) -> FilePlace:
        """Return where the file ends. To be asked before this process writes to it."""
        return _end_of(self._path)

    def resume(self, place: FilePlace) -> None:
        """Leave out what is written behind a place when it comes again. Before anything comes."""
        self.place = self._resume_from = place

    def write(self, batch: list[SnapshotBatch]) -> Written:
        """Append a batch. Raises SinkUnavailable when the disk, the folder or another engine refuses it."""
        if not batch:
            return Written(0)
        try:
            self._open()
            fresh = self._fresh(batch)
            self._append(fresh)
        except OSError as error:
            self._take_back()
            raise SinkUnavailable(f"{self._path}: {error.strerror or error}") from error
        self._settle()
        written = sum(map(len, fresh))
        return Written(written, sum(map(len, batch)) - written)

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

    def _end(self) -> FilePlace:
        return FilePlace(os.fstat(self._file).st_ino, self._whole)

    def _settle(self) -> None:
        """Note where we are behind a whole batch."""
        if self._overlap is not None:
            self._overlap.settle()
            self._overlap = None if self._overlap.is_over else self._overlap
        if self._overlap is None:
            self.place = self._end()

    def _fresh(self, batch: list[SnapshotBatch]) -> list[SnapshotBatch]:
        """Return what of a batch is not written yet."""
        if self._resume_from is not None:
            self._overlap = self._read_overlap(self._resume_from)
            self._resume_from = None
        return batch if self._overlap is None else self._overlap.without(batch)

    def _read_overlap(self, place: FilePlace) -> Overlap:
        """Read what is behind a place: nothing when the file has become shorter, all of one that was begun since."""
        return read_overlap(self._path, place.offset if place.inode == self._end().inode else 0)

    def _append(self, batch: list[SnapshotBatch]) -> None:
        if not batch:
            return
        end = self._whole
        writing_ns, begun_ns = 0, time.perf_counter_ns()
        for lines in self._encoder.encode(batch):
            encoded_ns = time.perf_counter_ns()
            end += len(lines)
            while lines:
                lines = lines[os.write(self._file, lines) :]
            writing_ns += time.perf_counter_ns() - encoded_ns
        self._whole = end
        self.encode_ns = (time.perf_counter_ns() - begun_ns - writing_ns) // sum(map(len, batch))

    def _take_back(self) -> None:
        """Cut off what a failed write left; closing makes the next try look at the file afresh."""
        if self._overlap is not None:
            self._overlap.put_back()
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, self._whole)
            self.close()


class JsonlSink(ThreadedStore[SnapshotBatch]):
    """The sink of the feed file. What its queue has no room for is dropped, counted and told."""

    def __init__(self, mailbox: FifoMailbox[SnapshotBatch], writer: JsonlWriter) -> None:
        super().__init__("jsonl", mailbox, writer, lambda batch: batch)
        self._lines = writer

    @property
    def place(self) -> FilePlace | None:
        return self._lines.place

    def place_at_start(self) -> FilePlace:
        return self._lines.place_at_start()

    def resume(self, place: FilePlace) -> None:
        self._lines.resume(place)


def jsonl_sink(path: Path, depth: int) -> JsonlSink:
    """Return the sink with its bound of memory."""
    return JsonlSink(FifoMailbox[SnapshotBatch](QUEUE_BYTES, BATCH_SNAPSHOTS, BATCH_AGE_S), JsonlWriter(path, depth))


def _end_of(path: Path) -> FilePlace:
    """Return where the whole lines of a file end; of one that is not there, a place behind which is all of any."""
    with suppress(OSError), path.open("rb") as file:
        return FilePlace(os.fstat(file.fileno()).st_ino, _end_of_last_line(file.fileno()))
    return FilePlace(0, 0)


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
