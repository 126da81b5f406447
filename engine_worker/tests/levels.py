"""Snapshots with all their levels, made without an engine. Imports no Django: spawned processes load it."""

import numpy as np

from engine_worker.batch import SnapshotBatch
from engine_worker.book_names import BookName
from orderbook.book.mbo import BookKey
from orderbook.book.price import SCALE
from orderbook.book.snapshot_tape import SNAPSHOT_ROW

TICK = SCALE // 100
START_NS = 1_758_742_200_000_000_000


def snapshots_of(count: int, *, every: int = 10, depth: int = 10, symbol: str = "CLX5") -> SnapshotBatch:
    """Return a batch of one book whose middle wanders."""
    rng = np.random.default_rng(1)
    middle = 6500 + rng.integers(-2, 3, count).cumsum()
    bids, asks = rng.integers(1, 99, (2, count, depth, 3))
    steps = rng.integers(1, 3, (2, count, depth)).cumsum(axis=2)
    bids[:, :, 0] = (middle[:, None] - steps[0]) * TICK
    asks[:, :, 0] = (middle[:, None] + steps[1]) * TICK
    rows = np.zeros(count, SNAPSHOT_ROW)
    rows["records"] = np.arange(1, count + 1) * every
    rows["record"] = rows["records"] - 1
    rows["sequence"] = rows["records"]
    rows["ts_event"] = START_NS + rows["records"] * 1000
    rows["ts_recv"] = rows["ts_event"] + 500
    rows["bids"] = rows["asks"] = depth
    for side, levels in (("bid", bids), ("ask", asks)):
        for column, name in enumerate(("px", "sz", "ct")):
            rows[f"{side}_{name}"] = levels[:, 0, column]
    names = (BookName(symbol, TICK, BookKey(1, 7)),)
    return SnapshotBatch("0123456789abcdef", rows, bids, asks, np.arange(1, count + 1), names)
