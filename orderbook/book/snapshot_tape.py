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

What is written lies in blocks, whose counter ``handed`` says how much of one others may read. A market that is told to
hand over does that itself, behind each snapshot: then no reader waits for whoever called it, and no snapshot for
Python's interpreter.
"""

import time
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

# Places of ``SnapshotTape.used``. Equal to those of the kernel by test.
ROWS_USED: Final = 0
TRADES_USED: Final = 1
EVENTS_SEEN: Final = 2
FIRST_ROW: Final = 3
FIRST_TRADE: Final = 4
HANDS_OVER: Final = 5

# Columns of ``SnapshotTape.states``. Equal to those of the kernel by test.
RECORDS: Final = 0  # taken with this tape
SINCE: Final = 1  # counted since the last snapshot
NEXT_NS: Final = 2  # market time from which the next one is due; 0 before the first event end
STORED: Final = 3  # RECORDS at the last snapshot
BEST: Final = 4  # of the bids, then of the asks: price (the kernel's key of it), size and count at the last look
SNAPS: Final = 10  # snapshots so far
STATE_COLUMNS: Final = 16
BEST_COLUMNS: Final = 6

_LEAST_ROWS: Final = 16
_ROW_BYTES: Final = SNAPSHOT_ROW.itemsize + 16  # with its number and its wait, without its levels
_BLOCK_BYTES: Final = 1 << 20
_BLOCK_TRADES: Final = 4096

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


class SnapshotBlock(NamedTuple):
    """The arrays that snapshots are written into, one behind the other; what is written is not written to again."""

    rows: Rows
    bids: DepthLevels
    asks: DepthLevels
    seqs: npt.NDArray[np.int64]
    """Number of each snapshot within its book and tape, from 1."""
    handed: npt.NDArray[np.int64]
    """Shape (1,): how many snapshots, from the first one on, other threads may read; ``snapshot_kernel`` reads it."""

    def part(self, begin: int, end: int) -> "SnapshotBlock":
        """Return some of the snapshots: views. Cost: 1 us."""
        rows, bids, asks, seqs, handed = self
        return SnapshotBlock(rows[begin:end], bids[begin:end], asks[begin:end], seqs[begin:end], handed)


class SnapshotRows(NamedTuple):
    """Snapshots and trades in stream order. Nobody writes to the arrays any more.

    They may be parts of blocks, together of 1 MB or of twice what was on the tape, which live as long as one of their
    parts.
    """

    rows: Rows
    """dtype SNAPSHOT_ROW."""
    bids: DepthLevels
    """The best price first; what is behind the number of levels that the row tells is undefined."""
    asks: DepthLevels
    seqs: npt.NDArray[np.int64]
    waited_ns: npt.NDArray[np.int64]
    """From the end of the event of each snapshot until it was handed over; that end (ns of the monotonic clock) where
    it was not."""
    trades: Rows
    """dtype TRADE_ROW."""
    events: int
    """How many events have ended."""


class SnapshotTape:
    """What the books of one market wrote since the tape was made or last emptied. One thread's.

    One a run: hand the same tape to every batch, and its counts are those of the run. Raises ValueError when the rule
    is none. Memory: a row takes 104 + 48 x depth bytes. What is taken is a part of a block, and the next row comes
    behind it, in a new block where this one is full. Nothing is written twice or copied.
    """

    def __init__(self, rule: SnapshotRule) -> None:
        _require("every", rule.every, 0, MAX_EVERY)
        _require("every_ns", rule.every_ns, 0, MAX_EVERY_NS)
        _require("depth", rule.depth, 1, MAX_DEPTH)
        self.rule = rule
        self.records = 0
        """Records applied with this tape."""
        self.used = np.zeros(6, np.int64)
        """How many snapshots and how many trades of the blocks are written, the rest is room; how many events ended
        since the last ``take``; which snapshot and which trade is the first that was not taken; and whether a market
        hands snapshots over."""
        self._block_rows = max(_BLOCK_BYTES // (_ROW_BYTES + 48 * rule.depth), _LEAST_ROWS)
        self._begin_block(0)
        self.trade_space: Rows = np.zeros(0, TRADE_ROW)
        self.states = np.zeros((0, STATE_COLUMNS), np.int64)
        """What is known of each book, by its number; see the columns above."""
        self.grids = np.zeros(0, np.int64)
        """By number of the book: a market hands over by itself what has all its prices on this grid; 0: nothing."""
        self.touched = np.zeros(0, np.bool_)
        """By number of the book: whether it took a record since whoever reads it set it back.

        There may be room for more books than there are, in ``book_records`` too; more room replaces these arrays.
        """

    @property
    def hands_over(self) -> bool:
        """Whether a market hands over what it writes, and stops behind what it may not: no grid, or one left.

        It stops behind what fills its block too.
        """
        return bool(self.used[HANDS_OVER])

    @hands_over.setter
    def hands_over(self, hands_over: bool) -> None:
        self.used[HANDS_OVER] = hands_over

    @property
    def handed(self) -> int:
        """How many snapshots of the block are handed over."""
        return int(self.block.handed[0])

    @property
    def rows(self) -> Rows:
        """The snapshots in stream order (dtype SNAPSHOT_ROW): a view that the next batch may replace."""
        return self.block.rows[self.used[FIRST_ROW] : self.used[ROWS_USED]]

    @property
    def bids(self) -> DepthLevels:
        """The bids of ``rows``, best first: a view that the next batch may replace."""
        return self.block.bids[self.used[FIRST_ROW] : self.used[ROWS_USED]]

    @property
    def asks(self) -> DepthLevels:
        """The asks of ``rows``, best first: a view that the next batch may replace."""
        return self.block.asks[self.used[FIRST_ROW] : self.used[ROWS_USED]]

    @property
    def trades(self) -> Rows:
        """The trades in stream order (dtype TRADE_ROW): a view that the next batch may replace."""
        return self.trade_space[self.used[FIRST_TRADE] : self.used[TRADES_USED]]

    @property
    def book_records(self) -> npt.NDArray[np.int64]:
        """By number of the book: the records it has taken with this tape, clears and pictures included. A view."""
        return self.states[:, RECORDS]

    @property
    def unhanded(self) -> SnapshotBlock:
        """The snapshots of the block that are written and not handed over: views."""
        return self.block.part(self.handed, int(self.used[ROWS_USED]))

    def is_unsettled(self, book: int) -> bool:
        """Say whether a book took records since its last snapshot. Cost: O(1)."""
        return bool(self.states[book, RECORDS] > self.states[book, STORED])

    def settle(self, book: int) -> None:
        """Take it that nothing of a book is left to be written at the end, whatever it took. Cost: O(1)."""
        if book < len(self.states):
            self.states[book, STORED] = self.states[book, RECORDS]

    def set_back(self, states: npt.NDArray[np.int64]) -> None:
        """Be as another tape was that had these states: later books have taken nothing. Cost: O(books)."""
        self.discard()
        self.reserve_books(len(states))
        self.states[:] = 0
        self.states[: len(states)] = states
        self._forget()

    def hand_over(self, rows: int | None = None) -> None:
        """Let others read what is written, all or so many snapshots of the block. Cost: 2 us."""
        begin, end = self.handed, int(self.used[ROWS_USED]) if rows is None else rows
        if end > begin:
            self.wait_space[begin:end] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - self.wait_space[begin:end]
            self.block.handed[0] = end

    def discard(self) -> None:
        """Take it that what is written, and not handed over, never was a snapshot: nobody will read it."""
        if (books := self.unhanded.rows["book"]).size:
            np.subtract.at(self.states[:, SNAPS], books, 1)
            self._begin_block(0)  # readers of this one are to find nothing of it

    def take(self) -> SnapshotRows:
        """Return what is written, and go on behind it. Cost: 2 us."""
        rows, trades, events, first_row, first_trade, _ = self.used.tolist()
        written = self.block.part(first_row, rows)
        taken = SnapshotRows(
            *written[:4], self.wait_space[first_row:rows], self.trade_space[first_trade:trades], events
        )
        self._forget()
        return taken

    def reserve(self, rows: int, trades: int = 0) -> None:
        """Make room for so many more snapshots and trades. Cost: O(what is not taken) when a new block is made."""
        used_rows, used_trades, _, first_row, first_trade, _ = self.used.tolist()
        if used_rows + rows > len(self.block.rows):
            waiting = used_rows - first_row
            self._begin_block(max(waiting + rows, 2 * waiting, min(2 * len(self.block.rows), self._block_rows)))
        if used_trades + trades > len(self.trade_space):
            waiting = used_trades - first_trade
            room = max(waiting + trades, 2 * waiting, min(2 * len(self.trade_space), _BLOCK_TRADES), _LEAST_ROWS)
            self.trade_space = _new_block(self.trade_space[first_trade:used_trades], room)
            self.used[FIRST_TRADE], self.used[TRADES_USED] = 0, waiting

    def _begin_block(self, room: int) -> None:
        """Begin a block of so many rows, with those that are not taken; without room, with none."""
        if not room:
            self.block, self.wait_space = _empty_block(self.rule.depth), np.zeros(0, np.int64)
            self.used[FIRST_ROW] = self.used[ROWS_USED] = 0
            return
        room = max(room, _LEAST_ROWS)
        first, end = int(self.used[FIRST_ROW]), int(self.used[ROWS_USED])
        rows, bids, asks, seqs, _ = self.block.part(first, end)
        self.block = SnapshotBlock(
            _new_block(rows, room),
            _new_block(bids, room),
            _new_block(asks, room),
            _new_block(seqs, room),
            np.array([max(self.handed - first, 0)], np.int64),
        )
        self.wait_space = _new_block(self.wait_space[first:end], room)
        self.used[FIRST_ROW], self.used[ROWS_USED] = 0, end - first

    def _forget(self) -> None:
        """Take it that all that is written is taken."""
        self.used[EVENTS_SEEN] = 0
        self.used[FIRST_ROW], self.used[FIRST_TRADE] = self.used[ROWS_USED], self.used[TRADES_USED]

    def reserve_books(self, books: int) -> None:
        """Make room for so many books in all. Cost: O(books) when it grows."""
        known = len(self.states)
        if books > known:
            self.states = np.concatenate([self.states, np.zeros((books - known, STATE_COLUMNS), np.int64)])
            self.grids = np.concatenate([self.grids, np.zeros(books - known, np.int64)])
            self.touched = np.concatenate([self.touched, np.zeros(books - known, np.bool_)])

    def finish(self, records: int) -> None:
        """Note that so many records are applied."""
        self.records += records


def require_times(records: MboArray, times: npt.NDArray[np.int64] | None) -> None:
    """Raise ValueError when times are not places, int64 and without gaps, for those of at most all records."""
    if times is not None and (
        times.dtype != np.int64 or times.ndim != 1 or len(times) > len(records) or not times.flags.carray
    ):
        found = f"{times.dtype} of shape {times.shape}, strides {times.strides}"
        raise ValueError(f"expected an array for at most {len(records)} int64 times, found {found}")


def _require(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"expected {name} of a snapshot rule from {least} to {most}, found {value}")


def _empty_block(depth: int) -> SnapshotBlock:
    levels: DepthLevels = np.zeros((0, depth, 3), np.int64)
    numbers = np.zeros(0, np.int64)
    return SnapshotBlock(np.zeros(0, SNAPSHOT_ROW), levels, levels, numbers, np.zeros(1, np.int64))


def _new_block(waiting: _Array, room: int) -> _Array:
    """Return a block that begins with these: as bytes, numpy copies records with named fields many times slower."""
    block: Any = np.zeros((room, *waiting.shape[1:]), waiting.dtype)  # not empty: no stray bytes leave in the gaps
    block[: len(waiting)].view(np.uint8)[...] = waiting.view(np.uint8)
    made: _Array = block
    return made
