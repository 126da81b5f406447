"""The market-by-order record: its layout, its codes, and what each action does to a book. Floor 0.

The layout is DBN's MboMsg, identical in DBN versions 1, 2 and 3 (databento/dbn, record.rs). It is pinned
by a test, because files and sockets are viewed through it without a copy.
"""

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

MBO: Final = np.dtype(
    [
        ("length", "u1"),  # in 4-byte words: 14, or 16 with a ts_out behind the record
        ("rtype", "u1"),
        ("publisher_id", "<u2"),
        ("instrument_id", "<u4"),
        ("ts_event", "<u8"),  # venue time, ns UTC
        ("order_id", "<u8"),
        ("price", "<i8"),  # 1e-9 units
        ("size", "<u4"),
        ("flags", "u1"),
        ("channel_id", "u1"),
        ("action", "u1"),
        ("side", "u1"),
        ("ts_recv", "<u8"),  # capture time, ns UTC
        ("ts_in_delta", "<i4"),
        ("sequence", "<u4"),
    ],
    align=True,  # the compiled kernel gives only such arrays the fast, aligned type
)
"""56 bytes, little-endian; ``action`` and ``side`` are the ASCII codes of the enums below."""

MboArray = npt.NDArray[np.void]
"""A one-dimensional array of dtype MBO."""

MBO_LENGTH: Final = MBO.itemsize // 4
MBO_RTYPE: Final = 160
UNDEF_PRICE: Final = 2**63 - 1
UNDEF_TIMESTAMP: Final = 2**64 - 1
UNDEF_CHANNEL: Final = 255


class Action(IntEnum):
    """What a record says happened; only the first four change a book."""

    ADD = ord("A")
    CANCEL = ord("C")  # full, or partial: the size is what goes
    MODIFY = ord("M")  # new absolute price and size
    CLEAR = ord("R")
    TRADE = ord("T")  # an aggressor traded
    FILL = ord("F")  # a resting order was filled; a cancel or modify of the same event does the update
    NONE = ord("N")


class Side(IntEnum):
    """Side of a resting order, or of the aggressor for a trade."""

    BID = ord("B")
    ASK = ord("A")
    NONE = ord("N")


class Flags(IntFlag):
    """Bits of ``flags``. Test bits, never the whole value."""

    LAST = 0x80  # closes the venue event of one instrument
    TOB = 0x40  # a top-of-book publisher: the record replaces its whole side
    SNAPSHOT = 0x20  # the venue's (or the streamer's) picture of resting orders
    MBP = 0x10
    BAD_TS_RECV = 0x08
    MAYBE_BAD_BOOK = 0x04  # a gap that cannot be repaired
    PUBLISHER_SPECIFIC = 0x02


class BookKey(NamedTuple):
    """What a book belongs to. Instrument ids are unique only within a publisher's day."""

    publisher_id: int
    instrument_id: int


def book_tags(records: MboArray) -> npt.NDArray[np.int64]:
    """Return publisher and instrument of each record in one integer, which sorts as BookKey does. Cost: O(n)."""
    tags: npt.NDArray[np.int64] = records["publisher_id"].astype(np.int64) << 32 | records["instrument_id"]
    return tags


def book_tag(key: BookKey) -> int:
    """Return a key as `book_tags` does.

    >>> book_tag(BookKey(publisher_id=1, instrument_id=432669)) == (1 << 32) + 432669
    True
    """
    return key.publisher_id << 32 | key.instrument_id


def book_key(tag: int) -> BookKey:
    """Return the key that a tag stands for.

    >>> book_key((1 << 32) + 432669)
    BookKey(publisher_id=1, instrument_id=432669)
    """
    return BookKey(tag >> 32, tag & 0xFFFF_FFFF)


ORDER: Final = np.dtype([("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"), ("side", "u1")], align=True)
"""One resting order, as ``OrderBook.orders`` lists them."""
