"""Keyframes: the complete state of every book at one position, packed into bytes and restored from them. Floor 1.

A picture tells what rests. To go on as if nothing had happened, books need two things more: whether a snapshot was
under way, and what a tape was told last of a book that stands in the middle of an event.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, ORDER, UNDEF_PRICE, Action, Flags, MboArray, Side
from orderbook.book.protocol import Market
from orderbook.book.tape import BBO_ROW, Rows, Tape
from replay.feed.picture import HEAD, Picture, picture_records

_ZSTD_LEVEL: Final = 1
"""By columns, an order of 21 bytes becomes 3, in 30 ns, and 15 ns to unpack; higher levels gain 1 %."""

_COLUMNS: Final = ("order_id", "price", "size")
_ORDER_BYTES: Final = sum(ORDER[name].itemsize for name in _COLUMNS)
_MAX_SIZE: Final = 2**32 - 1
_SIDES: Final = ((Side.BID, "bid"), (Side.ASK, "ask"))


class Keyframe(NamedTuple):
    """The books, and of those in the middle of an event the best prices at the end of the event before."""

    picture: Picture
    taped: Rows  # dtype BBO_ROW; none of a book whose best prices never changed


class Shape(NamedTuple):
    """How many of each a packed keyframe holds; needed to unpack it."""

    books: int
    taped: int
    orders: int

    @property
    def nbytes(self) -> int:
        """Bytes before compression."""
        return self.books * HEAD.itemsize + self.taped * BBO_ROW.itemsize + self.orders * _ORDER_BYTES


class KeyframeFault(Exception):
    """Bytes that are no keyframe of the shape that was expected."""


def shape_of(keyframe: Keyframe) -> Shape:
    """Return how many books, rows and orders a keyframe holds."""
    return Shape(len(keyframe.picture.heads), len(keyframe.taped), len(keyframe.picture.orders))


def pack(keyframe: Keyframe) -> bytes:
    """Return a keyframe as bytes: a zstd frame of its columns. Cost: some 100 ns an order.

    The worst level of each side comes first. Rebuilt from there, 10,000 levels cost a kernel book 0.6 ms; each level
    that begins behind the best ones moves them, and costs 20 ms in all.
    """
    heads = keyframe.picture.heads
    orders = keyframe.picture.orders[_worst_first(keyframe.picture)]
    parts = [heads.tobytes(), keyframe.taped.tobytes(), *(orders[name].tobytes() for name in _COLUMNS)]
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(b"".join(parts))


def unpack(data: bytes | memoryview, shape: Shape) -> Keyframe:
    """Return the keyframe that was packed. Raises KeyframeFault. Cost: some 30 ns an order."""
    try:
        found = zstandard.frame_content_size(data)
        if found != shape.nbytes:  # before anything is allocated for it
            raise KeyframeFault(f"expected a keyframe of {shape.nbytes} bytes, found {found}")
        plain = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise KeyframeFault(f"expected a zstd frame, found none: {error}") from error
    heads = np.frombuffer(plain, HEAD, shape.books)
    if int(heads["bids"].sum()) + int(heads["asks"].sum()) != shape.orders:
        raise KeyframeFault(f"expected books of {shape.orders} orders in all, found others")
    at = heads.nbytes
    taped = np.frombuffer(plain, BBO_ROW, shape.taped, at)
    at += taped.nbytes
    orders = np.zeros(shape.orders, ORDER)
    for name in _COLUMNS:
        column = np.frombuffer(plain, ORDER[name], shape.orders, at)
        orders[name] = column
        at += column.nbytes
    sides = np.tile(np.array([Side.BID, Side.ASK], np.uint8), shape.books)
    orders["side"] = np.repeat(sides, _side_counts(heads))
    return Keyframe(Picture(heads, orders), taped)


def restore(keyframe: Keyframe, kind: BookKind, tape: Tape | None = None) -> Market:
    """Return a market that goes on from a keyframe as the one that it was taken of. Anomalies are not restored.

    With a tape, the best prices of each book as of its last event end are written on it, and only what differs from
    them will be from now on. Cost: O(orders), some 200 ns each.
    """
    market = make_market(kind)
    for records in (_before(keyframe.taped), picture_records(keyframe.picture), _closings(keyframe.picture)):
        market.apply(records, tape)
    return market


def _side_counts(heads: npt.NDArray[np.void]) -> npt.NDArray[np.uint32]:
    """Return how many orders each side of each book has, in the order in which a picture lists them."""
    return np.stack([heads["bids"], heads["asks"]], axis=1).reshape(-1)


def _worst_first(picture: Picture) -> npt.NDArray[np.int64]:
    """Return the order of a picture's orders that reverses the levels of each side, and no queue."""
    counts = _side_counts(picture.heads)
    side = np.repeat(np.arange(len(counts)), counts)
    prices = picture.orders["price"]
    begins_level = np.append(True, (prices[1:] != prices[:-1]) | (side[1:] != side[:-1]))[: len(side)]
    level = np.cumsum(begins_level)
    return np.lexsort((-level, side))


def _before(taped: Rows) -> MboArray:
    """Return records that bring books to the best prices of these rows, at the end of an event.

    A price with as many orders, of the same size together: a tape knows nothing more.
    """
    parts = [np.empty(0, MBO)]
    for row in taped:
        records = np.concatenate([_blank(row, 1), *(_level(row, side, name) for side, name in _SIDES)])
        records["action"][0], records["side"][0], records["price"][0] = Action.CLEAR, Side.NONE, UNDEF_PRICE
        records["order_id"] = np.arange(len(records))
        records["flags"] |= np.uint8(Flags.SNAPSHOT)
        records["flags"][-1] |= Flags.LAST
        parts.append(records)
    return np.concatenate(parts)


def _level(row: np.void, side: Side, name: str) -> MboArray:
    """Return the orders of a level, behind what they cannot explain: a top-of-book publisher's level has none."""
    count, size = int(row[f"{name}_ct"]), int(row[f"{name}_sz"])
    top = max(0, size - count * _MAX_SIZE)
    records = _blank(row, (top > 0) + count)
    records["action"], records["side"], records["price"] = Action.ADD, side, row[f"{name}_px"]
    if top:
        records["size"][0], records["flags"][0] = top, Flags.TOB
    if count:
        share, more = divmod(size - top, count)
        records["size"][-count:] = share
        records["size"][len(records) - count :][:more] += 1
    return records


def _closings(picture: Picture) -> MboArray:
    """Return an N for each book whose last record was not part of a snapshot: its picture was, and ends here."""
    heads = picture.heads[~picture.heads["in_snapshot"]]
    records = _blank(heads, len(heads))
    records["action"], records["side"] = Action.NONE, Side.NONE
    records["flags"] = np.where(heads["at_event_end"], np.uint8(Flags.LAST), np.uint8(0))
    return records


def _blank(stands: np.void | Rows, count: int) -> MboArray:
    records = np.zeros(count, MBO)
    records["length"], records["rtype"] = MBO_LENGTH, MBO_RTYPE
    for name in ("publisher_id", "instrument_id", "ts_event", "ts_recv", "sequence"):
        records[name] = stands[name]
    return records
