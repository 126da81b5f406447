"""The two objects that threads share."""

import threading
import time
from typing import NamedTuple

import pytest

from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.mailbox import LatestMailbox
from engine_worker.tests.batches import closes
from engine_worker.tests.parcels import Parcel, numbers, parcels

Queue = FifoMailbox[Parcel]


def test_the_queue_gives_batches_in_order_and_its_parcels_whole() -> None:
    box = Queue(100, batch=4, age_s=0)
    for parcel in parcels(range(8), size=3):
        assert box.offer(parcel)
    taken = []
    for _ in range(3):
        taken.append(numbers(box.take(0)))
        box.settle(len(taken[-1]))
    assert taken == [[0, 1, 2, 3, 4, 5], [6, 7], []]


def test_a_full_queue_refuses_at_once_and_counts_snapshots() -> None:
    box = Queue(6, batch=2, age_s=0)
    begun = time.monotonic()
    assert [box.offer(parcel) for parcel in parcels(range(9), size=3)] == [True, True, False]
    assert time.monotonic() - begun < 1
    counters = box.counters
    assert (counters.offered, counters.pending, counters.dropped) == (9, 6, 3)
    assert closes(counters)


def test_what_is_taken_has_its_room_until_it_is_settled() -> None:
    box = Queue(4, batch=4, age_s=0)
    box.offer(Parcel([1, 2, 3, 4]))
    assert numbers(box.take(0)) == [1, 2, 3, 4]
    assert not box.offer(Parcel([5]))
    box.settle(4)
    assert box.offer(Parcel([6]))


def test_a_parcel_larger_than_the_queue_is_taken_into_an_empty_one_only() -> None:
    box = Queue(4, batch=4, age_s=0)
    assert box.offer(Parcel(range(9)))
    assert not box.offer(Parcel([1]))
    box.take(0)
    box.settle(9)
    box.offer(Parcel([1]))
    assert not box.offer(Parcel(range(9)))


def test_a_queue_that_has_refused_refuses_until_something_has_left() -> None:
    box = Queue(4, batch=1, age_s=0)
    assert [box.offer(Parcel(size * [1])) for size in (1, 2, 2, 1)] == [True, True, False, False]
    assert numbers(box.take(0)) == [1]
    assert not box.offer(Parcel([1]))
    box.settle(1)
    assert box.offer(Parcel([1]))
    assert (box.counters.offered, box.counters.dropped, box.counters.pending) == (8, 4, 3)


def test_a_closed_queue_takes_nothing_and_keeps_what_is_inside() -> None:
    box = Queue(10, batch=1, age_s=0)
    box.offer(Parcel([1]))
    box.close()
    assert not box.offer(Parcel([2]))
    assert box.take(0) == [[1]]


def test_what_is_put_back_comes_first_even_in_a_full_queue() -> None:
    box = Queue(4, batch=2, age_s=0)
    for parcel in parcels(range(4)):
        box.offer(parcel)
    assert numbers(box.take(0)) == [0, 1]
    box.put_back()
    assert numbers(box.take(0)) == [0, 1]
    box.settle(1, 1)
    assert numbers(box.take(0)) == [2, 3]
    box.settle(0, 0, 2)
    counters = box.counters
    assert (counters.written, counters.duplicates, counters.dropped, counters.pending) == (1, 1, 2, 0)


def test_a_batch_that_is_not_full_is_given_once_its_age_has_come() -> None:
    box = Queue(10, batch=10, age_s=0.03)
    box.offer(Parcel([1]))
    begun = time.monotonic()
    assert box.take(60) == [[1]]
    assert 0.03 <= time.monotonic() - begun < 60


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_batch_that_is_full_does_not_wait_for_its_age(size: int) -> None:
    box = Queue(10, batch=4, age_s=60)
    box.offer(Parcel([1]))
    batches: list[list[int]] = []
    taker = threading.Thread(target=lambda: batches.append(numbers(box.take(60))))
    taker.start()
    for parcel in parcels(range(2, 6), size):
        box.offer(parcel)
    taker.join(30)
    assert batches[0][:4] == [1, 2, 3, 4]


class Span(NamedTuple):
    """Numbers from one on that can grow."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def nbytes(self) -> int:
        return len(self)

    def followed_by(self, other: "Span") -> "Span | None":
        return Span(self.begin, other.end) if other.begin == self.end else None


def test_an_item_grows_by_what_follows_it_until_somebody_takes_it() -> None:
    box = FifoMailbox[Span](100, batch=2, age_s=0)
    for begin, end in [(0, 1), (1, 3), (5, 6), (6, 7)]:
        assert box.offer(Span(begin, end))
    assert box.take(0) == [(0, 3)]
    assert box.offer(Span(7, 8))
    box.put_back()
    assert box.take(0) == [(0, 3)]
    box.settle(3)
    assert box.take(0) == [(5, 8)]
    assert box.offer(Span(8, 9))
    box.settle(3)
    assert box.take(0) == [(8, 9)]
    box.settle(1)
    assert (box.counters.offered, box.counters.written, box.counters.queue_bytes) == (7, 7, 0)


def test_the_slots_keep_the_newest_of_each_key_and_count_the_rest() -> None:
    box = LatestMailbox[tuple[str, int]](lambda item: item[0], 9)
    for item in [("a", 1), ("b", 1), ("a", 2), ("a", 3)]:
        assert box.offer(item)
    assert sorted(box.take(0)) == [("a", 3), ("b", 1)]
    assert (box.counters.conflated, box.counters.pending) == (2, 2)
    box.settle(2)
    assert box.take(0) == []
    assert closes(box.counters)


def test_of_many_slots_so_many_are_taken_at_once_as_may_be_those_first_that_were_filled_first() -> None:
    box = LatestMailbox[tuple[str, int]](lambda item: item[0], 2)
    for item in [("a", 1), ("b", 1), ("c", 1), ("a", 2)]:
        box.offer(item)
    assert box.take(0) == [("a", 2), ("b", 1)]
    assert (box.counters.pending, box.counters.conflated) == (3, 1)
    box.settle(2)
    assert box.take(0) == [("c", 1)]
    box.settle(1)
    assert (box.counters.written, box.counters.pending) == (3, 0)
    assert closes(box.counters)


def test_an_old_item_put_back_does_not_replace_a_newer_one() -> None:
    box = LatestMailbox[tuple[str, int]](lambda item: item[0], 9)
    box.offer(("a", 1))
    box.offer(("b", 1))
    box.take(0)
    box.offer(("a", 2))
    box.put_back()
    assert sorted(box.take(0)) == [("a", 2), ("b", 1)]
    assert box.counters.conflated == 1
    assert closes(box.counters)


@pytest.mark.parametrize("box", [Queue(1, 1, 0), LatestMailbox[Parcel](str, 9)])
def test_a_closed_mailbox_does_not_keep_its_taker_waiting_and_counts_what_it_refuses(box: Queue) -> None:
    box.close()
    assert box.take(60) == []
    assert box.closed
    assert not box.offer(Parcel([1]))
    assert (box.counters.offered, box.counters.dropped) == (1, 1)
