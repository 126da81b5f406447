"""The quality report: its shape as JSON. Made in building.py. Floor 1.

What may exceed 53 bits (times, durations, order ids, sequences, prices in 1e-9 units) is text, counts are numbers.
Nothing in it tells when, where or how fast it was made: the same file gives the same report.
"""

from typing import Final, TypedDict

VERSION: Final = 1
"""Of the shape and of what its words mean; a stored report of another version is not shown, but made anew."""

Evidence = dict[str, int | str]
"""One row of a tape or of a book, field by field."""


class Point(TypedDict):
    """One record of the stream."""

    record: int  # from 0
    order_id: str
    sequence: str
    ts_event: str | None  # None where the record has no time
    ts_event_ns: str
    publisher_id: int
    instrument_id: int
    symbol: str


class AnomalyReport(TypedDict):
    """How often one kind of data fault was met, and where first."""

    count: int
    first: Point | None


SequenceStep = TypedDict("SequenceStep", {"record": int, "from": str, "to": str})
"""A sequence that fell: from that of the record before on its channel, to that of this one."""


class TimeStep(TypedDict):
    """A capture time that fell, likewise."""

    record: int
    from_ts_recv: str
    from_ts_recv_ns: str
    to_ts_recv: str
    to_ts_recv_ns: str


class ChannelSteps(TypedDict):
    """The steps back of one channel of one publisher."""

    publisher_id: int
    channel_id: int
    count: int
    first: SequenceStep | TimeStep


class StepsReport(TypedDict):
    """Steps back, by channel; channels without any are absent."""

    count: int
    channels: list[ChannelSteps]


class Span(TypedDict):
    """A piece of the stream, by capture time. Its end is the stream's, and ``end_record`` None, while it is open."""

    begin_record: int
    end_record: int | None
    begin_ts_recv: str | None
    begin_ts_recv_ns: str
    end_ts_recv: str | None
    end_ts_recv_ns: str
    ns: str
    open: bool


class SpansReport(TypedDict):
    """Pieces of one kind: how many, how long in all, and the ones that are worth a look."""

    count: int
    total_ns: str
    first: Span | None
    last: Span | None
    longest: list[Span]


class IdleReport(SpansReport):
    """Times in which nothing was captured."""

    longer_than_ns: str


class Sides(TypedDict):
    """One number for each side of a book."""

    bid: int
    ask: int


class BestReport(TypedDict):
    """The best level of a side; ``px`` in 1e-9 units, ``px_f`` the same as a decimal."""

    px: str
    px_f: str
    sz: int
    ct: int


class InstrumentReport(TypedDict):
    """One instrument, and its book behind the last record."""

    publisher_id: int
    instrument_id: int
    symbol: str
    records: int
    orders: int
    levels: Sides
    best_bid: BestReport | None
    best_ask: BestReport | None
    state: str
    at_event_end: bool
    crossed: SpansReport
    locked: SpansReport
    hash: str


class Checks(TypedDict):
    """How the books were checked: which, at every how many event ends, and how often that was.

    A check is of the book of the event, in each kind of book; all books are checked once more behind the last record,
    which is not counted.
    """

    book: str
    every: int
    made: int


class Trades(TypedDict):
    """All trades of the stream."""

    count: int
    size: int


class Violation(TypedDict):
    """Why a stream is not ``ok``: a book that contradicts itself, or two books that differ."""

    book: str  # kernel, reference, or both where they differ
    kind: str  # invariant, bbo, trade, anomaly, level or order
    record: int | None  # behind which it showed; None when that was at the end of the stream
    text: str
    kernel: Evidence | None
    reference: Evidence | None


class Report(TypedDict):
    """Everything that ``verify`` finds.

    After a violation every count is that of the same records, the first ones of the stream: up to the record behind
    which a check failed, that check counted, or, where two books differ, to the end of the piece in which it showed.
    The books are then not to be trusted, so ``instruments`` is empty and ``hash`` None.
    """

    version: int
    ok: bool
    violation: Violation | None
    file: str
    format: str
    sha256: str | None
    checks: Checks
    records: int
    events: int
    bbo_changes: int
    trades: Trades
    anomaly_count: int
    anomalies: dict[str, AnomalyReport]  # of every kind, also of those that did not occur
    sequence_steps_back: StepsReport
    ts_recv_steps_back: StepsReport
    idle: IdleReport
    crossed_count: int
    locked_count: int
    instrument_count: int
    instruments: list[InstrumentReport]
    hash: str | None


class Failure(TypedDict):
    """Kept in place of a report that could not be made."""

    version: int
    error: str


def busiest(report: Report, count: int) -> list[InstrumentReport]:
    """Return the instruments with the most records, at most so many, in the order of the report."""
    found = report["instruments"]
    ranked = sorted(range(len(found)), key=lambda place: -found[place]["records"])
    return [found[place] for place in sorted(ranked[:count])]


def shortened(report: Report, instruments: int) -> Report:
    """Return the report with its busiest instruments only, at most so many: it has a bounded size."""
    return {**report, "instruments": busiest(report, instruments)}
