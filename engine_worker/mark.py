"""A mark: where an engine is in a replay, and what of its books the stream does not tell again. Floor 3.

Behind a mark the same snapshots fall due as if nothing had happened. The books themselves are not in it: a gateway
brings them. As bytes it carries a version and a checksum, and whoever reads it has all of it or nothing.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine_worker.book_names import BookName
from engine_worker.trail import Spot
from orderbook.book.mbo import BookKey
from orderbook.book.snapshot_tape import STATE_COLUMNS

_VERSION: Final = 3
_CRC_BYTES: Final = 4
_LENGTH_BYTES: Final = 4
MOST_BYTES: Final = 64 << 20
"""Before compression; 20,000 books take 4 MB."""


class FilePlace(NamedTuple):
    """A place in a file of whole lines: which file, and how many bytes of it are before.

    A device would not name the file better: its number may change when the machine starts again.
    """

    inode: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """One place in one replay."""

    replay_id: int
    """0: of no replay; only the place in the feed file counts."""
    spot: Spot | None
    """None when nothing more of the replay is wanted: it is over, or MAX_MSGS is reached."""
    records: int
    """That the run has applied."""
    names: Sequence[BookName]
    """By number of the book; without a symbol where no record has named it."""
    states: npt.NDArray[np.int64]
    """Of the snapshot tape: a row for each of the first books."""
    feed: FilePlace | None = None
    """Where the feed file was, or somewhat before; None without one."""

    @property
    def is_over(self) -> bool:
        return self.spot is None


def first_mark(feed: FilePlace | None) -> Mark:
    """Return the mark of an engine that has had nothing yet."""
    return Mark(0, None, 0, (), np.zeros((0, STATE_COLUMNS), np.int64), feed)


class MarkDamaged(Exception):
    """These bytes are no mark, or one of another version."""


def names_text(names: Sequence[BookName]) -> str:
    """Return the names as they stand in a packed mark. Cost: 0.5 us a book, during which no other thread runs."""
    return json.dumps(names)


def packed(mark: Mark, names: str | None = None) -> bytes:
    """Return a mark as bytes; ``names`` is the ``names_text`` of its names where that is known.

    Cost: some 10 us, and 3 to 5 us a book, most of it for the compression.
    """
    spot = mark.spot
    about = {
        "replay_id": mark.replay_id, "records": mark.records,
        "spot": None if spot is None else (spot.since_ns, spot.ts_event, spot.record.hex(), spot.after),
        "feed": mark.feed, "books": len(mark.states),
    }  # fmt: skip
    head = f'{json.dumps(about)[:-1]}, "names": {names_text(mark.names) if names is None else names}}}'.encode()
    states = np.ascontiguousarray(mark.states, np.int64).tobytes()
    body = zlib.compress(b"".join((len(head).to_bytes(_LENGTH_BYTES, "little"), head, states)), 1)
    return bytes([_VERSION, STATE_COLUMNS]) + zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body


def unpacked(data: bytes) -> Mark:
    """Return what was packed. Raises MarkDamaged, also for bytes whose checksum is right and that say nonsense."""
    crc, body = data[2 : 2 + _CRC_BYTES], data[2 + _CRC_BYTES :]
    if data[:2] != bytes([_VERSION, STATE_COLUMNS]):
        raise MarkDamaged(f"expected a mark of version {_VERSION}.{STATE_COLUMNS}, found {data[:2].hex('.')}")
    if zlib.crc32(body).to_bytes(_CRC_BYTES, "little") != crc:
        raise MarkDamaged(f"expected a mark with the checksum {crc.hex()}, found {len(data)} bytes with another one")
    try:
        mark = _read(_inflated(body))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, zlib.error) as error:
        raise MarkDamaged(f"expected the content of a mark, found {type(error).__name__}: {error}") from error
    if len(mark.states) > len(mark.names):
        raise MarkDamaged(f"expected a mark of {len(mark.names)} books, found {len(mark.states)} states")
    return mark


def _inflated(body: bytes) -> bytes:
    """Return what was compressed. Raises ValueError where that is longer than any mark, or is cut off."""
    inflater = zlib.decompressobj()
    raw = inflater.decompress(body, MOST_BYTES)
    if not inflater.eof:
        raise ValueError(f"no end within {len(raw)} bytes")
    return raw


def _read(raw: bytes) -> Mark:
    """Return the mark of its content; any of the exceptions of Python's own types where there is none."""
    end = _LENGTH_BYTES + int.from_bytes(raw[:_LENGTH_BYTES], "little")
    head = json.loads(raw[_LENGTH_BYTES:end])
    numbers = np.frombuffer(raw, np.int64, offset=end)
    if int(head["books"]) * STATE_COLUMNS != len(numbers):
        raise ValueError(f"the states of {head['books']} books in {len(numbers)} numbers")
    return Mark(
        replay_id=int(head["replay_id"]),
        spot=_spot(*head["spot"]) if head["spot"] else None,
        records=int(head["records"]),
        names=tuple(BookName(str(symbol), int(tick), BookKey(*map(int, key))) for symbol, tick, key in head["names"]),
        states=numbers.reshape(-1, STATE_COLUMNS),
        feed=FilePlace(*map(int, head["feed"])) if head["feed"] else None,
    )


def _spot(since_ns: int, ts_event: int, record: str, after: int) -> Spot:
    numbers = np.array((since_ns, ts_event, after), np.int64).tolist()
    return Spot(numbers[0], numbers[1], bytes.fromhex(record), numbers[2])
