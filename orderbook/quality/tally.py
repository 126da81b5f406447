"""What is counted on the way through a stream, from its records and from the tape that a book wrote. Floor 1."""

from collections import Counter

import numpy as np

from orderbook.book.mbo import BookKey, MboArray
from orderbook.book.tape import Tape
from orderbook.quality.continuity import Continuity
from orderbook.quality.crossing import Crossing
from orderbook.quality.report import Trades


class Tally:
    """Counts of the batches so far; memory is bounded by the number of books and channels."""

    def __init__(self, idle_ns: int) -> None:
        self.continuity = Continuity(idle_ns)
        self.crossing = Crossing()
        self.records: Counter[BookKey] = Counter()
        self.bbo_changes = 0
        self.trades: Trades = {"count": 0, "size": 0}
        self._last_ts_recv = 0

    def take(self, records: MboArray, start: int, tape: Tape) -> None:
        """Take a batch that begins at this record of the stream, and what the books wrote for it."""
        self._last_ts_recv = int(records["ts_recv"][-1])
        self.continuity.take(records, start)
        self.crossing.take(tape.bbos)
        self.bbo_changes += len(tape.bbos)
        self.trades["count"] += len(tape.trades)
        self.trades["size"] += int(tape.trades["size"].sum(dtype=np.int64))
        tags = records["publisher_id"].astype(np.int64) << 32 | records["instrument_id"]
        books, counts = np.unique(tags, return_counts=True)
        for book, count in zip(books.tolist(), counts.tolist(), strict=True):
            self.records[BookKey(book >> 32, book & 0xFFFF_FFFF)] += count

    def finish(self) -> None:
        """Take the end of the stream: what is crossed now is so until the last record."""
        self.crossing.finish(self._last_ts_recv)
