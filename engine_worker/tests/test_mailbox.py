"""The two objects that threads share."""

import threading
import time

import pytest

from engine_worker.mailbox import FifoMailbox, LatestMailbox


def always() -> bool:
    return True


def never() -> bool:
    return False


def test_the_queue_gives_batches_in_order() -> None:
    box = FifoMailbox[int](10, batch=3, age_s=0)
    for number in range(5):
        assert box.offer(number, never)
    assert [box.take(0), box.take(0), box.take(0)] == [[0, 1, 2], [3, 4], []]


def test_a_full_queue_refuses_who_does_not_wait() -> None:
    box = FifoMailbox[int](2, batch=2, age_s=0)
    assert [box.offer(number, never) for number in range(3)] == [True, True, False]
    assert len(box) == 2


def test_a_full_queue_makes_the_giver_wait_for_room_and_counts_it() -> None:
    box = FifoMailbox[int](100, batch=7, age_s=0.001)
    taken: list[int] = []

    def take_all() -> None:
        while len(taken) < 2000:
            taken.extend(box.take(0.1))
            time.sleep(0.0001)

    taker = threading.Thread(target=take_all)
    taker.start()
    for number in range(2000):
        assert box.offer(number, always)
        assert len(box) <= 100
    taker.join(10)
    assert taken == list(range(2000))
    assert box.blocked > 0
    assert box.blocked_ns > 0


def test_closing_frees_who_waits_for_room_and_keeps_what_is_inside() -> None:
    box = FifoMailbox[int](1, batch=1, age_s=0)
    box.offer(1, always)
    closer = threading.Timer(0.05, box.close)
    closer.start()
    assert not box.offer(2, always)
    closer.join()
    assert box.take(0) == [1]
    assert not box.offer(3, never)


def test_what_is_put_back_comes_first_even_into_a_full_queue() -> None:
    box = FifoMailbox[int](2, batch=2, age_s=0)
    box.offer(1, never)
    box.offer(2, never)
    batch = box.take(0)
    box.offer(3, never)
    box.offer(4, never)
    box.put_back(batch)
    assert [box.take(0), box.take(0)] == [[1, 2], [3, 4]]


def test_a_batch_that_is_not_full_is_given_once_its_age_has_come() -> None:
    box = FifoMailbox[int](10, batch=10, age_s=0.03)
    box.offer(1, never)
    begun = time.monotonic()
    assert box.take(60) == [1]
    assert 0.03 <= time.monotonic() - begun < 60


def test_a_batch_that_is_full_does_not_wait_for_its_age() -> None:
    box = FifoMailbox[int](10, batch=3, age_s=60)
    box.offer(1, never)
    batches: list[list[int]] = []
    taker = threading.Thread(target=lambda: batches.append(box.take(60)))
    taker.start()
    box.offer(2, never)
    box.offer(3, never)
    taker.join(30)
    assert batches == [[1, 2, 3]]


def test_the_slots_keep_the_newest_of_each_key_and_count_the_rest() -> None:
    box = LatestMailbox[tuple[str, int]](lambda item: item[0])
    for item in [("a", 1), ("b", 1), ("a", 2), ("a", 3)]:
        assert box.offer(item, never)
    assert sorted(box.take(0)) == [("a", 3), ("b", 1)]
    assert box.conflated == 2
    assert box.take(0) == []


def test_an_old_item_put_back_does_not_replace_a_newer_one() -> None:
    box = LatestMailbox[tuple[str, int]](lambda item: item[0])
    box.offer(("a", 2), never)
    box.put_back([("a", 1), ("b", 1)])
    assert sorted(box.take(0)) == [("a", 2), ("b", 1)]
    assert box.conflated == 1


@pytest.mark.parametrize("box", [FifoMailbox[int](1, 1, 0), LatestMailbox[int](str)])
def test_a_closed_mailbox_does_not_keep_its_taker_waiting(box: FifoMailbox[int]) -> None:
    box.close()
    assert box.take(60) == []
    assert box.closed
    assert not box.offer(1, always)
