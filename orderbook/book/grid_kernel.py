"""Whether the prices of snapshots lie on the grids of their books: the compiled look. Floor 0.

Importing it loads numba. All of its code is in this file, because numba's cache does not notice a change in another.
"""

import numba
import numpy as np
import numpy.typing as npt

UNDEF_PRICE = np.iinfo(np.int64).max


@numba.njit(cache=True, nogil=True)
def first_off_grid(begin, books, bid_counts, ask_counts, bids, asks, ticks, inferred):  # type: ignore[no-untyped-def]
    """Return the first snapshot from ``begin`` on with a price beside the grid of its book; their number if none has.

    Looked at are only books with ``inferred``; 0 and UNDEF_PRICE lie on every grid, and nothing else on that of tick 0.
    A level that has not changed since the snapshot before is not looked at again. Cost: about 0.5 ns a level then, and
    5 ns for one that has changed.
    """
    known = -1  # the snapshot before, where it is of the same book and on its grid
    for row in range(begin, len(books)):
        book = books[row]
        if not inferred[book]:
            known = -1
            continue
        if known >= 0 and books[known] != book:
            known = -1
        if is_off(bids, bid_counts, row, known, ticks[book]) or is_off(asks, ask_counts, row, known, ticks[book]):
            return row
        known = row
    return len(books)


@numba.njit(cache=True, nogil=True)
def is_off(levels, counts, row, known, tick):  # type: ignore[no-untyped-def]
    """Say whether one side of a snapshot has a price beside a grid. Reads one row, or two."""
    same = 0 if known < 0 else counts[known]
    for level in range(counts[row]):
        price = levels[row, level, 0]
        if level < same and levels[known, level, 0] == price:
            continue
        if price != 0 and price != UNDEF_PRICE and (tick == 0 or price % tick != 0):
            return True
    return False


def warm_up() -> None:
    """Load or compile it now. Cost: 20 ms, 1 s the first time."""
    levels, counts = np.zeros((1, 1, 3), np.int64), np.zeros(1, np.dtype([("n", "<i4"), ("m", "<i4")]))["n"]
    ticks: npt.NDArray[np.int64] = np.zeros(1, np.int64)
    first_off_grid(0, np.zeros(1, np.int64), counts, counts, levels, levels, ticks, np.zeros(1, np.bool_))
