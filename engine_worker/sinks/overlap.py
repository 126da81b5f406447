"""Lines of the feed file that come again, because the mark that an engine goes on from is older than they are. Floor 3.

The table absorbs what comes twice by its key; a file of lines has none. So what is behind the mark's place is read
once, and of the snapshots that come first as many are looked at as there are lines: those that are there are left out.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engine_worker.batch import SnapshotBatch

READ_BYTES: Final = 256 << 20
"""Of a file at most: what is behind them may be there twice."""

Key = tuple[str, int, int]
"""Symbol, ts_event and sequence: what the table tells snapshots apart by."""

# What a line that is no book of ours raises, whatever somebody or a power cut has put there.
_NO_BOOK: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)

log = logging.getLogger(__name__)


class Overlap:
    """What may come again. Not for several threads."""

    def __init__(self, keys: Counter[Key]) -> None:
        self._keys = keys
        self._left = keys.total()  # snapshots that are still looked at
        self._taken: list[Key] = []  # from the keys, since the last one that was settled
        self._looked = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing comes again any more."""
        return not self._left or not self._keys

    def without(self, batches: Sequence[SnapshotBatch]) -> list[SnapshotBatch]:
        """Return what of some batches is not there yet. Settle it or put it back. Cost: 6 us a snapshot looked at."""
        fresh = []
        for batch in batches:
            is_new = np.ones(len(batch), np.bool_)
            looked = min(self._left, len(batch))
            for index in range(looked):
                is_new[index] = not self._take(_key(batch, index))
            self._left -= looked
            self._looked += looked
            if is_new.all():
                fresh.append(batch)
            elif is_new.any():
                fresh.append(_chosen(batch, is_new))
        return fresh

    def settle(self) -> None:
        """Say that the rest of what was looked at last is written."""
        self._taken.clear()
        self._looked = 0

    def put_back(self) -> None:
        """Say that it could not be written: it comes once more."""
        self._keys.update(self._taken)
        self._left += self._looked
        self.settle()

    def _take(self, key: Key) -> bool:
        """Say whether there was one, and take it out."""
        count = self._keys.get(key, 0)
        if count > 1:
            self._keys[key] = count - 1
        elif count:
            del self._keys[key]
        if count:
            self._taken.append(key)
        return count > 0


def read_overlap(path: Path, offset: int) -> Overlap:
    """Return what the lines of a file behind an offset may be met again with. Raises OSError.

    Lines that are no books of ours are passed over and told. Cost: with 10 levels 25 us, and 180 bytes a line.
    """
    keys: Counter[Key] = Counter()
    symbols: dict[str, str] = {}  # a text for each, not one for each line
    foreign, left = 0, READ_BYTES
    with path.open("rb") as file:
        file.seek(offset)
        while left and (line := file.readline(left)):
            left -= len(line)
            if not line.endswith(b"\n"):
                continue
            try:
                book = json.loads(line)
                symbol = symbols.setdefault(book["symbol"], book["symbol"])
                keys[symbol, int(book["ts_ns"]), int(book["sequence"])] += 1
            except _NO_BOOK:
                foreign += 1
    if foreign:
        log.warning("jsonl: %s: behind byte %d there are %d lines that are no snapshots", path, offset, foreign)
    if not left:
        log.warning("jsonl: %s: what is behind byte %d may be there twice", path, offset + READ_BYTES)
    return Overlap(keys)


def _key(batch: SnapshotBatch, index: int) -> Key:
    row = batch.rows[index]
    return batch.names[int(row["book"])].symbol, int(row["ts_event"]), int(row["sequence"])


def _chosen(batch: SnapshotBatch, chosen: npt.NDArray[np.bool_]) -> SnapshotBatch:
    return SnapshotBatch(
        batch.run_id,
        batch.rows[chosen],
        batch.bids[chosen],
        batch.asks[chosen],
        batch.seqs[chosen],
        batch.names,
    )
