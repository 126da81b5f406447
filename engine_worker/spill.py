"""The spill: what has no room in memory, in append-only files with checksums, oldest first. Floor 3.

Not the queue (spill_mailbox.py decides what goes to the disk and when) and not what the bytes mean. A chunk is a
header (mark, length, snapshots, CRC of the payload, CRC of the header) and its payload. Chunks go to the end of the
newest of several segments; a segment is removed when all of it is released. A segment is locked by the engine that
owns it: those that nobody locks are of engines that were killed, and ``recover`` adopts them, released chunks of a
segment that was not done included, so whoever reads them must absorb repetitions.

What is appended survives the death of the process at once, and that of the machine after ``sync``.
"""

import fcntl
import logging
import mmap
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

SEGMENT_BYTES: Final = 16 << 20
_SUFFIX: Final = ".spill"
_MARK: Final = b"\x89SPL"
_FIELDS: Final = struct.Struct("<4sQII")  # mark, bytes and snapshots of the payload, its CRC
_CRC: Final = struct.Struct("<I")  # of the fields
HEADER_BYTES: Final = _FIELDS.size + _CRC.size

log = logging.getLogger(__name__)


class SpillUnavailable(Exception):
    """The disk cannot take a chunk now, or has as many as it may; nothing of it was kept there."""


class SpillDamaged(Exception):
    """A chunk is not what was written."""


class Chunk(NamedTuple):
    """Where a payload lies."""

    path: Path
    file: int
    offset: int
    length: int
    snapshots: int


@dataclass(eq=False, slots=True)
class _Segment:
    path: Path
    file: int
    size: int = 0
    chunks: deque[Chunk] = field(default_factory=deque)


class Spill:
    """Chunks on disk, at most ``capacity_bytes``. One thread appends and syncs, one reads and releases."""

    def __init__(self, folder: Path, capacity_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self.capacity_bytes = capacity_bytes
        self.damaged_bytes = 0
        """What ``recover`` could not read, a torn tail included."""
        self._segment_bytes = min(segment_bytes, max(capacity_bytes // 8, 1))  # so that room comes back in small parts
        self._segments: deque[_Segment] = deque()
        self._active: _Segment | None = None
        self._unsynced: set[_Segment] = set()
        self._lock = Lock()  # never held during I/O

    def recover(self) -> int:
        """Adopt what killed engines left, and return how many snapshots that is. Raises SpillUnavailable."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
                if (file := _locked(path, os.O_RDWR)) is not None:
                    self._adopt(_Segment(path, file))
        except OSError as error:
            raise SpillUnavailable(f"{self.folder}: {error.strerror or error}") from error
        return self.snapshots

    @property
    def snapshots(self) -> int:
        """How many are in it. Cost: O(chunks)."""
        with self._lock:
            return sum(chunk.snapshots for segment in self._segments for chunk in segment.chunks)

    @property
    def nbytes(self) -> int:
        """Bytes that its files hold."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def append(self, payload: Sequence[memoryview], snapshots: int) -> None:
        """Write a chunk, given in parts, behind all others. Raises SpillUnavailable with nothing kept.

        Cost: one write, and no copy.
        """
        length, crc = sum(part.nbytes for part in payload), 0
        for part in payload:
            crc = zlib.crc32(part, crc)
        fields = _FIELDS.pack(_MARK, length, snapshots, crc)
        header = fields + _CRC.pack(zlib.crc32(fields))
        size = len(header) + length
        if self.nbytes + size > self.capacity_bytes:
            raise SpillUnavailable(f"{self.folder}: the limit of {self.capacity_bytes / 2**20:,.0f} MB is reached")
        try:
            segment = self._segment_for(size)
            _write(segment, [memoryview(header), *payload])
        except OSError as error:
            self._retire()  # the next try begins a file of its own
            raise SpillUnavailable(f"{self.folder}: {error.strerror or error}") from error
        with self._lock:
            segment.chunks.append(Chunk(segment.path, segment.file, segment.size, length, snapshots))
            segment.size += size
        self._unsynced.add(segment)

    def oldest(self, chunks: int) -> list[Chunk]:
        """Return the first so many chunks, or as many as there are."""
        with self._lock:
            return list(islice(chain.from_iterable(segment.chunks for segment in self._segments), chunks))

    def read(self, chunk: Chunk) -> memoryview:
        """Return a payload. Raises SpillDamaged where the disk gives something else than was written."""
        try:
            found = memoryview(os.pread(chunk.file, HEADER_BYTES + chunk.length, chunk.offset))
        except OSError as error:
            raise SpillDamaged(f"{chunk.path} at {chunk.offset}: {error.strerror or error}") from error
        payload = found[HEADER_BYTES:]
        fields = _fields_of(bytes(found[:HEADER_BYTES]))
        if fields is None or len(payload) != chunk.length or zlib.crc32(payload) != fields[3]:
            raise SpillDamaged(
                f"{chunk.path} at {chunk.offset}: {chunk.length} bytes do not have the checksum they had"
            )
        return payload

    def release(self, chunks: int) -> None:
        """Forget the first so many chunks, and remove the files that are done."""
        done: list[_Segment] = []
        with self._lock:
            for _ in range(chunks):
                self._segments[0].chunks.popleft()
                if not self._segments[0].chunks and self._segments[0] is not self._active:
                    done.append(self._segments.popleft())
        for segment in done:
            _remove(segment)

    def sync(self) -> None:
        """Make what was appended outlive the machine. Cost: one fdatasync a file that was written since."""
        while self._unsynced:
            with suppress(OSError):  # it may be done and closed by now
                os.fdatasync(self._unsynced.pop().file)

    def close(self) -> None:
        """Sync, remove files without chunks, and leave the others to whoever comes next."""
        self.sync()
        for segment in self._segments:
            if segment.chunks:
                os.close(segment.file)
            else:
                _remove(segment)
        self._segments.clear()
        self._active = None

    def _segment_for(self, size: int) -> _Segment:
        """Return the file to append to: the newest, or another one where that has enough."""
        if self._active is not None and self._active.size + size > self._segment_bytes:
            self._retire()
        if self._active is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            while (segment := self._new_segment()) is None:
                pass
            with self._lock:
                self._segments.append(segment)
                self._active = segment
        return self._active

    def _new_segment(self) -> _Segment | None:
        """Make a file whose name sorts behind those that are there; None when another engine took it for a dead one's.

        The time of the machine may have stepped back, so names go on from the newest one.
        """
        newest = max((int(path.stem) for path in self.folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal()), default=0)
        path = self.folder / f"{max(time.time_ns(), newest + 1):020d}{_SUFFIX}"
        with suppress(FileExistsError):
            file = _locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            return None if file is None else _Segment(path, file)
        return None

    def _retire(self) -> None:
        """Append no more to the newest file, and remove it where nothing of it waits."""
        with self._lock:
            segment, self._active = self._active, None
            if segment is None or segment.chunks:
                return
            self._segments.remove(segment)
        _remove(segment)

    def _adopt(self, segment: _Segment) -> None:
        """Take over a file of an engine that is no more; what is torn at its end is cut off."""
        damaged = _scan(segment)
        if damaged:
            self.damaged_bytes += damaged
            log.error("spill: %d bytes of %s are torn or damaged and not read", damaged, segment.path)
        if segment.chunks:
            os.ftruncate(segment.file, segment.size)
            self._segments.append(segment)
        else:
            _remove(segment)


def _write(segment: _Segment, parts: list[memoryview]) -> None:
    """Write behind the last chunk, all of it or nothing."""
    offset = segment.size
    try:
        while parts:
            written = os.pwritev(segment.file, parts, offset)
            offset += written
            while parts and written >= parts[0].nbytes:  # a disk that is nearly full takes less
                written -= parts.pop(0).nbytes
            if parts:
                parts[0] = parts[0][written:]
    except OSError:
        with suppress(OSError):  # what stays there is a torn tail
            os.ftruncate(segment.file, segment.size)
        raise


def _locked(path: Path, flags: int) -> int | None:
    """Return the file, locked; None when another engine has it or just removed it. Raises OSError."""
    try:
        file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    except BlockingIOError:
        pass
    os.close(file)
    return None


def _remove(segment: _Segment) -> None:
    """Remove a file while its lock is still ours."""
    segment.path.unlink(missing_ok=True)
    os.close(segment.file)


def _scan(segment: _Segment) -> int:
    """Find the chunks of a file by their headers. Returns how many bytes are of none. Cost: O(chunks) if all is whole.

    Payloads are checked when they are read. Behind a damaged header the next whole one is looked for.
    """
    size = os.fstat(segment.file).st_size
    if not size:
        return 0
    found = 0
    with mmap.mmap(segment.file, size, access=mmap.ACCESS_READ) as data:
        offset = 0
        while offset >= 0:
            fields = _fields_of(data[offset : offset + HEADER_BYTES])
            if fields is not None and (end := offset + HEADER_BYTES + fields[1]) <= size:
                segment.chunks.append(Chunk(segment.path, segment.file, offset, fields[1], fields[2]))
                found += end - offset
                segment.size = offset = end
            else:
                offset = data.find(_MARK, offset + 1)
    return size - found


def _fields_of(header: bytes) -> tuple[bytes, int, int, int] | None:
    """Return mark, length, count and CRC; None where that is no whole header."""
    if len(header) < HEADER_BYTES or header[:4] != _MARK:
        return None
    if _CRC.unpack_from(header, _FIELDS.size)[0] != zlib.crc32(header[: _FIELDS.size]):
        return None
    mark, length, count, crc = _FIELDS.unpack_from(header)
    return mark, length, count, crc
