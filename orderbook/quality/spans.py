"""Spans of a stream, gathered as it goes: idle gaps, and when books were crossed or locked. Floor 1.

A tape has a row only where the best prices changed at an event end, so a crossed or locked state lasts from the row
that brings it to the row of the same book that ends it.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_PRICE, UNDEF_TIMESTAMP, book_tags
from orderbook.book.snapshot import BookState
from orderbook.book.tape import Rows
from orderbook.book.timestamp import format_ns
from orderbook.quality.report import Span, SpansReport

SPAN: Final = np.dtype(
    [("begin_record", "<i8"), ("end_record", "<i8"), ("begin_ts_recv", "<u8"), ("end_ts_recv", "<u8")]
)
"""From the record that begins it to the record that ends it; end_record is -1 while it is open."""

LONGEST_KEPT: Final = 10
_OPEN: Final = -1
_OTHER, _LOCKED, _CROSSED = 0, 1, 2
_CODES: Final[Mapping[BookState, int]] = {BookState.LOCKED: _LOCKED, BookState.CROSSED: _CROSSED}
_CHANGE: Final = np.dtype([("tag", "<i8"), ("state", "<i8"), ("record", "<i8"), ("ts_recv", "<u8")])

SpanArray = npt.NDArray[np.void]


def instant(ns: int) -> str | None:
    """Write a time as text; None when it is undefined."""
    return None if ns >= UNDEF_TIMESTAMP else format_ns(ns)


def make_spans(
    begin_records: npt.NDArray[np.int64],
    end_records: npt.NDArray[np.int64],
    begin_times: npt.NDArray[np.uint64],
    end_times: npt.NDArray[np.uint64],
) -> SpanArray:
    """Return spans (dtype SPAN) made of their columns."""
    spans = np.empty(len(begin_records), SPAN)
    for name, column in zip(SPAN.names or (), (begin_records, end_records, begin_times, end_times), strict=True):
        spans[name] = column
    return spans


def durations(spans: SpanArray) -> npt.NDArray[np.int64]:
    """Return how long each span lasts, ns: 0 where its time steps back or is undefined."""
    begins, ends = spans["begin_ts_recv"], spans["end_ts_recv"]
    known = (begins <= ends) & (ends < UNDEF_TIMESTAMP)
    lasting: npt.NDArray[np.int64] = np.where(known, ends - begins, 0).astype(np.int64)
    return lasting


class Spans:
    """The spans of one kind so far; memory is bounded however many there are."""

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self._first = self._last = self._longest = np.empty(0, SPAN)

    def add(self, spans: SpanArray) -> None:
        """Take the next spans, in stream order. Cost: O(n log n)."""
        if not len(spans):
            return
        self.count += len(spans)
        self.total_ns += int(durations(spans).sum())
        self._first = self._first if len(self._first) else spans[:1]
        self._last = spans[-1:]
        candidates = np.concatenate([self._longest, spans])
        ranked = np.argsort(-durations(candidates), kind="stable")  # of equally long ones the earlier
        self._longest = candidates[ranked[:LONGEST_KEPT]]

    def report(self) -> SpansReport:
        """Return what was gathered as JSON."""
        return {
            "count": self.count,
            "total_ns": str(self.total_ns),
            "first": next(iter(_described(self._first)), None),
            "last": next(iter(_described(self._last)), None),
            "longest": _described(self._longest),
        }


def _described(spans: SpanArray) -> list[Span]:
    return [
        {
            "begin_record": begin_record,
            "end_record": None if end_record == _OPEN else end_record,
            "begin_ts_recv": instant(begin),
            "begin_ts_recv_ns": str(begin),
            "end_ts_recv": instant(end),
            "end_ts_recv_ns": str(end),
            "ns": str(lasting),
            "open": end_record == _OPEN,
        }
        for (begin_record, end_record, begin, end), lasting in zip(
            spans.tolist(), durations(spans).tolist(), strict=True
        )
    ]


class Crossing:
    """The crossed and locked spans of every book so far."""

    def __init__(self) -> None:
        self._current: Rows = np.empty(0, _CHANGE)  # the change that began the present state of each book
        self._spans: dict[tuple[int, int], Spans] = {}

    def take(self, bbos: Rows) -> None:
        """Take the next rows of a tape (dtype BBO_ROW). Cost: O(n log n)."""
        changes = np.concatenate([self._current, _changes(bbos)])
        changes = changes[np.argsort(changes["tag"], kind="stable")]
        same = changes["tag"][1:] == changes["tag"][:-1]
        kept = same & (changes["state"][1:] == changes["state"][:-1])
        changes = changes[np.append(True, ~kept)[: len(changes)]]
        same = changes["tag"][1:] == changes["tag"][:-1]
        begins, ends = changes[:-1][same], changes[1:][same]
        self._add(begins, make_spans(begins["record"], ends["record"], begins["ts_recv"], ends["ts_recv"]))
        self._current = changes[np.append(~same, True)[: len(changes)]]

    def finish(self, ts_recv: int) -> None:
        """Take the end of the stream: what is crossed or locked now stays open until there."""
        begins = self._current
        ends = np.full(len(begins), _OPEN), np.full(len(begins), ts_recv, np.uint64)
        self._add(begins, make_spans(begins["record"], ends[0], begins["ts_recv"], ends[1]))
        self._current = begins[:0]

    def spans(self, tag: int, state: BookState) -> Spans:
        """Return the spans of a book, named by its tag, in a state."""
        return self._spans.get((tag, _CODES[state]), Spans())

    def count(self, state: BookState) -> int:
        """Return how many spans of a state all books have."""
        return sum(spans.count for (_, code), spans in self._spans.items() if code == _CODES[state])

    def _add(self, begins: Rows, spans: SpanArray) -> None:
        for code in _CODES.values():
            of_state = begins["state"] == code
            tags, starts = np.unique(begins["tag"][of_state], return_index=True)  # in order already
            for tag, its_spans in zip(tags.tolist(), np.split(spans[of_state], starts[1:]), strict=bool(len(tags))):
                self._spans.setdefault((tag, code), Spans()).add(its_spans)


def _changes(bbos: Rows) -> Rows:
    bids, asks = bbos["bid_px"], bbos["ask_px"]
    two_sided = (bids != UNDEF_PRICE) & (asks != UNDEF_PRICE)
    changes: npt.NDArray[np.void] = np.empty(len(bbos), _CHANGE)
    changes["tag"] = book_tags(bbos)
    changes["state"] = np.select([two_sided & (bids > asks), two_sided & (bids == asks)], [_CROSSED, _LOCKED], _OTHER)
    changes["record"], changes["ts_recv"] = bbos["record"], bbos["ts_recv"]
    return changes
