"""Snapshots without their levels, as the database keeps them: in memory, joined, and as bytes for the disk. Floor 3."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine_worker.batch import SnapshotBatch
from engine_worker.book_names import BookName
from orderbook.book.mbo import BookKey
from orderbook.book.snapshot_tape import SNAPSHOT_ROW

SYMBOL_CHARACTERS: Final = 71
_BIGINT_END: Final = 2**63

Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class NamedRows:
    """Best prices of some snapshots, never written to again."""

    rows: Rows
    """Shape (n,), dtype SNAPSHOT_ROW; ``book`` is an index of ``names``."""
    names: Sequence[BookName]
    block: Rows | None = None
    """What the rows are a part of, from ``begin`` on."""
    begin: int = 0

    def followed_by(self, other: "NamedRows") -> "NamedRows | None":
        """Return both as one, without a copy, where the other lies right behind this one; else None."""
        end = self.begin + len(self.rows)
        if self.block is None or self.block is not other.block or end != other.begin or self.names is not other.names:
            return None
        return NamedRows(self.block[self.begin : end + len(other.rows)], self.names, self.block, self.begin)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory of the rows; names are shared by many."""
        return self.rows.nbytes


def named_rows(batch: SnapshotBatch) -> NamedRows:
    """Return the rows of a batch, which do not keep its levels alive."""
    return NamedRows(batch.rows, batch.names, None if batch.block is None else batch.block.rows, batch.begin)


def joined(parts: Sequence[NamedRows]) -> NamedRows:
    """Return several, at least one, as one that names its own books only. Cost: O(n), and O(books) a list of names."""
    rows: list[Rows] = []
    numbers: dict[BookName, int] = {}
    begin = 0
    for end in range(1, len(parts) + 1):
        if end == len(parts) or parts[end].names is not parts[begin].names:
            rows.append(_renumbered([part.rows for part in parts[begin:end]], parts[begin].names, numbers))
            begin = end
    return NamedRows(_concatenated(rows), tuple(numbers))


def storable(part: NamedRows) -> npt.NDArray[np.bool_]:
    """Return which rows the table can hold: times below 2^63 ns, a symbol of at most 71 characters that is text."""
    fits = np.array([_is_storable(name.symbol) for name in part.names], bool)
    latest = np.maximum(part.rows["ts_event"], part.rows["ts_recv"])
    found: npt.NDArray[np.bool_] = (latest < _BIGINT_END) & fits[part.rows["book"]]
    return found


def packed(part: NamedRows) -> list[memoryview]:
    """Return bytes, in parts, that tell their own layout, so that an engine of another version can read them."""
    head = json.dumps({"fields": part.rows.dtype.descr, "names": part.names}).encode()
    rows = np.ascontiguousarray(part.rows).view(np.uint8)
    return [memoryview(len(head).to_bytes(4, "little") + head), rows.data]


def unpacked(data: memoryview) -> NamedRows:
    """Return what was packed. Fields that another version had and this has not are left out; new ones are 0."""
    end = 4 + int.from_bytes(data[:4], "little")
    head = json.loads(bytes(data[4:end]))
    rows = np.frombuffer(data, np.dtype([(name, kind) for name, kind in head["fields"]]), offset=end)
    if rows.dtype != SNAPSHOT_ROW:
        known = np.zeros(len(rows), SNAPSHOT_ROW)
        for field in set(rows.dtype.names or ()) & set(SNAPSHOT_ROW.names or ()):
            known[field] = rows[field]
        rows = known
    names = tuple(BookName(symbol, tick, BookKey(*key)) for symbol, tick, key in head["names"])
    return NamedRows(rows, names)


def _is_storable(symbol: str) -> bool:
    """Say whether PostgreSQL takes it for text: no NUL, nothing that has no UTF-8 form."""
    is_text = "\0" not in symbol and symbol.encode(errors="replace").decode() == symbol
    return is_text and len(symbol) <= SYMBOL_CHARACTERS


def _renumbered(
    parts: list[npt.NDArray[np.void]], names: Sequence[BookName], numbers: dict[BookName, int]
) -> npt.NDArray[np.void]:
    """Return rows whose books are numbered in ``numbers``, which grows by those that are new."""
    rows = _concatenated(parts)
    books = rows["book"]
    used = np.flatnonzero(np.bincount(books))
    new_numbers = np.array([numbers.setdefault(names[book], len(numbers)) for book in used.tolist()], np.uint32)
    if (new_numbers != used).any():
        number_of = np.zeros(int(used[-1]) + 1, np.uint32)
        number_of[used] = new_numbers
        rows = rows.copy() if len(parts) == 1 else rows  # rows of one batch are the batch's own
        rows["book"] = number_of[books]
    return rows


def _concatenated(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return parts as one, as bytes: numpy copies records with named fields many times slower."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts]).view(parts[0].dtype)
