"""The tape: every change of the best prices at event ends, and every trade, as arrays. Floor 0.

Both books write it while they apply records, so that nobody has to look at the book after every event.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_PRICE, MboArray
from orderbook.book.snapshot import Bbo, Level

BBO_ROW: Final = np.dtype(
    [
        ("record", "<i8"),  # number of the record on the tape, from 0
        ("ts_event", "<u8"),
        ("ts_recv", "<u8"),
        ("bid_px", "<i8"),  # 1e-9 units; UNDEF_PRICE where the side is empty, with size and count 0
        ("ask_px", "<i8"),
        ("bid_sz", "<i8"),
        ("ask_sz", "<i8"),
        ("bid_ct", "<i4"),
        ("ask_ct", "<i4"),
        ("sequence", "<u4"),
        ("instrument_id", "<u4"),
        ("publisher_id", "<u2"),
    ],
    align=True,
)
"""The best prices of one book behind an event that changed them."""

TRADE_ROW: Final = np.dtype(
    [
        ("record", "<i8"),
        ("ts_event", "<u8"),
        ("ts_recv", "<u8"),
        ("price", "<i8"),
        ("order_id", "<u8"),  # the aggressor's where the venue tells it
        ("size", "<u4"),
        ("sequence", "<u4"),
        ("instrument_id", "<u4"),
        ("publisher_id", "<u2"),
        ("side", "u1"),  # the aggressor's, as in the record
    ],
    align=True,
)
"""One trade (action T), written where it came in the stream and not held back to the end of its event."""

Rows = npt.NDArray[np.void]


class Tape:
    """What the books of one stream wrote since it was made or last emptied. Not shared between threads.

    A book compares with what it wrote last: records applied without a tape in between are not lost, their outcome
    is one row at the next event end. Hand the same tape to every batch and its record numbers are the stream's.
    """

    def __init__(self) -> None:
        self.records = 0
        """Records applied with this tape."""
        self.bbo_rows: Rows = np.zeros(0, BBO_ROW)
        self.trade_rows: Rows = np.zeros(0, TRADE_ROW)
        self.used = np.zeros(2, np.int64)
        """How many rows of ``bbo_rows`` and of ``trade_rows`` are written; the rest is room."""

    @property
    def bbos(self) -> Rows:
        """The BBO changes in stream order (dtype BBO_ROW): a view that the next batch may replace."""
        return self.bbo_rows[: self.used[0]]

    @property
    def trades(self) -> Rows:
        """The trades in stream order (dtype TRADE_ROW): a view that the next batch may replace."""
        return self.trade_rows[: self.used[1]]

    def empty(self) -> None:
        """Forget the rows and keep counting the records. Cost: O(1)."""
        self.used[:] = 0

    def reserve(self, records: int) -> None:
        """Make room for a batch: a record writes at most one row of each kind. Cost: O(rows) when it grows."""
        self.bbo_rows = _with_room(self.bbo_rows, int(self.used[0]), records)
        self.trade_rows = _with_room(self.trade_rows, int(self.used[1]), records)

    def write_bbo(self, number: int, record: np.void, bbo: Bbo) -> None:
        """Write one change; ``number`` counts from 0 in the current batch. There must be room."""
        bid, ask = bbo.bid or NO_LEVEL, bbo.ask or NO_LEVEL
        row = self.bbo_rows[self.used[0] : self.used[0] + 1]
        row["record"] = self.records + number
        for field in ("ts_event", "ts_recv", "sequence", "instrument_id", "publisher_id"):
            row[field] = record[field]
        row["bid_px"], row["bid_sz"], row["bid_ct"] = bid
        row["ask_px"], row["ask_sz"], row["ask_ct"] = ask
        self.used[0] += 1

    def write_trade(self, number: int, record: np.void) -> None:
        """Write one trade; ``number`` counts from 0 in the current batch. There must be room."""
        row = self.trade_rows[self.used[1] : self.used[1] + 1]
        row["record"] = self.records + number
        for field in (TRADE_ROW.names or ())[1:]:
            row[field] = record[field]
        self.used[1] += 1

    def finish(self, records: MboArray) -> None:
        """Note that a batch is applied."""
        self.records += len(records)


NO_LEVEL: Final = Level(UNDEF_PRICE, 0, 0)


def _with_room(rows: Rows, used: int, records: int) -> Rows:
    if used + records <= len(rows):
        return rows
    longer = np.empty(max(used + records, 2 * len(rows)), rows.dtype)
    # As bytes: numpy copies records with named fields many times slower.
    longer.view(np.uint8)[: used * rows.itemsize] = rows.view(np.uint8)[: used * rows.itemsize]
    return longer
