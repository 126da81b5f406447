"""The database sink when its server is killed or frozen and when the engine itself is killed: real ones, by signal."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from psycopg.conninfo import make_conninfo
from pytest_django import DjangoDbBlocker

from engine_worker.named_rows import NamedRows
from engine_worker.sinks.base import SinkUnavailable
from engine_worker.sinks.database import DatabaseSink, DatabaseWriter
from engine_worker.spill import Spill
from engine_worker.spill_mailbox import SpillMailbox
from engine_worker.tests.batches import batch, closes
from engine_worker.tests.proxy import TcpProxy
from engine_worker.tests.servers import PostgresServer

WaitFor = Callable[..., object]

DOOMED = """
import sys, time
from pathlib import Path
import django
django.setup()
from engine_worker.sinks.database import database_sink
from engine_worker.tests.batches import batch

sink = database_sink(sys.argv[1], Path(sys.argv[2]), queue_bytes=200_000)
sink.start()
first = 1
while True:
    if sink._box._bytes < 100_000:
        sink.offer(batch(100, first=first))
        first += 100
    if sink.counters.on_disk > 5000:
        print("running", flush=True)
    time.sleep(0.0005)
"""


@pytest.fixture(scope="module")
def own_server(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[PostgresServer]:
    statements = StringIO()
    with django_db_blocker.unblock():
        call_command("sqlmigrate", "history", "0001_initial", stdout=statements)
    found = PostgresServer(tmp_path_factory.mktemp("server"))
    try:
        with psycopg.connect(found.conninfo) as connection:
            connection.execute(statements.getvalue().encode())
        yield found
    finally:
        found.stop()


@pytest.fixture
def server(own_server: PostgresServer) -> Iterator[PostgresServer]:
    with psycopg.connect(own_server.conninfo) as connection:
        connection.execute("TRUNCATE history_snapshot, history_instrument")
    yield own_server


def sink_of(server: PostgresServer, folder: Path, *, queue_bytes: int = 1 << 20, answer_s: float = 0.5) -> DatabaseSink:
    box = SpillMailbox(queue_bytes, 2000, 0.02, Spill(folder, 1 << 30))
    return DatabaseSink(box, DatabaseWriter(server.conninfo, answer_s=answer_s))


@contextmanager
def running(sink: DatabaseSink) -> Iterator[DatabaseSink]:
    sink.start()
    yield sink
    sink.close(5)


class Stream:
    """Offers snapshots at a pace, as a feed does."""

    def __init__(self, sink: DatabaseSink) -> None:
        self.sink = sink
        self.offered = 0

    def run(self, until: Callable[[], object], timeout_s: float = 30) -> None:
        """Offer 100 snapshots a hundredth of a second until something holds."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline
            begun = time.monotonic()
            self.sink.offer(batch(100, first=self.offered + 1))
            self.offered += 100
            assert closes(self.sink.counters)
            time.sleep(max(begun + 0.01 - time.monotonic(), 0))

    def run_for(self, seconds: float) -> None:
        over = time.monotonic() + seconds
        self.run(lambda: time.monotonic() > over)


def assert_all_is_stored_once(server: PostgresServer, stream: Stream) -> None:
    sink = stream.sink
    assert sink.flush(20)
    counters = sink.counters
    assert closes(counters)
    assert (counters.offered, counters.dropped, counters.pending) == (stream.offered, 0, 0)
    assert counters.written + counters.duplicates == stream.offered
    assert server.sequences() == list(range(1, stream.offered + 1))
    assert sink.degraded == ""


def test_a_server_killed_and_restarted_in_mid_stream_loses_and_doubles_nothing(
    server: PostgresServer, tmp_path: Path
) -> None:
    with running(sink_of(server, tmp_path)) as sink:
        stream = Stream(sink)
        for _ in range(2):
            stream.run(lambda before=sink.counters.written: sink.counters.written > before + 1000)
            with server.killed():
                stream.run(lambda: sink.degraded)
                stream.run_for(0.5)
        stream.run(lambda before=sink.counters.written: sink.counters.written > before)
        assert_all_is_stored_once(server, stream)


def test_a_frozen_server_freezes_nobody_and_its_batch_is_stored_once(server: PostgresServer, tmp_path: Path) -> None:
    with running(sink_of(server, tmp_path, queue_bytes=200_000)) as sink:
        stream = Stream(sink)
        stream.run(lambda: sink.counters.written > 1000)
        with server.frozen():
            stream.run(lambda: "PostgreSQL does not answer" in sink.degraded)
            stream.run(lambda: sink.counters.on_disk)
        stream.run(lambda before=sink.counters.written: sink.counters.written > before)
        assert sink.counters.spilled > 0
        assert_all_is_stored_once(server, stream)


def test_a_batch_whose_commit_was_not_heard_is_sent_again_and_absorbed(
    server: PostgresServer, free_port: Callable[[], int], wait_for: WaitFor
) -> None:
    proxy = TcpProxy("127.0.0.1", server.postgres.port, free_port())
    proxy.up()
    found = batch(1000)
    writer = DatabaseWriter(make_conninfo(server.conninfo, port=proxy.port), answer_s=0.5)
    assert writer.write([NamedRows(found.rows[:500], found.names)]) == (500, 0, 0)
    proxy.lost = b"COPY 500\0"
    with pytest.raises(SinkUnavailable, match="PostgreSQL does not answer"):
        writer.write([NamedRows(found.rows[500:], found.names)])
    wait_for(lambda: len(server.sequences()) == 1000, what="the commit that nobody was told of")
    proxy.lost = None
    assert writer.write([NamedRows(found.rows[500:], found.names)]) == (0, 500, 0)
    assert server.sequences() == list(range(1, 1001))
    writer.close()
    proxy.down()


def test_half_of_the_rows_there_already_are_told_from_the_new_ones(server: PostgresServer, tmp_path: Path) -> None:
    found = batch(20_000)
    odd = NamedRows(found.rows[::2], found.names)
    with running(sink_of(server, tmp_path)) as sink:
        sink.offer(odd)
        assert sink.flush(10)
        for begin in range(0, 20_000, 2000):
            sink.offer(found[begin : begin + 2000])
            assert sink.flush(10)
        assert (sink.counters.written, sink.counters.duplicates) == (20_000, 10_000)
        assert closes(sink.counters)
    assert server.sequences() == list(range(1, 20_001))


def test_what_a_killed_engine_had_spilled_is_stored_first_by_the_next_one(
    server: PostgresServer, tmp_path: Path
) -> None:
    nowhere = "host=127.0.0.1 port=1 dbname=nowhere"
    command = [sys.executable, "-c", DOOMED, nowhere, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == b"running\n"
        doomed.kill()
    assert any(tmp_path.iterdir())
    with running(sink_of(server, tmp_path)) as heir:
        left = heir.counters.offered
        assert left > 5000
        heir.offer(batch(100, first=1_000_001))
        assert heir.flush(20)
        assert heir.counters.written == left + 100
    expected = [*range(1, left + 1), *range(1_000_001, 1_000_101)]
    assert server.sequences() == expected
    assert server.sequences(order="id") == expected
    assert list(tmp_path.iterdir()) == []
