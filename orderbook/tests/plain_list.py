"""A book as a plain list of orders: the oracle of ``test_book_machine``, which shares no rule with the books.

It interprets no record. The test tells it what an order does, and it keeps the orders in time priority.
"""

from collections import Counter
from dataclasses import dataclass, field

from orderbook.book.mbo import BookKey
from orderbook.book.snapshot import Bbo, BookState, Level


@dataclass(eq=False)
class Waiting:
    """One order of the list."""

    key: BookKey
    side: str
    price: int
    size: int
    order_id: int


@dataclass
class PlainList:
    """The orders of one book in the order in which they came to where they wait, and a ledger of all sizes."""

    orders: list[Waiting] = field(default_factory=list)
    tops: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Price and size that a top-of-book publisher shows, by side."""
    came: Counter[str] = field(default_factory=Counter)
    went: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)
    in_snapshot: bool = False
    stands: tuple[int, int, int, bool] = (0, 0, 0, True)
    taped: Bbo = Bbo(None, None)

    def add(self, order: Waiting) -> None:
        self.orders.append(order)
        self.came[order.side] += order.size

    def remove(self, order: Waiting) -> None:
        self.orders.remove(order)
        self.went[order.side] += order.size

    def shrink(self, order: Waiting, size: int) -> None:
        self.went[order.side] += order.size - size
        order.size = size

    def requeue(self, order: Waiting, side: str, price: int, size: int) -> None:
        self.remove(order)
        self.add(Waiting(order.key, side, price, size, order.order_id))

    def clear_side(self, side: str) -> None:
        for order in [order for order in self.orders if order.side == side]:
            self.remove(order)
        self.went[side] += self.tops.pop(side, (0, 0))[1]

    def clear(self) -> None:
        self.clear_side("B")
        self.clear_side("A")

    def show_top(self, side: str, price: int, size: int) -> None:
        self.clear_side(side)
        self.tops[side] = price, size
        self.came[side] += size

    def find(self, order_id: int) -> Waiting | None:
        return next((order for order in self.orders if order.order_id == order_id), None)

    def queue(self, side: str, price: int) -> list[Waiting]:
        return [order for order in self.orders if (order.side, order.price) == (side, price)]

    def levels(self, side: str) -> list[list[int]]:
        top_price, top_size = self.tops.get(side, (None, 0))
        prices = {order.price for order in self.orders if order.side == side} | ({top_price} - {None})
        return [
            [price, sum(order.size for order in queue) + (top_size if price == top_price else 0), len(queue)]
            for price in sorted(prices, reverse=side == "B")
            for queue in [self.queue(side, price)]
        ]

    def bbo(self) -> Bbo:
        bids, asks = self.levels("B"), self.levels("A")
        return Bbo(Level(*bids[0]) if bids else None, Level(*asks[0]) if asks else None)

    def state(self) -> BookState:
        shown = [(order.side, order.price) for order in self.orders] + [
            (side, top[0]) for side, top in self.tops.items()
        ]
        bids, asks = ([price for side, price in shown if side == code] for code in "BA")
        if not (bids and asks):
            return BookState.ONE_SIDED if shown else BookState.EMPTY
        if max(bids) == min(asks):
            return BookState.LOCKED
        return BookState.CROSSED if max(bids) > min(asks) else BookState.OK
