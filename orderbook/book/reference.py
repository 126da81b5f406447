"""ReferenceBook: the rules of a market-by-order book, written to be read. Floor 0.

The oracle for KernelBook. Orders live in a dict, each side is a SortedDict of price levels, and each level
is a queue in time priority. Sources of the rules: [A] Databento's action codes, [L] its limit-order-book
example, [S] its convention for snapshots, [H] what older recordings do, [B] Batonic's own rule for data that
the sources call impossible.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from sortedcontainers import SortedDict

from orderbook.book.anomaly import Anomaly
from orderbook.book.errors import InvariantError
from orderbook.book.mbo import ORDER, UNDEF_PRICE, Action, Flags, MboArray, Side
from orderbook.book.protocol import QueuePosition, RestingOrder
from orderbook.book.snapshot import Bbo, Level, Levels
from orderbook.book.tape import Tape

# Plain integers: the arithmetic of an IntFlag costs more than the rest of a record.
_LAST: Final = int(Flags.LAST)
_MAYBE_BAD_BOOK: Final = int(Flags.MAYBE_BAD_BOOK)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)
_TOB: Final = int(Flags.TOB)


@dataclass(slots=True)
class Order:
    """One resting order."""

    order_id: int
    side: int
    price: int
    size: int


@dataclass(slots=True)
class PriceLevel:
    """The queue of one price. A dict keeps its insertion order, which is the time priority."""

    price: int
    size: int = 0
    top_size: int = 0  # what a top-of-book publisher shows here; it is no order and is not counted as one
    orders: dict[int, Order] = field(default_factory=dict)


class ReferenceBook:
    """A full L3 book of one instrument; see ``OrderBook`` for the face. Apply costs about 1 us a record.

    A level of a top-of-book publisher has an order count of zero, and ``orders`` does not list it.
    """

    def __init__(self) -> None:
        self.ts_event = 0
        self.ts_recv = 0
        self.sequence = 0
        self.at_event_end = True
        self._in_snapshot = False
        self._orders: dict[int, Order] = {}
        # Keys are prices, negated for bids, so that the first level of either side is its best.
        self._sides: dict[int, SortedDict] = {Side.BID: SortedDict(), Side.ASK: SortedDict()}
        self._anomalies: dict[str, int] = {}
        self._taped = Bbo(None, None)

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records in order. Cost: O(log levels) a record."""
        if tape is not None:
            tape.reserve(len(records))
        for number, row in enumerate(rows(records)):
            self._apply_record(*row)
            if tape is not None:
                self.write_tape(tape, number, records[number])
        if tape is not None:
            tape.finish(records)
        self._remember(records)

    def write_tape(self, tape: Tape, number: int, record: np.void) -> None:
        """Write what a record that was just applied means for the tape."""
        if record["action"] == Action.TRADE:
            tape.write_trade(number, record)
        if record["flags"] & _LAST and (bbo := self.bbo()) != self._taped:
            self._taped = bbo
            tape.write_bbo(number, record, bbo)

    def apply_timed(self, records: MboArray) -> npt.NDArray[np.int64]:
        """Apply records in order and return how long each took, ns."""
        spent = np.empty(len(records), np.int64)
        for position, row in enumerate(rows(records)):
            before = time.perf_counter_ns()
            self._apply_record(*row)
            spent[position] = time.perf_counter_ns() - before
        self._remember(records)
        return spent

    def _remember(self, records: MboArray) -> None:
        if not len(records):
            return
        last = records[-1]
        self.ts_event = int(last["ts_event"])
        self.ts_recv = int(last["ts_recv"])
        self.sequence = int(last["sequence"])
        self.at_event_end = bool(last["flags"] & _LAST)

    def _apply_record(self, action: int, flags: int, order: Order) -> None:
        if flags & _MAYBE_BAD_BOOK:
            self._count(Anomaly.MAYBE_BAD_BOOK)
        # [H] A snapshot that begins without R replaces what rests all the same; else each of its records
        # would be a duplicate add.
        in_snapshot = bool(flags & _SNAPSHOT)
        if in_snapshot and not self._in_snapshot and action != Action.CLEAR and self._has_levels():
            self._count(Anomaly.IMPLICIT_CLEAR)
            self.clear()
        self._in_snapshot = in_snapshot

        if action in (Action.TRADE, Action.FILL, Action.NONE):
            return  # [A] never the book: the cancel or modify of the same event does
        if action == Action.CLEAR:
            self.clear()  # [A]
            return
        if action not in (Action.ADD, Action.CANCEL, Action.MODIFY):
            self._count(Anomaly.BAD_ACTION)  # [B]
            return
        if order.side not in (Side.BID, Side.ASK):
            self._count(Anomaly.BAD_SIDE)  # [A] only trades, fills, clears and nothings may lack a side
            return
        if order.price == UNDEF_PRICE and flags & _TOB:
            self._clear_side(order.side)  # [L]
        elif action == Action.CANCEL:
            self._cancel(order)
        elif order.price == UNDEF_PRICE:
            self._count(Anomaly.UNDEF_PRICE)  # [B]
        elif action == Action.ADD:
            self._add(order, flags)
        else:
            self._modify(order, flags)

    def _add(self, order: Order, flags: int) -> None:
        if flags & _TOB:
            self._set_top(order)
            return
        if order.size == 0:
            self._count(Anomaly.ZERO_SIZE)  # [B] nothing of no size rests
            return
        old = self._orders.get(order.order_id)
        if old is not None:
            self._count(Anomaly.DUPLICATE_ADD)  # [B] the newest word on an order is the best known
            self._remove(old)
        self._append(order)  # [L] a new order waits behind all others of its level

    def _set_top(self, order: Order) -> None:
        """[L] A top-of-book publisher's record is its whole side: one level, which is no order."""
        self._clear_side(order.side)
        if order.size == 0:
            self._count(Anomaly.ZERO_SIZE)
            return
        level = self._level(order.side, order.price)
        level.size = level.top_size = order.size

    def _cancel(self, cancel: Order) -> None:
        order = self._orders.get(cancel.order_id)
        if order is None:
            self._count(Anomaly.UNKNOWN_CANCEL)  # [B]
            return
        if (cancel.price, cancel.side) != (order.price, order.side):
            self._count(Anomaly.CANCEL_MISMATCH)  # [B]
        if cancel.size == 0:
            self._count(Anomaly.ZERO_SIZE)
        if cancel.size > order.size:
            self._count(Anomaly.OVER_CANCEL)  # [B]
        if cancel.size >= order.size:
            self._remove(order)  # [L]
        else:
            self._resize(order, order.size - cancel.size)  # [A] partial: keeps its place

    def _modify(self, new: Order, flags: int) -> None:
        order = self._orders.get(new.order_id)
        if order is None:
            self._count(Anomaly.UNKNOWN_MODIFY)
            self._add(new, flags)  # [L]
        elif new.side != order.side:
            self._count(Anomaly.SIDE_CHANGE)  # [B]
            self._remove(order)
            self._add(new, flags)
        elif new.size == 0:
            self._count(Anomaly.ZERO_SIZE)  # [B]
            self._remove(order)
        elif new.price != order.price or new.size > order.size:
            self._remove(order)  # [L] both lose priority
            self._append(new)
        else:
            self._resize(order, new.size)  # [L] keeps priority

    def _append(self, order: Order) -> None:
        level = self._level(order.side, order.price)
        level.orders[order.order_id] = order
        level.size += order.size
        self._orders[order.order_id] = order

    def _remove(self, order: Order) -> None:
        level = self._level(order.side, order.price)
        del level.orders[order.order_id]
        del self._orders[order.order_id]
        level.size -= order.size
        if level.size == 0:
            del self._sides[order.side][_rank(order.side, order.price)]

    def _resize(self, order: Order, size: int) -> None:
        self._level(order.side, order.price).size += size - order.size
        order.size = size

    def _level(self, side: int, price: int) -> PriceLevel:
        """Return the level of a price, made when there is none."""
        level: PriceLevel = self._sides[side].setdefault(_rank(side, price), PriceLevel(price))
        return level

    def _clear_side(self, side: int) -> None:
        for level in self._sides[side].values():
            for order_id in level.orders:
                del self._orders[order_id]
        self._sides[side].clear()

    def _has_levels(self) -> bool:
        return any(self._sides.values())

    def _count(self, kind: Anomaly) -> None:
        self._anomalies[kind.value] = self._anomalies.get(kind.value, 0) + 1

    def clear(self) -> None:
        """Remove every order and every level. Cost: O(orders)."""
        self._clear_side(Side.BID)
        self._clear_side(Side.ASK)

    def bbo(self) -> Bbo:
        """Return the best bid and offer. Cost: O(log levels)."""
        return Bbo(self._best(Side.BID), self._best(Side.ASK))

    def _best(self, side: Side) -> Level | None:
        levels = self._sides[side]
        if not levels:
            return None
        best: PriceLevel = levels.peekitem(0)[1]
        return Level(best.price, best.size, len(best.orders))

    def levels(self, side: Side, depth: int | None = None) -> Levels:
        """Return the best levels of a side as a new array. Cost: O(depth)."""
        ranked = self._sides[side].values()
        shown = ranked[: len(ranked) if depth is None else max(depth, 0)]
        return np.array([(each.price, each.size, len(each.orders)) for each in shown], np.int64).reshape(-1, 3)

    def orders(self) -> npt.NDArray[np.void]:
        """Return every resting order: bids, then asks, best level first, in queue order."""
        listed = [
            (order.order_id, order.price, order.size, order.side)
            for side in (Side.BID, Side.ASK)
            for level in self._sides[side].values()
            for order in level.orders.values()
        ]
        return np.array(listed, ORDER)

    def queue(self, side: Side, price: int) -> npt.NDArray[np.void]:
        """Return the orders of one level in queue order; none where no level is."""
        level: PriceLevel | None = self._sides[side].get(_rank(side, price))
        listed = [(each.order_id, each.price, each.size, each.side) for each in level.orders.values()] if level else []
        return np.array(listed, ORDER)

    def order(self, order_id: int) -> RestingOrder | None:
        """Return an order as it rests, None when it does not."""
        found = self._orders.get(order_id)
        return None if found is None else RestingOrder(order_id, Side(found.side), found.price, found.size)

    def queue_position(self, order_id: int) -> QueuePosition | None:
        """Return what waits ahead of an order at its level, None when it does not rest."""
        found = self._orders.get(order_id)
        if found is None:
            return None
        queue = self._level(found.side, found.price).orders.values()
        ahead = list(itertools.takewhile(lambda order: order is not found, queue))
        return QueuePosition(len(ahead), sum(order.size for order in ahead))

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind; kinds that did not occur are absent."""
        return dict(self._anomalies)

    def __len__(self) -> int:
        """Return the number of resting orders."""
        return len(self._orders)

    def check(self) -> None:
        """Raise InvariantError when the book contradicts itself. Cost: O(orders)."""
        queued = 0
        for side, levels in self._sides.items():
            for rank, level in levels.items():
                queued += len(level.orders)
                # 1. A level lies where its price belongs.
                self._require(rank == _rank(side, level.price), f"level {level.price} is filed under {rank}")
                # 2. Its size is that of its orders and of what a top-of-book publisher shows; none is empty.
                total = level.top_size + sum(order.size for order in level.orders.values())
                self._require(total == level.size > 0, f"level {level.price} says {level.size}, holds {total}")
                for order in level.orders.values():
                    # 3. A queued order is the known order of its id, of this side and price, and not empty.
                    known = self._orders.get(order.order_id) is order
                    here = (order.side, order.price) == (side, level.price)
                    self._require(known and here and order.size > 0, f"order {order} rests at {level.price}")
        # 4. With 3: every known order rests in exactly one queue.
        self._require(queued == len(self._orders), f"{len(self._orders)} orders are known, {queued} are queued")

    def _require(self, holds: bool, evidence: str) -> None:
        if not holds:
            raise InvariantError(f"{evidence} (sequence {self.sequence}, ts_event {self.ts_event})")


def _rank(side: int, price: int) -> int:
    return -price if side == Side.BID else price


def rows(records: MboArray) -> Iterator[tuple[int, int, Order]]:
    """Yield action, flags and the order that each record names, as plain Python values."""
    columns = (records[name].tolist() for name in ("action", "flags", "order_id", "side", "price", "size"))
    for action, flags, order_id, side, price, size in zip(*columns, strict=True):
        yield action, flags, Order(order_id, side, price, size)
