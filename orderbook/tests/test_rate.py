"""How many messages a client may send."""

import pytest

from orderbook.rate import Allowance

PER_S = 20


def send(per_s: float, seconds: float, allowance: Allowance, start: float = 0.0) -> int:
    """Send at an even pace; return how many were allowed."""
    return sum(allowance.allows(start + number / per_s) for number in range(int(per_s * seconds)))


def test_so_many_a_second_and_as_many_at_once_are_allowed() -> None:
    allowance = Allowance(PER_S, 0.0)
    assert sum(allowance.allows(0.0) for _ in range(50)) == PER_S
    assert send(PER_S, 10, Allowance(PER_S, 0.0)) == 10 * PER_S


@pytest.mark.parametrize("per_s", [25, 100, 300, 1000])
def test_who_goes_on_too_fast_is_found_out_at_any_pace(per_s: float) -> None:
    allowance = Allowance(PER_S, 0.0)
    assert send(per_s, 10, allowance) <= 11 * PER_S
    assert allowance.refused >= PER_S


def test_who_rests_begins_anew() -> None:
    allowance = Allowance(PER_S, 0.0)
    send(100, 0.3, allowance)
    assert 0 < allowance.refused < PER_S
    assert allowance.allows(2.0)
    assert allowance.refused == 0
