"""The load generator of /ws: one small run on servers of its own, and what it refuses."""

import json
import sys
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from batonic_site.services.process import is_listening
from batonic_site.tests.fixtures import Spawn
from engine_worker.benchmark import publisher_process
from engine_worker.benchmark.publisher_process import Publication
from replay.benchmark.processes import process
from replay.keys import create_key

ASKED_FOR = {
    "clients", "ok", "failed", "msgs_per_client", "msgs_per_s", "expected_per_client", "delivered_percent",
    "staleness_p50_ms", "staleness_p99_ms", "staleness_max_ms", "connect_p50_ms", "connect_p95_ms", "connect_p99_ms",
    "server_cpu_s", "server_core_percent", "server_peak_mb",
}  # fmt: skip


def test_a_small_run_on_servers_of_its_own_tells_every_figure() -> None:
    out = StringIO()
    words = ["--clients", "10", "--seconds", "1", "--depth", "20", "--web-processes", "1", "--churn", "20", "--json"]
    call_command("loadws", *words, stdout=out)
    report, churn = (json.loads(line) for line in out.getvalue().splitlines())
    assert report.keys() >= ASKED_FOR
    assert (report["clients"], report["ok"], report["failed"]) == (10, 10, 0), report["faults"]
    assert report["expected_per_client"] == 20 and 0 < report["published"] <= 21
    assert 0 < report["msgs_per_client"] <= 21  # how many it should be is for a quiet machine to tell
    assert 0 < report["staleness_p50_ms"] <= report["staleness_p99_ms"] <= report["staleness_max_ms"]
    assert 0 < report["connect_p50_ms"] <= report["connect_p95_ms"] <= report["connect_p99_ms"]
    assert report["server_cpu_s"] > 0 and report["server_peak_mb"] > 0 and len(report["server_spread"]) == 1
    assert (churn["churn"], churn["failed"]) == (20, 0), churn["faults"]
    assert churn["server_fds_after"] < churn["server_fds_before"] + 10, "of twenty sockets"


@pytest.mark.django_db(transaction=True)
def test_a_site_that_runs_is_loaded_with_the_key_of_the_environment(
    spawn: Spawn, process_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create_key(get_user_model().objects.create_user("rita"), "load", ["read"])[1]
    port = int(process_env["WEB_PORT"])
    spawn("runweb", until=lambda: is_listening(port))

    def load(key: str) -> dict[str, Any]:
        monkeypatch.setenv("LOADWS_KEY", key)
        out = StringIO()
        words = ["--url", f"http://127.0.0.1:{port}", "--clients", "3", "--seconds", "0.5", "--json"]
        call_command("loadws", *words, stdout=out)
        report: dict[str, Any] = json.loads(out.getvalue())
        return report

    with process(publisher_process.run, Publication("CLX5", 50, process_env["REDIS_URL"])):
        report = load(key)
        assert (report["ok"], report["failed"]) == (3, 0), report["faults"]
        assert report["msgs_per_client"] > 0
        if sys.platform == "linux":
            assert report["web_processes"] == 1 and report["server_peak_mb"] > 0
        report = load("db-wrong")
    assert (report["ok"], report["failed"], report["staleness_p99_ms"]) == (0, 3, None)
    assert list(report["faults"].values()) == [3] and "found 403" in next(iter(report["faults"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clients", "ten"], "--clients: expected numbers with commas between them, found 'ten'"),
        (["--clients", "10,0"], "--clients: expected 1 to 20,000, found 0"),
        (["--push-ms", "1"], "--push-ms: expected 10 to 5,000, found 1"),
        (["--url", "ftp://x"], "--url: expected ws://host:port/ws"),
        (["--url", "ws://x/ws?key=db-1"], "the key goes into LOADWS_KEY"),
        (["--url", "ws://db-1@x/ws"], "the key goes into LOADWS_KEY"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(words: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        call_command("loadws", *words)
