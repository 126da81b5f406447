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

from engine_worker.batch import SnapshotBatch
from engine_worker.book_names import BookName
from engine_worker.copy_rows import COLUMNS
from engine_worker.named_rows import NamedRows
from engine_worker.sinks import database
from engine_worker.sinks.base import SinkUnavailable, Written
from engine_worker.sinks.database import DatabaseSink, DatabaseWriter, database_sink
from engine_worker.sinks.deadline import CONNECTION
from engine_worker.spill import Spill
from engine_worker.spill_mailbox import SpillMailbox
from engine_worker.tests.batches import NAMES, TICK, batch, closes, without_bids
from engine_worker.tests.proxy import TcpProxy
from history.models import Instrument, Snapshot
from orderbook.book.mbo import UNDEF_TIMESTAMP, BookKey

WaitFor = Callable[..., object]


def part(count: int, first: int = 1, names: tuple[BookName, ...] = NAMES) -> NamedRows:
    found = batch(count, first=first, names=names)
    return NamedRows(found.rows, found.names)


def ticks(*ticks: int) -> list[NamedRows]:
    """Return a batch for each tick that its symbol has by then."""
    return [part(1, first, (NAMES[0]._replace(tick=tick),)) for first, tick in enumerate(ticks, 1)]


def stored() -> list[tuple[object, ...]]:
    return list(Snapshot.objects.order_by("ts_event").values_list("symbol", "ts_event", "sequence"))


def keys(*batches: SnapshotBatch | NamedRows) -> list[tuple[object, ...]]:
    return [
        (part.names[row["book"]].symbol, int(row["ts_event"]), int(row["sequence"]))
        for part in batches
        for row in part.rows
    ]


@contextmanager
def writing(conninfo: str) -> Iterator[DatabaseWriter]:
    writer = DatabaseWriter(conninfo)
    yield writer
    writer.close()


@contextmanager
def running(sink: DatabaseSink) -> Iterator[DatabaseSink]:
    sink.start()
    yield sink
    sink.close(5)
    assert not sink.alive


def test_the_statements_name_the_models_tables_and_columns() -> None:
    assert Snapshot._meta.db_table == database._TABLE
    assert Instrument._meta.db_table == database._INSTRUMENTS
    assert list(COLUMNS) == [field.column for field in Snapshot._meta.fields if not field.primary_key]


def test_a_row_says_what_the_snapshot_says(pg_conninfo: str) -> None:
    snapshots = batch(1, first=5)
    with writing(pg_conninfo) as writer:
        assert writer.write([NamedRows(snapshots.rows, snapshots.names)]) == Written(1)
    row = Snapshot.objects.get()
    said = snapshots.snapshot(0)
    assert row.pk
    assert row.symbol == "CLX5"
    assert (row.ts_event, row.ts_recv, row.sequence) == (said.ts_event, said.ts_recv, said.sequence)
    written = snapshots.rows[0]
    for side in ("bid", "ask"):
        for number in ("px", "sz", "ct"):
            assert getattr(row, f"best_{side}_{number}") == written[f"{side}_{number}"]


def test_an_empty_side_has_no_price_beside_rows_that_have_one(pg_conninfo: str) -> None:
    snapshots = without_bids(batch(3), every=2)
    with writing(pg_conninfo) as writer:
        writer.write([NamedRows(snapshots.rows, snapshots.names)])
    rows = list(Snapshot.objects.order_by("sequence"))
    assert [(row.best_bid_px is None, row.best_bid_sz, row.best_bid_ct) for row in rows] == [
        (True, 0, 0), (False, 3, 3), (True, 0, 0),
    ]  # fmt: skip
    assert all(row.best_ask_px for row in rows)


def test_books_of_several_names_and_batches_go_in_one_copy(pg_conninfo: str) -> None:
    names = tuple(
        BookName(symbol, TICK, BookKey(1, number)) for number, symbol in enumerate(("A", "Übermaß", "C" * 71))
    )
    batches = [part(5, 1, names), part(4, 6, names[1:]), part(1, 10)]
    with writing(pg_conninfo) as writer:
        assert writer.write(batches) == Written(10)
    assert stored() == keys(*batches)
    assert set(Instrument.objects.values_list("symbol", flat=True)) == {name.symbol for name in (*names, *NAMES)}


def test_what_is_stored_already_is_counted_and_not_stored_again(pg_conninfo: str) -> None:
    first, whole = part(50), part(100)
    with writing(pg_conninfo) as writer:
        assert writer.write([first]) == Written(50)
        assert writer.write([whole]) == Written(50, 50)
        assert writer.write([whole]) == Written(0, 100)
        assert writer.write([part(1), part(1)]) == Written(0, 2)
        assert writer.write([part(20, 101)]) == Written(20)
    assert stored() == keys(part(120))


def test_equal_keys_in_one_batch_make_one_row(pg_conninfo: str) -> None:
    with writing(pg_conninfo) as writer:
        assert writer.write([part(3), part(3)]) == Written(3, 3)
    assert stored() == keys(part(3))


@pytest.mark.parametrize("field", ["ts_event", "ts_recv"])
def test_a_number_that_no_row_can_hold_is_refused_counted_and_logged_and_stops_nothing_behind_it(
    tmp_path: Path, pg_conninfo: str, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    snapshots = batch(9)
    snapshots.rows[field][4] = UNDEF_TIMESTAMP
    with running(database_sink(pg_conninfo, tmp_path)) as sink:
        sink.offer(snapshots)
        assert sink.flush(10)
        assert (sink.counters.written, sink.counters.dropped, sink.degraded) == (8, 1, "")
        assert closes(sink.counters)
    assert stored() == keys(snapshots[:4], snapshots[5:])
    assert "refused 1 snapshots" in caplog.text
    assert f"'CLX5', sequence 5, ts_event {snapshots.rows['ts_event'][4]}" in caplog.text


def test_a_name_that_no_row_can_hold_is_refused_and_makes_no_instrument(pg_conninfo: str) -> None:
    names = (NAMES[0], BookName("D" * 72, TICK, BookKey(1, 8)), BookName("N\0L", TICK, BookKey(1, 9)))
    with writing(pg_conninfo) as writer:
        assert writer.write([part(6, names=names)]) == Written(2, 0, 4)
    assert Instrument.objects.get().symbol == "CLX5"
    assert len(stored()) == 2


def test_a_server_that_takes_long_is_degraded_until_it_answers(
    tmp_path: Path, pg_conninfo: str, wait_for: WaitFor
) -> None:
    sink = database_sink(pg_conninfo, tmp_path)
    sink._stalled_after_s = 0.2
    snapshots = batch(100)
    with running(sink):
        with psycopg.connect(pg_conninfo) as other:
            other.execute("LOCK TABLE history_snapshot IN EXCLUSIVE MODE")
            sink.offer(snapshots)
            wait_for(lambda: sink.degraded.startswith("PostgreSQL has not answered for "))
            assert sink.counters.written == 0
        assert sink.flush(10)
        assert sink.degraded == ""
    assert stored() == keys(snapshots)


def test_a_batch_that_gets_no_answer_in_time_is_given_up_with_more_patience_each_time_and_stored_once(
    pg_conninfo: str,
) -> None:
    writer = DatabaseWriter(pg_conninfo, answer_s=0.1)
    with psycopg.connect(pg_conninfo) as other:
        other.execute("LOCK TABLE history_snapshot IN EXCLUSIVE MODE")
        for patience_s in (0.2, 0.4):
            with pytest.raises(SinkUnavailable, match="PostgreSQL does not answer"):
                writer.write([part(5)])
            assert writer._answer_s == patience_s
    written = writer.write([part(5)])
    assert written.written + written.duplicates == 5
    assert writer._answer_s == 0.1
    assert stored() == keys(part(5))
    writer.close()


def test_the_end_does_not_wait_for_an_answer(pg_conninfo: str, tmp_path: Path, wait_for: WaitFor) -> None:
    sink = database_sink(pg_conninfo, tmp_path)
    sink.start()
    with psycopg.connect(pg_conninfo) as other:
        other.execute("LOCK TABLE history_snapshot IN EXCLUSIVE MODE")
        sink.offer(batch(5))
        wait_for(lambda: sink._writing_since and sink._writer._connection)
        sink.close(0.6)
        assert not sink.alive
    assert (sink.counters.pending, sink.counters.on_disk) == (5, 5)
    assert "when the engine ended" in sink.degraded


def test_the_connection_asks_the_kernel_whether_the_server_lives(pg_conninfo: str) -> None:
    with writing(pg_conninfo) as writer, socket.socket(fileno=os.dup(writer._connect().fileno())) as own:
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == CONNECTION["keepalives_idle"]


def test_a_symbol_is_registered_once_its_prices_tell_a_tick(pg_conninfo: str) -> None:
    unknown, known = ticks(0, 5 * TICK)
    with writing(pg_conninfo) as writer:
        writer.write([unknown])
        assert not Instrument.objects.exists()
        writer.write([known])
    instrument = Instrument.objects.get()
    assert (instrument.symbol, instrument.publisher_id, instrument.instrument_id) == ("CLX5", 1, 7)
    assert instrument.tick_size == 5 * TICK
    assert len(stored()) == 2


def test_an_instrument_that_is_known_keeps_its_tick(pg_conninfo: str) -> None:
    Instrument.objects.create(symbol="CLX5", instrument_id=9, publisher_id=9, tick_size=5)
    with writing(pg_conninfo) as writer:
        writer.write(ticks(3))
    assert Instrument.objects.get().tick_size == 5


def test_an_inferred_tick_becomes_finer_unless_somebody_corrected_it(pg_conninfo: str) -> None:
    coarse, finer, finest = ticks(10 * TICK, TICK, TICK // 2)
    with writing(pg_conninfo) as writer:
        writer.write([coarse, finer])
        assert Instrument.objects.get().tick_size == TICK
        Instrument.objects.update(tick_size=7)
        writer.write([finest])
    assert Instrument.objects.get().tick_size == 7


def test_a_server_that_is_away_refuses_the_batch_whole(free_port: Callable[[], int]) -> None:
    writer = DatabaseWriter(f"host=127.0.0.1 port={free_port()} dbname=nowhere")
    with pytest.raises(SinkUnavailable, match="refused"):
        writer.write([part(5)])
    with pytest.raises(SinkUnavailable, match="refused"):
        writer.write([])  # looks whether the server lives


def test_everything_is_stored_although_the_server_is_away_at_first_and_in_between(
    tmp_path: Path, pg_proxied: str, pg_proxy: TcpProxy, wait_for: WaitFor
) -> None:
    snapshots = batch(600)
    with running(database_sink(pg_proxied, tmp_path)) as sink:
        sink.offer(snapshots[:200])
        wait_for(lambda: "refused" in sink.degraded)
        assert sink.counters.pending == 200
        pg_proxy.up()
        assert sink.flush(10)
        assert sink.degraded == ""
        pg_proxy.down()
        sink.offer(snapshots[200:400])
        wait_for(lambda: sink.degraded)
        pg_proxy.up()
        sink.offer(snapshots[400:])
        assert sink.flush(10)
        assert closes(sink.counters)
        assert sink.counters.written + sink.counters.duplicates == 600
    assert stored() == keys(snapshots)


def test_a_table_that_comes_later_is_waited_for(tmp_path: Path, pg_conninfo: str, wait_for: WaitFor) -> None:
    snapshots = batch(100)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE history_snapshot RENAME TO elsewhere")
    try:
        with running(database_sink(pg_conninfo, tmp_path)) as sink:
            sink.offer(snapshots)
            wait_for(lambda: "history_snapshot" in sink.degraded)
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO history_snapshot")
            assert sink.flush(10)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE IF EXISTS elsewhere RENAME TO history_snapshot")
    assert len(stored()) == len(snapshots)


def test_what_a_server_that_is_away_does_not_take_goes_to_the_disk_and_is_stored_in_order_later(
    tmp_path: Path, pg_proxied: str, pg_proxy: TcpProxy, wait_for: WaitFor
) -> None:
    snapshots = batch(20_000)
    with running(database_sink(pg_proxied, tmp_path, queue_bytes=100_000)) as sink:
        for begin in range(0, len(snapshots), 100):
            sink.offer(snapshots[begin : begin + 100])
            wait_for(lambda: sink._box._bytes <= 60_000)
        wait_for(lambda: sink.degraded)
        assert sink.counters.on_disk > 15_000
        assert closes(sink.counters)
        pg_proxy.up()
        assert sink.flush(20)
        assert closes(sink.counters)
        assert (sink.counters.written, sink.counters.dropped) == (20_000, 0)
        assert sink.counters.on_disk == 0
    assert stored() == keys(snapshots)
    assert list(Snapshot.objects.order_by("pk").values_list("sequence", flat=True)) == list(range(1, 20_001))
    assert list(tmp_path.glob("*.spill")) == []


def test_with_memory_and_disk_full_the_newest_are_dropped_counted_told_and_shown(
    tmp_path: Path, pg_proxied: str, pg_proxy: TcpProxy, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = batch(10_000)
    with running(database_sink(pg_proxied, tmp_path, queue_bytes=100_000, spill_bytes=200_000)) as sink:
        for begin in range(0, len(snapshots), 100):
            sink.offer(snapshots[begin : begin + 100])
            wait_for(lambda: sink._box._bytes <= 60_000 or sink._box.fault)
        wait_for(lambda: "limit of 0 MB is reached" in sink.degraded)
        wait_for(lambda: "snapshots dropped so far" in sink.degraded)
        assert "database: dropped" in caplog.text
        assert sum(path.stat().st_size for path in tmp_path.glob("*.spill")) <= 200_000
        kept = 10_000 - sink.counters.dropped
        assert 2_000 < kept < 4_000
        pg_proxy.up()
        assert sink.flush(20)
        wait_for(lambda: sink.degraded == "")
        assert closes(sink.counters)
        assert sink.counters.written == kept
    assert stored() == keys(snapshots[:kept])


def test_the_end_leaves_what_cannot_be_written_on_disk_and_says_so_and_the_next_engine_writes_it(
    tmp_path: Path, pg_conninfo: str, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = batch(9)
    with running(database_sink(f"host=127.0.0.1 port={free_port()} dbname=nowhere", tmp_path)) as sink:
        sink.offer(snapshots[:7])
        sink.close(0.3)
    assert "database: 7 not written at the end" in caplog.text
    assert "7 of them wait on disk for the next engine" in caplog.text
    assert (sink.counters.pending, sink.counters.on_disk) == (7, 7)
    assert closes(sink.counters)
    with running(database_sink(pg_conninfo, tmp_path)) as heir:
        heir.offer(snapshots[7:])
        assert heir.flush(10)
        assert (heir.counters.offered, heir.counters.written) == (9, 9)
    assert "7 snapshots that an earlier engine could not write come first" in caplog.text
    assert stored() == keys(snapshots)
    assert list(tmp_path.glob("*.spill")) == []


def test_a_spill_that_cannot_be_made_is_shown_while_memory_is_short_of_it(
    tmp_path: Path, pg_proxied: str, wait_for: WaitFor
) -> None:
    (tmp_path / "file").write_text("")
    box = SpillMailbox(10_000, 10, 0.01, Spill(tmp_path / "file", 1 << 20))
    with running(DatabaseSink(box, DatabaseWriter(pg_proxied))) as sink:
        for first in range(1, 200):
            sink.offer(batch(1, first=first))
        wait_for(lambda: "file: File exists" in sink.degraded)
        assert sink.counters.dropped > 0
        sink.close(0.1)
        assert closes(sink.counters)


def test_the_sink_uses_a_connection_of_its_own(pg_conninfo: str) -> None:
    assert settings.DATABASES["default"]["CONN_MAX_AGE"] == 0
    with writing(pg_conninfo) as writer:
        writer.write([part(5)])
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'batonic-engine'")
            assert cursor.fetchone() == (1,)


def test_a_batch_is_not_changed_by_being_written(pg_conninfo: str) -> None:
    names = (NAMES[0], NAMES[0]._replace(symbol="ESZ5"))
    snapshots = replace(batch(4, names=names))
    before = snapshots.rows.tobytes()
    with writing(pg_conninfo) as writer:
        writer.write([part(1, 9), NamedRows(snapshots.rows, snapshots.names)])
    assert snapshots.rows.tobytes() == before
