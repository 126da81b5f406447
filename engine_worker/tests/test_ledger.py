"""Which marks are durable, and where they are kept."""

from dataclasses import replace
from threading import Event, Thread, current_thread

import pytest

from engine_worker.batch import SnapshotBatch
from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.ledger import MOST, Ledger
from engine_worker.mailbox import Progress
from engine_worker.mark import FilePlace, Mark, first_mark
from engine_worker.sinks.deadline import DeadlineConnection
from engine_worker.sinks.mark_table import MarkTable
from engine_worker.tests.batches import batch
from history.models import EngineMark


class Box:
    """A store of which only the queue is real."""

    def __init__(self, capacity_bytes: int = 1 << 20) -> None:
        self.queue = FifoMailbox[SnapshotBatch](capacity_bytes, 1, 0)
        self.place: FilePlace | None = None
        self.start = FilePlace(2, 3)

    @property
    def progress(self) -> Progress:
        return self.queue.progress

    def place_at_start(self) -> FilePlace:
        return self.start

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


def test_the_last_mark_is_found_though_others_are_offered_and_thinned_out_meanwhile() -> None:
    database = Box()
    ledger = ledger_of(database)
    for replay_id in range(1, MOST + 1):
        ledger.offer(mark(replay_id))

    class Watched(Box):
        """Whose look at the queue is when the feed thread offers one more."""

        @property
        def progress(self) -> Progress:
            if current_thread() is not giver and not giver.ident:
                giver.start()
                giver.join(0.1)  # it waits until the look is over
            return database.progress

    giver = Thread(target=lambda: ledger.offer(mark(MOST + 1)))
    ledger._database = Watched()
    assert number(ledger.reached()) == MOST
    giver.join()
    assert number(ledger.reached()) == MOST + 1


def test_a_mark_made_before_the_file_is_open_has_the_place_where_others_had_left_it() -> None:
    database, feed = Box(), Box()
    ledger = ledger_of(database, feed)
    ledger.offer(mark(1))
    feed.start = FilePlace(2, 50)  # the first lines are just being written
    found = ledger.reached()
    assert found is not None and found.feed == FilePlace(2, 3)
    feed.place = FilePlace(2, 99)
    ledger.offer(mark(2))
    found = ledger.reached()
    assert found is not None and found.feed == FilePlace(2, 99)


def table(pg_conninfo: str, name: str = "engine", symbols: tuple[str, ...] = ("A", "B")) -> MarkTable:
    return MarkTable(pg_conninfo, name, "GLBX.MDP3", symbols)


def test_a_mark_is_kept_for_engines_of_one_name_that_are_subscribed_to_the_same(pg_conninfo: str) -> None:
    first = table(pg_conninfo).load(first_mark(FilePlace(2, 3)), Event())
    assert first is not None and (first.replay_id, first.feed) == (0, FilePlace(2, 3))
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
