"""The engine's threads together, in this process."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batonic_site.services.supervisor import Supervisor
from engine_worker.tests.builders import FeedServer, config, dbn_bytes, send_and_stay, session
from engine_worker.threads import DRAIN_S, EngineThreads
from orderbook.book.mbo import Flags

WaitFor = Callable[..., object]


def test_a_database_that_is_away_holds_nothing_up_and_what_waits_for_it_is_counted(
    tmp_path: Path, free_port: Callable[[], int], wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = free_port()
    records = session(20_000)
    records["flags"] = Flags.LAST
    with FeedServer(send_and_stay(dbn_bytes(records))) as server:
        threads = EngineThreads(
            config(
                tmp_path,
                port=server.port,
                snapshot_every=1,
                pg_conninfo=f"host=127.0.0.1 port={nowhere} dbname=nowhere",
                redis_url=f"redis://127.0.0.1:{nowhere}",
            )
        )
        threads.start()
        database = threads.sinks[0]
        wait_for(lambda: threads.engine.counters.applied == len(records), timeout_s=20)
        wait_for(lambda: database.degraded)
        assert threads.dead_threads() == []
        assert threads.status()["degraded"].keys() >= {"database"}
        threads.stop(drain_s=0.5)
    assert "feed" in threads.dead_threads()
    for sink in threads.sinks:
        counters = sink.counters
        done = counters.written + counters.duplicates + counters.dropped + counters.conflated
        assert counters.offered == done + counters.pending
    assert database.counters.pending == database.counters.on_disk == len(records)
    assert "not written at the end" in caplog.text
    engine = threads.engine.counters
    assert engine.received == engine.applied + engine.ignored + engine.rejected


def test_the_end_comes_before_the_supervisor_loses_patience() -> None:
    assert Supervisor(say=print).clients_stop_s > DRAIN_S + 0.5


def test_a_database_that_never_answers_does_not_hold_the_end_up(
    tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    records = session(500)
    with FeedServer(send_and_stay(dbn_bytes(records))) as server, FeedServer() as mute:
        threads = EngineThreads(
            config(
                tmp_path,
                port=server.port,
                snapshot_every=50,
                pg_conninfo=f"host=127.0.0.1 port={mute.port} dbname=mute",
                redis_url=f"redis://127.0.0.1:{mute.port}",
            )
        )
        threads.start()
        wait_for(lambda: mute.connections and threads.engine.counters.applied == len(records))
        taken = threads.engine.counters.snapshots
        begun = time.monotonic()
        threads.stop(drain_s=1)
        assert time.monotonic() - begun < 2
    wait_for(lambda: not threads.sinks[0].alive, what="the end of the database's thread, now that it is refused")
    assert f"database: {taken} not written at the end" in caplog.text
    assert threads.sinks[1].counters.written == taken


@pytest.mark.parametrize("stored", [True, False])
def test_there_is_a_thread_for_each_store_that_is_asked_for_and_no_other(tmp_path: Path, stored: bool) -> None:
    threads = EngineThreads(
        config(
            tmp_path,
            feed_enabled=not stored,
            pg_conninfo="host=127.0.0.1 port=1" if stored else "",
            redis_url="redis://127.0.0.1:1",
        )
    )
    assert [sink.name for sink in threads.sinks] == ["database" if stored else "jsonl", "broadcast"]
    assert bool(threads.status()["feed_path"]) is not stored
    for sink in threads.sinks:
        sink._writer.close()
