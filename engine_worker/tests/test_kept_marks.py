"""Marks that the writer of the database writes down beside the rows: when, and what becomes of one that is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import psycopg
import pytest

from engine_worker.ledger import Ledger
from engine_worker.mark import Mark, first_mark
from engine_worker.named_rows import NamedRows
from engine_worker.sinks.base import SinkUnavailable
from engine_worker.sinks.database import DatabaseSink, DatabaseWriter
from engine_worker.sinks.deadline import DeadlineConnection
from engine_worker.sinks.mark_table import MarkTable
from engine_worker.spill import Spill
from engine_worker.spill_mailbox import SpillMailbox
from engine_worker.tests.batches import batch
from engine_worker.tests.proxy import TcpProxy
from history.models import EngineMark


def mark(replay_id: int) -> Mark:
    return replace(first_mark(None), replay_id=replay_id)


def part(count: int, first: int = 1) -> list[NamedRows]:
    found = batch(count, first=first)
    return [NamedRows(found.rows, found.names)]


def table_of(pg_conninfo: str, name: str = "engine") -> MarkTable:
    return MarkTable(pg_conninfo, name, "GLBX.MDP3", ("A", "B"))


def kept(pg_conninfo: str) -> int:
    found = table_of(pg_conninfo).load(first_mark(None), Event())
    return 0 if found is None else found.replay_id


@contextmanager
def writing(conninfo: str, reached: list[Mark], marks: MarkTable) -> Iterator[DatabaseWriter]:
    writer = DatabaseWriter(conninfo, answer_s=0.3)
    writer.marks, writer.reached = marks, lambda: reached.pop(0) if reached else None
    yield writer
    writer.close()


def test_the_writer_keeps_a_mark_behind_the_rows_it_vouches_for_and_again_when_the_server_was_away(
    pg_conninfo: str, pg_proxied: str, pg_proxy: TcpProxy
) -> None:
    writer = DatabaseWriter(pg_proxied)
    writer.marks = table_of(pg_conninfo)
    reached = [mark(1)]
    writer.reached = lambda: reached.pop() if reached else None
    with pytest.raises(SinkUnavailable):
        writer.write([])
    pg_proxy.up()
    rows = batch(10)
    assert writer.write([NamedRows(rows.rows, rows.names)]).written == 10
    assert kept(pg_conninfo) == 1
    writer.close()


class Refused(MarkTable):
    """A table that is not written to while there is a reason."""

    def __init__(self, conninfo: str, reason: Exception) -> None:
        super().__init__(conninfo, "engine", "GLBX.MDP3", ("A", "B"))
        self.reason: Exception | None = reason
        self.tries = 0

    def keep(self, connection: DeadlineConnection, mark: Mark) -> None:
        self.tries += 1
        if self.reason is not None:
            raise self.reason
        super().keep(connection, mark)


def test_a_mark_that_is_refused_for_good_is_said_once_and_stops_no_history(
    pg_conninfo: str, caplog: pytest.LogCaptureFixture
) -> None:
    with writing(pg_conninfo, [mark(1), mark(2)], table_of(pg_conninfo, "no\0name")) as writer:
        for first in (1, 11, 21):
            assert writer.write(part(10, first)) == (10, 0, 0)
            writer._mark_at = 0
        assert [record.getMessage() for record in caplog.records] == [
            "database: a mark cannot be written, an older one counts: "
            "PostgreSQL text fields cannot contain NUL (0x00) bytes"
        ]
        writer.marks, writer.reached = table_of(pg_conninfo), lambda: mark(3)
        writer.write([])
    assert kept(pg_conninfo) == 3


@pytest.mark.parametrize(("reason", "is_kept"), [(psycopg.OperationalError, 1), (psycopg.DataError, 0)])
def test_a_mark_that_cannot_be_written_is_tried_again_later_unless_it_is_refused_for_good(
    pg_conninfo: str, reason: type[Exception], is_kept: int
) -> None:
    marks = Refused(pg_conninfo, reason("no"))
    with writing(pg_conninfo, [mark(1)], marks) as writer:
        for first in (1, 11, 21):
            assert writer.write(part(10, first)) == (10, 0, 0)
        assert marks.tries == 1
        marks.reason, writer._mark_at = None, 0
        writer.write([])
    assert kept(pg_conninfo) == is_kept


def test_a_mark_that_waits_for_a_lock_holds_the_rows_up_no_longer_than_an_answer_may_take(pg_conninfo: str) -> None:
    with writing(pg_conninfo, [mark(1)], table_of(pg_conninfo)) as writer, psycopg.connect(pg_conninfo) as other:
        other.execute(f"LOCK TABLE {EngineMark._meta.db_table}")
        for first in (1, 11, 21):
            assert writer.write(part(10, first)) == (10, 0, 0)


def test_a_connection_is_given_up_when_it_is_not_known_what_is_under_way_there(pg_conninfo: str) -> None:
    with writing(pg_conninfo, [mark(1)], Refused(pg_conninfo, ZeroDivisionError("a programming fault"))) as writer:
        with pytest.raises(ZeroDivisionError):
            writer.write(part(10))
        assert writer._connection is None


def test_the_mark_of_the_last_rows_is_written_when_the_engine_ends(
    pg_conninfo: str, tmp_path: Path, wait_for: Callable[..., object]
) -> None:
    box = SpillMailbox(1 << 20, 2000, 0, Spill(tmp_path, 1 << 30))
    sink = DatabaseSink(box, DatabaseWriter(pg_conninfo))
    marks = table_of(pg_conninfo)
    ledger = Ledger(sink, None, marks.load)
    sink.keep_marks(marks, ledger.reached)
    sink.offer(batch(10))
    ledger.offer(mark(7))
    sink.finish()  # so the thread writes once
    sink.start()
    sink.close(5)
    assert sink.counters.written == 10 and kept(pg_conninfo) == 7


def test_an_engine_that_is_out_of_time_or_has_lost_the_server_waits_for_no_mark(pg_conninfo: str) -> None:
    for is_abandoned in (True, False):
        marks = Refused(pg_conninfo, psycopg.OperationalError("no"))
        with writing(pg_conninfo, [], marks) as writer:
            writer.write(part(10))
            writer.reached, writer.abandoned = lambda: mark(1), lambda told=is_abandoned: told
            if not is_abandoned:
                writer._disconnect()
        assert marks.tries == 0 and writer._connection is None
