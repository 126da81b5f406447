"""What the stores get: the snapshots of one pass over the stream, as arrays. Floor 3.

A snapshot is a row and its levels; no object is made for one. ``snapshot`` shows one as the object that it stands for,
for whoever reads them one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import BookKey
from orderbook.book.snapshot import BookSnapshot


class BookName(NamedTuple):
    """What a book is called, and its grid."""

    symbol: str
    tick: int
    """1e-9 units; 0 while no price has told any."""
    key: BookKey


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

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
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


def merged(batches: Sequence[SnapshotBatch], most: int) -> Iterator[SnapshotBatch]:
    """Yield the same snapshots in fewer batches, of which each that is put together has at most so many.

    A batch costs whoever encodes it as much as several snapshots, and most have but a few. Cost: a copy.
    """
    begin = count = 0
    for end, batch in enumerate(batches):
        goes_on = batch.run_id == batches[begin].run_id and batch.names is batches[begin].names
        if end > begin and not (goes_on and count + len(batch) <= most):
            yield _joined(batches[begin:end])
            begin, count = end, 0
        count += len(batch)
    if batches:
        yield _joined(batches[begin:])


def _joined(batches: Sequence[SnapshotBatch]) -> SnapshotBatch:
    """Return several batches of one run and the same names as one."""
    first = batches[0]
    if len(batches) == 1:
        return first
    rows = np.concatenate([batch.rows.view(np.uint8) for batch in batches]).view(first.rows.dtype)
    bids, asks = (np.concatenate([getattr(batch, side) for batch in batches]) for side in ("bids", "asks"))
    return SnapshotBatch(first.run_id, rows, bids, asks, np.concatenate([b.seqs for b in batches]), first.names)
