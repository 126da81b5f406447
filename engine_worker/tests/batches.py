"""Snapshots as the stores get them, made without an engine: for the tests of what writes them."""

import numpy as np

from engine_worker.batch import SnapshotBatch
from engine_worker.book_names import BookName
from engine_worker.metrics import SinkCounters
from orderbook.book.mbo import UNDEF_PRICE, BookKey
from orderbook.book.price import SCALE
from orderbook.book.snapshot_tape import SNAPSHOT_ROW

TICK = SCALE // 100
START_NS = 1_758_742_200_000_000_000
NAMES = (BookName("CLX5", TICK, BookKey(1, 7)),)


def batch(count: int, *, first: int = 1, names: tuple[BookName, ...] = NAMES, depth: int = 1) -> SnapshotBatch:
    """Return snapshots whose sequence numbers begin with ``first``, of all books in turn, no two alike."""
    sequences = np.arange(first, first + count)
    rows = np.zeros(count, SNAPSHOT_ROW)
    rows["sequence"] = sequences
    rows["records"] = sequences
    rows["book"] = sequences % len(names)
    rows["ts_event"] = START_NS + sequences * 1000
    rows["ts_recv"] = rows["ts_event"] + 500
    rows["bid_px"], rows["ask_px"] = 65 * SCALE - sequences * TICK, 66 * SCALE + sequences * TICK
    rows["bid_sz"], rows["ask_sz"] = sequences % 97 + 1, sequences % 89 + 2
    rows["bid_ct"], rows["ask_ct"] = sequences % 7 + 1, sequences % 5 + 1
    rows["bids"] = rows["asks"] = 1
    levels = np.zeros((count, depth, 3), np.int64)
    return SnapshotBatch("run", rows, levels, levels.copy(), sequences.astype(np.int64), names)


def without_bids(snapshots: SnapshotBatch, every: int = 1) -> SnapshotBatch:
    """Empty the bid side of some of them."""
    rows = snapshots.rows[::every]
    rows["bid_px"], rows["bid_sz"], rows["bid_ct"], rows["bids"] = UNDEF_PRICE, 0, 0, 0
    return snapshots


def closes(counters: SinkCounters) -> bool:
    """Say whether the equation of the counters holds."""
    done = counters.written + counters.duplicates + counters.dropped + counters.conflated
    return counters.offered == done + counters.pending and counters.on_disk <= counters.pending
