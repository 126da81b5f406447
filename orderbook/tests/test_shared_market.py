"""Readers on other threads see whole events only, and the feed goes before the next of them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from orderbook.book.market import make_book, make_market
from orderbook.book.mbo import BookKey, MboArray, Side
from orderbook.book.protocol import OrderBook
from orderbook.book.tape import Tape
from orderbook.shared_market import SharedMarket, UnknownBookError
from orderbook.tests.records import KINDS, BookKind, Row, add, cancel, modify, record, stream

KEY = BookKey(1, 432669)
OTHER = BookKey(1, 7)
LONG_S = 30.0  # longer than any test: only a defect waits for it


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


@pytest.fixture
def shared(kind: BookKind) -> SharedMarket:
    return SharedMarket(make_market(kind))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


class Gate:
    """A look that stays in the book until the test opens it."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def look(self, book: OrderBook) -> int:
        self.entered.set()
        assert self.open.wait(LONG_S)
        return len(book)


def other(row: Row) -> Row:
    return (*row[:3], OTHER.instrument_id, *row[4:])


# one thread


def test_a_look_gets_what_it_asks_for(shared: SharedMarket) -> None:
    tape = Tape()
    shared.apply(stream(add("B", 100, 5, 1), add("A", 101, 7, 2)), tape)
    assert shared.read(KEY, lambda book: book.levels(Side.ASK).tolist(), LONG_S) == [[101, 7, 1]]
    assert len(tape.bbos) == 2


def test_a_key_that_the_stream_has_not_named_is_refused_at_once_and_makes_no_book(kind: BookKind) -> None:
    market = make_market(kind)
    shared = SharedMarket(market)
    with pytest.raises(UnknownBookError, match=r"expected a book .* found none of \(3, 9\)"):
        shared.read(BookKey(3, 9), len, LONG_S)
    assert dict(market.books) == {}


def test_a_book_in_mid_event_is_not_shown(shared: SharedMarket) -> None:
    shared.apply(stream(add("B", 100, 5, 1, flags=0)))
    with pytest.raises(TimeoutError, match=r"event end of book \(1, 432669\) within 0.01 s.*sequence 1, ts_event 1758"):
        shared.read(KEY, len, 0.01)
    shared.apply(stream(record("N")))
    assert shared.read(KEY, len, LONG_S) == 1


def test_no_time_to_wait_is_enough_when_there_is_nothing_to_wait_for(shared: SharedMarket) -> None:
    shared.apply(stream(add("B", 100, 5, 1)))
    assert shared.read(KEY, len, 0) == shared.read(KEY, len, -1) == 1


def test_another_book_in_mid_event_keeps_nobody_waiting(shared: SharedMarket) -> None:
    shared.apply(stream(add("B", 100, 5, 1), other(add("B", 100, 5, 1, flags=0))))
    assert shared.read(KEY, len, LONG_S) == 1


def test_an_error_in_a_look_passes_through_and_frees_the_books(shared: SharedMarket) -> None:
    shared.apply(stream(add("B", 100, 5, 1)))
    with pytest.raises(ZeroDivisionError):
        shared.read(KEY, lambda book: 1 // 0, LONG_S)
    shared.apply(stream(add("B", 100, 5, 2)))
    assert shared.read(KEY, len, LONG_S) == 2


def test_an_error_in_a_batch_passes_through_and_frees_the_books(shared: SharedMarket) -> None:
    shared.apply(stream(add("B", 100, 5, 1)))
    with pytest.raises(Exception):  # noqa: B017  # what a market says to something that is no batch is its own affair
        shared.apply(None)  # type: ignore[arg-type]
    assert shared.read(KEY, len, LONG_S) == 1


# turns


def test_a_reader_waits_for_the_end_of_the_event(shared: SharedMarket, threads: ThreadPoolExecutor) -> None:
    shared.apply(stream(add("B", 100, 5, 1, flags=0)))
    reader = threads.submit(shared.read, KEY, len, LONG_S)
    wait_until(lambda: shared._reader_comes is not None)
    shared.apply(stream(other(add("B", 100, 5, 1))))  # an event end, but of another book
    assert not reader.done()
    shared.apply(stream(add("B", 100, 5, 2)))
    assert reader.result(LONG_S) == 2


def test_the_feed_waits_for_one_look_and_goes_before_all_others(
    shared: SharedMarket, threads: ThreadPoolExecutor
) -> None:
    shared.apply(stream(add("B", 100, 5, 1)))
    gate = Gate()
    first = threads.submit(shared.read, KEY, gate.look, LONG_S)
    assert gate.entered.wait(LONG_S)
    others = [threads.submit(shared.read, KEY, len, LONG_S) for _ in range(8)]
    feed = threads.submit(shared.apply, stream(add("B", 100, 5, 2)))
    wait_until(lambda: shared._feed_comes)
    assert not any(future.done() for future in (first, feed, *others))
    gate.open.set()
    # All the others found the feed waiting and let it go first.
    assert [reader.result(LONG_S) for reader in (first, *others)] == [1] + 8 * [2]
    feed.result(LONG_S)


def test_the_look_of_a_reader_that_waited_goes_before_the_next_batch(
    shared: SharedMarket, threads: ThreadPoolExecutor
) -> None:
    shared.apply(stream(add("B", 100, 5, 1, flags=0)))
    reader = threads.submit(shared.read, KEY, len, LONG_S)
    wait_until(lambda: shared._reader_comes is not None)
    for order_id in range(2, 50):
        shared.apply(stream(add("B", 100, 5, order_id)))
    assert reader.result(LONG_S) == 2


def test_a_feed_without_pauses_starves_no_reader(shared: SharedMarket, threads: ThreadPoolExecutor) -> None:
    batch = stream(*(modify("B", 100, 5, order_id) for order_id in range(200)))
    shared.apply(batch)
    readers = [threads.submit(lambda: [shared.read(KEY, len, LONG_S) for _ in range(20)]) for _ in range(4)]
    deadline = time.monotonic() + LONG_S
    while not all(reader.done() for reader in readers):
        shared.apply(batch)
        assert time.monotonic() < deadline
    assert [reader.result() for reader in readers] == 4 * [20 * [200]]


def test_a_reader_that_gives_up_holds_nobody_up(shared: SharedMarket, threads: ThreadPoolExecutor) -> None:
    shared.apply(stream(add("B", 100, 5, 1)))
    gate = Gate()
    first = threads.submit(shared.read, KEY, gate.look, LONG_S)
    assert gate.entered.wait(LONG_S)
    with pytest.raises(TimeoutError, match="within 0.01 s, found other readers first"):
        shared.read(KEY, len, 0.01)
    gate.open.set()
    assert first.result(LONG_S) == 1
    shared.apply(stream(add("B", 100, 5, 2, flags=0)))
    with pytest.raises(TimeoutError, match="mid-event"):
        shared.read(KEY, len, 0.01)
    shared.apply(stream(add("B", 100, 5, 3)))
    shared.apply(stream(add("B", 100, 5, 4)))
    assert shared.read(KEY, len, LONG_S) == 4


# many threads


def market_session(seed: int, events: int) -> MboArray:
    """Return events of two records that move size from one side to the other: 1,000 together only at event ends."""
    rng = np.random.default_rng(seed)
    bid_px, bid_sz = 100, 500
    rows = [add("B", bid_px, bid_sz, 1, flags=0), add("A", bid_px + 1, 1000 - bid_sz, 2)]
    for move, size in zip(rng.integers(-3, 4, events).tolist(), rng.integers(1, 1000, events).tolist(), strict=True):
        # In between the book is locked or crossed, or holds another sum.
        rows += [modify("B", bid_px + move, size, 1, flags=0), modify("A", bid_px + move + 1, 1000 - size, 2)]
        bid_px += move
    return stream(*rows)


def look_at_whole_event(book: OrderBook) -> tuple[int, bool]:
    bid, ask = book.bbo()
    assert bid is not None
    assert ask is not None
    whole = ask.price == bid.price + 1 and bid.size + ask.size == 1000 and book.at_event_end and len(book) == 2
    return book.sequence, whole


def test_readers_see_whole_events_only_however_the_batches_are_cut(
    kind: BookKind, shared: SharedMarket, threads: ThreadPoolExecutor
) -> None:
    records = market_session(7, 4000)
    cuts = np.sort(np.random.default_rng(8).integers(2, len(records), 700))
    parts = np.split(records, cuts)
    assert sum(not part["flags"][-1] for part in parts if len(part)) > 200  # cut in mid-event
    shared.apply(records[:2])
    done = threading.Event()

    def read_on() -> list[tuple[int, bool]]:
        seen = [shared.read(KEY, look_at_whole_event, LONG_S)]
        while not done.is_set():
            seen.append(shared.read(KEY, look_at_whole_event, LONG_S))
        return seen

    readers = [threads.submit(read_on) for _ in range(5)]
    shared.apply(parts[0][2:])
    for part in parts[1:]:
        shared.apply(part)
    done.set()
    for reader in readers:
        seen = reader.result(LONG_S)
        assert all(whole for _, whole in seen)
        assert [sequence for sequence, _ in seen] == sorted(sequence for sequence, _ in seen)
    alone = make_book(kind)
    alone.apply(records)
    assert shared.read(KEY, lambda book: book.orders().tolist(), LONG_S) == alone.orders().tolist()


def test_greedy_readers_keep_the_feed_for_one_look_a_batch(shared: SharedMarket, threads: ThreadPoolExecutor) -> None:
    batch = 0
    waited_for: Counter[int] = Counter()
    done = threading.Event()

    def look(book: OrderBook) -> int:
        size = sum(size for _, size, _ in book.levels(Side.BID).tolist())
        time.sleep(0.0001)  # lets the feed come
        if shared._feed_comes:  # for the batch with this number, which this look holds up
            waited_for[batch] += 1
        return size

    def read_on() -> int:
        looks = 0
        while not done.is_set():
            shared.read(KEY, look, LONG_S)
            looks += 1
        return looks

    shared.apply(stream(add("B", 100, 5, 1)))
    readers: list[Future[int]] = [threads.submit(read_on) for _ in range(8)]
    until = time.monotonic() + LONG_S
    while len(waited_for) < 50 and time.monotonic() < until:
        batch += 1
        shared.apply(stream(add("B", 100, 5, batch + 1), cancel("B", 100, 5, batch)))
    done.set()
    looks = [reader.result(LONG_S) for reader in readers]
    assert all(looks)
    assert len(waited_for) == 50
    assert max(waited_for.values()) == 1
