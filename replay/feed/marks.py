"""Marks: how much of everything there is before every so many records of a file. Floor 1.

They turn a question about the whole file (which record is event 1,000,000?) into one about 65,536 records.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_PRICE, UNDEF_TIMESTAMP, BookKey, Flags, MboArray, book_key, book_tags
from orderbook.book.protocol import Market
from orderbook.book.tape import BBO_ROW, Rows

MARK_RECORDS: Final = 1 << 16
"""Records between marks: some 2 ms to apply."""

MARK: Final = np.dtype(
    [
        ("position", "<i8"),  # all that follows counts the records before it
        ("ts_recv", "<u8"),  # the latest, ns
        ("events", "<i8"),
        ("trades", "<i8"),
        ("bbos", "<i8"),  # changes of the best prices at event ends
        ("crossings", "<i8"),  # times that a book became crossed
        ("anomalies", "<i8"),
    ],
    align=True,
)

_LAST: Final = int(Flags.LAST)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)


class Tally:
    """The counts so far of a stream that comes in chunks, and what only a whole pass knows of its books."""

    def __init__(self) -> None:
        self.mark: npt.NDArray[np.void] = np.zeros(1, MARK)
        """The counts before the next chunk: one row of dtype MARK."""
        self.crossings = Crossings()
        self.in_snapshot: frozenset[BookKey] = frozenset()

    def take(self, records: MboArray, bbos: Rows, trades: Rows, market: Market) -> None:
        """Count a chunk: its records, what they wrote on a tape, and the market behind them. Cost: O(n)."""
        before, mark = self.mark, self.mark.copy()
        mark["position"] += len(records)
        mark["ts_recv"] = latest(records, int(before["ts_recv"][0]))[-1:]
        mark["events"] += np.count_nonzero(records["flags"] & _LAST)
        mark["trades"] += len(trades)
        mark["bbos"] += len(bbos)
        mark["crossings"] += len(self.crossings.take(bbos))
        mark["anomalies"] = sum(sum(book.anomalies.values()) for book in market.books.values())
        self.mark = mark
        self.in_snapshot = in_snapshot_after(records, self.in_snapshot)


class Crossings:
    """When books become crossed, told by the rows of a tape."""

    def __init__(self) -> None:
        self.newest: Rows = np.empty(0, BBO_ROW)
        """The last row of each book, in order of the books' keys."""

    def take(self, bbos: Rows) -> npt.NDArray[np.int64]:
        """Take the next rows; return the places of those at which a book becomes crossed. Cost: O(n log n)."""
        rows = np.concatenate([self.newest, bbos])
        tags = book_tags(rows)
        order = np.argsort(tags, kind="stable")
        tags, crossed = tags[order], _crossed(rows)[order]
        goes_on = np.concatenate([[False], tags[1:] == tags[:-1]])[: len(tags)]
        begins = crossed & ~(goes_on & np.concatenate([[False], crossed[:-1]])[: len(tags)])
        places: npt.NDArray[np.int64] = np.sort(order[begins]) - len(self.newest)
        self.newest = rows[order[np.append(~goes_on[1:], True)[: len(tags)]]]
        return places[places >= 0]


def latest(records: MboArray, before: int = 0) -> npt.NDArray[np.uint64]:
    """Return for each record the latest capture time up to it, ns: where the times step back, the largest so far.

    A record without a time has that of the one before it.
    """
    times = records["ts_recv"].copy()
    times[times == UNDEF_TIMESTAMP] = 0
    times[:1] = np.maximum(times[:1], np.uint64(before))
    running: npt.NDArray[np.uint64] = np.maximum.accumulate(times)
    return running


def in_snapshot_after(records: MboArray, before: frozenset[BookKey]) -> frozenset[BookKey]:
    """Return the books whose last record is flagged SNAPSHOT, those of before the records given. Cost: O(n) mostly."""
    flags = records["flags"]
    if not before and not (flags & _SNAPSHOT).any():
        return before
    tags, last = np.unique(book_tags(records)[::-1], return_index=True)
    inside = (flags[::-1][last] & _SNAPSHOT) != 0
    named, within = (frozenset(book_key(tag) for tag in each.tolist()) for each in (tags, tags[inside]))
    return (before - named) | within


def _crossed(bbos: Rows) -> npt.NDArray[np.bool_]:
    bids, asks = bbos["bid_px"], bbos["ask_px"]
    found: npt.NDArray[np.bool_] = (bids != UNDEF_PRICE) & (bids > asks)
    return found
