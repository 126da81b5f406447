"""Waits between tries."""

from itertools import islice
from random import Random

from engine_worker.backoff import backoff


def test_waits_double_up_to_the_cap_and_the_first_is_short() -> None:
    for seed in range(100):
        waits = list(islice(backoff(0.05, 2.0, Random(seed)), 12))
        bounds = [min(0.05 * 2**n, 2.0) for n in range(12)]
        assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


def test_two_that_lost_the_same_server_wait_differently() -> None:
    assert list(islice(backoff(0.05, 2.0), 5)) != list(islice(backoff(0.05, 2.0), 5))
