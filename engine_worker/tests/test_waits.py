"""How long snapshots wait from the end of their event on: the engine tells it of each of them."""

import json
from pathlib import Path

import numpy as np

from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.tests.builders import Desk, session


def test_every_snapshot_of_a_replay_is_in_the_histogram(tmp_path: Path) -> None:
    desk = Desk(tmp_path, snapshot_every=10)
    desk.feed(*np.array_split(session(3000), 5))
    desk.engine.end()
    run = desk.engine.shown
    assert run.snap_ns.count == desk.engine.snap_ns.count == len(desk.snapshots) > 200
    assert 0 < run.snap_ns.percentile(1) <= run.snap_ns.percentile(50) <= run.snap_ns.max_ns


def test_what_encoding_takes_a_store_is_part_of_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, snapshot_every=10)
    desk.stored.encode_ns = 10**12
    desk.feed(session(500))
    desk.engine.end()
    [line] = map(json.loads, (tmp_path / "benchmarks.jsonl").read_text().splitlines())
    assert line["snap_p50_ms"] >= 10**6


def test_a_writer_tells_what_encoding_took_a_snapshot(tmp_path: Path) -> None:
    desk = Desk(tmp_path, snapshot_every=10)
    desk.feed(session(2000))
    writer = JsonlWriter(tmp_path / "feed.jsonl", 50)
    assert writer.encode_ns == 0
    writer.write(desk.stored.items)
    writer.close()
    assert 0 < writer.encode_ns < 10**9
