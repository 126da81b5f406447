"""The depth tape: every change of the ten best levels at event ends, and every trade, as MBP-10 records. Floor 0.

Both kinds of market write it in ``apply_depth``. The rules, and where each is from: [V] the vendor's words on its
schemas, [O] observed in the vendor's files, [B] Batonic's own where the vendor tells nothing.

1. A book is looked at when an event ends (LAST), and written when one of its ten best levels is not as it was written
   last [V]: at most one row an event [O]. An event that held a clear (R) is always written [B], as the vendor writes a
   snapshot [O]: that is how a reader learns that it may forget.
2. Flags, times and sequence are those of the event's last record [O]; action, side, price and size those of its last
   record that speaks of the book (A, C, M or R) [B]. Where a snapshot replaced the book without a word, it is an R [B].
3. ``depth`` is the first level that changed [V]; 0 for a trade, and for an event that held a clear [B].
4. Every trade (T) is a row where it comes in the stream [V], with the levels as last written: the book before its event
   [V, O]. Of a book of which nothing was written yet, no level is there [B].
5. A level that is not there has an undefined price and no size [O]. A size or a count beyond 32 bits is the greatest
   that fits [B].
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_PRICE, Action, Flags, MboArray

DEPTH: Final = 10

_HEAD: Final = [
    ("length", "u1"),  # in 4-byte words
    ("rtype", "u1"),
    ("publisher_id", "<u2"),
    ("instrument_id", "<u4"),
    ("ts_event", "<u8"),
    ("price", "<i8"),
    ("size", "<u4"),
    ("action", "u1"),
    ("side", "u1"),
    ("flags", "u1"),
    ("depth", "u1"),
    ("ts_recv", "<u8"),
    ("ts_in_delta", "<i4"),
    ("sequence", "<u4"),
]
_LEVEL: Final = [
    ("bid_px", "<i8"),
    ("ask_px", "<i8"),
    ("bid_sz", "<u4"),
    ("ask_sz", "<u4"),
    ("bid_ct", "<u4"),
    ("ask_ct", "<u4"),
]

MBP10: Final = np.dtype(
    _HEAD + [(f"{name}_{level:02}", kind) for level in range(DEPTH) for name, kind in _LEVEL],
    align=True,  # as the kernel wants it
)
"""DBN's Mbp10Msg, 368 bytes: a head, and ten levels of both sides, the best first."""

MBP10_RTYPE: Final = 10
WORD: Final = np.dtype("<i8")
ROW_WORDS: Final = MBP10.itemsize // WORD.itemsize
LEVEL_WORDS: Final = 4
"""A level in 64-bit words: bid_px, ask_px, both sizes, both counts; the bid's in the lower half."""
HEAD_WORDS: Final = ROW_WORDS - DEPTH * LEVEL_WORDS

MAX_UINT32: Final = 2**32 - 1

_LAST: Final = np.uint8(Flags.LAST)
_TRADE: Final = np.uint8(Action.TRADE)

Words = npt.NDArray[np.int64]
Mbp10Array = npt.NDArray[np.void]
"""A one-dimensional array of dtype MBP10."""


class DepthTape:
    """What the books of one market wrote since the tape was made. Not shared between threads.

    A market compares with what it wrote last, on whatever tape: hand its records over with a tape from the first one
    on, and hand the same tape to every batch whose record numbers shall go on.
    """

    def __init__(self) -> None:
        self.records = 0
        """Records applied with this tape."""
        self.row_space: Mbp10Array = np.zeros(0, MBP10)
        self.number_space: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.book_space: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.used: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        """How many rows of the three are written; the rest is room."""

    @property
    def rows(self) -> Mbp10Array:
        """The rows in stream order: a view that the next batch may replace."""
        return self.row_space[: self.used[0]]

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """For each row the number of the record behind which it was written, from 0. Ascending."""
        return self.number_space[: self.used[0]]

    @property
    def books(self) -> npt.NDArray[np.int64]:
        """For each row the number of its book, from 0, in the order in which the market met them."""
        return self.book_space[: self.used[0]]

    def reserve(self, records: MboArray) -> None:
        """Make room for a batch: for a row at each of its trades and event ends. Cost: O(n), O(rows) when it grows."""
        used = int(self.used[0])
        ends, trades = records["flags"] & _LAST != 0, records["action"] == _TRADE
        need = used + int(np.count_nonzero(ends)) + int(np.count_nonzero(trades))
        if need > len(self.number_space):
            size = max(need, 2 * len(self.number_space))
            rows, numbers, books = np.empty(size, MBP10), np.empty(size, np.int64), np.empty(size, np.int64)
            row_words(rows)[:used] = row_words(self.row_space)[:used]
            numbers[:used], books[:used] = self.numbers, self.books
            self.row_space, self.number_space, self.book_space = rows, numbers, books

    def write(self, number: int, book: int, row: np.void) -> None:
        """Write one row; ``number`` counts from 0 in the current batch. There must be room."""
        at = int(self.used[0])
        self.row_space[at] = row
        self.number_space[at], self.book_space[at] = self.records + number, book
        self.used[0] += 1

    def finish(self, records: MboArray) -> None:
        """Note that a batch is applied."""
        self.records += len(records)


def row_words(rows: Mbp10Array) -> Words:
    """Return rows as 64-bit words: a view of shape (rows, ROW_WORDS)."""
    return rows.view(WORD).reshape(-1, ROW_WORDS)


def unwritten_rows(count: int) -> Mbp10Array:
    """Return rows of books of which nothing was written: no level, and a length of 0."""
    rows = np.zeros(count, MBP10)
    words = row_words(rows)
    words[:, HEAD_WORDS::LEVEL_WORDS] = words[:, HEAD_WORDS + 1 :: LEVEL_WORDS] = UNDEF_PRICE
    return rows
