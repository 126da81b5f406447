"""KernelBook: the fast book, a face of Python around the compiled kernel. Floor 0.

Importing it loads numba. The arena's arrays start small and double; the kernel never allocates.
"""

import numpy as np
import numpy.typing as npt

from orderbook.book import kernel
from orderbook.book.anomaly import Anomaly
from orderbook.book.errors import InvariantError
from orderbook.book.mbo import MBO, ORDER, Flags, MboArray, Side
from orderbook.book.snapshot import Bbo, Level, Levels

_SIDES = {Side.BID: kernel.BID, Side.ASK: kernel.ASK}
_SEGMENTS = [kernel.SEGMENTS + side * kernel.SEGMENT_COLUMNS for side in (kernel.BID, kernel.ASK)]
_UINT64 = 2**64 - 1
_LAST = int(Flags.LAST)  # an enum's own arithmetic costs more than the rest of a small batch
_KINDS = tuple(kind.value for kind in Anomaly)


class Arena:
    """The arrays of ``kernel``: capacity for orders and levels, doubled when the kernel says that it is short."""

    def __init__(self, orders: int = 64, levels: int = 64, ladder: int = 256) -> None:
        self.pool = np.zeros(kernel.POOL_COLUMNS, np.int64)
        self.pool[[kernel.FREE_NODE, kernel.FREE_LEVEL]] = kernel.NO
        self.books = np.zeros((1, kernel.BOOK_COLUMNS), np.int64)
        self.nodes = np.zeros(0, kernel.NODE)
        self.levels = np.zeros(0, kernel.LEVEL)
        self.index = np.zeros(0, np.uint64)
        self.ladder = np.zeros((ladder, 2), np.int64)
        self._set_nodes(1 << max(orders - 1, 1).bit_length())  # the index needs a power of two
        self._set_levels(levels)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """The arrays in the order of the kernel's arguments."""
        return self.pool, self.books, self.nodes, self.index, self.levels, self.ladder

    def grow(self) -> None:
        """Double what the kernel said is short."""
        short = self.pool[kernel.SHORT]
        if short == kernel.SHORT_OF_NODES:
            self._set_nodes(2 * len(self.nodes))
        elif short == kernel.SHORT_OF_LEVELS:
            self._set_levels(2 * len(self.levels))
        else:
            self.ladder = np.concatenate([self.ladder, np.zeros_like(self.ladder)])

    def _set_nodes(self, capacity: int) -> None:
        before = len(self.nodes)
        fresh = np.zeros(capacity - before, kernel.NODE)
        fresh["next"] = _chain(before, capacity, self.pool[kernel.FREE_NODE])
        self.nodes = np.concatenate([self.nodes, fresh])
        self.pool[kernel.FREE_NODE] = before
        # Twice as many places as orders keep the probing short.
        longer = np.zeros(2 * capacity, np.uint64)
        shift = 33 - len(longer).bit_length()
        kernel.reindex(self.index, longer, shift)
        self.index = longer
        self.pool[kernel.INDEX_SHIFT] = shift

    def _set_levels(self, capacity: int) -> None:
        before = len(self.levels)
        fresh = np.zeros(capacity - before, kernel.LEVEL)
        fresh["first"] = _chain(before, capacity, self.pool[kernel.FREE_LEVEL])
        self.levels = np.concatenate([self.levels, fresh])
        self.pool[kernel.FREE_LEVEL] = before


def _chain(first: int, stop: int, after: int) -> npt.NDArray[np.int32]:
    """Return the links of a free list: each place names the next one, the last one names ``after``."""
    links = np.arange(first + 1, stop + 1, dtype=np.int32)
    links[-1] = after
    return links


class KernelBook:
    """A full L3 book of one instrument; see ``OrderBook`` for the face. Apply costs about 30 ns a record.

    A level of a top-of-book publisher has an order count of zero, and ``orders`` does not list it.
    """

    def __init__(self, orders: int = 64) -> None:
        """Make an empty book with room for ``orders``; it grows by itself."""
        self.ts_event = 0
        self.ts_recv = 0
        self.sequence = 0
        self.at_event_end = True
        self._arena = Arena(orders)
        self._book = 0

    def apply(self, records: MboArray) -> None:
        """Apply records in order, without the GIL. Cost: about 2 us a call and 30 ns a record."""
        records = _usable(records)
        applied = 0
        while (applied := kernel.apply(*self._arena.arrays, self._book, records, applied)) < len(records):
            self._arena.grow()
        self._remember(len(records))

    def apply_timed(self, records: MboArray) -> npt.NDArray[np.int64]:
        """Apply records in order and return how long each took, ns, one reading of the clock (25 ns) included."""
        records = _usable(records)
        timespec = np.zeros(2, np.int64)
        spent = np.zeros(len(records), np.int64)
        applied = 0
        while (applied := kernel.apply_timed(*self._arena.arrays, self._book, records, applied, timespec, spent)) < len(
            records
        ):
            self._arena.grow()
        self._remember(len(records))
        return spent

    def _remember(self, applied: int) -> None:
        if applied:
            ts_event, ts_recv, self.sequence, flags = self._arena.books[self._book, : kernel.ORDERS].tolist()
            self.ts_event, self.ts_recv = ts_event & _UINT64, ts_recv & _UINT64
            self.at_event_end = bool(flags & _LAST)

    def clear(self) -> None:
        """Remove every order and every level. Cost: O(orders)."""
        kernel.clear(*self._arena.arrays, self._book)

    def bbo(self) -> Bbo:
        """Return the best bid and offer. Cost: O(1), two short kernel calls."""
        return Bbo(self._best(Side.BID), self._best(Side.ASK))

    def _best(self, side: Side) -> Level | None:
        best = self.levels(side, 1)
        return Level(*best[0].tolist()) if len(best) else None

    def levels(self, side: Side, depth: int | None = None) -> Levels:
        """Return the best levels of a side as a new array. Cost: O(depth)."""
        arena, row = self._arena, _SIDES[side]
        count = int(arena.books[self._book, _SEGMENTS[row] + kernel.COUNT])
        copied = np.empty((count if depth is None else min(count, depth), 3), np.int64)
        kernel.copy_levels(arena.books, arena.levels, arena.ladder, self._book, row, copied)
        return copied

    def orders(self) -> npt.NDArray[np.void]:
        """Return every resting order: bids, then asks, best level first, in queue order. Cost: O(orders)."""
        arena = self._arena
        copied = np.zeros(len(self), ORDER)
        kernel.copy_orders(arena.books, arena.nodes, arena.levels, arena.ladder, self._book, copied)
        return copied

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind; kinds that did not occur are absent."""
        counts = self._arena.books[self._book, kernel.ANOMALIES : kernel.ANOMALIES + len(_KINDS)].tolist()
        return {kind: count for kind, count in zip(_KINDS, counts, strict=True) if count}

    def __len__(self) -> int:
        """Return the number of resting orders."""
        return int(self._arena.books[self._book, kernel.ORDERS])

    def check(self) -> None:
        """Raise InvariantError when the book contradicts itself. Cost: O(capacity), in Python."""
        arena = self._arena
        nodes, index = arena.nodes.tolist(), arena.index.tolist()
        levels = [dict(zip(kernel.LEVEL.names or (), level, strict=True)) for level in arena.levels.tolist()]
        seen: set[int] = set()
        used_levels = 0
        for side, segment in enumerate(_SEGMENTS):
            start, count, capacity = arena.books[self._book, segment : segment + kernel.SEGMENT_COLUMNS].tolist()
            used_levels += count
            rows = arena.ladder[start : start + count].tolist()
            keys = [key for key, _ in rows]
            # 1. A side lies in its segment, strictly sorted, the best price last.
            self._require(count <= capacity, f"side {side} has {count} levels in a segment of {capacity}")
            self._require(keys == sorted(set(keys)), f"the prices of side {side} are not sorted")
            for key, at in rows:
                level = levels[at]
                # 2. The ladder and its levels agree on price and side.
                self._require((level["key"], level["side"]) == (key, side), f"ladder says {key}, level {level}")
                queue, total, before, node = [], level["top_size"], kernel.NO, level["first"]
                while node != kernel.NO:
                    order_id, size, after, previous, of_level, book = nodes[node]
                    # 3. A queue is linked both ways, each order once, not empty, and at home in its level.
                    self._require(node not in seen, f"order {order_id} is queued twice")
                    self._require(
                        (previous, of_level, book) == (before, at, self._book) and size > 0,
                        f"order {order_id} of size {size} is wrongly linked at {key}",
                    )
                    # 4. The index finds it.
                    _, found = kernel.find(arena.pool, arena.nodes, arena.index, self._book, np.uint64(order_id))
                    self._require(found == node, f"the index does not find order {order_id}")
                    seen.add(node)
                    queue.append(node)
                    total += size
                    before, node = node, after
                # 5. A level says what its queue holds, and is not empty.
                said = (level["size"], level["count"], level["last"])
                self._require(said == (total, len(queue), before) and total > 0, f"level {level} holds {total}")
        # 6. With 4: every order that is known rests in exactly one queue.
        known = sum(entry != 0 for entry in index)
        self._require(len(seen) == len(self) == known, f"{known} orders known, {len(self)} counted, {len(seen)} queued")
        # 7. What is not used is free, exactly once.
        free_nodes = _walk(arena.pool[kernel.FREE_NODE], arena.nodes["next"])
        free_levels = _walk(arena.pool[kernel.FREE_LEVEL], arena.levels["first"])
        self._require(len(free_nodes) + len(seen) == len(nodes), f"{len(free_nodes)} of {len(nodes)} orders are free")
        self._require(len(free_levels) + used_levels == len(levels), f"{len(free_levels)} levels are free")

    def _require(self, holds: bool, evidence: str) -> None:
        if not holds:
            raise InvariantError(f"{evidence} (sequence {self.sequence}, ts_event {self.ts_event})")


def _usable(records: MboArray) -> MboArray:
    """Return the records in the one memory layout that the kernel is compiled for; copied only when they must be."""
    return records if records.flags.carray else np.require(records, MBO, ("C", "A", "W"))


def _walk(first: int, links: npt.NDArray[np.int32]) -> set[int]:
    """Return the places of a free list; a circle ends the walk."""
    following, places, place = links.tolist(), set[int](), int(first)
    while place != kernel.NO and place not in places:
        places.add(place)
        place = following[place]
    return places


def warm_up() -> None:
    """Load or compile every kernel now, at start, rather than at the first record. Cost: 0.2 s, 6 s the first time."""
    book = KernelBook()
    record = np.zeros(1, MBO)
    book.apply(record)
    book.apply_timed(record)
    book.bbo()
    book.orders()
    book.clear()
