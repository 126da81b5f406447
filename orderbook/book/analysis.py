"""Numbers derived from a book: microprice, imbalance, the price of taking a size. Floor 0.

Functions of levels and best prices, so that they work on a live book and on a stored snapshot alike. Prices stay
integers in 1e-9 units; a ratio is an exact Fraction.
"""

from fractions import Fraction
from typing import NamedTuple

from orderbook.book.snapshot import Bbo, Levels


def microprice(bbo: Bbo) -> int | None:
    """Return the mid price weighted towards the side with less size, 1e-9 units, halves to even.

    None unless both sides have a size. Cost: O(1).

    >>> from orderbook.book.snapshot import Level
    >>> microprice(Bbo(Level(100, 30, 1), Level(104, 10, 1)))
    103
    """
    if bbo.bid is None or bbo.ask is None:
        return None
    (bid_px, bid_sz, _), (ask_px, ask_sz, _) = bbo.bid, bbo.ask
    return round(Fraction(bid_px * ask_sz + ask_px * bid_sz, bid_sz + ask_sz))


def imbalance(bids: Levels, asks: Levels, depth: int) -> Fraction | None:
    """Return (bid size - ask size) / (bid size + ask size) over the best ``depth`` levels: -1 to 1.

    None when both sides are empty. Raises ValueError for a depth below 1. Cost: O(depth).
    """
    if depth < 1:
        raise ValueError(f"expected a depth of 1 or more levels, found {depth}")
    bid_sz, ask_sz = int(bids[:depth, 1].sum()), int(asks[:depth, 1].sum())
    return Fraction(bid_sz - ask_sz, bid_sz + ask_sz) if bid_sz + ask_sz else None


class Taken(NamedTuple):
    """What taking a size from one side of a book would give, all at once and without hidden orders."""

    size: int
    """What could be taken: the asked size, or all that rests."""
    cost: int
    """Sum of price x size over what was taken, 1e-9 units."""
    worst_px: int | None
    """The last price that had to be paid, 1e-9 units; None when nothing rests."""

    @property
    def average_px(self) -> int | None:
        """Average price, 1e-9 units, halves to even; None when nothing rests."""
        return round(Fraction(self.cost, self.size)) if self.size else None


def take(levels: Levels, size: int) -> Taken:
    """Return what taking ``size`` from a side would cost: its asks to buy, its bids to sell.

    Raises ValueError for a size below 1. Cost: O(levels that are needed).
    """
    if size < 1:
        raise ValueError(f"expected a size of 1 or more to take, found {size}")
    taken = cost = 0
    worst: int | None = None
    for price, resting, _ in levels.tolist():
        here = min(resting, size - taken)
        taken, cost, worst = taken + here, cost + here * price, price
        if taken == size:
            break
    return Taken(taken, cost, worst)
