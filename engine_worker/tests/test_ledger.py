"""Which marks are durable, where they are kept, and what of the feed file comes again behind one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from engine_worker.batch import SnapshotBatch
from engine_worker.ledger import MOST, Ledger
from engine_worker.mailbox import FifoMailbox, Progress
from engine_worker.mark import FilePlace, Mark, first_mark
from engine_worker.named_rows import NamedRows
from engine_worker.sinks.base import SinkUnavailable
from engine_worker.sinks.database import DatabaseWriter
from engine_worker.sinks.deadline import DeadlineConnection
from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.sinks.mark_table import MarkTable
from engine_worker.tests.batches import NAMES, batch
from engine_worker.tests.proxy import TcpProxy
from history.models import EngineMark
from orderbook.book.encoding import LineEncoder


class Box:
    """A store of which only the queue is real."""

    def __init__(self, capacity_bytes: int = 1 << 20) -> None:
        self.queue = FifoMailbox[SnapshotBatch](capacity_bytes, 1, 0)
        self.place: FilePlace | None = None

    @property
    def progress(self) -> Progress:
        return self.queue.progress

    def place_at_start(self) -> FilePlace:
        return FilePlace(1, 2, 3)

    def resume(self, place: FilePlace) -> None:
        raise AssertionError("nobody asked for that")

    def write(self) -> None:
        """Write what was offered first."""
        self.queue.settle(sum(map(len, self.queue.take(0))))


def mark(replay_id: int) -> Mark:
    return replace(first_mark(None), replay_id=replay_id)


def ledger_of(database: Box, feed: Box | None = None) -> Ledger:
    return Ledger(database, feed, lambda first, stop: first)


def number(found: Mark | None) -> int:
    return 0 if found is None else found.replay_id


def test_a_mark_is_reached_when_every_store_has_what_came_before_it_and_is_told_once() -> None:
    database, feed = Box(), Box()
    ledger = ledger_of(database, feed)
    for replay_id in (1, 2):
        database.queue.offer(batch(3))
        feed.queue.offer(batch(3))
        ledger.offer(mark(replay_id))
    database.queue.offer(batch(1))
    assert number(ledger.reached()) == 0
    database.write()
    assert number(ledger.reached()) == 0
    feed.write()
    assert [number(ledger.reached()) for _ in range(2)] == [1, 0]
    for box in (database, feed):
        box.write()
    assert [number(ledger.reached()) for _ in range(2)] == [2, 0]


def test_of_several_marks_that_are_reached_the_newest_counts() -> None:
    database = Box()
    ledger = ledger_of(database)
    for replay_id in range(1, 6):
        ledger.offer(mark(replay_id))
    database.queue.offer(batch(1))
    ledger.offer(mark(6))
    assert [number(ledger.reached()) for _ in range(2)] == [5, 0]


def test_what_is_taken_and_not_settled_is_not_reached() -> None:
    database = Box()
    ledger = ledger_of(database)
    database.queue.offer(batch(1))
    ledger.offer(mark(1))
    database.queue.take(0)
    assert ledger.reached() is None
    database.queue.put_back()
    assert ledger.reached() is None
    database.write()
    assert number(ledger.reached()) == 1


def test_a_feed_file_that_drops_does_not_hold_marks_up_and_the_database_always_does() -> None:
    database, feed = Box(), Box(capacity_bytes=1)
    ledger = ledger_of(database, feed)
    for box in (database, feed):
        box.queue.offer(batch(1))
    ledger.offer(mark(1))
    assert ledger.reached() is None
    feed.queue.offer(batch(1))  # refused: the disk is full
    assert ledger.reached() is None
    database.write()
    assert number(ledger.reached()) == 1
    database.queue.capacity_bytes = 1
    for _ in range(2):
        database.queue.offer(batch(1))
    ledger.offer(mark(2))
    database.queue.offer(batch(1))
    assert database.progress.refused == 2 and ledger.reached() is None


def test_marks_that_wait_for_long_are_thinned_out_and_the_oldest_stays() -> None:
    database = Box()
    ledger = ledger_of(database)
    for replay_id in range(1, 10 * MOST):
        ledger.offer(mark(replay_id))
        database.queue.offer(batch(1))
    assert len(ledger._entries) <= MOST
    assert number(ledger.reached()) == 1


def test_a_mark_made_before_the_file_is_open_has_the_place_where_others_had_left_it() -> None:
    database, feed = Box(), Box()
    ledger = ledger_of(database, feed)
    ledger.offer(mark(1))
    found = ledger.reached()
    assert found is not None and found.feed == FilePlace(1, 2, 3)
    feed.place = FilePlace(1, 2, 99)
    ledger.offer(mark(2))
    found = ledger.reached()
    assert found is not None and found.feed == FilePlace(1, 2, 99)


def table(pg_conninfo: str, name: str = "engine", symbols: tuple[str, ...] = ("A", "B")) -> MarkTable:
    return MarkTable(pg_conninfo, name, "GLBX.MDP3", symbols)


def test_a_mark_is_kept_for_engines_of_one_name_that_are_subscribed_to_the_same(pg_conninfo: str) -> None:
    first = table(pg_conninfo).load(first_mark(FilePlace(1, 2, 3)), Event())
    assert first is not None and (first.replay_id, first.feed) == (0, FilePlace(1, 2, 3))
    with DeadlineConnection.connect(pg_conninfo, autocommit=True) as connection:
        table(pg_conninfo).keep(connection, mark(7))
        table(pg_conninfo).keep(connection, mark(8))
    assert number(table(pg_conninfo, symbols=("B", "A")).load(first_mark(None), Event())) == 8
    assert number(table(pg_conninfo, "other").load(first_mark(None), Event())) == 0
    assert number(table(pg_conninfo, symbols=("A",)).load(first_mark(None), Event())) == 0
    assert EngineMark.objects.count() == 3


def test_a_mark_that_is_damaged_or_cannot_be_asked_for_is_none(
    pg_conninfo: str, pg_proxied: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(pg_conninfo).load(mark(1), Event())
    EngineMark.objects.update(mark=b"\x01nonsense")
    assert table(pg_conninfo).load(first_mark(None), Event()) is None
    monkeypatch.setattr("engine_worker.sinks.mark_table.LOAD_WITHIN_S", 0.3)
    assert table(pg_proxied).load(first_mark(None), Event()) is None  # the proxy is down
    stop = Event()
    stop.set()
    assert table(pg_proxied).load(first_mark(None), stop) is None
    assert caplog.text.count("is had from its beginning") == 3


def test_the_writer_keeps_a_mark_behind_the_rows_it_vouches_for_and_again_when_the_server_was_away(
    pg_conninfo: str, pg_proxied: str, pg_proxy: TcpProxy
) -> None:
    writer = DatabaseWriter(pg_proxied)
    writer.marks = table(pg_conninfo)
    reached = [mark(1)]
    writer.reached = lambda: reached.pop() if reached else None
    with pytest.raises(SinkUnavailable):
        writer.write([])
    pg_proxy.up()
    rows = batch(10)
    assert writer.write([NamedRows(rows.rows, rows.names)]).written == 10
    assert number(table(pg_conninfo).load(first_mark(None), Event())) == 1
    writer.close()


Lines = Callable[[], list[int]]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """Return a function that reads the sequences of the feed file."""
    return lambda: [int(json.loads(line)["sequence"]) for line in (tmp_path / "feed.jsonl").read_text().splitlines()]


def writer_of(folder: Path, *batches: SnapshotBatch) -> JsonlWriter:
    writer = JsonlWriter(folder / "feed.jsonl", 1)
    for each in batches:
        writer.write([each])
    return writer


def test_lines_behind_a_place_that_come_again_are_left_out_and_counted(tmp_path: Path, lines: Lines) -> None:
    before = writer_of(tmp_path, batch(10))
    place = before.place
    before.write([batch(10, first=11)])
    before.close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert place is not None
    after.resume(place)
    assert after.write([batch(6, first=11)]) == (0, 6, 0)
    assert after.write([batch(6, first=17), batch(5, first=23)]) == (7, 4, 0)
    assert after.write([batch(20, first=1)]) == (20, 0, 0)  # a replay of the same market is written again
    assert lines() == [*range(1, 28), *range(1, 21)]
    after.close()


def test_only_as_many_snapshots_are_looked_at_as_there_are_lines(tmp_path: Path, lines: Lines) -> None:
    writer_of(tmp_path, batch(5)).close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    after.resume(FilePlace(0, 0, 0))
    assert after.write([batch(5, first=100)]) == (5, 0, 0)
    assert after.write([batch(5)]) == (5, 0, 0)
    assert lines() == [*range(1, 6), *range(100, 105), *range(1, 6)]
    after.close()


def test_while_lines_come_again_the_place_of_a_mark_stays_where_they_begin(tmp_path: Path) -> None:
    before = writer_of(tmp_path, batch(3))
    place = before.place
    before.write([batch(10, first=4)])
    before.close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert place is not None
    after.resume(place)
    assert after.place == place
    after.write([batch(4, first=4)])
    assert after.place == place
    after.write([batch(6, first=8)])
    assert after.place == FilePlace(*place[:2], (tmp_path / "feed.jsonl").stat().st_size)
    after.close()


def test_a_file_that_was_begun_since_is_looked_at_whole(tmp_path: Path, lines: Lines) -> None:
    before = writer_of(tmp_path, batch(3))
    place = before.place
    (tmp_path / "feed.jsonl").rename(tmp_path / "feed.1")
    before.write([batch(4, first=4)])
    before.close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert place is not None
    after.resume(place)
    assert after.write([batch(6, first=4)]) == (2, 4, 0)
    assert lines() == [4, 5, 6, 7, 8, 9]
    after.close()


def test_a_write_that_fails_while_lines_come_again_leaves_out_the_same_ones_the_next_time(
    tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer_of(tmp_path, batch(5)).close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    after.resume(FilePlace(0, 0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(LineEncoder, "encode", _no_space)
        with pytest.raises(SinkUnavailable):
            after.write([batch(8)])
    assert after.write([batch(8)]) == (3, 5, 0)
    assert lines() == [*range(1, 9)]
    after.close()


def _no_space(self: LineEncoder, batches: object) -> None:
    raise OSError(28, "No space left on device")


def test_where_a_file_that_is_not_open_ends_is_behind_its_last_whole_line(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert writer.place is None and writer.place_at_start() == FilePlace(0, 0, 0)
    writer_of(tmp_path, batch(2)).close()
    size = (tmp_path / "feed.jsonl").stat().st_size
    with (tmp_path / "feed.jsonl").open("ab") as file:
        file.write(b'{"torn')
    assert writer.place_at_start().offset == size
    writer.write([batch(1, first=9, names=NAMES)])
    assert writer.place_at_start().offset == size
    assert writer.place is not None and writer.place.offset > size
    writer.close()
