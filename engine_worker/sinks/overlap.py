"""Lines of the feed file that come again, because the mark that an engine goes on from is older than they are. Floor 3.

The table absorbs what comes twice by its key; a file of lines has none. So what is behind the mark's place is read
once, and of the snapshots that come first as many are looked at as there are lines: those that are there are left out.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine_worker.batch import SnapshotBatch

Key = tuple[str, int, int]
"""Symbol, ts_event and sequence: what the table tells snapshots apart by."""


class Overlap(NamedTuple):
    """What may come again. Never changed."""

    keys: Counter[Key]
    left: int
    """Snapshots that are still looked at."""

    def without(self, batches: Sequence[SnapshotBatch]) -> tuple[list[SnapshotBatch], "Overlap"]:
        """Return what of some batches is not there yet, and what may come again behind them. Cost: O(keys)."""
        keys, left, fresh = self.keys.copy(), self.left, []
        for batch in batches:
            is_new = np.ones(len(batch), np.bool_)
            for index in range(min(left, len(batch))):
                key = _key(batch, index)
                if keys[key]:
                    keys[key] -= 1
                    is_new[index] = False
            left = max(left - len(batch), 0)
            if is_new.all():
                fresh.append(batch)
            elif is_new.any():
                fresh.append(_chosen(batch, is_new))
        return fresh, Overlap(keys, left)


def read_overlap(path: Path, offset: int) -> Overlap:
    """Return what the lines of a file behind an offset may be met again with. Raises OSError. Cost: 20 us a line."""
    keys: Counter[Key] = Counter()
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                book = json.loads(line)
                keys[book["symbol"], int(book["ts_ns"]), int(book["sequence"])] += 1
    return Overlap(keys, keys.total())


def _key(batch: SnapshotBatch, index: int) -> Key:
    row = batch.rows[index]
    return batch.names[int(row["book"])].symbol, int(row["ts_event"]), int(row["sequence"])


def _chosen(batch: SnapshotBatch, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> SnapshotBatch:
    return SnapshotBatch(
        batch.run_id,
        batch.rows[chosen],
        batch.bids[chosen],
        batch.asks[chosen],
        batch.seqs[chosen],
        batch.names,
    )
