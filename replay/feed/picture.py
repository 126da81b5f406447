"""Pictures: every book of a market at one position, as records that bring any book there. Floor 1.

A venue's own snapshot has the same shape: for each instrument a clear, then its resting orders in priority order, all
flagged SNAPSHOT. Where a top-of-book publisher shows a level, its record comes before the orders, because it replaces
its whole side.
"""

from collections.abc import Set
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import (
    MBO,
    MBO_LENGTH,
    MBO_RTYPE,
    ORDER,
    UNDEF_CHANNEL,
    UNDEF_PRICE,
    Action,
    BookKey,
    Flags,
    MboArray,
    Side,
    book_key,
    book_tags,
)
from orderbook.book.protocol import Market, OrderBook
from orderbook.book.snapshot import Levels

HEAD: Final = np.dtype(
    [
        ("ts_event", "<u8"),  # of the book's last record, as ts_recv and sequence
        ("ts_recv", "<u8"),
        ("top_px", "<i8", 2),  # what a top-of-book publisher shows: bid, ask
        ("top_sz", "<u4", 2),  # 0 where it shows nothing
        ("instrument_id", "<u4"),
        ("sequence", "<u4"),
        ("bids", "<u4"),  # resting orders of each side
        ("asks", "<u4"),
        ("publisher_id", "<u2"),
        ("at_event_end", "?"),
        ("in_snapshot", "?"),  # the last record was flagged SNAPSHOT: another one would go on with that snapshot
    ],
    align=True,
)
"""Where one book stands, and how many orders it has."""

_SIDES: Final = (Side.BID, Side.ASK)
_STANDS: Final = ("publisher_id", "instrument_id", "ts_event", "ts_recv", "sequence")

Orders = npt.NDArray[np.void]


class Picture(NamedTuple):
    """Every book, in order of its key, and the orders of all of them one behind the other."""

    heads: npt.NDArray[np.void]  # dtype HEAD
    orders: Orders  # dtype ORDER

    @property
    def in_snapshot(self) -> frozenset[BookKey]:
        """The books whose last record was flagged SNAPSHOT."""
        return frozenset(book_key(tag) for tag in book_tags(self.heads[self.heads["in_snapshot"]]).tolist())

    @property
    def has_tops(self) -> bool:
        """True when a top-of-book publisher shows something in one of the books."""
        return bool(self.heads["top_sz"].any())


def capture(market: Market, tops: bool = True, in_snapshot: Set[BookKey] = frozenset()) -> Picture:
    """Return what every book of a market holds.

    ``tops`` says that a top-of-book publisher may be among them: without it nobody looks for what it shows.
    ``in_snapshot`` are the books whose last record was flagged SNAPSHOT, which a book does not tell.
    Cost: O(orders), some 20 us a book.
    """
    books = sorted(market.books.items())
    heads = np.zeros(len(books), HEAD)
    parts = [book.orders() for _, book in books]
    for head, (key, book), part in zip(heads, books, parts, strict=True):
        head["publisher_id"], head["instrument_id"] = key
        head["ts_event"], head["ts_recv"], head["sequence"] = book.ts_event, book.ts_recv, book.sequence
        head["at_event_end"], head["in_snapshot"] = book.at_event_end, key in in_snapshot
        if tops:
            head["top_px"], head["top_sz"] = _tops(book, part)
    # As bytes: numpy copies records with named fields many times slower.
    orders = np.concatenate([np.empty(0, np.uint8), *(part.view(np.uint8) for part in parts)]).view(ORDER)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    bids = np.concatenate([[0], np.cumsum(orders["side"] == Side.BID)])
    heads["bids"] = np.diff(bids[ends], prepend=0)
    heads["asks"] = np.diff(ends, prepend=0) - heads["bids"]
    return Picture(heads, orders)


def picture_records(picture: Picture) -> MboArray:
    """Return the records that bring any book to where the picture was taken.

    For each book R, what a top-of-book publisher shows, and the resting orders in priority order; all flagged SNAPSHOT
    and carrying the times and sequence of the book's last record. The last has LAST if that record closed its event;
    otherwise the records that follow will. Cost: O(records), some 50 ns each.
    """
    heads, orders = picture
    tops = heads["top_sz"] != 0
    lengths = 1 + tops.sum(axis=1) + heads["bids"] + heads["asks"]
    ends = np.cumsum(lengths)
    of_book = np.repeat(np.arange(len(heads)), lengths)
    records = np.zeros(len(of_book), MBO)
    for name in _STANDS:
        records[name] = heads[name][of_book]
    records["length"], records["rtype"], records["channel_id"] = MBO_LENGTH, MBO_RTYPE, UNDEF_CHANNEL
    records["action"], records["flags"] = Action.ADD, Flags.SNAPSHOT
    clears = ends - lengths
    records["action"][clears], records["side"][clears], records["price"][clears] = Action.CLEAR, Side.NONE, UNDEF_PRICE
    are_orders = np.ones(len(records), bool)
    are_orders[clears] = False
    for side, place in ((0, clears + 1), (1, clears + 1 + tops[:, 0])):
        shows, at = heads[tops[:, side]], place[tops[:, side]]
        records["side"][at], records["price"][at] = _SIDES[side], shows["top_px"][:, side]
        records["size"][at] = shows["top_sz"][:, side]
        records["flags"][at] |= np.uint8(Flags.TOB)
        are_orders[at] = False
    for name in ("order_id", "price", "size", "side"):
        records[name][are_orders] = orders[name]
    records["flags"][ends[heads["at_event_end"]] - 1] |= np.uint8(Flags.LAST)
    return records


def _tops(book: OrderBook, orders: Orders) -> tuple[list[int], list[int]]:
    """Return what a top-of-book publisher shows: the price of each side, and the size of each side."""
    sides = [_top(book.levels(side), orders["size"][orders["side"] == side]) for side in _SIDES]
    return [px for px, _ in sides], [sz for _, sz in sides]


def _top(levels: Levels, sizes: npt.NDArray[np.uint32]) -> tuple[int, int]:
    """Return price and size of what a side shows beside its orders: at most one level has more than they explain."""
    rest = levels[:, 1].copy()
    if rest.sum() == sizes.sum():
        return 0, 0
    np.subtract.at(rest, np.repeat(np.arange(len(levels)), levels[:, 2]), sizes)
    level = int(rest.argmax())
    return int(levels[level, 0]), int(rest[level])
