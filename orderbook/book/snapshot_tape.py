"""The snapshot tape: the books at the moments that are to be kept, and every trade, as arrays. Floor 0.

Both kinds of market write it in ``apply_snapshots`` while they apply records, so that nobody stops a batch to look at
a book. When a snapshot of a book is due:

1. A book is looked at only where an event of its own ends (LAST). What falls due in mid-event waits for the end.
2. By count: at the first event end at which ``every`` of its records were counted since its last snapshot. Counted are
   the records of the book itself, not the clears and the pictures (Flags.SNAPSHOT) that a streamer puts before them:
   the same file then gives the same snapshots to whoever joined before it began. An event end counts as one whoever
   brings it.
3. With ``every`` 0, by the best prices: at each event end at which price, size or count of a best level is not as it
   was at the last look. A book begins as one without levels. It is the rule of the BBO rows of tape.py, but compared
   is what this tape has seen, so that another tape begins anew.
4. By time, with ``every_ns``: besides, at the first event end whose ts_recv is at or behind the next whole multiple of
   it. The next multiple is the one behind the book's last snapshot; behind its first event end before there is any.
   Where the time steps back by more than a whole interval (a replay that is set back), it is the one behind the time
   stepped back to. A ts_recv beyond the year 2116 is none.
5. A snapshot for one reason is one for all: the count and the time begin again.

So the snapshots do not depend on how the stream is cut into batches, and those behind a snapshot on nothing before it.
"""

from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MboArray
from orderbook.book.tape import TRADE_ROW, Rows

MAX_DEPTH: Final = 200
MAX_EVERY: Final = 2**62
MAX_EVERY_NS: Final = 10**18
MAX_TS: Final = 2**62
"""Times from here on are not taken for times by rule 4."""

SNAPSHOT_ROW: Final = np.dtype(
    [
        ("record", "<i8"),  # number on the tape of the record behind which it was taken, from 0
        ("records", "<i8"),  # what the book had taken with this tape by then, clears and pictures included
        ("ts_event", "<u8"),
        ("ts_recv", "<u8"),
        ("bid_px", "<i8"),  # 1e-9 units; UNDEF_PRICE where the side is empty, with size and count 0
        ("ask_px", "<i8"),
        ("bid_sz", "<i8"),
        ("ask_sz", "<i8"),
        ("bid_ct", "<i4"),
        ("ask_ct", "<i4"),
        ("sequence", "<u4"),
        ("book", "<u4"),  # its number in the market: the books are numbered in the order of their first record
        ("bids", "<i4"),  # levels written, at most the depth
        ("asks", "<i4"),
    ],
    align=True,
)
"""One book behind one event; 88 bytes."""

# Columns of ``SnapshotTape.states``. Equal to those of the kernel by test.
RECORDS: Final = 0  # taken with this tape
SINCE: Final = 1  # counted since the last snapshot
NEXT_NS: Final = 2  # market time from which the next one is due; 0 before the first event end
STORED: Final = 3  # RECORDS at the last snapshot
BEST: Final = 4  # of the bids, then of the asks: price (the kernel's key of it), size and count at the last look
STATE_COLUMNS: Final = 16
BEST_COLUMNS: Final = 6

_LEAST_ROWS: Final = 16
_NO_TRADES: Final[Rows] = np.zeros(0, TRADE_ROW)

_Array = TypeVar("_Array", bound=npt.NDArray[Any])

DepthLevels = npt.NDArray[np.int64]
"""Shape (snapshots, depth, 3): price (1e-9), size and count of the best levels of a side."""


class SnapshotRule(NamedTuple):
    """When a snapshot is due, and how deep it is."""

    every: int
    """Counted records of a book between two snapshots; 0: at each change of the best prices."""
    every_ns: int
    """Also at the first event end at or behind each multiple of so much market time; 0: never by time."""
    depth: int
    """Levels a side that are written, 1 to MAX_DEPTH."""


class SnapshotRows(NamedTuple):
    """Snapshots and trades in stream order. The arrays belong to whoever took them."""

    rows: Rows
    """dtype SNAPSHOT_ROW."""
    bids: DepthLevels
    """The best price first; what is behind the number of levels that the row tells is undefined."""
    asks: DepthLevels
    trades: Rows
    """dtype TRADE_ROW."""


class SnapshotTape:
    """What the books of one market wrote since the tape was made or last emptied. Not shared between threads.

    One a run: hand the same tape to every batch, and its counts are those of the run. Raises ValueError when the rule
    is none. Memory: a row takes 88 + 48 x depth bytes, and there is room for at most twice as many as were ever waiting
    to be taken.
    """

    def __init__(self, rule: SnapshotRule) -> None:
        _require("every", rule.every, 0, MAX_EVERY)
        _require("every_ns", rule.every_ns, 0, MAX_EVERY_NS)
        _require("depth", rule.depth, 1, MAX_DEPTH)
        self.rule = rule
        self.records = 0
        """Records applied with this tape."""
        self.row_space: Rows = np.zeros(0, SNAPSHOT_ROW)
        self.bid_space: DepthLevels = np.zeros((0, rule.depth, 3), np.int64)
        self.ask_space: DepthLevels = np.zeros((0, rule.depth, 3), np.int64)
        self.trade_space: Rows = np.zeros(0, TRADE_ROW)
        self.used = np.zeros(2, np.int64)
        """How many snapshots and how many trades are written; the rest is room."""
        self.states = np.zeros((0, STATE_COLUMNS), np.int64)
        """What is known of each book, by its number; see the columns above."""
        self.touched = np.zeros(0, np.bool_)
        """By number of the book: whether it took a record since whoever reads it set it back.

        There may be room for more books than there are, in ``book_records`` too; more room replaces both arrays.
        """

    @property
    def rows(self) -> Rows:
        """The snapshots in stream order (dtype SNAPSHOT_ROW): a view that the next batch may replace."""
        return self.row_space[: self.used[0]]

    @property
    def bids(self) -> DepthLevels:
        """The bids of ``rows``, best first: a view that the next batch may replace."""
        return self.bid_space[: self.used[0]]

    @property
    def asks(self) -> DepthLevels:
        """The asks of ``rows``, best first: a view that the next batch may replace."""
        return self.ask_space[: self.used[0]]

    @property
    def trades(self) -> Rows:
        """The trades in stream order (dtype TRADE_ROW): a view that the next batch may replace."""
        return self.trade_space[: self.used[1]]

    @property
    def book_records(self) -> npt.NDArray[np.int64]:
        """By number of the book: the records it has taken with this tape, clears and pictures included. A view."""
        return self.states[:, RECORDS]

    def is_unsettled(self, book: int) -> bool:
        """Say whether a book took records since its last snapshot. Cost: O(1)."""
        return bool(self.states[book, RECORDS] > self.states[book, STORED])

    def settle(self, book: int) -> None:
        """Take it that nothing of a book is left to be written at the end, whatever it took. Cost: O(1)."""
        if book < len(self.states):
            self.states[book, STORED] = self.states[book, RECORDS]

    def set_back(self, states: npt.NDArray[np.int64]) -> None:
        """Be as another tape was that had these states: later books have taken nothing. Cost: O(books)."""
        self.reserve_books(len(states))
        self.states[:] = 0
        self.states[: len(states)] = states
        self.used[:] = 0

    def take(self) -> SnapshotRows:
        """Return what is written, as arrays of their own, and empty the tape. Cost: a copy, O(rows x depth)."""
        rows, trades = self.used.tolist()
        taken = SnapshotRows(
            _copied(self.row_space[:rows]),
            self.bid_space[:rows].copy(),
            self.ask_space[:rows].copy(),
            _copied(self.trade_space[:trades]) if trades else _NO_TRADES,
        )
        self.used[:] = 0
        return taken

    def reserve(self, rows: int, trades: int = 0) -> None:
        """Make room for so many more snapshots and trades. Cost: O(what is written) when it grows."""
        used_rows, used_trades = self.used.tolist()
        if used_rows + rows > len(self.row_space):
            room = max(used_rows + rows, 2 * used_rows, _LEAST_ROWS)
            self.row_space = _longer(self.row_space, used_rows, room)
            self.bid_space = _longer(self.bid_space, used_rows, room)
            self.ask_space = _longer(self.ask_space, used_rows, room)
        if used_trades + trades > len(self.trade_space):
            self.trade_space = _longer(
                self.trade_space, used_trades, max(used_trades + trades, 2 * used_trades, _LEAST_ROWS)
            )

    def reserve_books(self, books: int) -> None:
        """Make room for so many books in all. Cost: O(books) when it grows."""
        known = len(self.states)
        if books > known:
            self.states = np.concatenate([self.states, np.zeros((books - known, STATE_COLUMNS), np.int64)])
            self.touched = np.concatenate([self.touched, np.zeros(books - known, np.bool_)])

    def finish(self, records: MboArray) -> None:
        """Note that a batch is applied."""
        self.records += len(records)


def require_times(records: MboArray, times: npt.NDArray[np.int64] | None) -> None:
    """Raise ValueError when there is not one place, int64 and without gaps, for the time of each record."""
    if times is not None and (times.dtype != np.int64 or times.shape != records.shape or not times.flags.carray):
        found = f"{times.dtype} of shape {times.shape}, strides {times.strides}"
        raise ValueError(f"expected an array for {len(records)} int64 times, found {found}")


def _require(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"expected {name} of a snapshot rule from {least} to {most}, found {value}")


def _copied(rows: Rows) -> Rows:
    """Return a copy; as bytes, because numpy copies records with named fields many times slower."""
    return rows.view(np.uint8).copy().view(rows.dtype)


def _longer(array: _Array, used: int, room: int) -> _Array:
    longer: Any = np.zeros((room, *array.shape[1:]), array.dtype)  # not empty: no stray bytes leave in the gaps
    longer[:used].view(np.uint8)[...] = array[:used].view(np.uint8)
    grown: _Array = longer
    return grown
