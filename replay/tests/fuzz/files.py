"""Files: recordings of any name and content, and what zstd makes of them, within their bounds."""

import functools
import tempfile
from pathlib import Path
from typing import Final

import zstandard

from orderbook.book.mbo import MBO
from replay.feed.sources import SUFFIXES, Recording, SourceError, open_recording
from replay.feed.stream import FeedError
from replay.feed.summary import summarize
from replay.feed.zstd_source import FREE_BYTES, MAX_RATIO, open_zstd
from replay.tests.fuzz.mutations import split_plan

_READ_BYTES: Final = 1 << 16


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Make a folder that is gone with this process."""
    return tempfile.TemporaryDirectory(prefix="batonic-fuzz-")


def _folder() -> Path:
    return Path(_scratch().name)


def fuzz_recording(data: bytes) -> None:
    """A file, opened in memory and through the cache. The plan says its name, and whether it is compressed here."""
    plan, content = split_plan(data)
    suffix = SUFFIXES[plan[0] % len(SUFFIXES)]
    if suffix.endswith(".zst") and plan[1] % 2 == 0:
        cut = plan[2] * len(content) // 256  # two frames, the first one perhaps of nothing
        content = zstandard.compress(content[:cut]) + zstandard.compress(content[cut:])
    path = _folder() / f"any{suffix}"
    path.write_bytes(content)
    cache = _folder() / "cache"
    in_memory, cached = _opened(path, None), _opened(path, cache)
    for entry in cache.glob("*"):
        entry.unlink()
    if not isinstance(in_memory, Recording) or not isinstance(cached, Recording):
        assert in_memory == cached, f"{in_memory} in memory, {cached} through the cache"
        return
    assert in_memory.records.tobytes() == cached.records.tobytes()
    assert (in_memory.symbols, in_memory.venue_dataset) == (cached.symbols, cached.venue_dataset)
    assert in_memory.records.nbytes <= FREE_BYTES + (MAX_RATIO + MBO.itemsize) * len(content)
    assert summarize(in_memory).records == len(in_memory.records)


def _opened(path: Path, cache: Path | None) -> Recording | tuple[str, str]:
    try:
        return open_recording(path, cache)
    except SourceError as error:
        return error.where, error.expected


def fuzz_zstd(data: bytes) -> None:
    """A compressed file, read to its end: never more than its bound, and never accepted when it was cut."""
    path = _folder() / "any.zst"
    path.write_bytes(data)
    content = _decompressed(path)
    if content is None:
        return
    assert content == zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    path.write_bytes(data[:-1])
    assert len(data) == 1 or _decompressed(path) is None, "a file without its last byte was taken"


def _decompressed(path: Path) -> bytes | None:
    bound = FREE_BYTES + MAX_RATIO * path.stat().st_size + _READ_BYTES
    room = memoryview(bytearray(_READ_BYTES))
    parts = []
    try:
        with open_zstd(path) as reader:
            while n := reader.readinto(room):
                assert reader.position <= bound, f"{reader.position} bytes decompressed, the bound is {bound}"
                parts.append(bytes(room[:n]))
    except FeedError:
        return None
    return b"".join(parts)
