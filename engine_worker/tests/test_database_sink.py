"""Snapshots in a real PostgreSQL."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from engine_worker.mailbox import FifoMailbox
from engine_worker.naming import Registered
from engine_worker.sinks import database
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from engine_worker.sinks.database import DatabaseWriter, database_sink
from engine_worker.tests.builders import TICK, Desk, clear, session
from engine_worker.tests.proxy import TcpProxy
from history.models import Instrument, Snapshot
from orderbook.book.mbo import UNDEF_TIMESTAMP, Action, BookKey, Flags, Side
from orderbook.book.price import SCALE
from orderbook.book.snapshot import BookSnapshot

WaitFor = Callable[..., object]


def taken(folder: Path, records: int = 1000, every: int = 10) -> list[BookSnapshot]:
    desk = Desk(folder, snapshot_every=every)
    desk.feed(session(records))
    return desk.snapshots


def stored() -> list[tuple[object, ...]]:
    return list(Snapshot.objects.order_by("ts_event").values_list("symbol", "ts_event", "sequence"))


def keys(snapshots: list[BookSnapshot]) -> list[tuple[object, ...]]:
    return [(p.symbol, p.ts_event, p.sequence) for p in snapshots]


@contextmanager
def writing(conninfo: str) -> Iterator[DatabaseWriter]:
    writer = DatabaseWriter(conninfo)
    yield writer
    writer.close()


@contextmanager
def running(sink: ThreadedSink[BookSnapshot]) -> Iterator[ThreadedSink[BookSnapshot]]:
    sink.start()
    yield sink
    sink.close(5)
    assert not sink.alive


def assert_closes(sink: ThreadedSink[BookSnapshot]) -> None:
    counters = sink.counters
    accounted = counters.written + counters.duplicates + counters.dropped + counters.conflated + counters.pending
    assert counters.offered == accounted


def test_the_statements_name_the_models_tables_and_columns() -> None:
    assert Snapshot._meta.db_table == database._TABLE
    assert Instrument._meta.db_table == database._INSTRUMENTS
    columns = [field.column for field in Snapshot._meta.fields if not field.primary_key]
    assert database._COLUMNS.split(", ") == columns


def test_a_row_says_what_the_snapshot_says(tmp_path: Path, pg_conninfo: str) -> None:
    snapshot = taken(tmp_path)[-1]
    with writing(pg_conninfo) as writer:
        assert writer.write([snapshot]) == Written(1)
    row = Snapshot.objects.get()
    assert row.pk
    assert (row.symbol, row.ts_event, row.ts_recv, row.sequence) == (
        "CLX5",
        snapshot.ts_event,
        snapshot.ts_recv,
        snapshot.sequence,
    )
    assert (row.best_bid_px, row.best_bid_sz, row.best_bid_ct) == snapshot.bbo.bid
    assert (row.best_ask_px, row.best_ask_sz, row.best_ask_ct) == snapshot.bbo.ask


def test_an_empty_side_has_no_price(tmp_path: Path, pg_conninfo: str) -> None:
    desk = Desk(tmp_path)
    desk.feed(session(10), clear(sequence=11))
    desk.engine.end()
    with writing(pg_conninfo) as writer:
        writer.write(desk.snapshots)
    row = Snapshot.objects.get()
    assert (row.best_bid_px, row.best_bid_sz, row.best_bid_ct) == (None, 0, 0)
    assert (row.best_ask_px, row.best_ask_sz, row.best_ask_ct) == (None, 0, 0)


def test_what_is_stored_already_is_counted_and_not_stored_again(tmp_path: Path, pg_conninfo: str) -> None:
    snapshots = taken(tmp_path)
    half = len(snapshots) // 2
    with writing(pg_conninfo) as writer:
        assert writer.write(snapshots[:half]) == Written(half)
        assert writer.write(snapshots) == Written(len(snapshots) - half, half)
        assert writer.write(snapshots) == Written(0, len(snapshots))
        assert writer.write(snapshots[:1] * 2) == Written(0, 2)
    assert stored() == keys(snapshots)


def test_equal_keys_in_one_batch_make_one_row(tmp_path: Path, pg_conninfo: str) -> None:
    snapshots = taken(tmp_path)[:3]
    with writing(pg_conninfo) as writer:
        assert writer.write(snapshots * 2) == Written(3, 3)
    assert stored() == keys(snapshots)


@pytest.mark.parametrize(
    ("field", "value"), [("ts_event", UNDEF_TIMESTAMP), ("ts_recv", UNDEF_TIMESTAMP), ("sequence", 2**63)]
)
def test_a_number_that_no_row_can_hold_is_refused_counted_and_logged_and_stops_nothing_behind_it(
    tmp_path: Path, pg_conninfo: str, caplog: pytest.LogCaptureFixture, field: str, value: int
) -> None:
    snapshots = taken(tmp_path)[:9]
    bad = replace(snapshots[4], **{field: value})
    with running(database_sink(pg_conninfo)) as sink:
        for snapshot in [*snapshots[:4], bad, *snapshots[5:]]:
            sink.offer(snapshot)
        assert sink.flush(10)
        assert (sink.counters.written, sink.counters.dropped, sink.degraded) == (8, 1, "")
    assert stored() == keys(snapshots[:4] + snapshots[5:])
    assert "refused 1 snapshots" in caplog.text
    assert f"'CLX5', sequence {bad.sequence}, ts_event {bad.ts_event}" in caplog.text


def test_a_server_that_takes_long_is_degraded_until_it_answers(
    tmp_path: Path, pg_conninfo: str, wait_for: WaitFor
) -> None:
    snapshots = taken(tmp_path)
    mailbox = FifoMailbox[BookSnapshot](1000, 100, 0.01)
    sink = ThreadedSink("database", mailbox, DatabaseWriter(pg_conninfo), stalled_after_s=0.2)
    with running(sink):
        with psycopg.connect(pg_conninfo) as other:
            other.execute("LOCK TABLE history_snapshot IN EXCLUSIVE MODE")
            for snapshot in snapshots:
                sink.offer(snapshot)
            wait_for(lambda: sink.degraded.startswith("PostgreSQL has not answered for "))
            assert sink.counters.written == 0
        assert sink.flush(10)
        assert sink.degraded == ""
    assert stored() == keys(snapshots)


def test_the_connection_asks_the_kernel_whether_the_server_lives(pg_conninfo: str) -> None:
    with writing(pg_conninfo) as writer, socket.socket(fileno=os.dup(writer._connect().fileno())) as own:
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == database.CONNECTION["keepalives_idle"]


def test_a_symbol_is_registered_once_its_prices_tell_a_tick(tmp_path: Path, pg_conninfo: str) -> None:
    records = session(2)
    records["flags"], records["action"] = Flags.LAST, Action.ADD
    records["side"], records["price"] = Side.BID, [0, 5 * SCALE]
    desk = Desk(tmp_path, snapshot_every=1)
    desk.feed(records)
    assert [snapshot.tick for snapshot in desk.snapshots] == [0, 5 * SCALE]
    with writing(pg_conninfo) as writer:
        writer.write(desk.snapshots[:1])
        assert not Instrument.objects.exists()
        writer.write(desk.snapshots[1:])
    assert Instrument.objects.get().tick_size == 5 * SCALE
    assert len(stored()) == 2


def test_a_new_symbol_becomes_an_instrument_with_the_tick_of_its_prices(tmp_path: Path, pg_conninfo: str) -> None:
    with writing(pg_conninfo) as writer:
        writer.write(taken(tmp_path))
    instrument = Instrument.objects.get()
    assert (instrument.symbol, instrument.instrument_id, instrument.publisher_id) == ("CLX5", 7, 1)
    assert instrument.tick_size == TICK


def test_an_instrument_that_is_known_keeps_its_tick(tmp_path: Path, pg_conninfo: str) -> None:
    Instrument.objects.create(symbol="CLX5", instrument_id=9, publisher_id=9, tick_size=5)
    with writing(pg_conninfo) as writer:
        writer.write(taken(tmp_path))
    assert Instrument.objects.get().tick_size == 5


def test_an_inferred_tick_becomes_finer_unless_somebody_corrected_it(tmp_path: Path, pg_conninfo: str) -> None:
    coarse, finer, finest = (
        Desk(tmp_path / str(tick), registered={"CLX5": Registered(BookKey(1, 7), tick)})
        for tick in (10 * TICK, TICK, TICK // 2)
    )
    for desk in (coarse, finer, finest):
        desk.feed(session(1000))
    with writing(pg_conninfo) as writer:
        writer.write(coarse.snapshots)
        writer.write(finer.snapshots)
        assert Instrument.objects.get().tick_size == TICK
        Instrument.objects.update(tick_size=7)
        writer.write(finest.snapshots)
    assert Instrument.objects.get().tick_size == 7


def test_a_server_that_is_away_refuses_the_batch_whole(free_port: Callable[[], int], tmp_path: Path) -> None:
    writer = DatabaseWriter(f"host=127.0.0.1 port={free_port()} dbname=nowhere")
    with pytest.raises(SinkUnavailable, match="refused"):
        writer.write(taken(tmp_path))
    assert writer.write([]) == Written(0)


def test_everything_is_stored_although_the_server_is_away_at_first_and_in_between(
    tmp_path: Path, pg_proxied: str, pg_proxy: TcpProxy, wait_for: WaitFor
) -> None:
    snapshots = taken(tmp_path, records=3000, every=5)
    third = len(snapshots) // 3
    with running(database_sink(pg_proxied)) as sink:
        for snapshot in snapshots[:third]:
            sink.offer(snapshot)
        wait_for(lambda: "refused" in sink.degraded)
        assert sink.counters.pending == third
        pg_proxy.up()
        assert sink.flush(10)
        assert sink.degraded == ""
        pg_proxy.down()
        for snapshot in snapshots[third : 2 * third]:
            sink.offer(snapshot)
        wait_for(lambda: sink.degraded)
        pg_proxy.up()
        for snapshot in snapshots[2 * third :]:
            sink.offer(snapshot)
        assert sink.flush(10)
        assert_closes(sink)
        assert sink.counters.written == len(snapshots)
    assert stored() == keys(snapshots)


def test_a_table_that_comes_later_is_waited_for(tmp_path: Path, pg_conninfo: str, wait_for: WaitFor) -> None:
    snapshots = taken(tmp_path)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE history_snapshot RENAME TO elsewhere")
    try:
        with running(database_sink(pg_conninfo)) as sink:
            for snapshot in snapshots:
                sink.offer(snapshot)
            wait_for(lambda: "history_snapshot" in sink.degraded)
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO history_snapshot")
            assert sink.flush(10)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE IF EXISTS elsewhere RENAME TO history_snapshot")
    assert len(stored()) == len(snapshots)


def test_a_full_queue_makes_the_feed_wait_and_loses_nothing(
    tmp_path: Path, pg_proxied: str, pg_proxy: TcpProxy, wait_for: WaitFor
) -> None:
    snapshots = taken(tmp_path)
    sink = ThreadedSink("database", FifoMailbox[BookSnapshot](20, 10, 0.01), DatabaseWriter(pg_proxied))
    with running(sink):
        for snapshot in snapshots[:15]:
            sink.offer(snapshot)
        wait_for(lambda: sink.degraded)
        pg_proxy.up()
        for snapshot in snapshots[15:]:
            sink.offer(snapshot)
        assert sink.flush(10)
        assert sink.counters.blocked > 0
        assert_closes(sink)
    assert stored() == keys(snapshots)


def test_the_end_leaves_what_cannot_be_written_and_says_so(
    tmp_path: Path, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    sink = database_sink(f"host=127.0.0.1 port={free_port()} dbname=nowhere")
    with caplog.at_level("ERROR"), running(sink):
        for snapshot in taken(tmp_path)[:9]:
            sink.offer(snapshot)
        sink.close(0.3)
    assert "9 not written at the end" in caplog.text
    assert sink.counters.pending == 9
    assert_closes(sink)


def test_the_sink_uses_a_connection_of_its_own(tmp_path: Path, pg_conninfo: str) -> None:
    assert settings.DATABASES["default"]["CONN_MAX_AGE"] == 0
    with writing(pg_conninfo) as writer:
        writer.write(taken(tmp_path))
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'batonic-engine'")
            assert cursor.fetchone() == (1,)
