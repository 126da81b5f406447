"""Both markets in lockstep through any story, beside a plain list of orders that knows nothing of them.

The list is a third book, and the only one whose rules are told by intent: each rule below sends records and says what
the list does then. After every rule the books must show what the list shows, and every invariant must hold.

More and longer stories: ``pytest orderbook/tests/test_book_machine.py --hypothesis-profile=long``.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orderbook.book.digest import market_hash, state_hash
from orderbook.book.market import make_book, make_market, split_by_book
from orderbook.book.mbo import UNDEF_PRICE, BookKey, Side
from orderbook.book.protocol import OrderBook, QueuePosition, RestingOrder
from orderbook.book.snapshot import Levels, book_state
from orderbook.book.tape import Tape
from orderbook.tests.plain_list import PlainList, Waiting
from orderbook.tests.records import (
    KINDS,
    LAST,
    MAYBE_BAD_BOOK,
    SNAPSHOT,
    TOB,
    Row,
    examples,
    picture,
    record,
    stream,
)

STORIES, LONG_STORIES = 150, 20_000
STEPS = 50

# The same instrument under two publishers, and the same order ids in all books.
KEYS = [BookKey(1, 7), BookKey(2, 7), BookKey(1, 8)]

PRICES = st.sampled_from([*range(-3, 4)] * 6 + [*range(-20, 20)] + [-(2**63), UNDEF_PRICE - 1])
SIZES = st.sampled_from([*range(1, 7)] * 3 + [2**32 - 1])
SIDES = st.sampled_from("BA")
ANY_SIDES = st.sampled_from("BANX")
IDS = st.sampled_from([*range(12), 2**63 - 1, 2**63, 2**64 - 1])
FLAGS = st.sampled_from([LAST] * 6 + [0] * 3 + [LAST | MAYBE_BAD_BOOK, MAYBE_BAD_BOOK])
PLACES = st.integers(0, 255)
ONE_KEY = st.sampled_from([KEYS[0], *KEYS])
TOP_KEY = st.sampled_from(KEYS[1:])  # their records clear a side: the first book grows undisturbed


class BookMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.markets = {kind: make_market(kind) for kind in KINDS}
        self.tapes = {kind: Tape() for kind in KINDS}
        self.lists = {key: PlainList() for key in KEYS}
        self.hashes = {key: state_hash(make_book("reference")) for key in KEYS}
        self.states: dict[str, object] = {}
        self.batch: list[Row] = []
        self.sent: list[Row] = []
        self.bbos: list[tuple[int, ...]] = []
        self.trades: list[tuple[int, ...]] = []
        self.taping = True
        self.taped_records = 0

    # what the rules are made of

    @contextmanager
    def comes(
        self,
        key: BookKey,
        action: str,
        side: str = "N",
        price: int = 0,
        size: int = 0,
        order_id: int = 0,
        flags: int = LAST,
    ) -> Iterator[PlainList]:
        """Send a record with the next batch; the body says what the list does."""
        sequence = len(self.sent) + 1
        publisher_id, instrument_id = key
        row = record(
            action,
            side,
            price,
            size,
            order_id,
            flags,
            publisher_id=publisher_id,
            instrument_id=instrument_id,
            sequence=sequence,
        )
        self.batch.append(row)
        self.sent.append(row)
        book = self.lists[key]
        book.anomalies["maybe_bad_book"] += bool(flags & MAYBE_BAD_BOOK)
        begins = flags & SNAPSHOT and not book.in_snapshot
        book.in_snapshot = bool(flags & SNAPSHOT)
        if begins and action != "R" and (book.orders or book.tops):
            book.anomalies["implicit_clear"] += 1
            book.clear()
        yield book
        ts_event, ts_recv = row[4], row[12]
        book.stands = ts_event, ts_recv, sequence, bool(flags & LAST)
        if self.taping:
            stamps = (self.taped_records, ts_event, ts_recv)
            ids = (sequence, instrument_id, publisher_id)
            if action == "T":
                self.trades.append((*stamps, price, order_id, size, *ids, ord(side)))
            if flags & LAST and book.bbo() != book.taped:
                book.taped = book.bbo()
                bid, ask = (level or (UNDEF_PRICE, 0, 0) for level in book.taped)
                self.bbos.append((*stamps, bid[0], ask[0], bid[1], ask[1], bid[2], ask[2], *ids))
            self.taped_records += 1

    def resting(self, place: int) -> Waiting:
        orders = [order for book in self.lists.values() for order in book.orders]
        return orders[place % len(orders)]

    def unknown(self, key: BookKey, order_id: int) -> int:
        while self.lists[key].find(order_id):
            order_id = (order_id + 1) % 2**64
        return order_id

    def some_rest(self) -> bool:
        return any(book.orders for book in self.lists.values())

    # orders come, change and go

    @rule(key=ONE_KEY, side=SIDES, price=PRICES, size=SIZES, order_id=IDS, flags=FLAGS)
    def add(self, key: BookKey, side: str, price: int, size: int, order_id: int, flags: int) -> None:
        order_id = self.unknown(key, order_id)
        with self.comes(key, "A", side, price, size, order_id, flags) as book:
            book.add(Waiting(key, side, price, size, order_id))

    @initialize(count=st.sampled_from([0, 20, 60]), spread=st.sampled_from([2, 20]), seed=st.integers(0, 999))
    def open_with_many(self, count: int, spread: int, seed: int) -> None:
        rng = random.Random(seed)
        for number in range(count):
            key, side, price, size = rng.choice(KEYS), rng.choice("BA"), rng.randint(-spread, spread), rng.randint(1, 9)
            with self.comes(key, "A", side, price, size, number, 0) as book:
                book.add(Waiting(key, side, price, size, number))

    @precondition(some_rest)
    @rule(place=PLACES, flags=FLAGS)
    def cancel(self, place: int, flags: int) -> None:
        order = self.resting(place)
        with self.comes(order.key, "C", order.side, order.price, order.size, order.order_id, flags) as book:
            book.remove(order)

    @precondition(some_rest)
    @rule(place=PLACES, share=PLACES, flags=FLAGS)
    def cancel_part(self, place: int, share: int, flags: int) -> None:
        order = self.resting(place)
        part = order.size * share // 256
        with self.comes(order.key, "C", order.side, order.price, part, order.order_id, flags) as book:
            book.anomalies["zero_size"] += part == 0
            book.shrink(order, order.size - part)

    @precondition(some_rest)
    @rule(place=PLACES, step=st.integers(1, 3), size=SIZES, flags=FLAGS)
    def modify_the_price(self, place: int, step: int, size: int, flags: int) -> None:
        order = self.resting(place)
        price = order.price - step if order.price > 0 else order.price + step
        with self.comes(order.key, "M", order.side, price, size, order.order_id, flags) as book:
            book.requeue(order, order.side, price, size)

    @precondition(some_rest)
    @rule(place=PLACES, more=st.integers(1, 3), flags=FLAGS)
    def modify_up(self, place: int, more: int, flags: int) -> None:
        order = self.resting(place)
        if (size := order.size + more) < 2**32:
            with self.comes(order.key, "M", order.side, order.price, size, order.order_id, flags) as book:
                book.requeue(order, order.side, order.price, size)

    @precondition(some_rest)
    @rule(place=PLACES, share=PLACES, flags=FLAGS)
    def modify_down_or_not_at_all(self, place: int, share: int, flags: int) -> None:
        order = self.resting(place)
        size = order.size - order.size * share // 512
        with self.comes(order.key, "M", order.side, order.price, size, order.order_id, flags) as book:
            book.shrink(order, size)

    @rule(key=ONE_KEY, side=SIDES, price=PRICES, size=SIZES, order_id=IDS, flags=FLAGS)
    def modify_unknown(self, key: BookKey, side: str, price: int, size: int, order_id: int, flags: int) -> None:
        order_id = self.unknown(key, order_id)
        with self.comes(key, "M", side, price, size, order_id, flags) as book:
            book.anomalies["unknown_modify"] += 1
            book.add(Waiting(key, side, price, size, order_id))

    @rule(key=ONE_KEY, flags=FLAGS)
    def clear(self, key: BookKey, flags: int) -> None:
        with self.comes(key, "R", price=UNDEF_PRICE, flags=flags) as book:
            book.clear()

    @rule(
        key=ONE_KEY,
        action=st.sampled_from("TFN"),
        side=ANY_SIDES,
        price=PRICES | st.just(UNDEF_PRICE),
        size=SIZES | st.just(0),
        order_id=IDS,
        flags=FLAGS | st.just(TOB | LAST),
    )
    def trade_fill_or_nothing(
        self, key: BookKey, action: str, side: str, price: int, size: int, order_id: int, flags: int
    ) -> None:
        with self.comes(key, action, side, price, size, order_id, flags):
            pass  # never the book

    # events of several records, as the venues send them

    @precondition(some_rest)
    @rule(place=PLACES, share=PLACES, hidden=st.sampled_from([0, 0, 1]), closed=st.booleans())
    def fill_part_the_cme_way(self, place: int, share: int, hidden: int, closed: bool) -> None:
        """T F M, with the new size in M: of an iceberg it is more than what the fill leaves."""
        order = self.resting(place)
        key, side, price = order.key, order.side, order.price
        filled = order.size * share // 512
        size = order.size - filled
        with self.comes(key, "T", "AB"[side == "A"], price, filled + hidden, 77, 0):
            pass
        with self.comes(key, "F", side, price, filled + hidden, order.order_id, 0):
            pass
        with self.comes(key, "M", side, price, size, order.order_id, LAST * closed) as book:
            book.shrink(order, size)

    @precondition(some_rest)
    @rule(place=PLACES, share=PLACES, closed=st.booleans())
    def fill_the_nasdaq_way(self, place: int, share: int, closed: bool) -> None:
        """T F C, and C removes what was executed."""
        order = self.resting(place)
        key, side, price, order_id = order.key, order.side, order.price, order.order_id
        executed = max(1, min(order.size, order.size * share // 128))
        with self.comes(key, "T", "N", price, executed, 0, 0):
            pass
        with self.comes(key, "F", side, price, executed, order_id, 0):
            pass
        with self.comes(key, "C", side, price, executed, order_id, LAST * closed) as book:
            if executed == order.size:
                book.remove(order)
            else:
                book.shrink(order, order.size - executed)

    @precondition(some_rest)
    @rule(place=PLACES, size=SIZES, order_id=IDS)
    def rest_of_an_aggressor_before_what_it_hit(self, place: int, size: int, order_id: int) -> None:
        """A before C inside an event: the book is locked in between."""
        order = self.resting(place)
        key, price, other = order.key, order.price, "AB"[order.side == "A"]
        order_id = self.unknown(key, order_id)
        with self.comes(key, "A", other, price, size, order_id, 0) as book:
            book.add(Waiting(key, other, price, size, order_id))
        with self.comes(key, "C", order.side, price, order.size, order.order_id, LAST) as book:
            book.remove(order)

    @precondition(some_rest)
    @rule(place=PLACES, price=PRICES, size=SIZES, order_id=IDS)
    def replace_the_nasdaq_way(self, place: int, price: int, size: int, order_id: int) -> None:
        order = self.resting(place)
        key, side = order.key, order.side
        order_id = self.unknown(key, order_id)
        with self.comes(key, "C", side, order.price, order.size, order.order_id, 0) as book:
            book.remove(order)
        with self.comes(key, "A", side, price, size, order_id, LAST) as book:
            book.add(Waiting(key, side, price, size, order_id))

    @rule(
        key=ONE_KEY,
        leading_clear=st.booleans(),
        orders=st.lists(st.tuples(SIDES, PRICES, SIZES, IDS), min_size=1, max_size=5, unique_by=lambda order: order[3]),
        closed=st.booleans(),
    )
    def snapshot(
        self, key: BookKey, leading_clear: bool, orders: list[tuple[str, int, int, int]], closed: bool
    ) -> None:
        if leading_clear:
            with self.comes(key, "R", price=UNDEF_PRICE, flags=SNAPSHOT) as book:
                book.clear()
        for number, (side, price, size, order_id) in enumerate(orders, 1):
            last = LAST * (closed and number == len(orders))
            with self.comes(key, "A", side, price, size, order_id, SNAPSHOT | last) as book:
                # Without R, and right behind another snapshot, this is the rest of that one.
                if old := book.find(order_id):
                    book.anomalies["duplicate_add"] += 1
                    book.remove(old)
                book.add(Waiting(key, side, price, size, order_id))

    # top-of-book publishers

    @rule(key=TOP_KEY, side=SIDES, price=PRICES, size=SIZES, flags=FLAGS)
    def top(self, key: BookKey, side: str, price: int, size: int, flags: int) -> None:
        with self.comes(key, "A", side, price, size, 0, flags | TOB) as book:
            book.show_top(side, price, size)

    @precondition(lambda self: any(book.tops for book in self.lists.values()))
    @rule(place=PLACES, size=SIZES, order_id=IDS, leaves=st.booleans())
    def order_at_the_price_of_a_top(self, place: int, size: int, order_id: int, leaves: bool) -> None:
        tops = [(key, side, price) for key, book in self.lists.items() for side, (price, _) in book.tops.items()]
        key, side, price = tops[place % len(tops)]
        order = Waiting(key, side, price, size, self.unknown(key, order_id))
        with self.comes(key, "A", side, price, size, order.order_id) as book:
            book.add(order)
        if leaves:
            with self.comes(key, "C", side, price, size, order.order_id) as book:
                book.remove(order)

    @rule(key=TOP_KEY, side=SIDES, price=PRICES, flags=FLAGS)
    def top_of_no_size(self, key: BookKey, side: str, price: int, flags: int) -> None:
        with self.comes(key, "A", side, price, 0, 0, flags | TOB) as book:
            book.anomalies["zero_size"] += 1
            book.clear_side(side)

    @rule(key=TOP_KEY, action=st.sampled_from("ACM"), side=SIDES, order_id=IDS, flags=FLAGS)
    def top_without_a_price(self, key: BookKey, action: str, side: str, order_id: int, flags: int) -> None:
        with self.comes(key, action, side, UNDEF_PRICE, 1, order_id, flags | TOB) as book:
            book.clear_side(side)

    @rule(key=TOP_KEY, side=SIDES, price=PRICES, size=SIZES, order_id=IDS)
    def top_by_an_unknown_modify(self, key: BookKey, side: str, price: int, size: int, order_id: int) -> None:
        with self.comes(key, "M", side, price, size, self.unknown(key, order_id), LAST | TOB) as book:
            book.anomalies["unknown_modify"] += 1
            book.show_top(side, price, size)

    # what must not happen

    @precondition(some_rest)
    @rule(place=PLACES, side=SIDES, price=PRICES, size=SIZES, flags=FLAGS)
    def duplicate_add(self, place: int, side: str, price: int, size: int, flags: int) -> None:
        order = self.resting(place)
        with self.comes(order.key, "A", side, price, size, order.order_id, flags) as book:
            book.anomalies["duplicate_add"] += 1
            book.requeue(order, side, price, size)

    @rule(key=ONE_KEY, side=ANY_SIDES, size=SIZES | st.just(0), price=PRICES, order_id=IDS, flags=FLAGS)
    def cancel_unknown(self, key: BookKey, side: str, size: int, price: int, order_id: int, flags: int) -> None:
        with self.comes(key, "C", side, price, size, self.unknown(key, order_id), flags) as book:
            book.anomalies["unknown_cancel" if side in "BA" else "bad_side"] += 1

    @precondition(some_rest)
    @rule(place=PLACES, more=st.integers(1, 9), flags=FLAGS)
    def cancel_too_much(self, place: int, more: int, flags: int) -> None:
        order = self.resting(place)
        if (size := order.size + more) < 2**32:
            with self.comes(order.key, "C", order.side, order.price, size, order.order_id, flags) as book:
                book.anomalies["over_cancel"] += 1
                book.remove(order)

    @precondition(some_rest)
    @rule(place=PLACES, other_side=st.booleans(), flags=FLAGS)
    def cancel_elsewhere(self, place: int, other_side: bool, flags: int) -> None:
        order = self.resting(place)
        side, price = ("AB"[order.side == "A"], order.price) if other_side else (order.side, UNDEF_PRICE)
        with self.comes(order.key, "C", side, price, order.size, order.order_id, flags) as book:
            book.anomalies["cancel_mismatch"] += 1
            book.remove(order)

    @precondition(some_rest)
    @rule(place=PLACES, price=PRICES, size=SIZES, flags=FLAGS)
    def modify_the_side(self, place: int, price: int, size: int, flags: int) -> None:
        order = self.resting(place)
        side = "AB"[order.side == "A"]
        with self.comes(order.key, "M", side, price, size, order.order_id, flags) as book:
            book.anomalies["side_change"] += 1
            book.requeue(order, side, price, size)

    @precondition(some_rest)
    @rule(place=PLACES, price=PRICES, flags=FLAGS)
    def modify_to_nothing(self, place: int, price: int, flags: int) -> None:
        order = self.resting(place)
        with self.comes(order.key, "M", order.side, price, 0, order.order_id, flags) as book:
            book.anomalies["zero_size"] += 1
            book.remove(order)

    @rule(key=ONE_KEY, action=st.sampled_from("AM"), side=SIDES, price=PRICES, order_id=IDS, flags=FLAGS)
    def nothing_new(self, key: BookKey, action: str, side: str, price: int, order_id: int, flags: int) -> None:
        with self.comes(key, action, side, price, 0, self.unknown(key, order_id), flags) as book:
            book.anomalies["unknown_modify"] += action == "M"
            book.anomalies["zero_size"] += 1

    @rule(key=ONE_KEY, action=st.sampled_from("AM"), side=SIDES, size=SIZES, order_id=IDS, flags=FLAGS)
    def no_price(self, key: BookKey, action: str, side: str, size: int, order_id: int, flags: int) -> None:
        with self.comes(key, action, side, UNDEF_PRICE, size, order_id, flags) as book:
            book.anomalies["undef_price"] += 1

    @rule(
        key=ONE_KEY,
        action=st.sampled_from("ACM"),
        side=st.sampled_from("NXab"),
        price=PRICES,
        order_id=IDS,
        flags=FLAGS,
    )
    def no_side(self, key: BookKey, action: str, side: str, price: int, order_id: int, flags: int) -> None:
        with self.comes(key, action, side, price, 1, order_id, flags) as book:
            book.anomalies["bad_side"] += 1

    @rule(key=ONE_KEY, action=st.sampled_from("\0Xacr\xff"), side=ANY_SIDES, price=PRICES, order_id=IDS, flags=FLAGS)
    def no_action(self, key: BookKey, action: str, side: str, price: int, order_id: int, flags: int) -> None:
        with self.comes(key, action, side, price, 1, order_id, flags) as book:
            book.anomalies["bad_action"] += 1

    # the tape

    @rule()
    def start_or_stop_taping(self) -> None:
        self.taping = not self.taping

    @rule()
    def empty_the_tape(self) -> None:
        for tape in self.tapes.values():
            tape.empty()
        self.bbos, self.trades = [], []

    # what must hold

    @invariant()
    def everything_is_as_the_list_says(self) -> None:
        records = stream(*self.batch)
        self.batch = []
        keys = {key for key, _ in split_by_book(records)}
        for kind, market in self.markets.items():
            market.apply(records, self.tapes[kind] if self.taping else None)
            for key, book in market.books.items():
                if key in keys:
                    self.look_at(book, self.lists[key])
                    self.hashes[key] = self.name_of(book)
                else:
                    assert state_hash(book) == self.hashes[key]
            tape = self.tapes[kind]
            assert tape.bbos.tolist() == self.bbos
            assert tape.trades.tolist() == self.trades
            assert tape.records == self.taped_records
        for key in keys:
            reference, kernel = (market.books[key] for market in self.markets.values())
            assert picture(kernel) == picture(reference)
        reference_hash, kernel_hash = (market_hash(market.books.items()) for market in self.markets.values())
        assert kernel_hash == reference_hash

    def look_at(self, book: OrderBook, expected: PlainList) -> None:
        book.check()
        assert (book.ts_event, book.ts_recv, book.sequence, book.at_event_end) == expected.stands
        assert book.anomalies == dict(+expected.anomalies)  # I1: every fault is counted, and nothing else
        for code, side in (("B", Side.BID), ("A", Side.ASK)):
            self.look_at_side(book, expected, code, side)
        bbo = book.bbo()
        assert bbo == expected.bbo()
        assert book_state(bbo) == expected.state()  # I8
        assert len(book) == len(expected.orders) == len(book.orders())
        for order_id in (5, 2**64 - 1):
            if not expected.find(order_id):
                assert book.order(order_id) is None
                assert book.queue_position(order_id) is None

    def look_at_side(self, book: OrderBook, expected: PlainList, code: str, side: Side) -> None:
        levels = book.levels(side)
        assert levels.dtype == np.int64  # I12
        assert levels.tolist() == expected.levels(code)  # I4: sums and counts of the queues, none of them empty
        assert is_sorted(levels, code)
        assert all(size > 0 for _, size, _ in levels.tolist())  # I2
        assert int(levels[:, 1].sum()) == expected.came[code] - expected.went[code]  # I14: nothing lost, nothing made
        assert book.levels(side, 2).tolist() == levels[:2].tolist()
        listed = book.orders()
        listed = listed[listed["side"] == side]
        queued = []
        for price, _, count in levels.tolist():
            queue = book.queue(side, price)
            ahead = 0
            for place, order in enumerate(expected.queue(code, price)):  # I5, and I3 with the lengths
                resting = RestingOrder(order.order_id, side, price, order.size)
                assert book.order(order.order_id) == resting
                assert queue[place].item() == (order.order_id, price, order.size, side)
                assert book.queue_position(order.order_id) == QueuePosition(place, ahead)
                ahead += order.size
            assert len(queue) == count
            queued += queue.tolist()
        assert listed.tolist() == queued
        assert len(book.queue(side, 12345)) == 0

    def name_of(self, book: OrderBook) -> str:
        """Return the hash of a book, which names its state and no other."""
        name = state_hash(book)
        shown = book.orders().tolist(), book.levels(Side.BID).tolist(), book.levels(Side.ASK).tolist()
        assert self.states.setdefault(name, shown) == shown
        assert list(self.states.values()).count(shown) == 1
        return name

    def teardown(self) -> None:
        """The whole story at once, and each book alone: same books, same tape."""
        records = stream(*self.sent)
        tapes = []
        for kind in KINDS:
            market, tape = make_market(kind), Tape()
            market.apply(records, tape)
            tapes.append([tape.bbos.tolist(), tape.trades.tolist()])
            for key, part in split_by_book(records):
                alone = make_book(kind)
                alone.apply(part)
                together = picture(self.markets[kind].books[key])
                assert picture(market.books[key]) == picture(alone) == together
        assert tapes[0] == tapes[1]


def is_sorted(levels: Levels, code: str) -> bool:
    prices = levels[:, 0].tolist()
    return all((best > worse) if code == "B" else (best < worse) for best, worse in pairwise(prices))


def test_both_books_tell_every_story_as_a_plain_list_does() -> None:
    run_state_machine_as_test(
        BookMachine,
        settings=settings(
            max_examples=examples(STORIES, LONG_STORIES),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
