"""Where something is in a recording, compared with a plain walk through all of it."""

import functools
from collections.abc import Callable

import numpy as np
import pytest

from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import UNDEF_PRICE, UNDEF_TIMESTAMP, MboArray
from orderbook.book.tape import Tape
from orderbook.tests.records import KINDS, LAST
from replay.feed.index import Index, IndexFault
from replay.feed.marks import latest
from replay.feed.positions import Unit, at_fraction, at_time, count, next_anomaly, position_of, step
from replay.tests.streams import STREAMS, eventful, index_bytes, index_of

Case = tuple[MboArray, Index]


@functools.cache
def case(name: str) -> Case:
    records = STREAMS[name]()
    return records, index_of(records)


@pytest.fixture(params=STREAMS)
def made(request: pytest.FixtureRequest) -> Case:
    return case(request.param)


def crossed_at(rows: np.ndarray) -> list[int]:
    crossed: dict[tuple[int, int], bool] = {}
    found = []
    for row in rows:
        key = int(row["publisher_id"]), int(row["instrument_id"])
        is_crossed = row["bid_px"] != UNDEF_PRICE and row["bid_px"] > row["ask_px"]
        if is_crossed and not crossed.get(key, False):
            found.append(int(row["record"]) + 1)
        crossed[key] = is_crossed
    return found


def walked(records: MboArray, unit: Unit) -> list[int]:
    """Return the position of every one of a unit, by one pass over everything."""
    if unit == Unit.RECORD:
        return list(range(1, len(records) + 1))
    if unit == Unit.EVENT:
        return [n + 1 for n, flags in enumerate(records["flags"].tolist()) if flags & LAST]
    if unit == Unit.TRADE:
        return [n + 1 for n, action in enumerate(records["action"].tolist()) if action == ord("T")]
    tape = Tape()
    make_market("kernel").apply(records, tape)
    return (tape.bbos["record"] + 1).tolist() if unit == Unit.BBO else crossed_at(tape.bbos)


@pytest.mark.parametrize("unit", Unit)
def test_each_of_a_unit_is_where_a_walk_finds_it(made: Case, unit: Unit) -> None:
    records, index = made
    places = walked(records, unit)
    assert index.marks[unit][-1] == len(places)
    chosen = np.unique(np.linspace(1, len(places), 60, dtype=int)).tolist() if places else []
    assert [position_of(records, index, unit, nth) for nth in chosen] == [places[nth - 1] for nth in chosen]
    assert position_of(records, index, unit, 0) == position_of(records, index, unit, -3) == 0
    assert position_of(records, index, unit, len(places) + 1) == len(records)


@pytest.mark.parametrize("unit", Unit)
def test_steps_on_and_back_lead_where_a_walk_leads(made: Case, unit: Unit) -> None:
    records, index = made
    places = np.array(walked(records, unit))
    rng = np.random.default_rng(5)
    positions = [0, 1, 255, 256, 257, len(records) - 1, len(records), *rng.integers(0, len(records), 15).tolist()]
    for position in positions:
        before = int((places <= position).sum())
        assert count(records, index, unit, position) == before
        for by in (1, 3, 400):
            on, back = places[places > position], places[places < position]
            assert step(records, index, unit, position, by) == (on[by - 1] if len(on) >= by else len(records))
            assert step(records, index, unit, position, -by) == (back[-by] if len(back) >= by else 0)
        assert step(records, index, unit, position, 0) == position


def test_the_reference_books_find_the_same(made: Case) -> None:
    records, index = made
    for unit in (Unit.BBO, Unit.CROSSING):
        for nth in (1, 17, int(index.marks[unit][-1])):
            if nth <= index.marks[unit][-1]:
                found = position_of(records, index, unit, nth, "reference")
                assert found == position_of(records, index, unit, nth)


def test_the_counts_do_not_depend_on_which_books_made_the_index() -> None:
    records = eventful(3, 3000)
    assert index_bytes(records, "reference") == index_bytes(records, "kernel")


def test_the_next_anomaly_is_the_first_record_that_a_book_counts(made: Case) -> None:
    records, index = made
    market = make_market("reference")
    places, counted = [], 0
    for number in range(len(records)):
        market.apply(records[number : number + 1])
        total = sum(sum(book.anomalies.values()) for book in market.books.values())
        places += [number + 1] if total > counted else []
        counted = total
    assert index.marks["anomalies"][-1] == counted
    last = places[-1] if places else 0
    for position in (0, 1, 256, 300, 2900, last - 1, last, len(records) - 1, len(records)):
        if position >= 0:
            expected = next((place for place in places if place > position), None)
            assert next_anomaly(records, index, position) == expected


def first_at(times: list[int], ts: int) -> int:
    return next((n for n, time in enumerate(times) if time >= ts), len(times))


def changed(records: MboArray, change: Callable[[MboArray], None]) -> MboArray:
    records = records.copy()
    change(records["ts_recv"])
    return records


def steps_back(times: MboArray) -> None:
    times[1000:1500] -= np.uint64(700_000)
    times[2000] += np.uint64(10**9)  # one clock was wrong for a moment


def is_missing(times: MboArray) -> None:
    times[:3] = UNDEF_TIMESTAMP
    times[777:900] = UNDEF_TIMESTAMP
    times[-1] = UNDEF_TIMESTAMP


@pytest.mark.parametrize("change", [lambda times: None, steps_back, is_missing])
def test_a_time_is_the_first_record_captured_then_or_later(change: Callable[[MboArray], None]) -> None:
    records = changed(eventful(3), change)
    index = index_of(records)
    times, newest = [], 0
    for time in records["ts_recv"].tolist():
        newest = max(newest, 0 if time == UNDEF_TIMESTAMP else time)
        times.append(newest)
    assert latest(records).tolist() == times
    asked = {0, 1, times[-1], times[-1] + 1, 2**64, -5, times[0], *times[250:260], *times[::97], times[2000]}
    for ts in sorted(asked | {ts + 1 for ts in asked} | {ts - 1 for ts in asked}):
        assert at_time(records, index, ts) == first_at(times, ts), ts


def test_looking_for_a_time_changes_no_record() -> None:
    records = eventful(1)[:1].copy()
    records["ts_recv"] = UNDEF_TIMESTAMP
    index = index_of(records)
    at_time(records, index, 0)
    at_time(records, index, 5)
    assert records["ts_recv"][0] == UNDEF_TIMESTAMP


def test_a_fraction_is_of_the_records() -> None:
    records = eventful(1)
    assert [at_fraction(records, part) for part in (0, 0.5, 0.25, 1)] == [0, 3000, 1500, 6000]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected a fraction from 0 to 1"):
            at_fraction(records, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_shorter_than_a_segment_needs_no_keyframe(kind: BookKind) -> None:
    records = eventful(1, 100)
    index = index_of(records, kind)
    assert len(index.positions) == 0
    assert step(records, index, Unit.BBO, 0, 5, kind) == walked(records, Unit.BBO)[4]
    assert next_anomaly(records, index, 0, kind) is not None


def test_a_damaged_keyframe_is_a_fault_and_no_answer() -> None:
    records = eventful(3)
    data = bytearray(index_bytes(records))
    data[1000] ^= 1
    index = Index(np.frombuffer(bytes(data), np.uint8), index_of(records).path)
    with pytest.raises(IndexFault, match="checksum of keyframe"):
        for position in index.positions.tolist():
            count(records, index, Unit.BBO, position + 1)
