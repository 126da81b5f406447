"""What the stores get: snapshots as arrays, parts of the blocks that a market writes. Floor 3.

A snapshot is a row and its levels; no object is made for one. ``snapshot`` shows one as the object that it stands for,
for whoever reads them one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine_worker.book_names import BookName
from orderbook.book.snapshot import BookSnapshot
from orderbook.book.snapshot_tape import SnapshotBlock


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotBatch:
    """Snapshots of one run in stream order, never written to again. They may be of several books."""

    run_id: str
    rows: npt.NDArray[np.void]
    """Shape (n,), dtype SNAPSHOT_ROW."""
    bids: npt.NDArray[np.int64]
    """Shape (n, depth, 3): price, size, count, best first; undefined behind the ``bids`` levels that a row tells of."""
    asks: npt.NDArray[np.int64]
    seqs: npt.NDArray[np.int64]
    """Number of each snapshot within its book and run, from 1."""
    names: Sequence[BookName]
    """By number of the book, which is ``rows["book"]``; those that no row names have no symbol."""
    block: SnapshotBlock | None = None
    """What its arrays are a part of, from ``begin`` on."""
    begin: int = 0

    def followed_by(self, other: "SnapshotBatch") -> "SnapshotBatch | None":
        """Return both as one, without a copy, where the other lies right behind this one; else None."""
        end = self.begin + len(self.rows)
        if self.block is None or self.block is not other.block or end != other.begin or self.names is not other.names:
            return None
        return part_of(self.run_id, self.block, self.begin, end + len(other.rows), self.names)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays. A part of a block keeps all of it, 1 MB, which it mostly shares with its neighbours."""
        return self.rows.nbytes + self.bids.nbytes + self.asks.nbytes + self.seqs.nbytes

    def __getitem__(self, part: slice) -> "SnapshotBatch":
        """Return some of the snapshots, without a copy."""
        return SnapshotBatch(
            self.run_id, self.rows[part], self.bids[part], self.asks[part], self.seqs[part], self.names
        )

    def snapshot(self, index: int) -> BookSnapshot:
        """Return one snapshot as an object, its levels copied. Cost: about 10 us."""
        row = self.rows[index]
        name = self.names[int(row["book"])]
        return BookSnapshot(
            symbol=name.symbol,
            run_id=self.run_id,
            seq=int(self.seqs[index]),
            records=int(row["records"]),
            ts_event=int(row["ts_event"]),
            ts_recv=int(row["ts_recv"]),
            sequence=int(row["sequence"]),
            tick=name.tick,
            bids=self.bids[index, : row["bids"]].copy(),
            asks=self.asks[index, : row["asks"]].copy(),
            key=name.key,
        )


def part_of(run_id: str, block: SnapshotBlock, begin: int, end: int, names: Sequence[BookName]) -> SnapshotBatch:
    """Return the snapshots of a block from ``begin`` up to ``end``, without a copy. Cost: 2 us."""
    rows, bids, asks, seqs, _ = block
    part = slice(begin, end)
    return SnapshotBatch(run_id, rows[part], bids[part], asks[part], seqs[part], names, block, begin)
