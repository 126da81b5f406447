"""The compiled kernel: its codes, its growth, its index, and that it is compiled once."""

import numpy as np
import pytest

from orderbook.book import kernel
from orderbook.book.anomaly import Anomaly
from orderbook.book.errors import InvariantError
from orderbook.book.kernel_book import Arena, KernelBook, warm_up
from orderbook.book.mbo import MBO, ORDER, UNDEF_PRICE, Action, Flags, Side
from orderbook.book.reference import ReferenceBook
from orderbook.tests.records import add, cancel, picture, random_session, stream


def test_the_codes_of_the_kernel_are_the_public_codes() -> None:
    for action in Action:
        assert getattr(kernel, action.name) == action
    assert (kernel.SIDE_BID, kernel.SIDE_ASK) == (Side.BID, Side.ASK)
    assert kernel.TOB == Flags.TOB
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
    assert counters == list(range(len(Anomaly)))
    assert list(Anomaly)[kernel.UNDEFINED_PRICE] == Anomaly.UNDEF_PRICE
    assert list(Anomaly)[kernel.BAD_BOOK] == Anomaly.MAYBE_BAD_BOOK
    for name in ("UNKNOWN_CANCEL", "UNKNOWN_MODIFY", "DUPLICATE_ADD", "OVER_CANCEL", "CANCEL_MISMATCH", "SIDE_CHANGE"):
        assert list(Anomaly)[getattr(kernel, name)] == Anomaly[name]
    for name in ("ZERO_SIZE", "IMPLICIT_CLEAR", "BAD_ACTION", "BAD_SIDE"):
        assert list(Anomaly)[getattr(kernel, name)] == Anomaly[name]
    assert kernel.ANOMALIES + len(Anomaly) <= kernel.BOOK_COLUMNS
    assert kernel.SEGMENTS + 2 * kernel.SEGMENT_COLUMNS <= kernel.ANOMALIES


def test_an_order_costs_at_most_120_bytes_when_the_arrays_have_just_doubled() -> None:
    places_per_order, index_places_per_order = 2, 4
    assert kernel.NODE.itemsize * places_per_order + 8 * index_places_per_order <= 120


@pytest.mark.parametrize("start", [1, 2, 63, 1000])
def test_arrays_grow_without_loss(start: int) -> None:
    count = 6000
    rng = np.random.default_rng(1)
    ids = rng.permutation(np.arange(count, dtype=np.uint64) * np.uint64(2**40 + 1))
    rows = [add("BA"[n % 2], int(price), 1, int(ids[n])) for n, price in enumerate(rng.permutation(count))]
    grown, reference = KernelBook(start), ReferenceBook()
    for part in np.array_split(stream(*rows), 5):
        grown.apply(part)
        reference.apply(part)
        grown.check()
        assert picture(grown) == picture(reference)
    assert len(grown) == count
    assert len(grown._arena.index) == 2 * len(grown._arena.nodes)  # never more than half full
    grown.clear()
    grown.check()
    grown.apply(stream(*rows[:100]))
    assert len(grown) == 100


def test_a_side_that_was_just_widened_never_asks_for_longer_arrays() -> None:
    assert 2 * kernel.MIN_ROOM <= kernel.MIN_SEGMENT


def test_a_book_that_stays_small_keeps_its_small_arrays() -> None:
    book = KernelBook()
    for n in range(200):
        book.apply(stream(*(add("B", 100 + i, 1, n * 1000 + i) for i in range(20))))
        book.apply(stream(*(cancel("B", 100 + i, 1, n * 1000 + i) for i in range(20))))
    assert len(book) == 0
    assert sum(array.nbytes for array in book._arena.arrays) < 16_384


def ids_with_home(arena: Arena, home: int, count: int) -> list[int]:
    """Return order ids whose first place in an index of this size is ``home``."""
    found = []
    for order_id in range(1, 100_000):
        place, _ = kernel.find(arena.pool, arena.nodes, arena.index, 0, np.uint64(order_id))
        if place == home:
            found.append(order_id)
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("leaving", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3], [0, 5, 1, 4, 2, 3]])
def test_deleting_from_a_crowded_index_hides_nobody(leaving: list[int]) -> None:
    empty = Arena()
    last = len(empty.index) - 1
    # Six ids want the last two places, so that the probing runs over the end and around.
    ids = ids_with_home(empty, last, 3) + ids_with_home(empty, last - 1, 3)
    book = KernelBook()
    book.apply(stream(*(add("B", 100, 1, order_id) for order_id in ids)))
    book.check()
    for number, leaver in enumerate(leaving):
        book.apply(stream(cancel("B", 100, 1, ids[leaver])))
        book.check()
        assert len(book) == len(ids) - number - 1
    assert book.anomalies == {}
    assert not book._arena.index.any()


def test_orders_of_other_books_of_an_arena_are_never_found() -> None:
    arena = Arena()
    arena.books = np.zeros((2, kernel.BOOK_COLUMNS), np.int64)
    mine, yours = stream(add("B", 100, 1, 7)), stream(add("A", 101, 2, 7), add("A", 102, 2, 8))
    assert kernel.apply(*arena.arrays, 0, mine, 0) == 1
    assert kernel.apply(*arena.arrays, 1, yours, 0) == 2
    assert arena.books[:, kernel.ORDERS].tolist() == [1, 2]
    _, found = kernel.find(arena.pool, arena.nodes, arena.index, 1, np.uint64(7))
    assert arena.nodes[["book", "size"]][found].tolist() == (1, 2)
    kernel.clear(*arena.arrays, 1)
    assert arena.books[:, kernel.ORDERS].tolist() == [1, 0]
    _, found = kernel.find(arena.pool, arena.nodes, arena.index, 0, np.uint64(7))
    assert arena.nodes["book"][found] == 0
    # Where the hashes of two books agree, the book itself decides.
    arena.nodes["book"][found] = 1
    _, found = kernel.find(arena.pool, arena.nodes, arena.index, 0, np.uint64(7))
    assert found == kernel.NO


def test_the_kernel_is_compiled_once_whatever_the_records_come_from() -> None:
    warm_up()
    before = [len(function.signatures) for function in (kernel.apply, kernel.apply_timed, kernel.copy_levels)]
    assert before == [1, 1, 1]
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
    assert [len(function.signatures) for function in (kernel.apply, kernel.apply_timed, kernel.copy_levels)] == before


def test_misaligned_records_are_copied_to_where_the_kernel_may_read_them() -> None:
    records = random_session(3, 200)
    shifted = np.frombuffer(bytearray(b"x" + records.tobytes()), MBO, offset=1)
    straight, copied = KernelBook(), KernelBook()
    straight.apply(records)
    copied.apply(shifted)
    assert picture(copied) == picture(straight)


@pytest.mark.parametrize(
    ("array", "column", "evidence"),
    [
        ("levels", "size", "holds"),
        ("levels", "count", "holds"),
        ("levels", "key", "ladder says"),
        ("nodes", "size", "holds"),
        ("nodes", "previous", "wrongly linked"),
        ("nodes", "order_id", "index does not find"),
    ],
)
def test_the_check_of_the_fast_book_sees_damage(array: str, column: str, evidence: str) -> None:
    book = KernelBook()
    book.apply(stream(add("B", 100, 5, 1), add("B", 100, 5, 2), add("A", 101, 5, 3)))
    book.check()
    getattr(book._arena, array)[column][0] += 1
    with pytest.raises(InvariantError, match=f"{evidence}.*sequence 3, ts_event 1758"):
        book.check()


def test_the_check_of_the_fast_book_sees_a_lost_index_entry() -> None:
    book = KernelBook()
    book.apply(stream(add("B", 100, 5, 1)))
    book._arena.index[:] = 0
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
