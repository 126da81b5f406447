"""The benchmark of the whole way, run small: real processes, a real PostgreSQL and Redis of its own."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from engine_worker.benchmark.audience import Audience, watched
from orderbook.benchmark.socket_client import Target
from orderbook.benchmark.socket_load import Plan
from replay.benchmark.processes import BenchmarkError

KEYS = {
    "records", "elapsed_s", "records_per_s", "framing", "snapshots", "snapshots_stored", "snap_p50_us", "snap_p99_us",
    "apply_p50_ns", "apply_p99_ns", "apply_max_ns", "publish_p99_ms", "engine_cpu_s", "engine_peak_mb",
    "streamer_peak_mb",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "stored", "limits"),
    [
        (["--framing", "csv", "--rate", "40000"], False, ["pace"]),
        (["--framing", "dbn", "--database", "--snapshot-every", "20", "--replays", "2"], True, ["engine", "source"]),
    ],
)
def test_a_small_run_tells_every_figure(words: list[str], stored: bool, limits: list[str]) -> None:
    out = StringIO()
    call_command("benchpipeline", "--records", "40000", "--rounds", "1", "--json", *words, stdout=out)
    report = json.loads(out.getvalue())
    assert report.keys() >= KEYS
    assert (report["records"], report["framing"]) == (40000, words[1])
    assert report["snapshots_stored"] == (report["snapshots"] * report["replays"] if stored else 0)
    assert report["limit"] in limits
    for name in KEYS - {"framing", "snapshots_stored"}:
        assert report[name] > 0, name


def test_orders_that_rest_are_told_with_the_memory_that_they_take() -> None:
    out = StringIO()
    call_command("benchpipeline", "--resting", "--records", "30000", "--rounds", "1", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert report["resting_orders"] == report["records"] == 30000
    assert 0 < report["engine_mb_first"] <= report["engine_peak_mb"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--records", "0"], "--records: expected 1 to"),
        (["--rate", "-1"], "--rate: expected 1 to"),
        (["--clients", "3"], "--clients: expected --rate beside it"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("benchpipeline", *words)


def test_an_audience_needs_a_replay_that_is_long_enough() -> None:
    plan = Plan(Target("ws://127.0.0.1:1/ws", "", "", 50, 50), 0.0, 100.0, ())
    with pytest.raises(BenchmarkError, match=r"expected a replay of 5\.0 s with an audience, found 4\.9 s"):
        watched(Audience(100, [], plan), 4.9)
