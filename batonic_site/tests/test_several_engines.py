"""Engines with symbols of their own on one gateway, one data folder, one Redis and one PostgreSQL: real processes."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from django.test import Client

from batonic_site import health as health_module
from batonic_site.tests.fixtures import Spawn
from engine_worker.tests.builders import Desk
from engine_worker.tests.scrape import probe, scrape
from history.models import Snapshot
from orderbook.live import BOOK_KEY
from replay import driving
from replay.datasets import register
from replay.feed.sources import open_recording
from replay.simulator import instrument_ids, simulate, write_session
from replay.streamer.remote import StreamerRemote
from replay.tests.requests import run_request

SYMBOLS = ["CLX5", "ESZ5", "GCZ5"]
RECORDS = 12_000
EVERY = 100
PARTS = {"east": "CLX5,GCZ5", "west": "ESZ5"}


class Engines:
    """A streamer of one recording, and the engines that are started on it."""

    def __init__(self, spawn: Spawn, env: dict[str, str], folder: Path, free_port: Callable[[], int]) -> None:
        self.path = folder / "made.dbn"
        write_session(self.path, simulate(RECORDS, SYMBOLS, 7), instrument_ids(SYMBOLS))
        self.ports: dict[str, int] = {}
        self._spawn, self._free_port = spawn, free_port
        self._env = env | {"SNAPSHOT_EVERY": str(EVERY), "FEED_PROTOCOL": "live"}
        self._remote = StreamerRemote(env["REDIS_URL"])
        spawn("runstreamer", env=self._env, until=self._remote.status)

    def start(self, name: str, symbols: str) -> "subprocess.Popen[bytes]":
        """Start an engine; it is there once it is connected and has found everything that it needs."""
        port = self.ports[name] = self._free_port()
        env = self._env | {"ENGINE_NAME": name, "FEED_SYMBOLS": symbols, "METRICS_PORT": str(port)}
        return self._spawn("runengine", env=env, until=lambda: probe(port, "/readyz")[0] == 200)

    def replay(self) -> None:
        assert driving.start(run_request(register(self.path), {"records_per_s": 20_000}), self._remote)


@pytest.fixture
def engines(spawn: Spawn, process_env: dict[str, str], data_folder: Path, free_port: Callable[[], int]) -> Engines:
    return Engines(spawn, process_env, data_folder, free_port)


def stored_rows() -> list[tuple[Any, ...]]:
    names = ("symbol", "ts_event", "sequence", "best_bid_px", "best_ask_px")
    return sorted(Snapshot.objects.values_list(*names))


def rows_of_one_engine(path: Path, folder: Path) -> list[tuple[Any, ...]]:
    """Return the rows that one engine makes of all symbols, with the book that is written to be read."""
    recording = open_recording(path)
    desk = Desk(folder / "one", dict(recording.symbols), snapshot_every=EVERY, book="reference")
    desk.feed(recording.records)
    desk.engine.end()
    return sorted((s.symbol, s.ts_event, s.sequence, *_best(s)) for s in desk.snapshots)


def _best(snapshot: Any) -> list[Any]:
    return [int(side[0][0]) if len(side) else None for side in (snapshot.bids, snapshot.asks)]


def test_two_engines_keep_together_what_one_keeps_alone_and_a_third_adds_nothing(
    engines: Engines,
    data_folder: Path,
    redis_client: redis.Redis,
    admin_client: Client,
    wait_for: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "_PROCESSES", dict.fromkeys(health_module._PROCESSES, lambda: None))
    east, west = (engines.start(name, symbols) for name, symbols in PARTS.items())
    assert admin_client.get("/api/health").json()["reasons"] == []

    def runs_of(name: str) -> int:
        lines = data_folder / "benchmarks.jsonl"
        return lines.read_text().count(f'"engine": "{name}"') if lines.exists() else 0

    engines.replay()
    wait_for(lambda: runs_of("east") and runs_of("west"), 20, "the end of the replay in both")
    expected = rows_of_one_engine(engines.path, data_folder)
    assert len(expected) > 100
    wait_for(lambda: stored_rows() == expected, 10, "all rows")

    lines = (data_folder / "benchmarks.jsonl").read_text().splitlines()
    told = {line["engine"]: line for line in map(json.loads, lines)}
    assert {name: line["symbols"] for name, line in told.items()} == {"east": ["CLX5", "GCZ5"], "west": ["ESZ5"]}
    assert sum(line["processed"] for line in told.values()) == RECORDS
    for name, symbols in PARTS.items():
        feed = (data_folder / f"snapshots_feed-{name}.jsonl").read_text().splitlines()
        assert {json.loads(line)["symbol"] for line in feed} == set(symbols.split(","))
        seen = scrape(engines.ports[name])
        assert seen.value("mbo_build_info", engine=name) == 1
        assert seen.labels("mbo_book_state", "symbol") == set(symbols.split(","))
    assert sorted(path.name for path in (data_folder / "final_books").glob("*.json")) == [f"{s}.json" for s in SYMBOLS]
    assert all(redis_client.exists(BOOK_KEY.format(symbol=symbol)) for symbol in SYMBOLS)

    health = admin_client.get("/api/health").json()
    assert {engine["name"]: engine["ok"] for engine in health["engines"]} == {"east": True, "west": True}

    third = engines.start("third", "ALL_SYMBOLS")
    engines.replay()
    wait_for(lambda: runs_of("west") == 2 and runs_of("third"), 20, "the end of the second replay")
    wait_for(lambda: scrape(engines.ports["third"]).value("mbo_sink_queue_items", sink="database") == 0)
    overlapping = scrape(engines.ports["third"])
    assert overlapping.value("mbo_sink_duplicates_total", sink="database") >= len(expected)
    assert overlapping.value("mbo_sink_written_total", sink="database") == 0
    for process in (east, west, third):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(10) for process in (east, west, third)] == [0, 0, 0]
    assert stored_rows() == expected
