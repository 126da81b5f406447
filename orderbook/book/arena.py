"""Arena: the arrays of the compiled kernel, and their growth. Floor 0.

Any number of books share one. The arrays start small and grow by a third or a half when the kernel says which is
short; the kernel itself never allocates. Importing it loads numba.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book import kernel
from orderbook.book.errors import BookError, InvariantError
from orderbook.book.kernel import Arrays
from orderbook.book.mbo import BookKey, book_key

UINT64: Final = 2**64 - 1
MAX_ORDERS: Final = 2**29
"""More would not fit the links of 31 bits and the places of 32 bits."""

_EVIDENCE: Final = {
    kernel.BREAKS_SEGMENT: "the {side}s have {1} levels in a segment of {2}",
    kernel.BREAKS_ORDER: "the prices of the {side}s are not sorted: {1} before {2}",
    kernel.BREAKS_LADDER: "the ladder says {0}, its level {1} (side {2})",
    kernel.BREAKS_QUEUE: "order {id} of size {1} is wrongly linked at {2}",
    kernel.BREAKS_INDEX: "the index does not find order {id}: place {1} instead of {2}",
    kernel.BREAKS_LEVEL: "level {0} says it holds {1}, holds {2}",
    kernel.BREAKS_COUNT: "{0} orders are counted, {1} are queued",
    kernel.BREAKS_KNOWN: "{0} orders are known, {1} are counted",
    kernel.BREAKS_FREE_NODES: "{0} orders are free and {1} in use of {2}",
    kernel.BREAKS_FREE_LEVELS: "{0} levels are free and {1} in use of {2}",
}


class Arena:
    """The arrays of ``kernel``, with room for so many orders, levels and rows of the ladder to begin with."""

    def __init__(self, orders: int = 64, levels: int = 64, ladder: int = 256) -> None:
        pool = np.zeros(kernel.POOL_COLUMNS, np.int64)
        pool[[kernel.FREE_NODE, kernel.FREE_LEVEL]] = kernel.NO
        pool[kernel.FREE_SEGMENT :] = kernel.NO
        self.arrays = Arrays(
            pool=pool,
            books=np.zeros((0, kernel.BOOK_COLUMNS), np.int64),
            nodes=np.zeros(0, kernel.NODE),
            entries=np.zeros(0, np.uint32),
            levels=np.zeros(0, kernel.LEVEL),
            ladder=np.zeros((ladder, 2), np.int64),
            routes=np.zeros((0, 2), np.uint64),
        )
        self.book_count = 0
        self._set_nodes(orders)
        self._set_levels(levels)
        self._set_routes(4)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays. Cost: O(1)."""
        return sum(array.nbytes for array in self.arrays)

    def add_book(self, key: BookKey | None = None) -> int:
        """Make an empty book and return its number; records of ``key`` find it, nobody else's. Cost: O(1) mostly."""
        book = self.book_count
        if book == len(self.arrays.books):
            rows = np.zeros((max(1, 2 * book), kernel.BOOK_COLUMNS), np.int64)
            rows[:book] = self.arrays.books
            self.arrays = self.arrays._replace(books=rows)
        self.book_count += 1
        self.arrays.books[book, kernel.FLAGS] = kernel.LAST  # nothing has begun, so nothing is open
        if key is not None:
            if 2 * self.book_count > len(self.arrays.routes):
                self._set_routes(2 * len(self.arrays.routes))
            self._enter_route(np.uint64(key.publisher_id << 32 | key.instrument_id), np.uint64(book + 1))
        return book

    def grow(self) -> None:
        """Lengthen what the kernel said is short, by a third or a half. Cost: O(what it holds)."""
        short = self.arrays.pool[kernel.SHORT]
        if short == kernel.SHORT_OF_NODES:
            self._set_nodes(longer(len(self.arrays.nodes)))
        elif short == kernel.SHORT_OF_LEVELS:
            self._set_levels(longer(len(self.arrays.levels)))
        else:
            assert short == kernel.SHORT_OF_LADDER
            rows = np.zeros((longer(len(self.arrays.ladder)), 2), np.int64)
            rows[: len(self.arrays.ladder)] = self.arrays.ladder
            self.arrays = self.arrays._replace(ladder=rows)

    def check_book(self, book: int) -> None:
        """Raise InvariantError when a book contradicts itself. Cost: O(its orders), compiled."""
        self._require(book, *kernel.audit(self.arrays, book))

    def check_shared(self) -> None:
        """Raise InvariantError when what the books share contradicts itself. Cost: O(capacity), compiled."""
        self._require(None, *kernel.audit_arena(self.arrays))

    def _require(self, book: int | None, rule: int, *numbers: int) -> None:
        if rule != kernel.SOUND:
            side = "bid" if numbers[0] == kernel.BID else "ask"
            evidence = _EVIDENCE[rule].format(*numbers, id=numbers[0] & UINT64, side=side)
            raise InvariantError(evidence if book is None else f"{evidence} ({self._stands(book)})")

    def _stands(self, book: int) -> str:
        """Say whose book it is, if it has a route, and where its stream stands."""
        routes = self.arrays.routes
        tags = routes[routes[:, kernel.ROUTE_BOOK] == book + 1, kernel.ROUTE_INSTRUMENT].tolist()
        whose = "".join("publisher {}, instrument {}, ".format(*book_key(tag)) for tag in tags)
        ts_event, _, sequence = self.arrays.books[book, kernel.TS_EVENT : kernel.SEQUENCE + 1].tolist()
        return f"{whose}sequence {sequence}, ts_event {ts_event & UINT64}"

    def _set_nodes(self, capacity: int) -> None:
        before = len(self.arrays.nodes)
        if capacity > MAX_ORDERS:
            raise BookError(f"expected at most {MAX_ORDERS:,} orders in one arena, found room needed for {capacity:,}")
        fresh = np.zeros(capacity - before, kernel.NODE)
        fresh["next"] = _chain(before, capacity, self.arrays.pool[kernel.FREE_NODE])
        self.arrays = self.arrays._replace(nodes=_joined(self.arrays.nodes, fresh))
        self.arrays.pool[kernel.FREE_NODE] = before
        places = index_places(capacity)
        if places != len(self.arrays.entries):
            self.arrays = self.arrays._replace(entries=np.zeros(places, np.uint32))
            self.arrays.pool[kernel.INDEX_SHIFT] = 65 - places.bit_length()
            kernel.reindex(self.arrays)

    def _set_levels(self, capacity: int) -> None:
        before = len(self.arrays.levels)
        fresh = np.zeros(capacity - before, kernel.LEVEL)
        fresh["first"] = _chain(before, capacity, self.arrays.pool[kernel.FREE_LEVEL])
        self.arrays = self.arrays._replace(levels=_joined(self.arrays.levels, fresh))
        self.arrays.pool[kernel.FREE_LEVEL] = before

    def _set_routes(self, capacity: int) -> None:
        routes = self.arrays.routes[self.arrays.routes[:, kernel.ROUTE_BOOK] != 0]
        self.arrays = self.arrays._replace(routes=np.zeros((capacity, 2), np.uint64))
        self.arrays.pool[kernel.ROUTES_SHIFT] = 65 - capacity.bit_length()
        for instrument, book in routes:
            self._enter_route(instrument, book)

    def _enter_route(self, instrument: np.uint64, book: np.uint64) -> None:
        place, _ = kernel.route(self.arrays, instrument)
        self.arrays.routes[place] = instrument, book


def longer(length: int) -> int:
    """Return the next length of an array: powers of two, and half-way between them.

    >>> [longer(64), longer(96), longer(100)]
    [96, 128, 128]
    """
    power = 1 << length.bit_length()
    return power * 3 // 4 if length < power * 3 // 4 else power


def index_places(orders: int) -> int:
    """Return how many places the order index has for so many orders: a power of two, 5 to 10 for each.

    So sparse that a search seldom meets another order; sparser would cost more memory than it saves time.
    """
    return 1 << (5 * orders - 1).bit_length()


def _chain(first: int, stop: int, after: int) -> npt.NDArray[np.int32]:
    """Return the links of a free list: each place names the next one, the last one names ``after``."""
    links = np.arange(first + 1, stop + 1, dtype=np.int32)
    links[-1] = after
    return links


def _joined(before: npt.NDArray[np.void], fresh: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return one array of both; as bytes, because numpy copies records with named fields many times slower."""
    return np.concatenate([before.view(np.uint8), fresh.view(np.uint8)]).view(before.dtype)
