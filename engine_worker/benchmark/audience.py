"""Clients of the web processes that look on while a replay runs, each a WebSocket that takes every book. Floor 3."""

from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from orderbook.benchmark.socket_load import Plan, measure_round
from replay.benchmark.processes import BenchmarkError

_AROUND_S: Final = 3.0
"""For the last client to have settled, and for all of them to go, within the replay."""
_LEAST_S: Final = 1.0


class Audience(NamedTuple):
    """Who looks on."""

    clients: int
    pipes: Sequence[Connection]
    """To the processes that hold them."""
    plan: Plan


def watched(audience: Audience, lasts_s: float) -> dict[str, Any]:
    """Let clients in, count what they get, and let them go, all while a replay of so many seconds runs.

    Raises BenchmarkError when one of them failed, or the replay is too short for them.
    """
    around_s = audience.clients / audience.plan.ramp_per_s + _AROUND_S
    seconds = lasts_s - around_s
    if seconds < _LEAST_S:
        raise BenchmarkError(
            f"expected a replay of {around_s + _LEAST_S:.1f} s with an audience, found {lasts_s:.1f} s"
        )
    found = measure_round(audience.pipes, audience.plan._replace(seconds=seconds), audience.clients)
    if found["failed"]:
        raise BenchmarkError(f"expected {audience.clients} clients to the end, found {found['faults']}")
    return {
        "clients": audience.clients,
        "books_per_client": found["msgs_per_client"],
        "books_expected": found["expected_per_client"],
        "staleness_p50_ms": found["staleness_p50_ms"],
        "staleness_p99_ms": found["staleness_p99_ms"],
        "staleness_max_ms": found["staleness_max_ms"],
        "web_cpu_s": found["server_cpu_s"],
        "web_peak_mb": found["server_peak_mb"],
    }
