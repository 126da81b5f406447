"""KernelBook: the fast book, a face of Python around the compiled kernel. Floor 0. Importing it loads numba."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book import kernel
from orderbook.book.arena import UINT64, Arena
from orderbook.book.audit import KINDS
from orderbook.book.kernel import TapeArrays
from orderbook.book.mbo import MBO, ORDER, UNDEF_PRICE, Flags, MboArray, Side
from orderbook.book.protocol import QueuePosition, RestingOrder
from orderbook.book.snapshot import Bbo, Level, Levels
from orderbook.book.tape import BBO_ROW, TRADE_ROW, Tape

_SIDES: Final = {Side.BID: kernel.BID, Side.ASK: kernel.ASK}
_MIN_PRICE: Final = -(2**63)
_LAST: Final = int(Flags.LAST)  # an enum's own arithmetic costs more than the rest of a small batch
NO_TAPE: Final = TapeArrays(np.zeros(0, BBO_ROW), np.zeros(0, TRADE_ROW), np.zeros(2, np.int64))


class KernelBook:
    """A full L3 book of one instrument; see ``OrderBook`` for the face. Apply costs about 30 ns a record.

    A level of a top-of-book publisher has an order count of zero, and ``orders`` does not list it.
    """

    def __init__(self, arena: Arena | None = None, book: int | None = None) -> None:
        """Make an empty book in an arena of its own, or the face of a book that an arena has."""
        self.arena = Arena() if arena is None else arena
        self._book = self.arena.add_book() if book is None else book

    @property
    def ts_event(self) -> int:
        """Venue time of the last record applied, ns; 0 before the first."""
        return self._column(kernel.TS_EVENT) & UINT64

    @property
    def ts_recv(self) -> int:
        """Capture time of the last record applied, ns."""
        return self._column(kernel.TS_RECV) & UINT64

    @property
    def sequence(self) -> int:
        """Sequence of the last record applied."""
        return self._column(kernel.SEQUENCE)

    @property
    def at_event_end(self) -> bool:
        """True when the last record applied closed its event, or none was applied."""
        return bool(self._column(kernel.FLAGS) & _LAST)

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records in order, without the GIL. Cost: about 3 us a call and 30 ns a record."""
        records, rows = usable(records), tape_arrays(tape, len(records))
        number = 0 if tape is None else tape.records
        done = 0
        while (done := kernel.apply(self.arena.arrays, self._book, records, done, rows, number)) < len(records):
            self.arena.grow()
        if tape is not None:
            tape.finish(records)

    def apply_timed(self, records: MboArray) -> npt.NDArray[np.int64]:
        """Apply records in order and return how long each took, ns, growth and one clock reading (20 ns) included."""
        return apply_timed(self.arena, self._book, records, lambda done: self.arena.grow())

    def clear(self) -> None:
        """Remove every order and every level. Cost: O(orders)."""
        kernel.clear(self.arena.arrays, self._book)

    def bbo(self) -> Bbo:
        """Return the best bid and offer. Cost: O(1), two short kernel calls."""
        return Bbo(self._best(Side.BID), self._best(Side.ASK))

    def levels(self, side: Side, depth: int | None = None) -> Levels:
        """Return the best levels of a side as a new array. Cost: O(depth)."""
        row = _SIDES[side]
        count = self._column(kernel.SEGMENTS + row * kernel.SEGMENT_COLUMNS + kernel.COUNT)
        copied = np.empty((count if depth is None else min(count, max(depth, 0)), 3), np.int64)
        kernel.copy_levels(self.arena.arrays, self._book, row, copied)
        return copied

    def orders(self) -> npt.NDArray[np.void]:
        """Return every resting order: bids, then asks, best level first, in queue order. Cost: O(orders)."""
        copied = np.zeros(len(self), ORDER)
        kernel.copy_orders(self.arena.arrays, self._book, copied)
        return copied

    def queue(self, side: Side, price: int) -> npt.NDArray[np.void]:
        """Return the orders of one level in queue order; none where no level is. Cost: O(orders)."""
        arrays, level = self.arena.arrays, kernel.NO
        if _MIN_PRICE <= price < UNDEF_PRICE:
            level = kernel.find_level(arrays, self._book, _SIDES[side], price if side == Side.BID else ~price)
        copied = np.zeros(0 if level == kernel.NO else int(arrays.levels["count"][level]), ORDER)
        if len(copied):
            kernel.copy_queue(arrays, level, copied)
        return copied

    def order(self, order_id: int) -> RestingOrder | None:
        """Return an order as it rests, None when it does not. Cost: O(1)."""
        node = self._find(order_id)
        if node == kernel.NO:
            return None
        arrays = self.arena.arrays
        level = arrays.levels[arrays.nodes["level"][node]]
        key, is_bid = int(level["key"]), level["side"] == kernel.BID
        size = int(arrays.nodes["size"][node])
        return RestingOrder(order_id, Side.BID if is_bid else Side.ASK, key if is_bid else ~key, size)

    def queue_position(self, order_id: int) -> QueuePosition | None:
        """Return what waits ahead of an order at its level, None when it does not rest. Cost: O(orders ahead)."""
        node = self._find(order_id)
        return None if node == kernel.NO else QueuePosition(*kernel.ahead(self.arena.arrays, node))

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind; kinds that did not occur are absent."""
        return named_anomalies(self.arena.arrays.books[self._book : self._book + 1])

    def __len__(self) -> int:
        """Return the number of resting orders."""
        return self._column(kernel.ORDERS)

    def check(self) -> None:
        """Raise InvariantError when the book contradicts itself. Cost: O(capacity of the arena), compiled."""
        self.arena.check_book(self._book)
        self.arena.check_shared()

    def _best(self, side: Side) -> Level | None:
        best = self.levels(side, 1)
        return Level(*best[0].tolist()) if len(best) else None

    def _find(self, order_id: int) -> int:
        """Return the node of an order, NO when it does not rest; an id that no record can carry does not."""
        if not 0 <= order_id <= UINT64:
            return kernel.NO
        _, node = kernel.find(self.arena.arrays, self._book, np.uint64(order_id))
        return int(node)

    def _column(self, column: int) -> int:
        return int(self.arena.arrays.books[self._book, column])


def named_anomalies(books: npt.NDArray[np.int64]) -> dict[str, int]:
    """Return the counts of data faults by kind of rows of ``books``; kinds that did not occur are absent."""
    counts = books[:, kernel.ANOMALIES : kernel.ANOMALIES + kernel.KINDS].sum(axis=0).tolist()
    return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}


def tape_arrays(tape: Tape | None, records: int) -> TapeArrays:
    """Return the arrays of a tape with room for a batch; of no tape, empty ones."""
    if tape is None:
        return NO_TAPE
    tape.reserve(records)
    return TapeArrays(tape.bbo_rows, tape.trade_rows, tape.used)


def usable(records: MboArray) -> MboArray:
    """Return the records in the one memory layout that the kernel is compiled for; copied only when they must be."""
    return records if records.flags.carray else np.require(records, MBO, ("C", "A", "W"))


def apply_timed(arena: Arena, only: int, records: MboArray, provide: Callable[[int], None]) -> npt.NDArray[np.int64]:
    """Apply and time records; ``provide`` is told where the kernel stopped for want of something."""
    records = usable(records)
    clock, spent = np.zeros(kernel.CLOCK_COLUMNS, np.int64), np.zeros(len(records), np.int64)
    done = 0
    while (done := kernel.apply_timed(arena.arrays, only, records, done, clock, spent)) < len(records):
        provide(done)
    return spent


def clock_cost_ns(samples: int) -> npt.NDArray[np.int64]:
    """Return what each of so many readings of the clock took, ns: what every time of ``apply_timed`` includes."""
    spent = np.zeros(samples, np.int64)
    kernel.read_clock(np.zeros(kernel.CLOCK_COLUMNS, np.int64), spent)
    return spent
