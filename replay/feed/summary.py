"""What a recording holds, counted: records, events, span, instruments and their price grids. Floor 1."""

from typing import NamedTuple

import numpy as np

from orderbook.book.mbo import Flags, MboArray
from orderbook.book.price import infer_tick
from replay.feed.sources import Recording

_LIMIT_NS = 2**63  # later times are undefined, or nothing that a database column holds


class InstrumentSummary(NamedTuple):
    """One instrument of a recording."""

    symbol: str
    instrument_id: int
    publisher_id: int
    records: int
    tick: int
    """The widest grid that holds all of its prices, 1e-9 units; the finest, 1, when they tell none."""


class Summary(NamedTuple):
    """A whole recording. The span is of venue times, and None when no record has one."""

    records: int
    events: int
    first_ts_event: int | None
    last_ts_event: int | None
    instruments: list[InstrumentSummary]


def summarize(recording: Recording) -> Summary:
    """Count what a recording holds. Cost: O(records), one pass for each instrument."""
    records = recording.records
    times = records["ts_event"]
    times = times[times < _LIMIT_NS]
    return Summary(
        records=len(records),
        events=int(np.count_nonzero(records["flags"] & Flags.LAST)),
        first_ts_event=int(times.min()) if len(times) else None,
        last_ts_event=int(times.max()) if len(times) else None,
        instruments=[_instrument(records, id_, symbol) for id_, symbol in sorted(recording.symbols.items())],
    )


def _instrument(records: MboArray, instrument_id: int, symbol: str) -> InstrumentSummary:
    its = records["instrument_id"] == instrument_id
    prices = records["price"][its]
    publisher_id = int(records["publisher_id"][its.argmax()])
    return InstrumentSummary(symbol, instrument_id, publisher_id, len(prices), infer_tick(prices) or 1)
