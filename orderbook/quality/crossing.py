"""When books were crossed or locked: spans between the BBO changes of a tape. Floor 1.

A tape has a row only where the best prices changed at an event end, so a state lasts from the row that brings it to
the row of the same book that ends it.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_PRICE, BookKey
from orderbook.book.snapshot import BookState
from orderbook.book.tape import Rows
from orderbook.quality.spans import OPEN, SpanArray, Spans, make_spans

_OTHER, _LOCKED, _CROSSED = 0, 1, 2
STATES: Final[Mapping[BookState, int]] = {BookState.LOCKED: _LOCKED, BookState.CROSSED: _CROSSED}
_CHANGE: Final = np.dtype([("book", "<i8"), ("state", "<i8"), ("record", "<i8"), ("ts_recv", "<u8")])


class Crossing:
    """The crossed and locked spans of every book so far."""

    def __init__(self) -> None:
        self._current: Rows = np.empty(0, _CHANGE)  # the change that began the present state of each book
        self._spans: dict[tuple[int, int], Spans] = {}

    def take(self, bbos: Rows) -> None:
        """Take the next rows of a tape (dtype BBO_ROW). Cost: O(n log n)."""
        changes = np.concatenate([self._current, _states(bbos)])
        changes = changes[np.argsort(changes["book"], kind="stable")]
        same = changes["book"][1:] == changes["book"][:-1]
        kept = same & (changes["state"][1:] == changes["state"][:-1])
        changes = changes[np.append(True, ~kept)[: len(changes)]]
        same = changes["book"][1:] == changes["book"][:-1]
        begins, ends = changes[:-1][same], changes[1:][same]
        self._add(begins, make_spans(begins["record"], ends["record"], begins["ts_recv"], ends["ts_recv"]))
        self._current = changes[np.append(~same, True)[: len(changes)]]

    def finish(self, ts_recv: int) -> None:
        """Take the end of the stream: what is crossed or locked now stays open until there."""
        begins = self._current
        ends = np.full(len(begins), OPEN), np.full(len(begins), ts_recv, np.uint64)
        self._add(begins, make_spans(begins["record"], ends[0], begins["ts_recv"], ends[1]))
        self._current = begins[:0]

    def spans(self, key: BookKey, state: BookState) -> Spans:
        """Return the spans of a book in a state."""
        return self._spans.get((_tag(key), STATES[state]), Spans())

    def count(self, state: BookState) -> int:
        """Return how many spans of a state all books have."""
        return sum(spans.count for (_, code), spans in self._spans.items() if code == STATES[state])

    def _add(self, begins: Rows, spans: SpanArray) -> None:
        for code in STATES.values():
            of_state = begins["state"] == code
            books, starts = np.unique(begins["book"][of_state], return_index=True)  # in order already
            for book, its_spans in zip(books.tolist(), np.split(spans[of_state], starts[1:]), strict=bool(len(books))):
                self._spans.setdefault((book, code), Spans()).add(its_spans)


def _tag(key: BookKey) -> int:
    return key.publisher_id << 32 | key.instrument_id


def _states(bbos: Rows) -> Rows:
    bids, asks = bbos["bid_px"], bbos["ask_px"]
    two_sided = (bids != UNDEF_PRICE) & (asks != UNDEF_PRICE)
    changes: npt.NDArray[np.void] = np.empty(len(bbos), _CHANGE)
    changes["book"] = bbos["publisher_id"].astype(np.int64) << 32 | bbos["instrument_id"]
    changes["state"] = np.select([two_sided & (bids > asks), two_sided & (bids == asks)], [_CROSSED, _LOCKED], _OTHER)
    changes["record"], changes["ts_recv"] = bbos["record"], bbos["ts_recv"]
    return changes
