"""The compiled looks at the rows of a snapshot tape: whether prices lie on their grids, and numbers. Floor 0.

Importing it loads numba. All of its code is in this file, because numba's cache does not notice a change in another.
With the GIL, which most calls hold for a microsecond: to give it away and to get it back may take a hundred.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def"

import numba
import numpy as np

from orderbook.book.snapshot_tape import SNAPSHOT_ROW

UNDEF_PRICE = np.iinfo(np.int64).max


@numba.njit(cache=True)
def number_rows(rows, seqs, into):
    """Number snapshots within their books, on from ``seqs``, which has the last number of each book and is brought up.

    Cost: 1 ns a row.
    """
    for row in range(len(rows)):
        book = rows[row].book
        seqs[book] += 1
        into[row] = seqs[book]


@numba.njit(cache=True)
def first_off_grid(begin, rows, bids, asks, ticks, inferred):
    """Return the first snapshot from ``begin`` on with a price beside the grid of its book; their number if none has.

    Looked at are only books with ``inferred``; 0 and UNDEF_PRICE lie on every grid, and nothing else on that of tick 0.
    A level that has not changed since the snapshot before is not looked at again. Cost: about 0.5 ns a level then, and
    5 ns for one that has changed.
    """
    known = -1  # the snapshot before, where it is of the same book and on its grid
    for row in range(begin, len(rows)):
        book = rows[row].book
        if not inferred[book]:
            known = -1
            continue
        if known >= 0 and rows[known].book != book:
            known = -1
        known_bids = 0 if known < 0 else rows[known].bids
        known_asks = 0 if known < 0 else rows[known].asks
        tick = ticks[book]
        if is_off(bids, row, rows[row].bids, known, known_bids, tick):
            return row
        if is_off(asks, row, rows[row].asks, known, known_asks, tick):
            return row
        known = row
    return len(rows)


@numba.njit(cache=True)
def is_off(levels, row, count, known, same, tick):
    """Say whether one side of a snapshot has a price beside a grid. Reads one row, or two."""
    for level in range(count):
        price = levels[row, level, 0]
        if level < same and levels[known, level, 0] == price:
            continue
        if price != 0 and price != UNDEF_PRICE and (tick == 0 or price % tick != 0):
            return True
    return False


def warm_up() -> None:
    """Load or compile it now. Cost: 20 ms, 1 s the first time."""
    rows, levels = np.zeros(1, SNAPSHOT_ROW), np.zeros((1, 1, 3), np.int64)
    numbers = np.zeros(1, np.int64)
    number_rows(rows, numbers, numbers.copy())
    first_off_grid(0, rows, levels, levels, numbers, np.zeros(1, np.bool_))
