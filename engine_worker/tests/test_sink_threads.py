"""The thread behind every sink."""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.mailbox import LatestMailbox, Mailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from engine_worker.tests.batches import closes
from engine_worker.tests.parcels import Parcel, numbers, parcels


class Target:
    """A writer that can be away, slow or wrong."""

    target = "The target"

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.looks = 0
        self.away = self.wrong = self.closed = False
        self.slow_s = 0.0
        self.answers = threading.Event()
        self.answers.set()

    def write(self, batch: list[Parcel]) -> Written:
        self.looks += 1
        time.sleep(self.slow_s)
        self.answers.wait()
        if self.wrong:
            raise ZeroDivisionError("a programming fault")
        if self.away:
            raise SinkUnavailable("it is away")
        if batch:
            self.batches.append(numbers(batch))
        return Written(sum(map(len, batch)))

    def close(self) -> None:
        self.closed = True


def sink_of(target: Target, capacity: int = 100) -> ThreadedSink[Parcel]:
    return ThreadedSink("test", FifoMailbox[Parcel](capacity, 10, 0.005), target)


def offer(sink: ThreadedSink[Parcel], *offered: int) -> None:
    for parcel in parcels(offered):
        sink.offer(parcel)


def test_a_step_without_a_thread_writes_one_batch() -> None:
    target = Target()
    sink = sink_of(target)
    offer(sink, *range(15))
    assert sink.step(0)
    assert target.batches == [list(range(10))]
    assert (sink.counters.written, sink.counters.pending) == (10, 5)


def test_a_batch_that_could_not_be_written_keeps_its_place() -> None:
    target = Target()
    sink = sink_of(target)
    target.away = True
    offer(sink, *range(12))
    assert not sink.step(0)
    assert sink.degraded == "it is away"
    assert sink.counters.pending == 12
    target.away = False
    assert sink.step(0)
    assert sink.step(0)
    assert target.batches == [list(range(10)), [10, 11]]
    assert sink.degraded == ""


def test_the_writer_is_looked_at_when_nothing_arrives(wait_for: Callable[..., object]) -> None:
    target = Target()
    sink = sink_of(target)
    sink.start()
    wait_for(lambda: target.looks >= 3)
    sink.close(5)


def test_closing_writes_what_was_offered_and_refuses_what_comes_later() -> None:
    target = Target()
    target.slow_s = 0.01
    sink = sink_of(target)
    sink.start()
    offer(sink, *range(55))
    sink.close(5)
    assert sum(target.batches, []) == list(range(55))
    assert target.closed
    offer(sink, 99)
    assert (sink.counters.offered, sink.counters.dropped) == (56, 1)


def test_closing_gives_up_in_time_when_the_target_stays_away() -> None:
    target = Target()
    target.away = True
    sink = sink_of(target)
    sink.start()
    offer(sink, 1)
    begun = time.monotonic()
    sink.close(0.2)
    assert time.monotonic() - begun < 2
    assert sink.counters.pending == 1


def test_closing_takes_no_longer_than_told_although_the_writer_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    target = Target()
    target.answers.clear()
    sink = sink_of(target)
    sink.start()
    offer(sink, *range(25))
    begun = time.monotonic()
    sink.close(0.3)
    assert time.monotonic() - begun < 0.7
    assert "test: 25 not written at the end" in caplog.text
    target.answers.set()


def test_a_writer_that_is_stuck_shows_as_degraded_until_it_goes_on(wait_for: Callable[..., object]) -> None:
    target = Target()
    target.answers.clear()
    sink = ThreadedSink("test", FifoMailbox[Parcel](100, 10, 0), target, stalled_after_s=0.05)
    sink.start()
    offer(sink, 1)
    assert wait_for(lambda: sink.degraded) == "The target has not answered for 0 s"
    assert sink.counters.pending == 1
    target.answers.set()
    assert sink.flush(5)
    assert sink.degraded == ""
    sink.close(5)


class Moody:
    """A writer that is away, finds duplicates and drops as it likes."""

    target = "The target"

    def __init__(self, size: Callable[[object], int]) -> None:
        self._rnd = random.Random(1)
        self._size = size

    def write(self, batch: list[object]) -> Written:
        if self._rnd.random() < 0.3:
            raise SinkUnavailable("it is away")
        size = sum(map(self._size, batch))
        written = self._rnd.randint(0, size)
        duplicates = self._rnd.randint(0, size - written)
        return Written(written, duplicates, size - written - duplicates)

    def close(self) -> None: ...


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Let threads change places after nearly every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("mailbox", "size"),
    [(FifoMailbox[Parcel](50, 3, 0), len), (LatestMailbox[Parcel](lambda parcel: parcel[0] % 7, 3), lambda _: 1)],
)
def test_the_counts_add_up_at_every_moment(
    mailbox: Mailbox[Parcel], size: Callable[[object], int], hasty_switches: None
) -> None:
    sink = ThreadedSink("test", mailbox, Moody(size), retry_cap_s=0.001)
    sink._abandon.wait = lambda timeout=None: False  # type: ignore[method-assign]  # tries again at once
    sink.start()
    given = parcels(range(6000), size=2)
    giver = threading.Thread(target=lambda: [sink.offer(parcel) for parcel in given])
    giver.start()
    looks = 0
    while giver.is_alive() or looks < 1000:
        assert closes(sink.counters)
        looks += 1
    assert sink.flush(5)
    counts = sink.counters
    assert (counts.offered, counts.pending) == (sum(map(size, given)), 0)
    sink.close(5)


def test_flush_says_when_it_took_too_long() -> None:
    target = Target()
    target.away = True
    sink = sink_of(target)
    sink.start()
    offer(sink, 1)
    assert not sink.flush(0.05)
    target.away = False
    assert sink.flush(5)
    sink.close(5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_programming_fault_ends_the_thread_and_nobody_waits_for_it(wait_for: Callable[..., object]) -> None:
    target = Target()
    target.wrong = True
    sink = sink_of(target, capacity=2)
    sink.start()
    wait_for(lambda: not sink.alive)
    offer(sink, *range(5))
    counters = sink.counters
    assert (counters.offered, counters.pending, counters.dropped) == (5, 2, 3)


def test_what_finds_no_room_is_dropped_at_once_told_once_a_second_and_shown_until_there_is_room_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = sink_of(Target(), capacity=4)
    offer(sink, *range(6))
    sink.tell_drops(100.0)
    assert sink.degraded == "no room: 2 snapshots dropped so far"
    offer(sink, 6)
    sink.tell_drops(100.5)
    assert len(caplog.records) == 1
    sink.tell_drops(101.0)
    assert [record.getMessage() for record in caplog.records] == [
        "test: dropped 2, 2 so far (The target is slower than they come)",
        "test: dropped 1, 3 so far (The target is slower than they come)",
    ]
    assert sink.degraded == "no room: 3 snapshots dropped so far"
    sink.tell_drops(102.0)
    assert sink.degraded == ""
    assert sink.counters.dropped == 3


def test_the_thread_itself_tells_what_was_dropped(
    wait_for: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    target = Target()
    target.away = True
    sink = sink_of(target, capacity=4)
    sink.start()
    wait_for(lambda: target.looks)
    offer(sink, *range(6))
    wait_for(lambda: "dropped 2, 2 so far (it is away)" in caplog.text)
    assert sink.degraded == "it is away; no room: 2 snapshots dropped so far"
    sink.close(0.1)
