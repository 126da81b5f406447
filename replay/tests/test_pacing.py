"""The schedules against a made-up clock: mean, evenness, bursts, stalls, rests and changes in flight."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from orderbook.book.mbo import MBO, UNDEF_TIMESTAMP, MboArray
from replay.feed import pacing
from replay.feed.pacing import MILLION, SECOND_NS, TICK_NS, MarketPacer, MaxPacer, Pacer, RatePacer

RATES = [1, 7, 200, 1000, 10_000, 50_000, 500_000, 20_000_000]
TIMES = [0.1, 1, 10, 1000, 10_000]
MS = 1_000_000
ALL = 2**63 - 1
START_NS = 1_758_742_200_000_000_000

Steps = list[tuple[int, int]]


def play(pacer: Pacer, start_ns: int, duration_ns: int, jitter_ns: int = 0, out: int = 0, seed: int = 0) -> Steps:
    """Return (time, records out) at each step of a caller that waits as told, and oversleeps now and then."""
    rng = random.Random(seed)
    steps, now = [], start_ns
    while now < start_ns + duration_ns:
        out += pacer.due(now, ALL)
        steps.append((now, out))
        now += pacer.wait_ns(now) + (rng.randrange(jitter_ns) if jitter_ns else 0)
    now = start_ns + duration_ns
    steps.append((now, out + pacer.due(now, ALL)))
    return steps


def largest_step(steps: Steps) -> int:
    return max(after - before for (_, before), (_, after) in zip(steps, steps[1:], strict=False))


def recorded(gaps_ns: "list[int] | np.ndarray[tuple[int], np.dtype[np.int64]]") -> MboArray:
    """Return records captured so many ns after each other; the first gap is that before the second record."""
    records = np.zeros(len(gaps_ns) + 1, MBO)
    records["ts_recv"] = START_NS + np.concatenate([[0], np.cumsum(gaps_ns)])
    return records


def market(records: MboArray, times: float = 1, skip_ns: int | None = None, position: int = 0) -> MarketPacer:
    return MarketPacer(records, position, round(times * MILLION), skip_ns, 0)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("jitter_ns", [0, 4 * MS])
def test_mean_over_five_seconds_is_within_one_percent_and_no_step_is_longer_than_ten_ms(
    rate: int, jitter_ns: int
) -> None:
    steps = play(RatePacer(rate, 0), 0, 5 * SECOND_NS, jitter_ns)
    assert abs(steps[-1][1] - 5 * rate) <= max(5 * rate // 100, 1)
    assert largest_step(steps) <= max(rate // 100, 1)


@pytest.mark.parametrize("rate", RATES)
def test_no_record_goes_out_before_its_moment(rate: int) -> None:
    for now, out in play(RatePacer(rate, 0), 0, 2 * SECOND_NS, jitter_ns=3 * MS):
        assert out * SECOND_NS <= now * rate


@pytest.mark.parametrize("rate", [1, 200])
def test_low_rates_space_records_evenly(rate: int) -> None:
    steps = play(RatePacer(rate, 0), 0, 5 * SECOND_NS)
    times = [now for (_, before), (now, after) in zip(steps, steps[1:], strict=False) if after > before]
    gaps = {later - earlier for earlier, later in zip(times, times[1:], strict=False)}
    assert gaps == {SECOND_NS // rate}


@pytest.mark.parametrize("rate", [200, 1000, 500_000])
def test_a_stall_is_caught_up_at_twice_the_pace_and_never_in_one_burst(rate: int) -> None:
    pacer = RatePacer(rate, 0)
    before = play(pacer, 0, SECOND_NS)[-1][1]
    stalled_until = 2 * SECOND_NS
    steps = play(pacer, stalled_until, 2 * SECOND_NS, out=before)
    assert largest_step(steps) <= max(rate // 100, 1)
    assert abs(steps[-1][1] - 4 * rate) <= max(rate // 100, 1)
    earlier_ns, earlier = steps[0]
    for later_ns, later in steps[1:]:
        assert later - earlier <= 2 * rate * (later_ns - earlier_ns) / SECOND_NS + max(rate // 100, 1)


def test_a_caller_that_takes_less_gets_the_rest_later_and_none_twice() -> None:
    pacer = RatePacer(1000, 0)
    assert pacer.due(5 * MS, 3) == 3
    assert pacer.due(6 * MS, 0) == 0
    assert 3 + sum(pacer.due(ms * MS, ALL) for ms in range(6, 1001)) == 1000


def test_a_rate_owes_nothing_for_the_time_in_which_it_rested() -> None:
    pacer = RatePacer(1000, 0)
    before = play(pacer, 0, SECOND_NS)[-1][1]
    pacer.rest(SECOND_NS)
    pacer.go_on(60 * SECOND_NS)
    after = play(pacer, 60 * SECOND_NS, SECOND_NS)
    assert after[0][1] == 0, "no burst"
    assert before + after[-1][1] == 2000, "and no gap"


def test_without_a_pace_everything_is_due() -> None:
    pacer = MaxPacer()
    assert pacer.due(0, 5) == 5
    assert pacer.wait_ns(0) == 0


@pytest.mark.parametrize("make", [lambda: RatePacer(500_000, 0), lambda: market(recorded([2000] * 10_000))])
def test_a_clock_that_stands_still_hands_out_nothing_more(make: Callable[[], Pacer]) -> None:
    pacer = make()
    assert pacer.due(5 * MS, ALL) > 0
    assert sum(pacer.due(5 * MS, ALL) for _ in range(100)) == 0


def test_steps_are_never_closer_than_a_tick() -> None:
    assert RatePacer(500_000, 0).wait_ns(0) == TICK_NS
    assert market(recorded([10] * 9)).wait_ns(0) == TICK_NS


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("jitter_ns", [0, 3 * MS])
def test_market_time_is_never_early_and_late_by_no_more_than_the_tick_and_what_the_caller_overslept(
    times: float, jitter_ns: int
) -> None:
    rng = np.random.default_rng(5)
    gaps = (rng.exponential(2 * MS, 3000) * rng.choice([0, 0, 1, 20], 3000) * times).astype(np.int64)
    records = recorded(gaps)
    moments = ((records["ts_recv"] - records["ts_recv"][0]).astype(np.int64) / times).astype(np.int64)
    steps = play(market(records, times), 0, int(moments[-1]) + SECOND_NS, jitter_ns)
    assert steps[-1][1] == len(records)
    done = 0
    for now, out in steps:
        late = now - moments[done:out]
        assert len(late) == 0 or (late.min() >= -1 and late.max() <= TICK_NS + jitter_ns + 1)
        done = out


def test_market_time_goes_on_for_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_CHUNK", 7)
    gaps = np.random.default_rng(1).integers(0, 3 * MS, 500)
    whole = play(market(recorded(gaps)), 0, 2 * SECOND_NS)
    monkeypatch.undo()
    assert whole == play(market(recorded(gaps)), 0, 2 * SECOND_NS)
    assert whole[-1][1] == 501


def test_records_that_were_captured_together_go_out_together() -> None:
    steps = play(market(recorded([0] * 99 + [SECOND_NS] + [0] * 99)), 0, 2 * SECOND_NS)
    assert {out for _, out in steps} == {100, 200}


def test_where_capture_times_step_back_the_latest_so_far_counts() -> None:
    records = recorded([10 * MS, 10 * MS, 10 * MS])
    records["ts_recv"][2] -= 15 * MS
    assert [out for _, out in play(market(records), 0, 25 * MS)][-1] == 3
    pacer = market(records)
    assert [pacer.due(ms * MS, ALL) for ms in (9, 10, 29, 30)] == [1, 2, 0, 1]


@pytest.mark.parametrize("undefined", [UNDEF_TIMESTAMP, 0])
def test_a_record_without_a_time_goes_out_with_the_one_before_it(undefined: int) -> None:
    records = recorded([10 * MS] * 5)
    records["ts_recv"][[0, 1, 4]] = undefined
    pacer = market(records)
    assert pacer.due(0, ALL) == 3, "the first time that is known is nothing to wait for"
    assert pacer.due(9 * MS, ALL) == 0
    assert pacer.due(10 * MS, ALL) == 2
    assert [pacer.due(ms * MS, ALL) for ms in (29, 30)] == [0, 1]


def test_a_time_that_never_comes_is_waited_for_and_overflows_nothing() -> None:
    records = recorded([MS] * 3)
    records["ts_recv"][2:] = UNDEF_TIMESTAMP - 1
    pacer = market(records, 0.1)
    assert pacer.due(10 * MS, ALL) == 2
    assert pacer.due(10**9 * SECOND_NS, ALL) == 0
    assert pacer.wait_ns(0) > 10**9 * SECOND_NS
    assert market(records, 1, skip_ns=SECOND_NS).due(5 * MS, ALL) == 4


@pytest.mark.parametrize("times", [1, 1000])
def test_market_time_catches_a_stall_up_at_twice_the_pace(times: int) -> None:
    gap = 1000 * times  # a record each microsecond
    pacer = market(recorded([gap] * 4_000_000), times)
    before = play(pacer, 0, SECOND_NS // 2)[-1][1]
    steps = play(pacer, SECOND_NS, 2 * SECOND_NS, out=before)
    assert largest_step(steps) <= 10_000
    earlier_ns, earlier = steps[0]
    for later_ns, later in steps[1:]:
        assert later - earlier <= 2 * (later_ns - earlier_ns) / 1000 + 10_000
    caught_up = next(now for now, out in steps if out >= now // 1000)
    assert 1.4 * SECOND_NS < caught_up < 1.6 * SECOND_NS
    assert steps[-1][1] == 3_000_001


def test_sparse_records_are_caught_up_at_twice_the_pace_too() -> None:
    pacer = market(recorded([50 * MS] * 1000))
    pacer.due(0, ALL)
    steps = play(pacer, 10 * SECOND_NS, 20 * SECOND_NS, out=1)
    earlier_ns, earlier = steps[0]
    assert all(out - earlier <= 2 * (now - earlier_ns) / (50 * MS) + 1 for now, out in steps)
    assert steps[-1][1] == 601


def test_a_long_wait_between_two_records_is_not_taken_for_a_stall() -> None:
    pacer = market(recorded([10 * SECOND_NS] + [100_000] * 50))
    pacer.due(0, ALL)
    assert pacer.wait_ns(0) == 10 * SECOND_NS
    assert pacer.due(10 * SECOND_NS + 3 * MS, ALL) == 31, "slept through, and a little late"


@pytest.mark.parametrize("skip_ns", [60 * SECOND_NS, 0])
def test_a_gap_longer_than_what_is_skipped_takes_no_time(skip_ns: int) -> None:
    records = recorded([MS, 180 * SECOND_NS, MS, 59 * SECOND_NS, MS])
    steps = play(market(records, skip_ns=skip_ns), 0, 60 * SECOND_NS)
    assert steps[-1][1] == 6
    expected_ns = 59 * SECOND_NS + 3 * MS if skip_ns else 0
    assert next(now for now, out in steps if out == 6) == pytest.approx(expected_ns, abs=3 * TICK_NS)


def test_market_time_that_rested_goes_on_with_what_was_left_of_the_gap() -> None:
    pacer = market(recorded([10 * SECOND_NS, 10 * SECOND_NS]))
    pacer.due(0, ALL)
    pacer.due(4 * SECOND_NS, ALL)
    pacer.rest(4 * SECOND_NS)
    pacer.go_on(100 * SECOND_NS)
    assert pacer.due(100 * SECOND_NS, ALL) == 0
    assert pacer.wait_ns(100 * SECOND_NS) == 6 * SECOND_NS
    assert pacer.due(106 * SECOND_NS, ALL) == 1


def test_market_time_changed_in_flight_gives_neither_a_gap_nor_a_burst() -> None:
    pacer = market(recorded([MS] * 100_000))
    out = play(pacer, 0, SECOND_NS)[-1][1]
    assert out == 1001
    faster = pacer.changed(10 * MILLION, None, SECOND_NS)
    steps = play(faster, SECOND_NS, SECOND_NS)
    assert steps[0][1] == 0
    assert steps[-1][1] == 10_000
    assert largest_step(steps) <= 21
    slower = faster.changed(MILLION // 10, None, 2 * SECOND_NS)
    assert play(slower, 2 * SECOND_NS, SECOND_NS)[-1][1] == 100


def test_market_time_changed_in_the_middle_of_a_gap_shortens_what_is_left_of_it() -> None:
    pacer = market(recorded([10 * SECOND_NS] * 2))
    pacer.due(0, ALL)
    faster = pacer.changed(6 * MILLION, None, 4 * SECOND_NS)
    assert faster.wait_ns(4 * SECOND_NS) == SECOND_NS
    back = faster.changed(MILLION, None, 4 * SECOND_NS + SECOND_NS // 2)
    assert back.wait_ns(0) == 4 * SECOND_NS + SECOND_NS // 2 + 3 * SECOND_NS


def test_a_gap_that_is_waited_for_is_left_when_it_is_to_be_skipped() -> None:
    pacer = market(recorded([3600 * SECOND_NS, MS]))
    pacer.due(0, ALL)
    skipping = pacer.changed(MILLION, 60 * SECOND_NS, 5 * SECOND_NS)
    assert skipping.due(5 * SECOND_NS, ALL) == 1
    assert skipping.due(5 * SECOND_NS + MS, ALL) == 1


def test_what_was_owed_after_a_stall_is_forgiven_by_a_change() -> None:
    pacer = market(recorded([MS] * 100_000))
    pacer.due(0, ALL)
    pacer.due(60 * SECOND_NS, ALL)
    assert pacer.changed(MILLION, None, 60 * SECOND_NS).due(61 * SECOND_NS, ALL) <= 11


def test_the_next_round_of_market_time_begins_with_its_first_record() -> None:
    pacer = market(recorded([SECOND_NS] * 3))
    assert pacer.due(0, 1) == 1
    pacer.begin_round(2, 5 * SECOND_NS)
    assert [pacer.due(5 * SECOND_NS + ms * MS, ALL) for ms in (0, 999, 1000)] == [1, 0, 1]


def test_market_time_of_no_records_waits() -> None:
    pacer = market(recorded([MS])[:0])
    assert pacer.due(SECOND_NS, ALL) == 0
    assert pacer.wait_ns(SECOND_NS) == TICK_NS
