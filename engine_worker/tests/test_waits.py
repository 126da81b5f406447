"""Since when snapshots wait, and that the engine tells it of each of them."""

import json
from pathlib import Path

import numpy as np

from engine_worker.histogram import LatencyHistogram
from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.tests.builders import Desk, session
from engine_worker.waits import Waits


def test_a_snapshot_waits_from_the_end_of_its_event_and_for_its_encoding() -> None:
    waits, histogram, other = Waits(), LatencyHistogram(), LatencyHistogram()
    waits.add(np.array([50, 75, 125]), 200, 0)
    waits.add(np.array([1010]), 1030, 7)
    for _ in range(2):
        waits.note(histogram, other)
    assert [histogram.percentile(percent) for percent in (25, 50, 75, 100)] == [27, 75, 125, 150]
    assert histogram.count == other.count == 4


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
