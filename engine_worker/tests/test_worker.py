"""The engine's threads together, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine_worker.sinks.database import QUEUE_SNAPSHOTS
from engine_worker.tests.builders import FeedServer, config, dbn_bytes, send_and_stay, session
from engine_worker.worker import Worker
from orderbook.book.mbo import Flags

WaitFor = Callable[..., object]


def test_a_feed_that_waits_for_a_database_that_is_away_can_be_ended(
    tmp_path: Path, free_port: Callable[[], int], wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = free_port()
    records = session(QUEUE_SNAPSHOTS + 500)
    records["flags"] = Flags.LAST
    with FeedServer(send_and_stay(dbn_bytes(records))) as server:
        worker = Worker(
            config(
                tmp_path,
                port=server.port,
                snapshot_every=1,
                pg_conninfo=f"host=127.0.0.1 port={nowhere} dbname=nowhere",
                redis_url=f"redis://127.0.0.1:{nowhere}",
            )
        )
        worker.start()
        database = worker.sinks[0]
        wait_for(lambda: database.counters.blocked, timeout_s=20)
        assert worker.dead_threads() == []
        assert worker.status()["degraded"].keys() >= {"database"}
        worker.stop(drain_s=0.5)
    assert "feed" in worker.dead_threads()
    for sink in worker.sinks:
        counters = sink.counters
        done = counters.written + counters.duplicates + counters.dropped + counters.conflated
        assert counters.offered == done + counters.pending
    assert database.counters.pending >= QUEUE_SNAPSHOTS
    assert "not written at the end" in caplog.text
    engine = worker.engine.counters
    assert engine.received == engine.applied + engine.ignored + engine.rejected


def test_without_the_feed_file_there_is_no_jsonl_thread(tmp_path: Path) -> None:
    worker = Worker(config(tmp_path, feed_enabled=False, redis_url="redis://127.0.0.1:1"))
    assert [sink.name for sink in worker.sinks] == ["database", "broadcast"]
    assert worker.status()["feed_path"] == ""
    for sink in worker.sinks:
        sink._writer.close()
