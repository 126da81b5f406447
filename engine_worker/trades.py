"""The trades of each book since it was last shown: the newest of them, and how many there were in the run. Floor 3."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from orderbook.book.mbo import BookKey, book_key, book_tags
from orderbook.book.tape import TRADE_ROW, Rows

KEPT: Final = 50
"""Trades that go with one push; the count tells of the others."""

_LOOSE: Final = 8192

NO_TRADES: Final[Rows] = np.zeros(0, TRADE_ROW)


class Traded(NamedTuple):
    """What one push tells of trades."""

    newest: Rows = NO_TRADES
    """dtype TRADE_ROW, oldest first: those since the last push, at most the KEPT newest."""
    total: int = 0
    """Trades of the book in the run so far, these included: who missed a push sees how many it missed."""


class Trades:
    """Holds at most KEPT trades a book, and a bounded heap that is not sorted by book yet."""

    def __init__(self) -> None:
        self._of: dict[BookKey, Traded] = {}
        self._heap: list[Rows] = []
        self._heaped = 0

    def add(self, rows: Rows) -> None:
        """Take trades in stream order (dtype TRADE_ROW, not written to again). Cost: about 20 ns a trade."""
        if not len(rows):
            return
        self._heap.append(rows)
        self._heaped += len(rows)
        if self._heaped > _LOOSE:
            self._sort()

    def take(self, key: BookKey) -> Traded:
        """Return what is new of a book, which is old from now on."""
        self._sort()
        found = self._of.get(key)
        if found is None:
            return Traded()
        self._of[key] = Traded(NO_TRADES, found.total)
        return found

    def _sort(self) -> None:
        if not self._heap:
            return
        rows = _joined(self._heap)
        self._heap, self._heaped = [], 0
        for key, part in _by_book(rows):
            known = self._of.get(key, Traded())
            self._of[key] = Traded(_joined([known.newest, part[-KEPT:]])[-KEPT:], known.total + len(part))


def _by_book(rows: Rows) -> Iterator[tuple[BookKey, Rows]]:
    tags = book_tags(rows)
    if (tags == tags[0]).all():
        yield book_key(int(tags[0])), rows
        return
    order = np.argsort(tags, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(tags[order])) + 1):
        yield book_key(int(tags[part[0]])), rows[part]


def _joined(parts: list[Rows]) -> Rows:
    """Return one array of all; as bytes, because numpy copies records with named fields many times slower."""
    return np.concatenate([part.view(np.uint8) for part in parts]).view(TRADE_ROW)
