"""The thread behind every sink."""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine_worker.mailbox import FifoMailbox, LatestMailbox, Mailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written


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

    def write(self, batch: list[int]) -> Written:
        self.looks += 1
        time.sleep(self.slow_s)
        self.answers.wait()
        if self.wrong:
            raise ZeroDivisionError("a programming fault")
        if self.away:
            raise SinkUnavailable("it is away")
        if batch:
            self.batches.append(batch)
        return Written(len(batch))

    def close(self) -> None:
        self.closed = True


def sink_of(target: Target, capacity: int = 100, *, lossy: bool = False) -> ThreadedSink[int]:
    return ThreadedSink("test", FifoMailbox[int](capacity, 10, 0.005), target, lossy_when_degraded=lossy)


def test_a_step_without_a_thread_writes_one_batch() -> None:
    target = Target()
    sink = sink_of(target)
    for number in range(15):
        sink.offer(number)
    assert sink.step(0)
    assert target.batches == [list(range(10))]
    assert (sink.counters.written, sink.counters.pending) == (10, 5)


def test_a_batch_that_could_not_be_written_keeps_its_place() -> None:
    target = Target()
    sink = sink_of(target)
    target.away = True
    for number in range(12):
        sink.offer(number)
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
    for number in range(55):
        sink.offer(number)
    sink.close(5)
    assert sum(target.batches, []) == list(range(55))
    assert target.closed
    sink.offer(99)
    assert (sink.counters.offered, sink.counters.dropped) == (56, 1)


def test_closing_gives_up_in_time_when_the_target_stays_away() -> None:
    target = Target()
    target.away = True
    sink = sink_of(target)
    sink.start()
    sink.offer(1)
    begun = time.monotonic()
    sink.close(0.2)
    assert time.monotonic() - begun < 2
    assert sink.counters.pending == 1


def test_closing_takes_no_longer_than_told_although_the_writer_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    target = Target()
    target.answers.clear()
    sink = sink_of(target)
    sink.start()
    for number in range(25):
        sink.offer(number)
    begun = time.monotonic()
    sink.close(0.3)
    assert time.monotonic() - begun < 0.7
    assert "test: 25 not written at the end" in caplog.text
    target.answers.set()


def test_a_writer_that_is_stuck_shows_as_degraded_until_it_goes_on(wait_for: Callable[..., object]) -> None:
    target = Target()
    target.answers.clear()
    sink = ThreadedSink("test", FifoMailbox[int](100, 10, 0), target, stalled_after_s=0.05)
    sink.start()
    sink.offer(1)
    assert wait_for(lambda: sink.degraded) == "The target has not answered for 0 s"
    assert sink.counters.pending == 1
    target.answers.set()
    assert sink.flush(5)
    assert sink.degraded == ""
    sink.close(5)


class Moody:
    """A writer that is away, finds duplicates and drops as it likes."""

    target = "The target"

    def __init__(self) -> None:
        self._rnd = random.Random(1)

    def write(self, batch: list[int]) -> Written:
        if self._rnd.random() < 0.3:
            raise SinkUnavailable("it is away")
        written = self._rnd.randint(0, len(batch))
        duplicates = self._rnd.randint(0, len(batch) - written)
        return Written(written, duplicates, len(batch) - written - duplicates)

    def close(self) -> None: ...


@pytest.fixture
def hasty_switches() -> Iterator[None]:
    """Let threads change places after nearly every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("mailbox", [FifoMailbox[int](5, 3, 0), LatestMailbox[int](lambda number: number % 7)])
def test_the_counts_add_up_at_every_moment(mailbox: Mailbox[int], hasty_switches: None) -> None:
    sink = ThreadedSink("test", mailbox, Moody(), retry_cap_s=0.001)
    sink._abandon.wait = lambda timeout=None: False  # type: ignore[method-assign]  # tries again at once
    sink.start()
    giver = threading.Thread(target=lambda: [sink.offer(number) for number in range(3000)])
    giver.start()
    looks = 0
    while giver.is_alive() or looks < 1000:
        counts = sink.counters
        done = counts.written + counts.duplicates + counts.dropped + counts.conflated
        assert counts.offered == done + counts.pending
        looks += 1
    assert sink.flush(5)
    counts = sink.counters
    assert (counts.offered, counts.pending) == (3000, 0)
    sink.close(5)


def test_flush_says_when_it_took_too_long() -> None:
    target = Target()
    target.away = True
    sink = sink_of(target)
    sink.start()
    sink.offer(1)
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
    for number in range(5):
        sink.offer(number)
    counters = sink.counters
    assert (counters.offered, counters.pending, counters.dropped) == (5, 2, 3)


def test_a_lossy_sink_waits_for_room_while_its_target_works() -> None:
    target = Target()
    target.slow_s = 0.002
    sink = sink_of(target, capacity=10, lossy=True)
    sink.start()
    for number in range(200):
        sink.offer(number)
    sink.close(5)
    assert sum(target.batches, []) == list(range(200))
    assert sink.counters.blocked > 0
