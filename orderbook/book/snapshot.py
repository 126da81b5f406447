"""A book at one moment: Level, Bbo, BookSnapshot and the state of the market they show. Floor 0."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import BookKey
from orderbook.book.price import decimals_of

Levels = npt.NDArray[np.int64]
"""Shape (n, 3), best price first; the columns are price (1e-9), size, order count. Never written to again."""


class Level(NamedTuple):
    """One price of one side."""

    price: int
    size: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs on a level


class Bbo(NamedTuple):
    """Best bid and offer; None where a side is empty."""

    bid: Level | None
    ask: Level | None


class BookState(StrEnum):
    """Crossed is a state and not an error: before the open, venues take orders without matching them."""

    OK = "ok"
    LOCKED = "locked"
    CROSSED = "crossed"
    ONE_SIDED = "one_sided"
    EMPTY = "empty"


def book_state(bbo: Bbo) -> BookState:
    """Say what the best prices mean.

    >>> book_state(Bbo(Level(65, 1, 1), Level(64, 1, 1)))
    <BookState.CROSSED: 'crossed'>
    """
    if bbo.bid is None and bbo.ask is None:
        return BookState.EMPTY
    if bbo.bid is None or bbo.ask is None:
        return BookState.ONE_SIDED
    if bbo.bid.price == bbo.ask.price:
        return BookState.LOCKED
    return BookState.CROSSED if bbo.bid.price > bbo.ask.price else BookState.OK


@dataclass(frozen=True, slots=True, eq=False)
class BookSnapshot:
    """The top of one book at the end of one event: the immutable thing that every sink receives.

    ``bids`` and ``asks`` hold at most the depth that was asked for. ``records`` counts what the book had
    taken since the start of the replay run, ``seq`` the snapshots of the run; both only grow.
    """

    symbol: str
    run_id: str
    seq: int
    records: int
    ts_event: int
    ts_recv: int
    sequence: int
    tick: int
    """1e-9 units; 0 while no price has told any."""
    bids: Levels
    asks: Levels
    key: BookKey = BookKey(0, 0)

    @property
    def bbo(self) -> Bbo:
        """Best bid and offer of the snapshot. Cost: O(1)."""
        return Bbo(_best(self.bids), _best(self.asks))

    @property
    def state(self) -> BookState:
        """State of the market in the snapshot. Cost: O(1)."""
        return book_state(self.bbo)

    @property
    def decimals(self) -> int:
        """Digits after the point that its prices are written with: all nine while the tick is not known. Cost: O(1)."""
        return decimals_of(self.tick or 1)


def _best(levels: Levels) -> Level | None:
    return Level(*levels[0].tolist()) if len(levels) else None
