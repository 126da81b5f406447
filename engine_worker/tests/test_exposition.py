"""What Prometheus is told of an engine in this process: names, labels and bounds."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest

from engine_worker import exposition
from engine_worker.exposition import BOUNDS, EngineCollector, registry_of
from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.histogram import LatencyHistogram
from engine_worker.lag import Lag
from engine_worker.sinks.base import Sink, ThreadedSink, Written
from engine_worker.tests.builders import Desk, blank, interleaved, session
from engine_worker.tests.parcels import Parcel, parcels
from engine_worker.tests.scrape import Scrape
from orderbook.book.anomaly import Anomaly
from orderbook.book.mbo import Flags, MboArray

ABBREVIATED = {"s", "ms", "us", "ns", "sec", "min", "b", "kb", "mb", "gb", "pct"}
NOT_BASE = {"milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "kilobytes", "megabytes", "percent"}
LABELS = {"engine", "version", "python", "book", "reason", "kind", "sink", "symbol", "side", "state", "le"}


class Feed:
    fault = ""

    def lag(self) -> Lag:
        return Lag(5600, 100, 250_000_000)


def scraped(desk: Desk, publish_ns: LatencyHistogram | None = None, *sinks: Sink[Any]) -> Scrape:
    collector = EngineCollector(desk.engine, [desk.stored, *sinks], Feed(), publish_ns or LatencyHistogram())
    return Scrape(generate_latest(registry_of(collector)).decode())


def fed(folder: Path, *batches: MboArray) -> Scrape:
    desk = Desk(folder)
    desk.feed(*batches, wait_ms=1500)
    desk.feed(blank(0), wait_ms=1500)
    return scraped(desk)


def test_every_metric_is_named_as_promtool_demands(tmp_path: Path) -> None:
    metrics = fed(tmp_path, session(500))
    ours = [family for family in metrics.families if not family.name.startswith("process_")]
    assert len(ours) > 40
    for family in ours:
        words = family.name.split("_")
        assert re.fullmatch(r"mbo_[a-z0-9_]+", family.name), family.name
        assert family.documentation.strip(), family.name
        assert not (ABBREVIATED | NOT_BASE) & set(words), family.name
        assert not {"counter", "gauge", "histogram", "total"} & set(words), family.name
        assert not family.name.endswith(("_count", "_sum", "_bucket", "_info")) or family.name == "mbo_build_info"
        for sample in family.samples:
            assert sample.name.endswith("_total") is (family.type == "counter"), sample.name
            assert set(sample.labels) <= LABELS, sample.labels


def test_the_process_tells_its_memory_and_its_processor_time(tmp_path: Path) -> None:
    metrics = fed(tmp_path)
    assert metrics.value("process_resident_memory_bytes") > 10**6
    assert metrics.value("process_cpu_seconds_total") > 0


def test_records_events_gaps_and_anomalies_are_counted(tmp_path: Path) -> None:
    records = session(1000)
    records["flags"][[10, 20, 30]] |= np.uint8(Flags.MAYBE_BAD_BOOK)
    records["order_id"][records["action"] == ord("C")] += 10**6
    metrics = fed(tmp_path, records[:600], records[600:])
    assert metrics.value("mbo_records_applied_total") == metrics.value("mbo_records_received_total") == 1000
    assert metrics.value("mbo_events_total") == np.count_nonzero(records["flags"] & int(Flags.LAST))
    assert metrics.value("mbo_sequence_gaps_total") == 3
    assert metrics.labels("mbo_anomalies_total", "kind") == set(Anomaly)
    assert metrics.value("mbo_anomalies_total", kind="unknown_cancel") == np.count_nonzero(
        records["action"] == ord("C")
    )
    metrics.check_equations()


@pytest.mark.parametrize("book", ["kernel", "reference"])
def test_counts_go_on_over_connections_and_runs(tmp_path: Path, book: str) -> None:
    desk = Desk(tmp_path, book=book)
    records = session(300)
    records["flags"][5] |= np.uint8(Flags.MAYBE_BAD_BOOK)
    for _ in range(3):
        desk.connect()
        desk.feed(records, wait_ms=1500)
        desk.engine.end()
    metrics = scraped(desk)
    assert metrics.value("mbo_sequence_gaps_total") == 3
    assert metrics.value("mbo_replay_runs_total") == 3
    assert metrics.value("mbo_records_applied_total") == 900
    assert metrics.value("mbo_snapshot_duration_seconds_count") == desk.engine.counters.snapshots > 3
    assert metrics.value("mbo_apply_duration_seconds_count") == desk.engine.sampler.apply_ns.count > 0


def test_a_book_tells_its_state_its_levels_and_its_orders(tmp_path: Path) -> None:
    records = session(500)
    desk = Desk(tmp_path)
    desk.feed(records, blank(0), wait_ms=1500)
    metrics, shown = scraped(desk), desk.engine.pusher.complete["CLX5"]
    assert metrics.value("mbo_book_state", symbol="CLX5") == 1
    assert metrics.value("mbo_book_state", symbol="CLX5", state=str(shown.state)) == 1
    assert metrics.value("mbo_book_levels", symbol="CLX5", side="bid") == len(shown.bids) > 0
    [book] = desk.engine._market.books.values()
    assert metrics.value("mbo_book_orders", symbol="CLX5") == len(book)
    assert metrics.value("mbo_book_event_timestamp_seconds", symbol="CLX5") == pytest.approx(shown.ts_event / 1e9)


def test_only_so_many_books_have_metrics_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "MAX_SYMBOLS", 1)
    metrics = fed(tmp_path, interleaved(session(200), session(200, instrument_id=8)))
    assert metrics.labels("mbo_book_state", "symbol") == {"CLX5"}
    assert (metrics.value("mbo_books"), metrics.value("mbo_books_unlisted")) == (2, 1)


def test_a_histogram_has_bounds_that_double_and_counts_that_add_up(tmp_path: Path) -> None:
    durations = LatencyHistogram()
    for ns in (100, 249, 251, 499, 10**6, 3 * 10**9):
        durations.add(ns)
    metrics = scraped(Desk(tmp_path), durations)
    below = {
        sample.labels["le"]: sample.value
        for sample in metrics.samples
        if sample.name == "mbo_event_to_publish_seconds_bucket"
    }
    assert [float(bound) for bound in BOUNDS[:3]] == [250e-9, 500e-9, 1e-6]
    assert 1 <= float(BOUNDS[-1]) < 1.1
    assert [below[bound] for bound in ("2.5e-07", "5e-07")] == [2, 4]
    assert list(below.values()) == sorted(below.values())
    assert (below["+Inf"], metrics.value("mbo_event_to_publish_seconds_count")) == (6, 6)
    assert metrics.value("mbo_event_to_publish_seconds_sum") == pytest.approx(
        sum((100, 249, 251, 499, 10**6, 3 * 10**9)) / 1e9
    )
    assert metrics.value("mbo_event_to_publish_longest_seconds") == 3


def test_the_lag_is_told_in_bytes_records_and_seconds(tmp_path: Path) -> None:
    metrics = fed(tmp_path)
    names = ("mbo_feed_unread_bytes", "mbo_feed_lag_records", "mbo_feed_lag_seconds")
    assert [metrics.value(name) for name in names] == [5600, 100, 0.25]


def test_what_waits_is_part_of_what_was_offered(tmp_path: Path) -> None:
    sink = ThreadedSink("jsonl", FifoMailbox[Parcel](4, 10, 0.001), Target())
    for parcel in parcels(range(6), 2):
        sink.offer(parcel)
    metrics = scraped(Desk(tmp_path), None, sink)
    metrics.check_equations()
    names = ("offered_total", "dropped_total", "queue_items", "queue_bytes", "queue_capacity_bytes")
    assert [metrics.value(f"mbo_sink_{name}", sink="jsonl") for name in names] == [6, 2, 4, 4, 4]


class Target:
    target, encode_ns = "The target", 0

    def write(self, batch: list[Parcel]) -> Written:
        return Written(sum(map(len, batch)))

    def close(self) -> None: ...
