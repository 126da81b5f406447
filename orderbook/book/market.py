"""Many books in one stream: one book for each publisher and instrument. Floor 0.

Chooses between the fast and the readable books, and splits a batch by the book that each record belongs to. Knows
no symbols.
"""

import time
from collections import Counter
from typing import Literal

import numpy as np
import numpy.typing as npt

from orderbook.book.audit import Audit
from orderbook.book.depth import MBP10, DepthTape, Mbp10Array
from orderbook.book.mbo import MBO, BookKey, MboArray, book_key, book_tags
from orderbook.book.protocol import Market, OrderBook
from orderbook.book.reference import ReferenceBook
from orderbook.book.reference_depth import ReferenceDepth
from orderbook.book.reference_snapshots import write_record, write_snapshot
from orderbook.book.snapshot_tape import SnapshotTape, require_times
from orderbook.book.tape import Tape

BookKind = Literal["kernel", "reference"]

_UNTYPED = np.dtype((np.void, MBO.itemsize))


def make_book(kind: BookKind) -> OrderBook:
    """Return a new empty book."""
    if kind == "reference":
        return ReferenceBook()
    _require_kernel(kind)
    # Imported here, because numba costs a second and web processes must never load it.
    from orderbook.book.kernel_book import KernelBook

    return KernelBook()


def make_market(kind: BookKind = "kernel") -> Market:
    """Return a new market without books."""
    if kind == "reference":
        return ReferenceMarket()
    _require_kernel(kind)
    from orderbook.book.kernel_market import KernelMarket

    return KernelMarket()


def _require_kernel(kind: BookKind) -> None:
    if kind != "kernel":
        raise ValueError(f"expected the kind of book kernel or reference, found {kind!r}")


def warm_up(kind: BookKind = "kernel") -> None:
    """Make a kind of book ready for its first record. Cost: 0.2 s from the cache, 10 s the first time."""
    if kind == "kernel":
        from orderbook.book import kernel_market

        kernel_market.warm_up()
        kernel_market.warm_up_snapshots()


def split_by_book(records: MboArray) -> list[tuple[BookKey, MboArray]]:
    """Return the records of each book, in stream order; the books in order of their keys.

    A batch of one book is returned as it came, without a copy. Cost: O(n), O(n log n) when books mix.
    """
    if not len(records):
        return []
    tags = book_tags(records)
    if (tags == tags[0]).all():
        return [(book_key(int(tags[0])), records)]
    order = np.argsort(tags, kind="stable")
    tags = tags[order]
    # Taken as untyped bytes: numpy copies records with named fields many times slower.
    mixed = np.ascontiguousarray(records).view(_UNTYPED)[order].view(MBO)
    starts = np.flatnonzero(np.concatenate(([True], tags[1:] != tags[:-1])))
    ends = np.append(starts[1:], len(tags))
    return [
        (book_key(int(tags[start])), mixed[start:end])
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


class ReferenceMarket:
    """The readable market; see ``Market`` for the face."""

    def __init__(self) -> None:
        self.books: dict[BookKey, ReferenceBook] = {}
        self.keys: list[BookKey] = []
        self._depths: dict[BookKey, ReferenceDepth] = {}

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records of any books in order. Cost: about 1 us a record; 10 us where a tape takes mixed books."""
        parts = split_by_book(records)
        if tape is None or len(parts) == 1:
            self._name(parts, records)
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

    def apply_depth(self, records: MboArray, tape: DepthTape) -> None:
        """As ``apply``, and write the ten best levels on a tape. Cost: about 0.1 ms a record."""
        tape.reserve(records)
        for number, record in enumerate(records):
            key = BookKey(int(record["publisher_id"]), int(record["instrument_id"]))
            book = self.book(key)
            book.apply(np.expand_dims(record, 0))
            self._depth(key).write(tape, number, record, book)
        tape.finish(records)

    def apply_snapshots(
        self,
        records: MboArray,
        tape: SnapshotTape,
        times: npt.NDArray[np.int64] | None = None,
    ) -> int:
        """As ``apply``, and write the snapshots that fall due and the trades. Cost: about 20 us a record."""
        require_times(records, times)
        done = 0
        for number, record in enumerate(records):
            begun = time.perf_counter_ns()
            key = BookKey(int(record["publisher_id"]), int(record["instrument_id"]))
            book = self.book(key)
            book.apply(np.expand_dims(record, 0))
            if times is not None and number < len(times):
                times[number] = time.perf_counter_ns() - begun
            tape.reserve_books(len(self.keys))
            write_record(tape, number, record, book, self.keys.index(key))
            done += 1
            if tape.hands_over and len(tape.unhanded.rows):
                break  # it hands over nothing itself
        tape.finish(done)
        return done

    def snap_rest(self, tape: SnapshotTape) -> None:
        """Write a snapshot of each book at an event end that took records since its last one. Cost: O(books)."""
        for place, key in enumerate(self.keys[: len(tape.states)]):
            if tape.is_unsettled(place) and self.books[key].at_event_end:
                write_snapshot(tape, -1, self.books[key], place)

    def newest_depth(self) -> Mbp10Array:
        """Return for each book that a depth tape tells of its newest row of an event end. Cost: O(books)."""
        rows = np.array([self._depth(key).newest for key in self.books], MBP10)
        written: Mbp10Array = rows[rows["length"] != 0]
        return written

    def _depth(self, key: BookKey) -> ReferenceDepth:
        if key not in self._depths:
            self._depths[key] = ReferenceDepth(self.keys.index(key))
        return self._depths[key]

    def _name(self, parts: list[tuple[BookKey, MboArray]], records: MboArray) -> None:
        """Make the books that are new, in the order in which the stream names them."""
        new = [int(book_tags(part[:1])[0]) for key, part in parts if key not in self.books]
        if len(new) > 1:
            tags = book_tags(records)
            new.sort(key=lambda tag: int((tags == tag).argmax()))
        for tag in new:
            self.book(book_key(tag))

    def _take(self, tape: Tape, number: int, record: np.void) -> ReferenceBook:
        book = self.book(BookKey(int(record["publisher_id"]), int(record["instrument_id"])))
        book.apply(np.expand_dims(record, 0))
        book.write_tape(tape, number, record)
        return book

    def book(self, key: BookKey) -> ReferenceBook:
        """Return the book of a key, a new empty one when the stream has not named it yet."""
        book = self.books.get(key)
        if book is None:
            book = self.books[key] = ReferenceBook()
            self.keys.append(key)
        return book

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind over all books."""
        return dict(sum((Counter(book.anomalies) for book in self.books.values()), Counter[str]()))

    def check(self) -> None:
        """Raise InvariantError when a book contradicts itself. Cost: O(orders)."""
        for book in self.books.values():
            book.check()
