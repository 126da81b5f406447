"""The schedule against a simulated clock: mean, evenness, bursts, stalls and changes in flight."""

import random

import pytest

from replay.feed.pacing import NO_LIMIT, SECOND_NS, TICK_NS, Pacer

RATES = [1, 7, 200, 1000, 10_000, 50_000, 500_000, 20_000_000]
MS = 1_000_000


def play(pacer: Pacer, start_ns: int, duration_ns: int, jitter_ns: int = 0, seed: int = 0) -> list[tuple[int, int]]:
    """Return (time, records out) at each step of a caller that waits as told, and oversleeps now and then."""
    rng = random.Random(seed)
    steps, now = [], start_ns
    while now < start_ns + duration_ns:
        steps.append((now, pacer.due(now)))
        now += pacer.wait_ns(now) + (rng.randrange(jitter_ns) if jitter_ns else 0)
    now = start_ns + duration_ns
    steps.append((now, pacer.due(now)))
    return steps


def largest_step(steps: list[tuple[int, int]]) -> int:
    return max(after - before for (_, before), (_, after) in zip(steps, steps[1:], strict=False))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("jitter_ns", [0, 4 * MS])
def test_mean_over_five_seconds_is_within_one_percent_and_no_step_is_longer_than_ten_ms(
    rate: int, jitter_ns: int
) -> None:
    steps = play(Pacer(rate, 0), 0, 5 * SECOND_NS, jitter_ns)
    assert abs(steps[-1][1] - 5 * rate) <= max(5 * rate // 100, 1)
    assert largest_step(steps) <= max(rate // 100, 1)


@pytest.mark.parametrize("rate", RATES)
def test_no_record_goes_out_before_its_moment(rate: int) -> None:
    for now, out in play(Pacer(rate, 0), 0, 2 * SECOND_NS, jitter_ns=3 * MS):
        assert out * SECOND_NS <= now * rate


@pytest.mark.parametrize("rate", [1, 200])
def test_low_rates_space_records_evenly(rate: int) -> None:
    steps = play(Pacer(rate, 0), 0, 5 * SECOND_NS)
    times = [now for (_, before), (now, after) in zip(steps, steps[1:], strict=False) if after > before]
    gaps = {later - earlier for earlier, later in zip(times, times[1:], strict=False)}
    assert gaps == {SECOND_NS // rate}


@pytest.mark.parametrize("rate", [200, 1000, 500_000])
def test_a_stall_is_caught_up_at_twice_the_pace_and_never_in_one_burst(rate: int) -> None:
    pacer = Pacer(rate, 0)
    play(pacer, 0, SECOND_NS)
    stalled_until = 2 * SECOND_NS
    steps = play(pacer, stalled_until, 2 * SECOND_NS)
    assert largest_step(steps) <= max(rate // 100, 1)
    assert abs(steps[-1][1] - 4 * rate) <= max(rate // 100, 1)
    for earlier_ns, earlier in steps:
        for later_ns, later in steps:
            if later_ns > earlier_ns:
                burst = max(rate // 100, 1)
                assert later - earlier <= 2 * rate * (later_ns - earlier_ns) / SECOND_NS + burst
        break  # from the end of the stall on


def test_a_change_in_flight_gives_neither_a_gap_nor_a_burst() -> None:
    pacer = Pacer(1000, 0)
    before = play(pacer, 0, SECOND_NS)[-1][1]
    pacer.change(50_000, SECOND_NS, before)
    assert pacer.due(SECOND_NS) == before
    after = play(pacer, SECOND_NS, SECOND_NS)
    assert largest_step(after) <= 500
    assert abs(after[-1][1] - before - 50_000) <= 500


def test_a_change_after_a_stall_forgives_what_was_owed_at_the_old_pace() -> None:
    pacer = Pacer(1000, 0)
    pacer.change(10, 60 * SECOND_NS, 0)
    assert pacer.due(61 * SECOND_NS) <= 10


def test_without_a_rate_everything_is_due_and_going_back_to_one_starts_from_here() -> None:
    pacer = Pacer(None, 0)
    assert pacer.due(0) == NO_LIMIT
    assert pacer.wait_ns(0) == 0
    pacer.change(1000, SECOND_NS, 5_000_000)
    assert play(pacer, SECOND_NS, SECOND_NS)[-1][1] == pytest.approx(5_001_000, abs=10)


def test_a_clock_that_stands_still_hands_out_nothing_more() -> None:
    pacer = Pacer(500_000, 0)
    first = pacer.due(5 * MS)
    assert first > 0
    assert [pacer.due(5 * MS) for _ in range(100)] == [first] * 100


def test_steps_are_never_closer_than_a_tick() -> None:
    pacer = Pacer(500_000, 0)
    assert pacer.wait_ns(0) == TICK_NS
