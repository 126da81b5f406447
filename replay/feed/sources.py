"""Recorded files opened as records: DBN or CSV, plain or zstd. Floor 1.

Uncompressed DBN whose records lie aligned is mapped into memory as it is. Everything else is decoded once to such a
file in a cache folder, named by the path, size and modification time of its source, and mapped from there; the
folder may be emptied at any time. Not a decoder (dbn_codec.py, csv_codec.py) and not a registry (replay.datasets).
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Protocol

import numpy as np

from orderbook.book.mbo import MBO, MboArray
from replay.feed.dbn_codec import DbnStreamDecoder, foreign_record
from replay.feed.dbn_metadata import PREFIX_BYTES, Header, decode_metadata, encode_metadata, metadata_size
from replay.feed.first_look import FirstLook, instruments_of
from replay.feed.stream import FeedError, StreamDecoder, shown
from replay.feed.zstd_source import FRAME_MAGIC, open_zstd

SUFFIXES: Final = (".dbn", ".dbn.zst", ".csv", ".csv.zst")
SPARE_DISK_BYTES: Final = 256 << 20  # a full disk hurts everything else first
_DISK_CHECK_BYTES: Final = 64 << 20
_STALE_S: Final = 86_400
_READ_BYTES: Final = 1 << 20

Progress = Callable[[int], None]
"""Told how many more bytes were done."""


class SourceError(Exception):
    """A file that cannot be replayed: which one, where in it, what was expected and what was found."""

    def __init__(self, path: Path, where: str, expected: str, found: str) -> None:
        at = f", {where}" if where else ""
        super().__init__(f"{path.name}{at}: expected {expected}, found {found}")
        self.path, self.where, self.expected, self.found = path, where, expected, found


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A file as records. ``symbols`` names every instrument of it, by its id where the file has no name."""

    path: Path
    format: str
    venue_dataset: str
    records: MboArray
    symbols: dict[int, str]


def open_recording(path: Path, cache_folder: Path | None = None, default_symbol: str | None = None) -> Recording:
    """Open a file. Without a cache folder, what cannot be mapped is decoded in memory.

    ``default_symbol`` names the instrument of a file that has one and does not name it. Raises SourceError. Cost:
    decoding (CSV: 7 million lines/s) for what cannot be mapped, the first time; one pass over six bytes of each record
    for mapped files, the first time where there is a cache folder; then O(1).
    """
    try:
        recording, instruments = _open(path, cache_folder)
    except FeedError as error:
        raise SourceError(path, error.where, error.expected, error.found) from error
    except OSError as error:
        raise SourceError(path, "", "a readable file", error.strerror or str(error)) from error
    if not len(recording.records):
        raise SourceError(path, "", "MBO records", "none")
    return replace(recording, symbols=_named(recording.symbols, instruments, default_symbol))


def format_of(path: Path) -> str:
    """Return the suffix that says how a file is written, without its dot, such as ``dbn.zst``. Raises SourceError."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise SourceError(path, "", f"a name that ends with {', '.join(SUFFIXES)}", repr(path.name))
    return suffix[1:]


def file_sha256(path: Path, progress: Progress = lambda n: None) -> str:
    """Return the digest of a file in hexadecimal. Raises OSError. Cost: O(bytes)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def _open(path: Path, cache_folder: Path | None) -> tuple[Recording, list[int]]:
    """Return a recording and the ids of the instruments that have records in it."""
    format_ = format_of(path)
    if path.is_dir():
        raise FeedError("", "a file", "a directory")
    if not path.is_file():
        raise FeedError("", "a file", "nothing of that kind" if path.exists() else "nothing there")
    _check_beginning(path, format_)
    if format_ == "dbn":
        with path.open("rb") as file:
            header = _read_header(file)
        if _may_be_mapped(header):
            return _mapped(path, format_, header, path, cache_folder)
    if cache_folder is None:
        recording = _in_memory(path, format_)
        return recording, instruments_of(recording.records) if len(recording.records) else []
    cached = _cached_path(path, cache_folder)
    if not cached.exists():
        _decode_to(cached, path, format_)
        _remove_older(cached)
    with cached.open("rb") as file:
        header = _read_header(file)
    return _mapped(path, format_, header, cached, cache_folder)


def _cached_path(path: Path, folder: Path) -> Path:
    """Return where the decoded form of a file lies, as the file is now. Cost: one stat."""
    found = path.stat()
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return folder / f"{digest}-{found.st_size}-{found.st_mtime_ns}.dbn"


def _remove_older(cached: Path) -> None:
    """Remove what the file of this entry was decoded to before it changed. A process that maps it keeps it."""
    digest = cached.name.partition("-")[0]
    for older in cached.parent.glob(f"{digest}-*.dbn"):
        if older != cached:
            older.unlink(missing_ok=True)


def _check_beginning(path: Path, format_: str) -> None:
    """Say at once what the file is when its name promises something else."""
    with path.open("rb") as file:
        magic = file.read(4)
    if not magic:
        raise FeedError("byte 0", f"a {format_} file", "an empty file")
    if format_ == "dbn" and magic[:3] != b"DBN"[: len(magic)]:
        raise FeedError("byte 0", "b'DBN'", shown(magic))
    if format_ == "csv" and (magic == FRAME_MAGIC or magic[:3] == b"DBN"):
        raise FeedError("byte 0", "a CSV header", shown(magic))


def _read_header(file: IO[bytes]) -> Header:
    prefix = file.read(PREFIX_BYTES)
    if len(prefix) < PREFIX_BYTES:
        raise FeedError(f"byte {len(prefix)}", "the rest of the DBN metadata", "the end of the file")
    size = metadata_size(prefix)
    data = prefix + file.read(size - PREFIX_BYTES)
    if len(data) < size:
        raise FeedError(f"byte {len(data)}", f"DBN metadata of {size} bytes", "the end of the file")
    return decode_metadata(data)


def _may_be_mapped(header: Header) -> bool:
    """Say whether the records lie in the file as they lie in memory. A mixed stream or a ts_out must be decoded."""
    return header.size % 8 == 0 and header.schema == "mbo" and not header.ts_out


def _mapped(
    path: Path, format_: str, header: Header, mapped: Path, cache_folder: Path | None
) -> tuple[Recording, list[int]]:
    count, rest = divmod(mapped.stat().st_size - header.size, MBO.itemsize)
    if rest:
        where = header.size + count * MBO.itemsize
        raise FeedError(
            f"byte {where}", f"a record of {MBO.itemsize} bytes", f"the end of the file after {rest} of them"
        )
    if count == 0:
        return Recording(path, format_, header.venue_dataset, np.empty(0, MBO), header.symbols), []
    first_look = None if cache_folder is None else FirstLook(path, mapped, cache_folder)
    # Copy-on-write: writable, as the compiled code wants it, and the file stays what it is.
    records = np.memmap(mapped, MBO, "c", header.size).view(np.ndarray)
    recording = Recording(path, format_, header.venue_dataset, records, header.symbols)
    instruments = None if first_look is None else first_look.recall(records)
    if instruments is not None:
        return recording, instruments
    foreign = foreign_record(records)
    if foreign is not None:
        found = f"rtype {records[foreign]['rtype']} with length {records[foreign]['length']}"
        raise FeedError(f"byte {header.size + foreign * MBO.itemsize}", "an MBO record (rtype 160, length 14)", found)
    instruments = instruments_of(records)
    if first_look is not None:
        first_look.keep(records, instruments)
    return recording, instruments


class _Reader(Protocol):
    def readinto(self, space: memoryview, /) -> int | None: ...


def _decoded(reader: _Reader, decoder: StreamDecoder) -> Iterator[MboArray]:
    """Push a file through a stream decoder. The arrays are valid until the next one is asked for."""
    while n := reader.readinto(decoder.space()):
        records = decoder.received(n)
        if len(records):
            yield records
    decoder.finish()


@contextlib.contextmanager
def _reader(path: Path, format_: str) -> Iterator[_Reader]:
    if format_.endswith(".zst"):
        with open_zstd(path) as zstd:
            yield zstd
    else:
        with path.open("rb", buffering=0) as file:
            yield file


def _decoder(format_: str) -> StreamDecoder:
    if format_.startswith("dbn"):
        return DbnStreamDecoder()
    # Loads numba, which readers of DBN files do without.
    from replay.feed.csv_codec import CsvStreamDecoder

    return CsvStreamDecoder(strict=True)


def _venue_dataset(decoder: StreamDecoder) -> str:
    return decoder.header.venue_dataset if isinstance(decoder, DbnStreamDecoder) and decoder.header else ""


def _in_memory(path: Path, format_: str) -> Recording:
    decoder = _decoder(format_)
    with _reader(path, format_) as reader:
        parts = [records.view(np.uint8).copy() for records in _decoded(reader, decoder)]
    records = np.concatenate(parts).view(MBO) if parts else np.empty(0, MBO)
    return Recording(path, format_, _venue_dataset(decoder), records, decoder.symbols)


def _decode_to(target: Path, path: Path, format_: str) -> None:
    """Write the records of a file as DBN version 3. The target appears complete or not at all.

    The symbols, and with them the length of the metadata, are known only at the end, so the records wait in a
    file of their own.
    """
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    decoder = _decoder(format_)
    span: tuple[int, int] | None = None
    with _part_file(folder) as body, _part_file(folder) as whole:
        with _reader(path, format_) as reader:
            for records in _decoded(reader, decoder):
                _check_disk(folder, body.tell(), records.nbytes)
                span = (span[0] if span else int(records[0]["ts_event"]), int(records[-1]["ts_event"]))
                body.write(records.view(np.uint8).data)
        if span is None:
            raise FeedError("", "MBO records", "none")
        if shutil.disk_usage(folder).free < body.tell() + SPARE_DISK_BYTES:
            raise _disk_short(folder, body.tell())
        body.seek(0)
        whole.write(encode_metadata(_venue_dataset(decoder), span[0], decoder.symbols, span[1]))
        shutil.copyfileobj(body, whole, _READ_BYTES)
        whole.flush()
        os.fsync(whole.fileno())
        if _cached_path(path, folder) != target:
            raise FeedError("", "a file that stays as it is", "one that was written while it was read")
        os.replace(whole.name, target)


@contextlib.contextmanager
def _part_file(folder: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that is gone afterwards, unless it was renamed."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)


def _remove_stale(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _STALE_S:
                part.unlink()


def _check_disk(folder: Path, written: int, more: int) -> None:
    """Look now and then whether the disk takes what comes next, and a copy of all of it."""
    if written // _DISK_CHECK_BYTES != (written + more) // _DISK_CHECK_BYTES or written == 0:
        need = written + 2 * _DISK_CHECK_BYTES
        if shutil.disk_usage(folder).free < need + SPARE_DISK_BYTES:
            raise _disk_short(folder, need)


def _disk_short(folder: Path, need: int) -> FeedError:
    free = shutil.disk_usage(folder).free
    return FeedError("", f"{need + SPARE_DISK_BYTES} bytes free on the disk of {folder}, to decode to", f"{free}")


def _named(symbols: dict[int, str], instruments: list[int], default_symbol: str | None) -> dict[int, str]:
    """Name every instrument that has records, and no other."""
    if default_symbol and len(instruments) == 1 and instruments[0] not in symbols:
        return {instruments[0]: default_symbol}
    return {id_: symbols.get(id_, str(id_)) for id_ in instruments}
