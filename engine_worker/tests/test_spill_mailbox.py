"""The queue that goes on on the disk, without and with threads."""

import random
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from engine_worker.named_rows import NamedRows, unpacked
from engine_worker.spill import Spill
from engine_worker.spill_mailbox import SpillMailbox
from engine_worker.tests.batches import batch, closes
from orderbook.book.snapshot_tape import SNAPSHOT_ROW

ROW = SNAPSHOT_ROW.itemsize


def box_of(
    folder: Path, capacity_rows: int = 20, *, batch: int = 5, spill_rows: int = 10_000, age_s: float = 0
) -> SpillMailbox:
    """Return a queue with room for so many snapshots in memory, and about so many on disk."""
    box = SpillMailbox(capacity_rows * ROW, batch, age_s, Spill(folder, spill_rows * ROW, segment_bytes=30 * ROW))
    box.recover()
    return box


def part(first: int, count: int = 1) -> NamedRows:
    found = batch(count, first=first)
    return NamedRows(found.rows, found.names)


def offer(box: SpillMailbox, numbers: Iterable[int]) -> None:
    for number in numbers:
        box.offer(part(number))


def told(taken: Iterable[NamedRows]) -> list[int]:
    return [number for part in taken for number in part.rows["sequence"].tolist()]


def drained(box: SpillMailbox) -> list[int]:
    found: list[int] = []
    while box.counters.pending:
        taken = told(box.take(0))
        box.settle(len(taken))
        found += taken
    return found


def files(folder: Path) -> list[Path]:
    return list(folder.glob("*.spill"))


def test_up_to_half_of_the_memory_nothing_goes_to_the_disk(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    offer(box, range(1, 11))
    assert not box.move(0)
    assert files(tmp_path) == []
    offer(box, [11])
    assert box.move(0)
    assert box.counters.on_disk > 0
    assert not box.move(0)


def test_what_is_on_disk_comes_before_what_is_in_memory(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    offer(box, range(1, 16))
    while box.move(0):
        pass
    offer(box, range(16, 21))
    counters = box.counters
    assert 0 < counters.on_disk == counters.spilled < counters.pending == 20
    assert drained(box) == list(range(1, 21))
    assert (box.counters.on_disk, box.counters.spilled) == (0, counters.spilled)
    box.leave()
    assert files(tmp_path) == []


def test_a_full_memory_refuses_the_newest_only_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    box = box_of(tmp_path, spill_rows=0)
    offer(box, range(1, 31))
    assert not box.move(0)
    assert "limit" in box.fault
    assert box.counters.dropped == 10
    assert drained(box) == list(range(1, 21))
    assert not box.move(0)
    assert box.fault == ""


def test_a_disk_that_is_full_takes_more_once_its_oldest_is_written(tmp_path: Path) -> None:
    box = box_of(tmp_path, spill_rows=40)
    for number in range(1, 101):
        offer(box, [number])
        box.move(0)
    assert "limit" in box.fault
    dropped = box.counters.dropped
    assert 0 < dropped < 80
    found = told(box.take(0))
    while not box.move(0):
        box.settle(len(told(box.take(0))))
    assert box.fault == ""
    assert found == list(range(1, len(found) + 1))
    assert closes(box.counters)


def test_what_the_taker_holds_moves_first_and_is_released_when_it_is_done(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    offer(box, range(1, 13))
    assert told(box.take(0)) == [1, 2, 3, 4, 5]
    assert box.move(0)
    assert box.counters.on_disk == 5
    box.settle(5)
    assert box.counters.on_disk == 0
    assert drained(box) == list(range(6, 13))
    assert closes(box.counters)


def test_what_is_on_its_way_to_the_disk_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch(14).rows
    names = batch(1).names
    box, spill = box_of(tmp_path), Spill.append

    def offer_next(number: int) -> None:
        assert box.offer(NamedRows(whole[number - 1 : number], names, whole, number - 1))

    def append_meanwhile(self: Spill, *chunk: Any) -> None:
        offer_next(13)
        spill(self, *chunk)

    for number in range(1, 13):
        offer_next(number)
    monkeypatch.setattr(Spill, "append", append_meanwhile)
    assert box.move(0)
    offer_next(14)
    assert drained(box) == list(range(1, 15))


def test_what_the_taker_puts_back_after_it_moved_comes_first_from_the_disk(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    offer(box, range(1, 13))
    box.take(0)
    box.move(0)
    box.put_back()
    assert drained(box) == list(range(1, 13))


def test_at_the_end_everything_goes_to_the_disk_and_the_next_engine_gets_it_first(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    offer(box, range(1, 8))
    box.take(0)
    while box.move(0, everything=True):
        pass
    assert box.counters.on_disk == 7
    box.leave()
    heir = box_of(tmp_path)
    counters = heir.counters
    assert (counters.offered, counters.pending, counters.on_disk) == (7, 7, 7)
    offer(heir, [8])
    assert drained(heir) == list(range(1, 9))


def test_a_damaged_chunk_is_dropped_counted_and_told_and_the_rest_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = box_of(tmp_path, batch=3)
    for first in range(1, 31, 3):
        box.offer(part(first, 3))
        box.move(0, everything=True)
    found = sorted(tmp_path.glob("*.spill"))[0]
    data = bytearray(found.read_bytes())
    data[-1] ^= 1
    found.write_bytes(data)
    kept = drained(box)
    counters = box.counters
    assert len(kept) == 27
    assert kept == sorted(kept)
    assert (counters.dropped, counters.written, counters.pending) == (3, 27, 0)
    assert "3 snapshots are lost" in caplog.text


def test_a_folder_that_cannot_be_read_is_told_and_the_queue_works_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    box = box_of(tmp_path / "file")
    assert "file: File exists" in box.fault
    offer(box, range(1, 31))
    assert not box.move(0)
    assert box.counters.dropped == 10
    assert drained(box) == list(range(1, 21))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_order_and_the_counters_hold_and_disk_and_target_have_no_hole(
    tmp_path: Path, seed: int
) -> None:
    rnd = random.Random(seed)
    box = box_of(tmp_path, rnd.choice((10, 30)), batch=rnd.choice((1, 4, 9)), spill_rows=rnd.choice((60, 10_000)))
    accepted: list[int] = []
    stored: list[int] = []
    held: list[int] | None = None
    number = 0
    for _ in range(400):
        chance = rnd.random()
        if chance < 0.45:
            size = rnd.choice((1, 1, 2, 5))
            if box.offer(part(number + 1, size)):
                accepted += range(number + 1, number + 1 + size)
            number += size
        elif chance < 0.7:
            box.move(0, everything=rnd.random() < 0.1)
        elif held is None:
            held = told(box.take(0))
            assert held == accepted[len(stored) : len(stored) + len(held)]
        elif chance < 0.8:
            box.put_back()
            held = None
        else:
            box.settle(len(held))
            stored += held
            held = None
        assert closes(box.counters)
        on_disk = told(unpacked(box._spill.read(chunk)) for chunk in box._spill.oldest(1000))
        assert stored + on_disk == accepted[: len(stored) + len(on_disk)]
    box.put_back()
    assert stored + drained(box) == accepted
    assert box.counters.offered == number


def test_with_threads_everything_comes_through_in_order(tmp_path: Path, wait_for: Callable[..., object]) -> None:
    box = box_of(tmp_path, 200, batch=50, age_s=0.001)
    found: list[int] = []
    over = threading.Event()

    def take() -> None:
        while not over.is_set():
            taken = told(box.take(0.01))
            if random.random() < 0.2:
                box.put_back()
            else:
                box.settle(len(taken))
                found.extend(taken)

    def move() -> None:
        while not over.is_set():
            box.move(0.01)

    taker, mover = threading.Thread(target=take), threading.Thread(target=move)
    mover.start()
    accepted: list[int] = []
    for first in range(1, 6000, 3):
        while not box.offer(part(first, 3)):
            assert closes(box.counters)
        accepted += range(first, first + 3)
        assert closes(box.counters)
        if first > 1000 and not taker.is_alive():
            wait_for(lambda: box.counters.spilled)
            taker.start()
    wait_for(lambda: not box.counters.pending)
    over.set()
    for thread in (taker, mover):
        thread.join(10)
    assert found == accepted
    box.leave()
    assert files(tmp_path) == []


def test_a_giver_waits_for_a_disk_that_is_slower_than_it(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.patience_s = 30
    giver = threading.Thread(target=offer, args=(box, range(1, 501)))
    giver.start()
    while giver.is_alive() or box.move(0):
        box.move(0.01)
    giver.join()
    assert box.counters.dropped == 0
    assert closes(box.counters)
    assert drained(box) == list(range(1, 501))


def test_a_giver_does_not_wait_for_a_disk_that_is_full(tmp_path: Path) -> None:
    box = box_of(tmp_path, spill_rows=1)
    box.patience_s = 1e9
    offer(box, range(1, 21))
    assert not box.move(0)
    assert box.fault
    offer(box, [21])
    assert box.counters.dropped == 1


def test_a_giver_waits_once_for_a_disk_that_hangs(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.patience_s = 0.05
    offer(box, range(1, 22))
    box.patience_s = 1e9
    offer(box, [22])
    assert box.counters.dropped == 2
    assert box.move(0)
    offer(box, [23])
    assert box.counters.dropped == 2


def test_a_giver_that_waits_is_let_go_at_the_end(tmp_path: Path) -> None:
    box = box_of(tmp_path)
    box.patience_s = 1e9
    offer(box, range(1, 21))
    giver = threading.Thread(target=offer, args=(box, [21]))
    giver.start()
    box.close()
    giver.join(30)
    assert not giver.is_alive()
    assert box.counters.dropped == 1
