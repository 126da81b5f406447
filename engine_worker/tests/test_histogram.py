"""Percentiles of true resolution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.histogram import ApplySampler, LatencyHistogram
from engine_worker.tests.builders import reference_book, session
from orderbook.book.market import make_market
from orderbook.book.mbo import Side
from orderbook.book.snapshot_tape import SnapshotRule, SnapshotTape


def test_an_empty_histogram_says_zero() -> None:
    histogram = LatencyHistogram()
    assert (histogram.percentile(99), histogram.max_ns, histogram.count) == (0, 0, 0)


def test_short_durations_are_exact() -> None:
    histogram = LatencyHistogram()
    histogram.add_many(np.arange(1, 101))
    assert [histogram.percentile(p) for p in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50), st.floats(0.1, 100))
def test_a_percentile_is_never_too_low_and_at_most_one_percent_too_high(values: list[int], percent: float) -> None:
    histogram = LatencyHistogram()
    histogram.add_many(np.array(values))
    exact = sorted(values)[max(int(np.ceil(len(values) * percent / 100)), 1) - 1]
    assert exact <= histogram.percentile(percent) <= exact * (1 + 1 / 128)
    assert histogram.max_ns == max(values)


@settings(deadline=None)
@given(st.lists(st.integers(-5, 2**45), max_size=50))
def test_one_by_one_and_all_at_once_count_the_same(values: list[int]) -> None:
    singly, together = LatencyHistogram(), LatencyHistogram()
    for value in values:
        singly.add(value)
    together.add_many(np.array(values, np.int64))
    assert (singly._counts == together._counts).all()
    assert (singly.count, singly.max_ns) == (together.count, together.max_ns)


def test_durations_beyond_the_last_bucket_show_the_exact_maximum() -> None:
    histogram = LatencyHistogram()
    histogram.add(2**50 + 1)
    assert histogram.percentile(99) == histogram.max_ns == 2**50 + 1


@pytest.mark.parametrize("kind", ["kernel", "reference"])
def test_the_sampler_applies_every_record_once_and_adds_the_time_of_decoding(kind: str) -> None:
    records = session(2000)
    sampler, market, histogram = ApplySampler(), make_market(kind), LatencyHistogram()
    tape = SnapshotTape(SnapshotRule(100, 0, 10))
    sampler.decode_ns = 10**6
    done = 0
    while done < 2000:
        done += sampler.apply(market, records[done : done + 700], tape)
        sampler.note(histogram)
    [book] = market.books.values()
    assert (tape.records, len(tape.rows) > 10) == (2000, True)
    assert (book.levels(Side.BID) == reference_book(records).levels(Side.BID)).all()
    assert 0 < histogram.count <= 2000
    assert histogram.percentile(1) >= 10**6


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**33), max_size=60))
def test_what_is_below_a_bound_is_counted_to_a_250th_of_it(values: list[int]) -> None:
    histogram = LatencyHistogram()
    histogram.add_many(np.array(values, np.int64))
    below, count = histogram.below(23)
    for doublings, found in enumerate(below):
        bound = 250 << doublings
        assert sum(value < bound for value in values) <= found <= sum(value < bound * (1 + 1 / 250) for value in values)
    assert (count, histogram.sum_ns) == (len(values), sum(values))
