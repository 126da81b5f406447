"""The compiled kernel: its codes, its growth, its index, and that it is compiled once."""

import time

import numpy as np
import pytest

from orderbook.book import kernel
from orderbook.book.anomaly import Anomaly
from orderbook.book.arena import MAX_ORDERS, Arena, index_places, longer
from orderbook.book.audit import Audit
from orderbook.book.digest import market_hash
from orderbook.book.errors import BookError, InvariantError
from orderbook.book.kernel_book import KernelBook, clock_cost_ns
from orderbook.book.kernel_market import KernelMarket, warm_up
from orderbook.book.mbo import MBO, ORDER, UNDEF_PRICE, Action, BookKey, Flags, Side
from orderbook.book.reference import ReferenceBook
from orderbook.book.tape import Tape
from orderbook.tests.records import add, cancel, picture, random_session, record, stream


def test_the_codes_of_the_kernel_are_the_public_codes() -> None:
    for action in Action:
        assert getattr(kernel, action.name) == action
    assert (kernel.SIDE_BID, kernel.SIDE_ASK) == (Side.BID, Side.ASK)
    assert (kernel.LAST, kernel.TOB) == (Flags.LAST, Flags.TOB)
    assert (kernel.SNAPSHOT, kernel.MAYBE_BAD_BOOK) == (Flags.SNAPSHOT, Flags.MAYBE_BAD_BOOK)
    assert kernel.UNDEF_PRICE == UNDEF_PRICE


def test_the_counters_of_the_kernel_are_the_kinds_of_anomaly_in_order() -> None:
    counters = [
        kernel.UNKNOWN_CANCEL,
        kernel.UNKNOWN_MODIFY,
        kernel.DUPLICATE_ADD,
        kernel.OVER_CANCEL,
        kernel.CANCEL_MISMATCH,
        kernel.SIDE_CHANGE,
        kernel.ZERO_SIZE,
        kernel.UNDEFINED_PRICE,
        kernel.IMPLICIT_CLEAR,
        kernel.BAD_BOOK,
        kernel.BAD_ACTION,
        kernel.BAD_SIDE,
    ]
    assert counters == list(range(len(Anomaly))) == list(range(kernel.KINDS))
    assert list(Anomaly)[kernel.UNDEFINED_PRICE] == Anomaly.UNDEF_PRICE
    assert list(Anomaly)[kernel.BAD_BOOK] == Anomaly.MAYBE_BAD_BOOK
    for name in ("UNKNOWN_CANCEL", "UNKNOWN_MODIFY", "DUPLICATE_ADD", "OVER_CANCEL", "CANCEL_MISMATCH", "SIDE_CHANGE"):
        assert list(Anomaly)[getattr(kernel, name)] == Anomaly[name]
    for name in ("ZERO_SIZE", "IMPLICIT_CLEAR", "BAD_ACTION", "BAD_SIDE"):
        assert list(Anomaly)[getattr(kernel, name)] == Anomaly[name]
    assert kernel.ANOMALIES + len(Anomaly) <= kernel.BOOK_COLUMNS
    assert kernel.SEGMENTS + 2 * kernel.SEGMENT_COLUMNS <= kernel.FLAGS
    assert kernel.TAPED + kernel.TAPED_COLUMNS <= kernel.ANOMALIES


def test_an_order_costs_at_most_120_bytes_when_the_arrays_have_just_grown() -> None:
    capacity = 64
    while capacity < 20_000_000:
        grown = longer(capacity)
        assert grown > capacity
        bytes_now = grown * kernel.NODE.itemsize + index_places(grown) * np.dtype(np.uint32).itemsize
        assert bytes_now / (capacity + 1) <= 80  # what is left of 120 is for the levels
        assert 5 * grown <= index_places(grown) < 10 * grown
        capacity = grown


@pytest.mark.parametrize("start", [1, 2, 63, 1000])
def test_arrays_grow_without_loss(start: int) -> None:
    count = 6000
    rng = np.random.default_rng(1)
    ids = rng.permutation(np.arange(count, dtype=np.uint64) * np.uint64(2**40 + 1))
    rows = [add("BA"[n % 2], int(price), 1, int(ids[n])) for n, price in enumerate(rng.permutation(count))]
    grown, reference = KernelBook(Arena(start)), ReferenceBook()
    for part in np.array_split(stream(*rows), 5):
        grown.apply(part)
        reference.apply(part)
        grown.check()
        assert picture(grown) == picture(reference)
    assert len(grown) == count
    assert len(grown.arena.arrays.entries) == index_places(len(grown.arena.arrays.nodes))
    grown.clear()
    grown.check()
    grown.apply(stream(*rows[:100]))
    assert len(grown) == 100


def test_a_book_that_stays_small_keeps_its_small_arrays() -> None:
    book = KernelBook()
    for n in range(200):
        book.apply(stream(*(add("B", 100 + i, 1, n * 1000 + i) for i in range(20))))
        book.apply(stream(*(cancel("B", 100 + i, 1, n * 1000 + i) for i in range(20))))
    assert len(book) == 0
    assert book.arena.nbytes < 16_384


def ids_with_home(book: KernelBook, home: int, count: int) -> list[int]:
    """Return order ids whose first place in the index of an empty book is ``home``."""
    found = []
    for order_id in range(1, 1_000_000):
        place, _ = kernel.find(book.arena.arrays, 0, np.uint64(order_id))
        if place == home:
            found.append(order_id)
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("leaving", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3], [0, 5, 1, 4, 2, 3]])
def test_deleting_from_a_crowded_index_hides_nobody(leaving: list[int]) -> None:
    book = KernelBook()
    last = len(book.arena.arrays.entries) - 1
    # Six ids want the last two places, so that the probing runs over the end and around.
    ids = ids_with_home(book, last, 3) + ids_with_home(book, last - 1, 3)
    book.apply(stream(*(add("B", 100, 1, order_id) for order_id in ids)))
    book.check()
    for number, leaver in enumerate(leaving):
        book.apply(stream(cancel("B", 100, 1, ids[leaver])))
        book.check()
        assert len(book) == len(ids) - number - 1
    assert book.anomalies == {}
    assert not book.arena.arrays.entries.any()


def test_orders_of_other_books_of_an_arena_are_never_found() -> None:
    arena = Arena()
    mine, yours = KernelBook(arena), KernelBook(arena)
    mine.apply(stream(add("B", 100, 1, 7)))
    yours.apply(stream(add("A", 101, 2, 7), add("A", 102, 2, 8)))
    assert (len(mine), len(yours)) == (1, 2)
    assert (mine.order(8), yours.order(7)) == (None, (7, Side.ASK, 101, 2))
    # Where the hashes of two books agree, the book itself decides.
    place, node = kernel.find(arena.arrays, 0, np.uint64(7))
    home, _ = kernel.find(arena.arrays, 1, np.uint64(9))
    arena.arrays.entries[place], arena.arrays.entries[home] = 0, node + 1
    arena.arrays.nodes["order_id"][node] = 9
    assert yours.order(9) is None
    arena.arrays.entries[place], arena.arrays.entries[home] = node + 1, 0
    arena.arrays.nodes["order_id"][node] = 7
    yours.clear()
    mine.check()
    assert (len(mine), len(yours)) == (1, 0)
    assert mine.order(7) == (7, Side.BID, 100, 1)


def test_ten_thousand_instruments_find_their_books() -> None:
    rng = np.random.default_rng(2)
    instruments = rng.permutation(10_000)
    records = stream(*(add("B", 100 + int(n), 1, 1) for n in range(10_000)))
    records["instrument_id"] = instruments * 429_496
    records["publisher_id"] = instruments % 7
    market = KernelMarket()
    market.apply(records[:5000])
    market.apply(records)
    assert len(market.books) == 10_000
    for place in (0, 4999, 5000, 9999):
        key = BookKey(int(records["publisher_id"][place]), int(records["instrument_id"][place]))
        assert market.books[key].bbo().bid == (100 + place, 1, 1)
        assert market.books[key].anomalies == ({"duplicate_add": 1} if place < 5000 else {})


def compiled() -> dict[str, int]:
    """Return how often each function of the kernel was compiled that Python calls."""
    return {name: len(each.signatures) for name, each in vars(kernel).items() if hasattr(each, "signatures")}


def test_the_kernel_is_compiled_once_whatever_the_records_come_from() -> None:
    warm_up()
    before = compiled()
    assert {name for name, count in before.items() if count and not name.startswith("_")} >= {
        *("apply", "apply_timed", "route", "clear", "find", "find_level", "copy_levels", "copy_orders")
    }
    assert before["apply"] == before["apply_timed"] == before["copy_levels"] == 1
    records = stream(add("B", 100, 1, 1), add("B", 100, 1, 2), add("B", 100, 1, 3))
    book = KernelBook()
    for source in (
        records,
        records[1:],
        records[::2],
        np.frombuffer(records.tobytes(), MBO),
        np.frombuffer(bytearray(records.tobytes()), MBO),
        np.zeros(0, MBO),
    ):
        book.apply(source)
        book.apply_timed(source)
        book.levels(Side.BID)
    market = KernelMarket()
    market.apply(records)
    market.apply(records, Tape())
    market.apply_timed(records)
    market.check()
    assert compiled() | {"audit": 0, "audit_arena": 0} == before | {"audit": 0, "audit_arena": 0}


def test_misaligned_records_are_copied_to_where_the_kernel_may_read_them() -> None:
    records = random_session(3, 200)
    shifted = np.frombuffer(bytearray(b"x" + records.tobytes()), MBO, offset=1)
    straight, copied = KernelBook(), KernelBook()
    straight.apply(records)
    copied.apply(shifted)
    assert picture(copied) == picture(straight)


SEGMENT_OF_ASKS = kernel.SEGMENTS + kernel.SEGMENT_COLUMNS


@pytest.mark.parametrize(
    ("array", "place", "change", "evidence"),
    [
        ("levels", (1, "size"), 1, "level 101 says it holds 6, holds 5 .*sequence 3, ts_event 1758"),
        ("levels", (0, "count"), 1, "level 100 says it holds 10, holds 10 .*sequence 3"),
        ("levels", (1, "key"), 1, "the ladder says 101, its level 100 "),
        ("nodes", (0, "size"), 1, "level 100 says it holds 10, holds 11 "),
        ("nodes", (0, "previous"), 1, "order 1 of size 5 is wrongly linked at 100 "),
        ("nodes", (0, "order_id"), 1, "the index does not find order 2"),
        ("books", (0, SEGMENT_OF_ASKS + kernel.COUNT), 99, "the asks have 100 levels in a segment of 16 "),
        ("books", (0, kernel.ORDERS), 1, "4 orders are counted, 3 are queued "),
        ("pool", (kernel.LIVE_NODES,), 1, "3 orders are known, 4 are counted$"),
        ("pool", (kernel.FREE_NODE,), 1, "60 orders are free and 3 in use of 64$"),
        ("pool", (kernel.LIVE_LEVELS,), 1, "62 levels are free and 3 in use of 64$"),
    ],
)
def test_the_check_of_the_fast_book_sees_damage(
    array: str, place: tuple[int | str, ...], change: int, evidence: str
) -> None:
    book = KernelBook()
    book.apply(stream(add("B", 100, 5, 1), add("B", 100, 5, 2), add("A", 101, 5, 3)))
    book.check()
    damaged = getattr(book.arena.arrays, array)
    if isinstance(place[-1], str):
        damaged, place = damaged[place[-1]], place[:-1]
    damaged[place] += change
    with pytest.raises(InvariantError, match=evidence):
        book.check()


def test_the_check_of_the_fast_book_sees_prices_out_of_order() -> None:
    book = KernelBook()
    book.apply(stream(add("A", 101, 5, 1), add("A", 102, 5, 2)))
    best = int(book.arena.arrays.books[0, SEGMENT_OF_ASKS + kernel.START]) + 1
    book.arena.arrays.ladder[[best, best - 1]] = book.arena.arrays.ladder[[best - 1, best]]
    with pytest.raises(InvariantError, match="the prices of the asks are not sorted: 101 before 102 "):
        book.check()


def test_the_check_of_the_fast_book_sees_a_lost_index_entry() -> None:
    book = KernelBook()
    book.apply(stream(add("B", 100, 5, 1)))
    book.arena.arrays.entries[:] = 0
    with pytest.raises(InvariantError, match="index does not find order 1"):
        book.check()


def test_the_check_of_the_readable_book_sees_damage() -> None:
    book = ReferenceBook()
    book.apply(stream(add("B", 100, 5, 1), add("B", 100, 5, 2)))
    book._orders[1].size += 1
    with pytest.raises(InvariantError, match="says 10, holds 11.*sequence 2"):
        book.check()
    book._orders[1].size -= 1
    del book._orders[2]
    with pytest.raises(InvariantError, match="order_id=2"):
        book.check()


def test_orders_are_listed_in_the_public_layout() -> None:
    book = KernelBook()
    book.apply(stream(add("A", 101, 5, 3)))
    assert book.orders().dtype == ORDER == ReferenceBook().orders().dtype


@pytest.mark.parametrize("audited", [True, False])
def test_a_market_says_which_book_is_broken(audited: bool) -> None:
    market, tape, audit = KernelMarket(), Tape(), Audit()
    records = stream(add("B", 100, 5, 1), add("B", 100, 5, 2), record("A", "A", 101, 5, 3, instrument_id=7))
    market.apply_audited(records, tape, audit)
    market.check()
    assert (audit.events, audit.checks, audit.first) == (3, 3, {})
    market.arena.arrays.levels["size"][1] += 1
    evidence = "level 101 says it holds 6, holds 5 .publisher 1, instrument 7, sequence "
    with pytest.raises(InvariantError, match=evidence):
        if audited:
            more = stream(add("B", 99, 1, 9), record("N", sequence=5, instrument_id=7), add("B", 100, 1, 4))
            market.apply_audited(more, tape, audit)
        else:
            market.check()


def test_a_growth_counts_into_the_time_of_the_record_that_needed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    book, grow = KernelBook(), Arena.grow
    monkeypatch.setattr(Arena, "grow", lambda arena: (time.sleep(0.05), grow(arena)))
    spent = book.apply_timed(stream(*(add("B", 100, 1, order_id) for order_id in range(1, 97))))
    assert (spent >= 50_000_000).tolist() == [number == 64 for number in range(96)]


def test_a_timed_market_leaves_the_same_books() -> None:
    records = random_session(6, 3000)
    records["instrument_id"] = np.random.default_rng(6).integers(1, 9, 3000)
    plain, timed = KernelMarket(), KernelMarket()
    plain.apply(records)
    assert len(timed.apply_timed(records)) == 3000
    assert market_hash(timed.books.items()) == market_hash(plain.books.items())


def test_an_arena_says_when_it_can_hold_no_more_orders() -> None:
    with pytest.raises(BookError, match="expected at most 536,870,912 orders in one arena, found .* 536,870,913"):
        Arena(MAX_ORDERS + 1)


def test_the_cost_of_the_clock_is_measured() -> None:
    spent = clock_cost_ns(1000)
    assert spent.shape == (1000,)
    assert (spent >= 0).all()
    assert spent.sum() > 0
