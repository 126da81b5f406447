"""The index of a recording: marks and keyframes in a file of its own, mapped into memory. Floor 1.

Layout, little-endian: a header, the packed keyframes, the marks, the table of the keyframes. The header names the
recorded file that the index was made of, and a checksum covers everything but the keyframes, which have their own:
an index that is damaged, cut short or that of other content is refused and never used. indexing.py makes it.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import IO, Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MboArray
from replay.feed.first_look import fingerprint
from replay.feed.keyframe import Keyframe, KeyframeFault, Shape, pack, shape_of, unpack
from replay.feed.marks import MARK
from replay.feed.sources import Recording

_MAGIC: Final = b"BATONIDX"
_VERSION: Final = 1
_HEADER: Final = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("crc", "<u4"),  # of the header, with 0 here, and of both tables
        ("size", "<i8"),  # of the recorded file, bytes
        ("mtime_ns", "<i8"),
        ("records", "<i8"),
        ("fingerprint", "V16"),
        ("tables_at", "<i8"),  # byte of this file
        ("marks", "<u4"),
        ("keyframes", "<u4"),
    ],
    align=True,
)
_ENTRY: Final = np.dtype(
    [
        ("position", "<i8"),  # records before the keyframe
        ("at", "<i8"),  # byte of this file
        ("size", "<i8"),
        ("books", "<i8"),
        ("taped", "<i8"),
        ("orders", "<i8"),
        ("crc", "<u4"),
    ],
    align=True,
)

logger = logging.getLogger(__name__)


class IndexFault(Exception):
    """An index that cannot be used: what was expected and what was found."""


class Origin(NamedTuple):
    """The recorded file that an index belongs to, as it was when the index was made."""

    size: int
    mtime_ns: int


class Index:
    """An index that was read: its tables were checked, its keyframes are checked when they are loaded."""

    def __init__(self, data: npt.NDArray[np.uint8], path: Path) -> None:
        """Look at the bytes of an index. Raises IndexFault."""
        self.path = path
        self.discarded = False
        self._data = data
        header = _checked_header(data)
        self.origin = Origin(int(header["size"]), int(header["mtime_ns"]))
        self.records, self.fingerprint = int(header["records"]), header["fingerprint"].tobytes()
        at = int(header["tables_at"])
        self.marks: npt.NDArray[np.void] = np.frombuffer(data, MARK, int(header["marks"]), at)
        """Counts before every so many records (dtype MARK); the first row is for none of them, the last for all."""
        at += self.marks.nbytes
        self._entries: npt.NDArray[np.void] = np.frombuffer(data, _ENTRY, int(header["keyframes"]), at)
        self.positions: npt.NDArray[np.int64] = self._entries["position"].copy()
        """Positions of the keyframes, ascending."""
        self.orders: npt.NDArray[np.int64] = self._entries["orders"].copy()
        """Orders that each keyframe holds, which is what restoring it costs."""

    def nearest(self, position: int) -> int | None:
        """Return the number of the last keyframe at or before a position; None when there is none."""
        number = int(np.searchsorted(self.positions, position, side="right")) - 1
        return None if number < 0 else number

    def keyframe(self, number: int) -> Keyframe:
        """Load a keyframe. Raises IndexFault when it is damaged. Cost: some 30 ns an order."""
        entry = self._entries[number]
        frame = self._data[entry["at"] : entry["at"] + entry["size"]].data
        if crc32(frame) != entry["crc"]:
            raise IndexFault(f"the checksum of keyframe {number} is not that of its bytes")
        try:
            return unpack(frame, Shape(int(entry["books"]), int(entry["taped"]), int(entry["orders"])))
        except KeyframeFault as error:
            raise IndexFault(f"keyframe {number}: {error}") from error

    def discard(self) -> None:
        """Remove the file, so that the next registration makes another. What is mapped stays."""
        self.discarded = True
        self.path.unlink(missing_ok=True)


class IndexWriter:
    """Writes an index to a file that is open for writing and empty: keyframes as they come, then the rest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._entries: list[tuple[int, ...]] = []
        self._at = file.write(np.zeros(1, _HEADER).tobytes())

    @property
    def nbytes(self) -> int:
        """Bytes of the keyframes so far."""
        return self._at - _HEADER.itemsize

    def add(self, position: int, keyframe: Keyframe, limit: int) -> int:
        """Add the keyframe of a position, unless all of them would be longer than this. Returns its length packed."""
        packed = pack(keyframe)
        if self.nbytes + len(packed) <= limit:
            self._entries.append((position, self._at, len(packed), *shape_of(keyframe), crc32(packed)))
            self._at += self._file.write(packed)
        return len(packed)

    def finish(self, origin: Origin, records: MboArray, marks: npt.NDArray[np.void]) -> None:
        """Write the tables and the header: before that, the file is no index."""
        entries = np.array(self._entries, _ENTRY)
        header = np.zeros(1, _HEADER)
        header["magic"], header["version"], header["tables_at"] = _MAGIC, _VERSION, self._at
        header["size"], header["mtime_ns"] = origin
        header["records"], header["fingerprint"] = len(records), np.void(fingerprint(records))
        header["marks"], header["keyframes"] = len(marks), len(entries)
        tables = marks.tobytes() + entries.tobytes()
        header["crc"] = crc32(tables, crc32(header.tobytes()))
        self._file.write(tables)
        self._file.seek(0)
        self._file.write(header.tobytes())


def index_path(path: Path, folder: Path) -> Path:
    """Return where the index of a recorded file lies. Cost: one stat for each part of the path."""
    return folder / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.index"


def origin_of(path: Path) -> Origin:
    """Return what a recorded file is now. Raises OSError."""
    found = path.stat()
    return Origin(found.st_size, found.st_mtime_ns)


def read_index(path: Path, folder: Path) -> Index:
    """Map the index of a recorded file, made of it as it is now. Raises IndexFault, OSError. Cost: O(marks)."""
    place = index_path(path, folder)
    if place.stat().st_size < _HEADER.itemsize:
        raise IndexFault(f"expected a header of {_HEADER.itemsize} bytes, found a file of {place.stat().st_size}")
    index = Index(np.memmap(place, np.uint8, "r").view(np.ndarray), place)
    if index.origin != origin_of(path):
        raise IndexFault(f"expected the index of {_told(origin_of(path))}, found that of {_told(index.origin)}")
    return index


def open_index(recording: Recording, folder: Path) -> Index | None:
    """Map the index of an open recording; None when there is none, or none that can be used, which the log tells."""
    try:
        index = read_index(recording.path, folder)
        if (index.records, index.fingerprint) != (len(recording.records), fingerprint(recording.records)):
            raise IndexFault("expected the index of these records, found that of others")
    except FileNotFoundError:
        return None
    except (IndexFault, OSError) as error:
        logger.warning("the index of %s is not used: %s", recording.path.name, error)
        return None
    return index


def is_indexed(path: Path, folder: Path) -> bool:
    """Say whether a recorded file, as it is now, has an index; whether its keyframes are sound is seen later."""
    try:
        read_index(path, folder)
    except (IndexFault, OSError):
        return False
    return True


def _checked_header(data: npt.NDArray[np.uint8]) -> np.void:
    header: npt.NDArray[np.void] = data[: _HEADER.itemsize].view(_HEADER).copy()
    magic, version = header["magic"][0].item(), int(header["version"][0])
    if (magic, version) != (_MAGIC, _VERSION):
        raise IndexFault(f"expected {_MAGIC!r}, version {_VERSION}, found {magic!r}, version {version}")
    tables = int(header["marks"][0]) * MARK.itemsize + int(header["keyframes"][0]) * _ENTRY.itemsize
    expected = int(header["tables_at"][0]) + tables
    if len(data) != expected:
        raise IndexFault(f"expected {expected} bytes, found {len(data)}")
    crc = int(header["crc"][0])
    header["crc"] = 0
    if crc32(data[-tables:].data if tables else b"", crc32(header.tobytes())) != crc:
        raise IndexFault("the checksum of its tables is not that of their bytes")
    checked: np.void = header[0]
    return checked


def _told(origin: Origin) -> str:
    return f"a file of {origin.size} bytes last changed at {origin.mtime_ns} ns"
