"""The shadow market: what every book of a recording looks like at any position of it. Floor 1.

It lets a late client in: a clear and the resting orders of that moment, as a venue's own snapshot has them, and
the client's book is right without knowing how. It follows lazily, when somebody asks, and is rebuilt to go back.
"""

from typing import Final

import numpy as np

from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, Action, BookKey, Flags, MboArray, Side
from orderbook.book.protocol import OrderBook
from orderbook.book.snapshot import Level
from replay.feed.raw_protocol import clear_record

_STEP_RECORDS: Final = 1 << 20
"""How much is applied at once: a long way is gone in steps, so that it costs no more memory than a short one."""


class Shadow:
    """The books of one recording; not shared between threads."""

    def __init__(self, records: MboArray, kind: BookKind = "kernel") -> None:
        self._records = records
        self._kind = kind
        self._market = make_market(kind)
        self._position = 0

    def picture(self, position: int) -> MboArray:
        """Return the records that bring any book to where it is after ``position`` records.

        For each instrument seen so far: R, then its resting orders in priority order; all flagged SNAPSHOT and
        carrying the times and sequence of its last record. The last has LAST if that record closed its event;
        otherwise the records that follow will. Cost: O(records since the last picture + resting orders).
        """
        self._move_to(position)
        pictures = [_picture_of(key, book) for key, book in self._market.books.items()]
        return np.concatenate(pictures) if pictures else np.empty(0, MBO)

    def _move_to(self, position: int) -> None:
        if position < self._position:
            self._market = make_market(self._kind)
            self._position = 0
        for begin in range(self._position, position, _STEP_RECORDS):
            self._position = min(begin + _STEP_RECORDS, position)
            self._market.apply(self._records[begin : self._position])


def _picture_of(key: BookKey, book: OrderBook) -> MboArray:
    orders, tops = book.orders(), _tops_of(book)
    records = clear_record(key, book.ts_event, book.ts_recv, book.sequence, Flags.SNAPSHOT).repeat(
        1 + len(orders) + len(tops)
    )
    records["action"][1:] = Action.ADD
    adds = records[1 : 1 + len(orders)]
    for field in ("order_id", "price", "size", "side"):
        adds[field] = orders[field]
    for record, (side, top) in zip(records[1 + len(orders) :], tops, strict=True):
        record["price"], record["size"], record["side"] = top.price, top.size, side
        record["flags"] |= Flags.TOB
    if book.at_event_end:
        records["flags"][-1] |= Flags.LAST
    return records


def _tops_of(book: OrderBook) -> list[tuple[Side, Level]]:
    """Return what a top-of-book publisher shows: levels without orders, at most one a side."""
    bbo = book.bbo()
    return [(side, best) for side, best in ((Side.BID, bbo.bid), (Side.ASK, bbo.ask)) if best and not best.count]
