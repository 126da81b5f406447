"""Compressed files read as a stream, with bounds: a small file cannot fill the memory or the disk. Floor 1.

zstd's own reader takes a cut file for a short one, so the frames are walked first: one step for each block of at
most 128 KiB, without decompressing anything.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import zstandard

from replay.feed.stream import FeedError, shown

FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
MAX_RATIO: Final = 250  # real MBO files have 3 (DBN) to 15 (CSV)
FREE_BYTES: Final = 64 << 20  # decompressed whatever the ratio
_SKIPPABLE: Final = b"\x2a\x4d\x18"  # behind a byte 0x50 to 0x5f
_RLE_BLOCK: Final = 1


class ZstdReader:
    """The decompressed bytes of a file, refused beyond a ratio that no market data has."""

    def __init__(self, reader: zstandard.ZstdDecompressionReader, compressed_bytes: int) -> None:
        self._reader = reader
        self._limit = FREE_BYTES + MAX_RATIO * compressed_bytes
        self.position = 0

    def readinto(self, space: memoryview) -> int:
        """Fill from the start of ``space``; 0 at the end. Raises FeedError."""
        try:
            n: int = self._reader.readinto(space)
        except zstandard.ZstdError as error:
            raise FeedError(f"decompressed byte {self.position}", "zstd data", str(error)) from error
        self.position += n
        if self.position > self._limit:
            raise FeedError("zstd data", f"at most {self._limit} bytes decompressed", "more")
        return n


@contextmanager
def open_zstd(path: Path) -> Iterator[ZstdReader]:
    """Open a file whose frames are complete. Raises FeedError, OSError."""
    check_frames(path)
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
        yield ZstdReader(reader, path.stat().st_size)


def check_frames(path: Path) -> None:
    """Raise FeedError when the file is not a row of complete zstd frames. Cost: O(blocks)."""
    size = path.stat().st_size
    if size == 0:
        raise FeedError("byte 0", f"a zstd frame ({FRAME_MAGIC.hex(' ')})", "an empty file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = 0
        while begin < size:
            begin = _frame_end(data, begin)


def _frame_end(data: mmap.mmap, begin: int) -> int:
    if data[begin + 1 : begin + 4] == _SKIPPABLE and data[begin] & 0xF0 == 0x50:
        _need(data, begin, begin + 8)
        end = begin + 8 + int.from_bytes(data[begin + 4 : begin + 8], "little")
        _need(data, begin, end)
        return end
    if data[begin : begin + 4] != FRAME_MAGIC:
        found = shown(data[begin : begin + 4])
        raise FeedError(f"byte {begin}", f"a zstd frame ({FRAME_MAGIC.hex(' ')})", found)
    _need(data, begin, begin + 5)
    descriptor = data[begin + 4]
    single_segment = descriptor >> 5 & 1
    content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    at = begin + 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3] + content_size_bytes
    last = False
    while not last:
        _need(data, begin, at + 3)
        header = int.from_bytes(data[at : at + 3], "little")
        last = bool(header & 1)
        at += 3 + (1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3)
    at += 4 * (descriptor >> 2 & 1)  # the checksum
    _need(data, begin, at)
    return at


def _need(data: mmap.mmap, frame: int, end: int) -> None:
    if end > len(data):
        raise FeedError(
            f"byte {len(data)}", f"the rest of the zstd frame that starts at byte {frame}", "the end of the file"
        )
