"""Many books in one stream: one book for each publisher and instrument. Floor 0.

Splits a batch of records by the book that each belongs to, and keeps the books. Knows no symbols.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO, BookKey, MboArray
from orderbook.book.protocol import OrderBook
from orderbook.book.reference import ReferenceBook

BookKind = Literal["kernel", "reference"]

_UNTYPED = np.dtype((np.void, MBO.itemsize))


def make_book(kind: BookKind) -> OrderBook:
    """Return a new empty book."""
    if kind == "reference":
        return ReferenceBook()
    # Imported here, because numba costs a second and web processes must never load it.
    from orderbook.book.kernel_book import KernelBook

    return KernelBook()


def split_by_book(records: MboArray) -> list[tuple[BookKey, MboArray]]:
    """Return the records of each book, in stream order; the books in order of their keys.

    A batch of one book is returned as it came, without a copy. Cost: O(n), O(n log n) when books mix.
    """
    if not len(records):
        return []
    tags = _book_tags(records)
    if (tags == tags[0]).all():
        return [(_book_key(tags[0]), records)]
    order = np.argsort(tags, kind="stable")
    tags = tags[order]
    # Taken as untyped bytes: numpy copies records with named fields many times slower.
    mixed = np.ascontiguousarray(records).view(_UNTYPED)[order].view(MBO)
    starts = np.flatnonzero(np.concatenate(([True], tags[1:] != tags[:-1])))
    ends = np.append(starts[1:], len(tags))
    return [
        (_book_key(tags[start]), mixed[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _book_tags(records: MboArray) -> npt.NDArray[np.int64]:
    """Return publisher and instrument of each record in one integer, which sorts as BookKey does."""
    tags: npt.NDArray[np.int64] = records["publisher_id"].astype(np.int64) << 32 | records["instrument_id"]
    return tags


def _book_key(tag: np.int64) -> BookKey:
    return BookKey(int(tag) >> 32, int(tag) & 0xFFFF_FFFF)


class Market:
    """The books of every instrument in a stream, made when their first record comes."""

    def __init__(self, kind: BookKind = "kernel") -> None:
        self.kind = kind
        self.books: dict[BookKey, OrderBook] = {}

    def apply(self, records: MboArray) -> None:
        """Apply records of any books in order. Data faults are counted by each book, never raised."""
        for key, part in split_by_book(records):
            self.book(key).apply(part)

    def book(self, key: BookKey) -> OrderBook:
        """Return the book of a key, a new empty one when the stream has not named it yet."""
        book = self.books.get(key)
        if book is None:
            book = self.books[key] = make_book(self.kind)
        return book
