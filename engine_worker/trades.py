"""The trades of each book since it was last shown: the newest of them, and how many there were in the run. Floor 3."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import BookKey, book_key, book_tag, book_tags
from orderbook.book.tape import TRADE_ROW, Rows

KEPT: Final = 50
"""Trades that go with one push; the count tells of the others."""

Tags = npt.NDArray[np.int64]

_LOOSE: Final = 8192
_TAKEN: Final = 2**63 - 1
"""Greater than the tag of any book."""

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
        self._tags: list[Tags] = []  # of the books of what is in the heap; _TAKEN of what was taken out of it
        self._heaped = 0

    def add(self, rows: Rows) -> None:
        """Take trades in stream order (dtype TRADE_ROW, not written to again). Cost: about 20 ns a trade."""
        if not len(rows):
            return
        self._heap.append(rows)
        self._tags.append(book_tags(rows))
        self._heaped += len(rows)
        if self._heaped > _LOOSE:
            self._sort()

    def take(self, key: BookKey) -> Traded:
        """Return what is new of a book, which is old from now on. Cost: a look over the heap, 12 us."""
        found = self._of.get(key, Traded())
        rows, tags = self._whole_heap()
        loose = np.flatnonzero(tags == book_tag(key))
        if len(loose):
            found = _with(found, rows[loose[-KEPT:]], len(loose))
            tags[loose] = _TAKEN
        if found.total:
            self._of[key] = Traded(NO_TRADES, found.total)
        return found

    def _whole_heap(self) -> tuple[Rows, Tags]:
        """Return the heap in one piece, and have it so from now on."""
        if len(self._heap) != 1:
            rows = _joined(self._heap) if self._heap else NO_TRADES
            self._heap, self._tags = [rows], [np.concatenate(self._tags) if self._tags else book_tags(rows)]
        return self._heap[0], self._tags[0]

    def _sort(self) -> None:
        """Empty the heap. Cost: 8 us a book that has trades in it."""
        rows, tags = self._whole_heap()
        self._heap, self._tags, self._heaped = [], [], 0
        order = np.argsort(tags, kind="stable")
        order = order[: np.searchsorted(tags, _TAKEN, sorter=order)]
        for part in np.split(order, np.flatnonzero(np.diff(tags[order])) + 1) if len(order) else []:
            key = book_key(int(tags[part[0]]))
            self._of[key] = _with(self._of.get(key, Traded()), rows[part[-KEPT:]], len(part))


def _with(known: Traded, newest: Rows, count: int) -> Traded:
    """Return what is known with ``count`` more trades, the newest of which are given."""
    return Traded(_joined([known.newest, newest])[-KEPT:], known.total + count)


def _joined(parts: list[Rows]) -> Rows:
    """Return one array of all; as bytes, because numpy copies records with named fields many times slower."""
    return np.concatenate([part.view(np.uint8) for part in parts]).view(TRADE_ROW)
