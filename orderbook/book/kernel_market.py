"""KernelMarket: the books of a whole stream in one arena, applied in one compiled pass. Floor 0.

Importing it loads numba.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book import kernel
from orderbook.book.arena import Arena
from orderbook.book.audit import Audit
from orderbook.book.depth import MBP10, ROW_WORDS, DepthTape, Mbp10Array, row_words, unwritten_rows
from orderbook.book.kernel import DepthArrays, SnapshotArrays
from orderbook.book.kernel_book import KernelBook, apply_timed, named_anomalies, tape_arrays, usable
from orderbook.book.mbo import MBO, BookKey, MboArray, Side
from orderbook.book.snapshot_tape import SnapshotRule, SnapshotTape, require_times
from orderbook.book.tape import Tape

_UNTIMED: Final = np.zeros(0, np.int64)


class KernelMarket:
    """The fast market; see ``Market`` for the face. Each record finds its book inside the kernel."""

    def __init__(self) -> None:
        self.arena = Arena()
        self.books: dict[BookKey, KernelBook] = {}
        self.keys: list[BookKey] = []
        self._newest = np.zeros((0, kernel.NEWEST_COLUMNS), np.int64)
        self._clock = np.zeros(kernel.CLOCK_COLUMNS, np.int64)

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records of any books in stream order, without the GIL. Cost: about 3 us a call, 30-70 ns a record."""
        records, rows = usable(records), tape_arrays(tape, len(records))
        number = 0 if tape is None else tape.records
        done = 0
        while (done := kernel.apply(self.arena.arrays, kernel.NO, records, done, rows, number)) < len(records):
            self._help(records, done)
        if tape is not None:
            tape.finish(records)

    def apply_audited(self, records: MboArray, tape: Tape, audit: Audit) -> None:
        """As ``apply``, and check books behind events. Raises InvariantError. Cost: O(orders) a check, compiled."""
        records, rows = usable(records), tape_arrays(tape, len(records))
        done = 0
        while (
            done := kernel.apply_audited(
                self.arena.arrays, records, done, rows, tape.records, audit.every, audit.counts, audit.first_records
            )
        ) < len(records) or self._broke():
            self._help(records, done)
        tape.finish(records)

    def apply_timed(self, records: MboArray) -> npt.NDArray[np.int64]:
        """As ``apply``, and return how long each record took, ns, growth and one clock reading (20 ns) included."""
        return apply_timed(self.arena, kernel.NO, records, lambda done: self._help(records, done))

    def apply_depth(self, records: MboArray, tape: DepthTape) -> None:
        """As ``apply``, and write the ten best levels on a tape. Cost: about 4 us a call, 60-80 ns a record."""
        records, done = usable(records), 0
        tape.reserve(records)
        rows, words = tape.row_space, row_words(tape.row_space)
        while done < len(records):
            self._make_newest()
            arrays = DepthArrays(rows, words, tape.number_space, tape.book_space, tape.used, self._newest)
            done = kernel.apply_depth(self.arena.arrays, records, done, arrays, tape.records)
            if done < len(records):
                self._help(records, done)
        tape.finish(records)

    def apply_snapshots(self, records: MboArray, tape: SnapshotTape, times: npt.NDArray[np.int64] | None = None) -> int:
        """As ``apply``, and write the snapshots that fall due and the trades on a tape; without the GIL.

        Cost: about 8 us a call, 26-50 ns a record, and a snapshot 40 ns and 2-7 ns for each of its levels.
        """
        require_times(records, times)
        records, done = usable(records), 0
        spent = _UNTIMED if times is None else times
        clock = self._clock
        clock[:] = 0
        tape.reserve_books(len(self.arena.arrays.books))
        while done < len(records):
            done = kernel.apply_snapshots(
                self.arena.arrays,
                records,
                done,
                _snapshot_arrays(tape),
                tape.records,
                tape.rule.every,
                tape.rule.every_ns,
                clock,
                spent,
            )
            if self.arena.arrays.pool[kernel.SHORT] == kernel.ENOUGH:
                break
            self._provide(records, done, tape)
        tape.finish(done)
        return done

    def snap_rest(self, tape: SnapshotTape) -> None:
        """Write a snapshot of each book at an event end that took records since its last one. Cost: O(books)."""
        tape.reserve_books(len(self.arena.arrays.books))
        book, last, every_ns = 0, tape.records - 1, tape.rule.every_ns
        while book < len(self.keys):
            arrays = _snapshot_arrays(tape)
            book = kernel.snap_rest(self.arena.arrays, arrays, book, len(self.keys), last, every_ns, self._clock)
            if book < len(self.keys):
                tape.reserve(1)

    def newest_depth(self) -> Mbp10Array:
        """Return for each book that a depth tape tells of its newest row of an event end. Cost: O(books)."""
        rows = np.array(self._newest[:, :ROW_WORDS], order="C").view(MBP10).reshape(-1)
        written: Mbp10Array = rows[rows["length"] != 0]
        return written

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind over all books. Cost: one sum of an array."""
        return named_anomalies(self.arena.arrays.books[: self.arena.book_count])

    def check(self) -> None:
        """Raise InvariantError when a book, or what the books share, contradicts itself. Cost: O(capacity)."""
        for book in range(self.arena.book_count):
            self.arena.check_book(book)
        self.arena.check_shared()

    def book(self, key: BookKey) -> KernelBook:
        """Return the book of a key, a new empty one when the stream has not named it yet."""
        book = self.books.get(key)
        if book is None:
            book = self.books[key] = KernelBook(self.arena, self.arena.add_book(key))
            self.keys.append(key)
        return book

    def _make_newest(self) -> None:
        """Make place for the newest row of every book that there is."""
        known, books = len(self._newest), len(self.arena.arrays.books)
        if books > known:
            fresh = np.zeros((books - known, kernel.NEWEST_COLUMNS), np.int64)
            fresh[:, :ROW_WORDS] = row_words(unwritten_rows(books - known))
            self._newest = np.concatenate([self._newest, fresh])

    def _provide(self, records: MboArray, done: int, tape: SnapshotTape) -> None:
        """Provide what the kernel stopped for before record ``done`` while it wrote snapshots."""
        if self.arena.arrays.pool[kernel.SHORT] == kernel.SHORT_OF_ROWS:
            tape.reserve(1, 1)
        else:
            self._help(records, done)
            tape.reserve_books(len(self.arena.arrays.books))

    def _broke(self) -> bool:
        return bool(self.arena.arrays.pool[kernel.SHORT] == kernel.SHORT_OF_SENSE)

    def _help(self, records: MboArray, done: int) -> None:
        """Provide what the kernel stopped for before record ``done``, or say which book it found broken."""
        if self._broke():
            self.arena.arrays.pool[kernel.SHORT] = 0
            self.book(_key_of(records, done - 1)).check()
        elif self.arena.arrays.pool[kernel.SHORT] == kernel.SHORT_OF_BOOKS:
            self.book(_key_of(records, done))
        else:
            self.arena.grow()


def _key_of(records: MboArray, number: int) -> BookKey:
    return BookKey(int(records["publisher_id"][number]), int(records["instrument_id"][number]))


def _snapshot_arrays(tape: SnapshotTape) -> SnapshotArrays:
    return SnapshotArrays(
        *tape.block,
        waits=tape.wait_space,
        trades=tape.trade_space,
        used=tape.used,
        states=tape.states,
        grids=tape.grids,
        touched=tape.touched,
    )


def warm_up() -> None:
    """Load or compile every kernel of the live path now, at start, rather than at the first record.

    Cost: 0.2 s, 10 s the first time.
    """
    market = KernelMarket()
    record = np.zeros(1, MBO)
    market.apply(record, Tape())
    market.apply_timed(record)
    book = market.book(_key_of(record, 0))
    book.bbo()
    book.orders()
    book.queue(Side.BID, 0)
    book.queue_position(0)
    book.clear()


def warm_up_snapshots() -> None:
    """Load or compile what writes snapshots, as ``warm_up`` does the rest."""
    market, tape = KernelMarket(), SnapshotTape(SnapshotRule(1, 0, 1))
    market.apply_snapshots(np.zeros(1, MBO), tape)
    market.snap_rest(tape)
