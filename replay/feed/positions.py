"""Where something is in a recording: a time, a fraction, an event, a trade, a change of the best prices. Floor 1.

A position is a count of records: what lies before it has been applied, the record with its number comes next. The
position of an event, a trade or a change is the one just behind its record, where the books show it.

Each answer costs a search in the marks of the index and a look at the 65,536 records of one segment between two of
them; best prices also cost the books of that segment: a keyframe, and the records from there. Nothing is kept between
two questions. What needs books raises IndexFault when their keyframe is damaged.

Times are capture times (ts_recv): they grow with the position, because they were taken as the records came in. Venue
times do not: several channels and clocks mix, and a snapshot's orders carry the times at which they were entered. Where
a file's capture times step back all the same, the latest so far counts.
"""

from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.audit import Audit
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import Action, BookKey, Flags, MboArray
from orderbook.book.protocol import Market
from orderbook.book.tape import Tape
from replay.feed.index import Index
from replay.feed.keyframe import Keyframe, restore
from replay.feed.marks import MARK_RECORDS, Crossings, in_snapshot_after, latest
from replay.feed.picture import capture

_LAST: Final = int(Flags.LAST)
_TRADE: Final = int(Action.TRADE)

Places = npt.NDArray[np.int64]


class Unit(StrEnum):
    """What positions are counted in, named as the counts of a mark."""

    RECORD = "position"
    EVENT = "events"
    TRADE = "trades"
    BBO = "bbos"  # changes of the best prices of any book, at event ends
    CROSSING = "crossings"  # event ends at which a book becomes crossed


def at_time(records: MboArray, index: Index, ts_recv: int) -> int:
    """Return the position of the first record that was captured at or after a time, ns: the end when none was."""
    latest_before = index.marks["ts_recv"]
    if ts_recv <= 0:
        return 0
    if ts_recv > int(latest_before[-1]):
        return len(records)
    number = int(np.searchsorted(latest_before, np.uint64(ts_recv))) - 1
    begin, end = _segment(index, number)
    times = latest(records[begin:end], int(latest_before[number]))
    return begin + int(np.searchsorted(times, np.uint64(ts_recv)))


def at_fraction(records: MboArray, fraction: float) -> int:
    """Return the position that has this part of the records before it, 0 to 1."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"expected a fraction from 0 to 1, found {fraction}")
    return int(fraction * len(records))


def count(records: MboArray, index: Index, unit: Unit, position: int, kind: BookKind = "kernel") -> int:
    """Return how many of a unit lie before a position."""
    if unit == Unit.RECORD or position <= 0:
        return max(position, 0)
    number = _segment_of(index, position)
    places = _places(records, index, unit, number, kind)
    return int(index.marks[unit][number]) + int(np.searchsorted(places, position, side="right"))


def position_of(records: MboArray, index: Index, unit: Unit, nth: int, kind: BookKind = "kernel") -> int:
    """Return the position behind the ``nth`` of a unit, from 1: 0 for less, the end when there are fewer."""
    counts = index.marks[unit]
    if nth <= 0:
        return 0
    if nth > int(counts[-1]):
        return len(records)
    if unit == Unit.RECORD:
        return nth
    number = int(np.searchsorted(counts, nth)) - 1
    return int(_places(records, index, unit, number, kind)[nth - int(counts[number]) - 1])


def step(records: MboArray, index: Index, unit: Unit, position: int, by: int = 1, kind: BookKind = "kernel") -> int:
    """Return the position ``by`` units further on, or back when it is negative; the start or the end at the most.

    From the middle of an event one back is the end of the event before, and one on is its own end.
    """
    if by == 0:
        return position
    before = count(records, index, unit, position if by > 0 else position - 1, kind) + (by < 0)
    return position_of(records, index, unit, before + by, kind)


def next_anomaly(records: MboArray, index: Index, position: int, kind: BookKind = "kernel") -> int | None:
    """Return the position behind the next record that is a data fault; None when no more come."""
    number = _segment_of(index, position)
    found = _first_anomaly(records, index, position, _segment(index, number)[1], kind)
    if found is None:
        grows = np.flatnonzero(np.diff(index.marks["anomalies"][number + 1 :]))
        if len(grows):
            found = _first_anomaly(records, index, *_segment(index, number + 1 + int(grows[0])), kind)
    return found


class _Rebuilt(NamedTuple):
    """The books of a position, and what is known of their way there."""

    market: Market
    tape: Tape
    crossings: Crossings
    in_snapshot: frozenset[BookKey]


def _segment_of(index: Index, record: int) -> int:
    """Return the number of the segment that a record lies in; the last one for what lies behind."""
    number = int(np.searchsorted(index.marks["position"], record, side="right")) - 1
    return min(number, len(index.marks) - 2)


def _segment(index: Index, number: int) -> tuple[int, int]:
    begin, end = index.marks["position"][number : number + 2].tolist()
    return begin, end


def _places(records: MboArray, index: Index, unit: Unit, number: int, kind: BookKind) -> Places:
    """Return the positions behind every one of a unit in a segment, ascending."""
    begin, end = _segment(index, number)
    part = records[begin:end]
    if unit == Unit.EVENT:
        return begin + 1 + np.flatnonzero(part["flags"] & _LAST)
    if unit == Unit.TRADE:
        return begin + 1 + np.flatnonzero(part["action"] == _TRADE)
    books = _rebuilt(records, index, begin, kind)
    before = books.tape.records
    books.market.apply(part, books.tape)
    places: Places = books.tape.bbos["record"] - before + begin + 1
    return places[books.crossings.take(books.tape.bbos)] if unit == Unit.CROSSING else places


def _rebuilt(records: MboArray, index: Index, position: int, kind: BookKind) -> _Rebuilt:
    """Return the books of a position, with an empty tape that knows what they wrote last."""
    tape, crossings, begin, market = Tape(), Crossings(), 0, make_market(kind)
    in_snapshot: frozenset[BookKey] = frozenset()
    number = index.nearest(position)
    if number is not None:
        keyframe, begin = index.keyframe(number), int(index.positions[number])
        market, in_snapshot = restore(keyframe, kind, tape), keyframe.picture.in_snapshot
    crossings.take(tape.bbos)
    for start in range(begin, position, MARK_RECORDS):
        part = records[start : min(start + MARK_RECORDS, position)]
        tape.empty()
        market.apply(part, tape)
        crossings.take(tape.bbos)
        in_snapshot = in_snapshot_after(part, in_snapshot)
    tape.empty()
    return _Rebuilt(market, tape, crossings, in_snapshot)


def _first_anomaly(records: MboArray, index: Index, begin: int, end: int, kind: BookKind) -> int | None:
    """Return the position behind the first fault of some records, by books that have counted none before."""
    books = _rebuilt(records, index, begin, kind)
    picture = capture(books.market, in_snapshot=books.in_snapshot)
    market = restore(Keyframe(picture, books.crossings.newest[:0]), kind)
    audit = Audit(every=max(end - begin, 1) + 1)  # of faults only: no book is checked
    market.apply_audited(records[begin:end], Tape(), audit)
    return begin + 1 + min(audit.first.values()) if audit.first else None
