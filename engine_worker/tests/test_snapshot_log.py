"""The way of snapshots from the market to the stores: read while they are written, whole, once and in order."""

import weakref
from pathlib import Path
from threading import Thread
from time import monotonic

import numpy as np
import pytest

from engine_worker.batch import SnapshotBatch
from engine_worker.book_names import BookName
from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.named_rows import named_rows
from engine_worker.snapshot_log import LogReader, SnapshotLog
from engine_worker.spill import Spill
from engine_worker.spill_mailbox import SpillMailbox
from engine_worker.tests.builders import session
from orderbook.book.market import make_market
from orderbook.book.mbo import BookKey, MboArray
from orderbook.book.snapshot_tape import SNAPSHOT_ROW, SnapshotRule, SnapshotTape

NAMES = [BookName("CLX5", 1, BookKey(1, 7))]


class Writing:
    """A market that hands over to a log what it applies, its only book on any grid."""

    def __init__(self, every: int = 1, depth: int = 10) -> None:
        self.log = SnapshotLog()
        self.market = make_market()
        self.tape = SnapshotTape(SnapshotRule(every, 0, depth))
        self.tape.hands_over = True
        self.tape.reserve_books(1)
        self.tape.grids[0] = 1

    def take(self, records: MboArray) -> None:
        done = 0
        while done < len(records):
            self.tape.reserve(1)
            self.log.follow("run", self.tape.block, NAMES)
            done += self.market.apply_snapshots(records[done:], self.tape)
            self.tape.take()

    def reader(self) -> LogReader[SnapshotBatch]:
        return self.log.reader(lambda batch: batch)


def read(reader: LogReader[SnapshotBatch]) -> list[SnapshotBatch]:
    found = []
    while (batch := reader.peek()) is not None:
        reader.move(len(batch))
        found.append(batch)
    return found


def whole(batches: list[SnapshotBatch]) -> tuple[bytes, list[int], list[object]]:
    """Return rows, numbers and levels."""
    levels: list[object] = []
    for batch in batches:
        for row, bids, asks in zip(batch.rows, batch.bids, batch.asks, strict=True):
            levels += [bids[: row["bids"]].tolist(), asks[: row["asks"]].tolist()]
    return b"".join(batch.rows.tobytes() for batch in batches), [n for b in batches for n in b.seqs.tolist()], levels


def expected(records: MboArray, every: int, depth: int) -> tuple[bytes, list[int], list[object]]:
    market, tape = make_market(), SnapshotTape(SnapshotRule(every, 0, depth))
    market.apply_snapshots(records, tape)
    taken = tape.take()
    return whole([SnapshotBatch("run", taken.rows, taken.bids, taken.asks, taken.seqs, NAMES)])


def test_each_reader_reads_all_that_is_handed_over_behind_its_place_once() -> None:
    writing, records = Writing(), session(3000)
    early = writing.reader()
    assert early.peek() is None
    writing.take(records[:1000])
    late = writing.reader()
    first = read(early)
    writing.take(records[1000:])
    found = read(early)
    assert whole(first + found) == expected(records, 1, 10)
    assert whole(read(late)) == whole(found)
    assert early.peek() is late.peek() is None


def test_what_comes_next_is_the_same_until_one_moves() -> None:
    writing = Writing()
    reader = writing.reader()
    writing.take(session(40))
    ahead, again = reader.peek(), reader.peek()
    assert ahead is not None and again is not None and len(ahead) == len(again) > 0
    reader.move(len(ahead))
    behind = reader.peek()
    assert behind is None or behind.seqs[0] == len(ahead) + 1


def test_a_stretch_ends_where_names_change_though_the_block_goes_on() -> None:
    writing, records = Writing(every=10), session(400)
    reader = writing.reader()
    writing.take(records[:100])
    writing.log.follow("run", writing.tape.block, names := [NAMES[0]._replace(symbol="other")])
    writing.market.apply_snapshots(records[100:150], writing.tape)
    before, behind = read(reader)
    assert (before.names, behind.names) == (NAMES, names)
    assert np.concatenate([before.seqs, behind.seqs]).tolist() == list(range(1, len(before) + len(behind) + 1))
    assert before.block is behind.block and len(before) == behind.begin
    assert before.followed_by(behind) is None


def test_what_is_read_keeps_its_own_block_alive_and_none_that_came_later() -> None:
    writing = Writing()
    reader = writing.reader()
    writing.take(session(100))
    first = reader.peek()
    blocks = []
    for seed in range(1, 40):
        writing.take(session(100, seed=seed))
        blocks.append(weakref.ref(writing.tape.block.rows))
        read(reader)
    del writing, reader
    assert (
        first is not None
        and [block for block in blocks if block() is not None and block() is not first.rows.base] == []
    )


def test_what_a_store_reads_in_the_middle_of_a_pass_is_whole() -> None:
    """The market applies without the interpreter, in passes of a block, while two threads read what it hands over."""
    records = session(60_000)
    writing = Writing(every=3, depth=50)
    readers = [writing.reader() for _ in range(2)]
    found: list[list[SnapshotBatch]] = [[], []]
    is_over = False

    def follow(number: int) -> None:
        deadline = monotonic() + 60
        while not is_over and monotonic() < deadline:
            found[number] += read(readers[number])
        found[number] += read(readers[number])

    threads = [Thread(target=follow, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    writing.take(records)
    is_over = True
    for thread in threads:
        thread.join(60)
    assert whole(found[0]) == whole(found[1]) == expected(records, 3, 50)


# queues that draw from it


def test_a_taker_finds_what_is_handed_over_though_nobody_has_told_it() -> None:
    writing = Writing()
    box = FifoMailbox[SnapshotBatch](1 << 20, batch=10**6, age_s=0)
    box.source = writing.reader()
    writing.take(session(100))
    assert box.counters.offered == 0
    taken = box.take(0)
    assert whole(taken) == expected(session(100), 1, 10)
    assert (box.counters.offered, box.counters.pending) == (sum(map(len, taken)),) * 2
    box.draw()
    assert box.counters.offered == sum(map(len, taken))


def test_what_a_full_queue_has_no_room_for_waits_in_the_log_until_the_giver_draws() -> None:
    writing, records = Writing(), session(3000)
    reader = writing.reader()
    box = FifoMailbox[SnapshotBatch](500_000, batch=10, age_s=0)
    box.source = reader
    for begin in range(0, 3000, 100):
        writing.take(records[begin : begin + 100])
        box.take(0)
        box.put_back()
    assert box.counters.dropped == 0 and reader.peek() is not None
    kept = box.counters.pending
    box.draw()
    counters = box.counters
    assert reader.peek() is None
    assert counters.pending == kept and counters.offered == len(expected(records, 1, 10)[1])
    assert counters.offered == counters.dropped + counters.pending > counters.pending > 0


def test_a_closed_queue_refuses_what_is_drawn_and_counts_it() -> None:
    writing = Writing()
    box = FifoMailbox[SnapshotBatch](1 << 20, batch=10, age_s=0)
    box.source = writing.reader()
    box.close()
    writing.take(session(100))
    assert box.take(0) == []
    assert box.counters.offered == 0
    box.draw()
    assert box.counters.dropped == box.counters.offered > 0


@pytest.mark.parametrize("patience_s", [30.0, 0.0])
def test_a_queue_with_a_disk_draws_everything_in_order_while_it_is_taken_from(
    tmp_path: Path, patience_s: float
) -> None:
    writing, records = Writing(), session(20_000)
    spill = Spill(tmp_path, 1 << 30)
    box = SpillMailbox(300 * SNAPSHOT_ROW.itemsize if patience_s else 64 << 20, batch=100, age_s=0.001, spill=spill)
    box.patience_s = patience_s
    box.source = writing.log.reader(named_rows)
    taken: list[bytes] = []
    is_over = False

    def take() -> None:
        while not is_over or box.counters.pending:
            parts = box.take(0.01)
            taken.extend(part.rows.tobytes() for part in parts)
            box.settle(sum(map(len, parts)))

    def move() -> None:
        while not is_over:
            box.move(0.01)

    threads = [Thread(target=take), Thread(target=move)]
    for thread in threads:
        thread.start()
    for begin in range(0, 20_000, 500):
        writing.take(records[begin : begin + 500])
        box.draw()
    is_over = True
    for thread in threads:
        thread.join(60)
    assert b"".join(taken) == expected(records, 1, 10)[0]
    assert box.counters.dropped == 0
    box.leave()
