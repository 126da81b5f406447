"""Several schemas of one stream, put into one order. Floor 1; arrays in, arrays out."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[Any]
"""Records of one schema, whose size is a multiple of 8 bytes, as that of every kind is."""

_WORD: Final = 8


class Part(NamedTuple):
    """Rows of one schema out of a block, each with the number of the record behind which it goes out, ascending."""

    schema: str
    places: npt.NDArray[np.int64]
    rows: Rows


def interleaved(parts: Sequence[Part]) -> npt.NDArray[np.uint8]:
    """Return the bytes of all rows by place, those of one place in the order of the parts.

    A single part is a view of its rows, where they lie contiguous. Cost: O(bytes), and a sort of the places.
    """
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0].rows).view(np.uint8)
    words = [_words(part.rows) for part in parts]
    order = _order(parts)
    widths = np.repeat([each.shape[1] for each in words], [len(each) for each in words])
    starts = np.empty(len(order), np.int64)
    starts[order] = np.cumsum(widths[order]) - widths[order]
    out = np.empty(int(widths.sum()), np.uint64)
    done = 0
    for each in words:
        rows, width = each.shape
        out[starts[done : done + rows, None] + np.arange(width)] = each
        done += rows
    return out.view(np.uint8)


def runs(parts: Sequence[Part], most_bytes: int) -> Iterator[tuple[str, Rows]]:
    """Yield the rows in the same order, cut where the schema changes and where they are more than so many bytes."""
    owner = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])[_order(parts)]
    done = [0] * len(parts)
    changes = np.flatnonzero(np.diff(owner)) + 1
    for begin, end in zip([0, *changes.tolist()], [*changes.tolist(), len(owner)], strict=True):
        if begin == end:
            continue
        number = int(owner[begin])
        schema, _, rows = parts[number]
        first, done[number] = done[number], done[number] + end - begin
        most = max(most_bytes // rows.dtype.itemsize, 1)
        for start in range(first, done[number], most):
            yield schema, rows[start : min(start + most, done[number])]


def portions(parts: Sequence[Part], most_bytes: int) -> Iterator[Sequence[Part]]:
    """Yield the rows in the same order, in portions of at most so many bytes; a row that is larger is one alone.

    Cost: none when all of them fit; else a sort of the places.
    """
    if sum(part.rows.nbytes for part in parts) <= most_bytes:
        yield parts
        return
    owner = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])[_order(parts)]
    ends = np.cumsum(np.array([part.rows.dtype.itemsize for part in parts])[owner])
    begin, done = 0, np.zeros(len(parts), np.int64)
    while begin < len(owner):
        before = int(ends[begin - 1]) if begin else 0
        stop = max(int(np.searchsorted(ends, before + most_bytes, "right")), begin + 1)
        upto = done + np.bincount(owner[begin:stop], minlength=len(parts))
        yield [
            Part(schema, places[first:last], rows[first:last])
            for (schema, places, rows), first, last in zip(parts, done.tolist(), upto.tolist(), strict=True)
            if first < last
        ]
        begin, done = stop, upto


def _order(parts: Sequence[Part]) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows, counted over all parts, in the order in which they go out."""
    order: npt.NDArray[np.int64] = np.argsort(np.concatenate([part.places for part in parts]), kind="stable")
    return order


def _words(rows: Rows) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), rows.dtype.itemsize // _WORD)
