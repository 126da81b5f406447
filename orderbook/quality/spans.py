"""Pieces of a stream, gathered chunk by chunk: count, total, first, last, longest. Floor 1."""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_TIMESTAMP
from orderbook.quality.report import Span, SpansReport, instant

SPAN: Final = np.dtype(
    [("begin_record", "<i8"), ("end_record", "<i8"), ("begin_ts_recv", "<u8"), ("end_ts_recv", "<u8")]
)
"""From the record that begins it to the record that ends it; end_record is -1 while it is open."""

OPEN: Final = -1
LONGEST_KEPT: Final = 10

SpanArray = npt.NDArray[np.void]


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
            "end_record": None if end_record == OPEN else end_record,
            "begin_ts_recv": instant(begin),
            "begin_ts_recv_ns": str(begin),
            "end_ts_recv": instant(end),
            "end_ts_recv_ns": str(end),
            "ns": str(lasting),
            "open": end_record == OPEN,
        }
        for (begin_record, end_record, begin, end), lasting in zip(
            spans.tolist(), durations(spans).tolist(), strict=True
        )
    ]
