"""The grid of each book of a run, as its snapshots tell it: what their prices are written with. Floor 3.

An instrument that is registered has its tick. Of any other it is the widest grid on which every price lies that a
snapshot has shown so far; the same snapshots give the same grids, however they come in batches.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from orderbook.book.price import infer_tick
from orderbook.book.snapshot_kernel import first_off_grid
from orderbook.book.snapshot_tape import DepthLevels
from orderbook.book.tape import Rows


class Finer(NamedTuple):
    """From this row of a batch on, a book has this tick."""

    row: int
    book: int
    tick: int


class Grids:
    """Ticks by number of the book, 1e-9 units; 0 while no price has told any."""

    def __init__(self) -> None:
        self.ticks = np.zeros(0, np.int64)
        self._inferred = np.zeros(0, np.bool_)

    def add(self, book: int, tick: int, *, is_inferred: bool) -> None:
        """Add a book, with 0 when its tick is not known; one that is inferred may become finer."""
        if book >= len(self.ticks):
            more = max(book + 1, 2 * len(self.ticks)) - len(self.ticks)
            self.ticks = np.append(self.ticks, np.zeros(more, np.int64))
            self._inferred = np.append(self._inferred, np.zeros(more, np.bool_))
        self.ticks[book], self._inferred[book] = tick, is_inferred

    def learn(self, rows: Rows, bids: DepthLevels, asks: DepthLevels) -> Iterator[Finer]:
        """Take in the prices of snapshots, as a SnapshotTape gives them, and yield what is news, in their order.

        Cost: that of ``first_off_grid``; nothing is looked at where every tick is registered.
        """
        row = -1
        while (row := first_off_grid(row + 1, rows, bids, asks, self.ticks, self._inferred)) < len(rows):
            book = int(rows[row]["book"])
            prices = np.concatenate((bids[row, : rows[row]["bids"], 0], asks[row, : rows[row]["asks"], 0]))
            self.ticks[book] = tick = int(np.gcd(self.ticks[book], infer_tick(prices)))
            yield Finer(row, book, tick)
