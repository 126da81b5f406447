"""Many books in one stream: one book for each publisher and instrument. Floor 0.

Chooses between the fast and the readable books, and splits a batch by the book that each record belongs to. Knows
no symbols.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from orderbook.book.audit import Audit
from orderbook.book.mbo import MBO, BookKey, MboArray
from orderbook.book.protocol import Market, OrderBook
from orderbook.book.reference import ReferenceBook
from orderbook.book.tape import Tape

BookKind = Literal["kernel", "reference"]

_UNTYPED = np.dtype((np.void, MBO.itemsize))


def make_book(kind: BookKind) -> OrderBook:
    """Return a new empty book."""
    if kind == "reference":
        return ReferenceBook()
    # Imported here, because numba costs a second and web processes must never load it.
    from orderbook.book.kernel_book import KernelBook

    return KernelBook()


def make_market(kind: BookKind = "kernel") -> Market:
    """Return a new market without books."""
    if kind == "reference":
        return ReferenceMarket()
    from orderbook.book.kernel_market import KernelMarket

    return KernelMarket()


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


class ReferenceMarket:
    """The readable market; see ``Market`` for the face."""

    def __init__(self) -> None:
        self.books: dict[BookKey, ReferenceBook] = {}

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records of any books in order. Cost: about 1 us a record; 10 us where a tape takes mixed books."""
        parts = split_by_book(records)
        if tape is None or len(parts) == 1:
            for key, part in parts:
                self.book(key).apply(part, tape)
            return
        tape.reserve(len(records))
        for number, record in enumerate(records):
            self._take(tape, number, record)
        tape.finish(records)

    def apply_audited(self, records: MboArray, tape: Tape, audit: Audit) -> None:
        """As ``apply``, and check books behind events. Raises InvariantError. Cost: O(orders) for each check."""
        tape.reserve(len(records))
        for number, record in enumerate(records):
            book = self._take(tape, number, record)
            audit.saw(book.anomalies, tape.records + number)
            if book.at_event_end and audit.event_ended():
                book.check()
        tape.finish(records)

    def _take(self, tape: Tape, number: int, record: np.void) -> ReferenceBook:
        book = self.book(BookKey(int(record["publisher_id"]), int(record["instrument_id"])))
        book.apply(np.expand_dims(record, 0))
        book.write_tape(tape, number, record)
        return book

    def book(self, key: BookKey) -> ReferenceBook:
        """Return the book of a key, a new empty one when the stream has not named it yet."""
        return self.books.setdefault(key, ReferenceBook())
