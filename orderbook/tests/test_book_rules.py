"""Every rule of a market-by-order book, one by one, for both books."""

import numpy as np
import pytest

from orderbook.book.market import BookKind, make_book
from orderbook.book.mbo import MBO, UNDEF_PRICE, UNDEF_TIMESTAMP, Side
from orderbook.book.protocol import OrderBook
from orderbook.book.snapshot import BookState, Level, book_state
from orderbook.tests.records import (
    LAST,
    MAYBE_BAD_BOOK,
    SNAPSHOT,
    TOB,
    Row,
    add,
    cancel,
    clear,
    modify,
    order_ids,
    picture,
    record,
    stream,
)

BIDS, ASKS = Side.BID, Side.ASK


@pytest.fixture(params=["reference", "kernel"])
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


@pytest.fixture
def book(kind: BookKind) -> OrderBook:
    return make_book(kind)


def apply(book: OrderBook, *rows: Row) -> None:
    book.apply(stream(*rows))
    book.check()


def bids(book: OrderBook) -> list[list[int]]:
    return book.levels(BIDS).tolist()


def asks(book: OrderBook) -> list[list[int]]:
    return book.levels(ASKS).tolist()


# a new book


def test_a_new_book_is_empty_and_may_be_looked_at(book: OrderBook) -> None:
    book.check()
    assert book.at_event_end
    assert (book.ts_event, book.ts_recv, book.sequence) == (0, 0, 0)
    assert book.bbo() == (None, None)
    assert book_state(book.bbo()) == BookState.EMPTY
    assert (len(book), len(book.orders()), book.anomalies) == (0, 0, {})
    assert book.levels(BIDS).shape == book.levels(ASKS, 5).shape == (0, 3)


def test_an_empty_batch_changes_nothing(book: OrderBook) -> None:
    apply(book, add("B", 100, 1, 1))
    before = picture(book)
    book.apply(np.zeros(0, MBO))
    assert picture(book) == before


# A: add


def test_an_add_rests_on_its_side(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("A", 101, 7, 2))
    assert bids(book) == [[100, 5, 1]]
    assert asks(book) == [[101, 7, 1]]
    assert book.bbo() == (Level(100, 5, 1), Level(101, 7, 1))


def test_bids_descend_and_asks_ascend(book: OrderBook) -> None:
    apply(
        book, *(add(side, price, 1, price) for side, price in zip("BABABA", [98, 105, 100, 103, 99, 104], strict=True))
    )
    assert [price for price, _, _ in bids(book)] == [100, 99, 98]
    assert [price for price, _, _ in asks(book)] == [103, 104, 105]


def test_an_add_waits_behind_the_orders_of_its_level(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 3), add("B", 100, 6, 1), add("B", 100, 7, 2))
    assert order_ids(book) == [3, 1, 2]
    assert bids(book) == [[100, 18, 3]]


def test_orders_are_listed_bids_first_best_level_first(book: OrderBook) -> None:
    apply(book, add("A", 101, 1, 1), add("B", 99, 2, 2), add("B", 100, 3, 3), add("A", 102, 4, 4))
    assert book.orders().tolist() == [
        (3, 100, 3, ord("B")),
        (2, 99, 2, ord("B")),
        (1, 101, 1, ord("A")),
        (4, 102, 4, ord("A")),
    ]


def test_a_duplicate_add_replaces_the_order_and_is_counted(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 6, 2), add("B", 100, 9, 1))
    assert order_ids(book) == [2, 1]
    assert bids(book) == [[100, 15, 2]]
    assert book.anomalies == {"duplicate_add": 1}


def test_a_duplicate_add_may_come_back_on_the_other_side(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("A", 101, 9, 1))
    assert (bids(book), asks(book)) == ([], [[101, 9, 1]])
    assert len(book) == 1


def test_an_add_of_no_size_is_counted_and_does_not_rest(book: OrderBook) -> None:
    apply(book, add("B", 100, 0, 1))
    assert len(book) == 0
    assert book.anomalies == {"zero_size": 1}


def test_an_add_without_a_price_is_counted_and_does_not_rest(book: OrderBook) -> None:
    apply(book, add("B", UNDEF_PRICE, 5, 1))
    assert len(book) == 0
    assert book.anomalies == {"undef_price": 1}


# C: cancel


def test_a_full_cancel_removes_the_order_and_its_empty_level(book: OrderBook) -> None:
    apply(book, add("A", 101, 5, 1), add("A", 102, 5, 2), cancel("A", 101, 5, 1))
    assert asks(book) == [[102, 5, 1]]
    assert book.anomalies == {}


def test_a_partial_cancel_keeps_queue_position(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 6, 2), cancel("B", 100, 2, 1))
    assert order_ids(book) == [1, 2]
    assert bids(book) == [[100, 9, 2]]


def test_a_cancel_from_the_middle_keeps_the_order_of_the_rest(book: OrderBook) -> None:
    apply(book, *(add("B", 100, 1, order_id) for order_id in range(1, 6)), cancel("B", 100, 1, 3))
    assert order_ids(book) == [1, 2, 4, 5]
    apply(book, cancel("B", 100, 1, 1), cancel("B", 100, 1, 5), add("B", 100, 1, 6))
    assert order_ids(book) == [2, 4, 6]


def test_an_over_cancel_removes_the_order_and_is_counted(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 1, 2), cancel("B", 100, 6, 1))
    assert bids(book) == [[100, 1, 1]]
    assert book.anomalies == {"over_cancel": 1}


def test_an_unknown_cancel_is_counted_and_ignored(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), cancel("B", 100, 5, 2))
    assert bids(book) == [[100, 5, 1]]
    assert book.anomalies == {"unknown_cancel": 1}


def test_a_cancel_of_nothing_is_counted_and_ignored(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), cancel("B", 100, 0, 1))
    assert bids(book) == [[100, 5, 1]]
    assert book.anomalies == {"zero_size": 1}


@pytest.mark.parametrize(("side", "price"), [("A", 100), ("B", 101), ("B", UNDEF_PRICE)])
def test_a_cancel_that_names_another_place_goes_by_the_order_id_and_is_counted(
    book: OrderBook, side: str, price: int
) -> None:
    apply(book, add("B", 100, 5, 1), cancel(side, price, 2, 1))
    assert bids(book) == [[100, 3, 1]]
    assert book.anomalies == {"cancel_mismatch": 1}


# M: modify


def test_a_modify_to_another_price_goes_to_the_end_of_its_new_level(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 99, 6, 2), modify("B", 99, 5, 1))
    assert bids(book) == [[99, 11, 2]]
    assert order_ids(book) == [2, 1]


def test_a_modify_away_and_back_loses_priority(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 6, 2), modify("B", 99, 5, 1), modify("B", 100, 5, 1))
    assert order_ids(book) == [2, 1]


def test_a_modify_to_a_greater_size_loses_priority(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 6, 2), modify("B", 100, 8, 1))
    assert order_ids(book) == [2, 1]
    assert bids(book) == [[100, 14, 2]]


@pytest.mark.parametrize("size", [5, 3])
def test_a_modify_to_a_smaller_or_equal_size_keeps_priority(book: OrderBook, size: int) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 6, 2), modify("B", 100, size, 1))
    assert order_ids(book) == [1, 2]
    assert bids(book) == [[100, size + 6, 2]]


def test_a_greater_size_alone_in_its_level_keeps_the_level(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), modify("B", 100, 8, 1))
    assert bids(book) == [[100, 8, 1]]


def test_an_unknown_modify_is_an_add_and_is_counted(book: OrderBook) -> None:
    apply(book, add("B", 100, 1, 1), modify("B", 100, 5, 7))
    assert order_ids(book) == [1, 7]
    assert book.anomalies == {"unknown_modify": 1}


def test_a_modify_to_the_other_side_is_cancel_and_add_and_is_counted(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("A", 100, 6, 2), modify("A", 100, 5, 1))
    assert (bids(book), asks(book)) == ([], [[100, 11, 2]])
    assert order_ids(book) == [2, 1]
    assert book.anomalies == {"side_change": 1}


def test_a_modify_to_no_size_removes_and_is_counted(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), modify("B", 99, 0, 1))
    assert len(book) == 0
    assert book.anomalies == {"zero_size": 1}


def test_an_unknown_modify_to_no_size_rests_nowhere(book: OrderBook) -> None:
    apply(book, modify("B", 99, 0, 1))
    assert len(book) == 0
    assert book.anomalies == {"unknown_modify": 1, "zero_size": 1}


def test_a_modify_to_no_price_is_counted_and_ignored(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), modify("B", UNDEF_PRICE, 3, 1))
    assert bids(book) == [[100, 5, 1]]
    assert book.anomalies == {"undef_price": 1}


# R, T, F, N


def test_a_clear_removes_everything_and_the_ids_are_free_again(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("A", 101, 5, 2), clear())
    assert (bids(book), asks(book), len(book)) == ([], [], 0)
    apply(book, add("A", 101, 5, 1))
    assert book.anomalies == {}


@pytest.mark.parametrize("action", "TFN")
@pytest.mark.parametrize("side", "BAN")
def test_trades_fills_and_nothings_never_touch_the_book(book: OrderBook, action: str, side: str) -> None:
    apply(book, add("B", 100, 5, 1), record(action, side, 100, 5, 1), record(action, side, UNDEF_PRICE, 0, 0, TOB))
    assert book.orders().tolist() == [(1, 100, 5, ord("B"))]
    assert book.anomalies == {}


def test_the_clear_method_empties_the_book_and_keeps_its_place_in_the_stream(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("A", 101, 5, 2, flags=0))
    stood = (book.ts_event, book.ts_recv, book.sequence, book.at_event_end)
    book.clear()
    book.check()
    assert (len(book), book.bbo()) == (0, (None, None))
    assert (book.ts_event, book.ts_recv, book.sequence, book.at_event_end) == stood


# top-of-book publishers


def test_a_top_of_book_add_is_the_whole_side_and_no_order(book: OrderBook) -> None:
    apply(book, add("B", 99, 5, 1), add("A", 101, 5, 2), add("B", 100, 7, 0, LAST | TOB))
    assert bids(book) == [[100, 7, 0]]
    assert order_ids(book) == [2]
    apply(book, add("B", 98, 3, 0, LAST | TOB))
    assert bids(book) == [[98, 3, 0]]
    assert asks(book) == [[101, 5, 1]]
    assert book.anomalies == {}


@pytest.mark.parametrize("action", "ACM")
def test_a_top_of_book_record_without_a_price_clears_its_side(book: OrderBook, action: str) -> None:
    apply(
        book,
        add("B", 100, 7, 0, LAST | TOB),
        add("A", 101, 7, 0, LAST | TOB),
        record(action, "B", UNDEF_PRICE, 0, 0, LAST | TOB),
    )
    assert (bids(book), asks(book)) == ([], [[101, 7, 0]])
    assert book.anomalies == {}


def test_an_order_may_join_the_level_of_a_top_of_book_publisher(book: OrderBook) -> None:
    apply(book, add("A", 101, 7, 0, LAST | TOB), add("A", 101, 2, 5))
    assert asks(book) == [[101, 9, 1]]
    apply(book, cancel("A", 101, 2, 5))
    assert asks(book) == [[101, 7, 0]]


def test_a_top_of_book_add_of_no_size_only_clears(book: OrderBook) -> None:
    apply(book, add("B", 100, 7, 0, LAST | TOB), add("B", 100, 0, 0, LAST | TOB))
    assert bids(book) == []
    assert book.anomalies == {"zero_size": 1}


def test_a_clear_removes_top_of_book_levels_too(book: OrderBook) -> None:
    apply(book, add("B", 100, 7, 0, LAST | TOB), clear())
    assert bids(book) == []


# snapshots


def snapshot_of_two(order_id: int) -> list[Row]:
    return [add("B", 90, 1, order_id, SNAPSHOT), add("A", 91, 2, order_id + 1, SNAPSHOT | LAST)]


def test_a_snapshot_with_a_leading_clear_replaces_the_book(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), clear(SNAPSHOT), *snapshot_of_two(1))
    assert (bids(book), asks(book)) == ([[90, 1, 1]], [[91, 2, 1]])
    assert book.anomalies == {}
    assert book.at_event_end


def test_a_snapshot_without_a_clear_replaces_the_book_too(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), *snapshot_of_two(1))
    assert (bids(book), asks(book)) == ([[90, 1, 1]], [[91, 2, 1]])
    assert book.anomalies == {"implicit_clear": 1}


def test_a_snapshot_at_the_very_start_clears_nothing(book: OrderBook) -> None:
    apply(book, *snapshot_of_two(1))
    assert len(book) == 2
    assert book.anomalies == {}


def test_every_snapshot_without_a_clear_replaces_the_one_before(book: OrderBook) -> None:
    apply(book, *snapshot_of_two(1), add("B", 100, 5, 9), *snapshot_of_two(5))
    assert order_ids(book) == [5, 6]
    assert book.anomalies == {"implicit_clear": 1}


def test_a_snapshot_may_come_in_pieces(book: OrderBook) -> None:
    first, second = snapshot_of_two(1)
    apply(book, add("B", 100, 5, 9))
    apply(book, first)
    apply(book, second)
    assert order_ids(book) == [1, 2]


def test_a_snapshot_over_a_top_of_book_level_clears_it(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 0, LAST | TOB), *snapshot_of_two(1))
    assert bids(book) == [[90, 1, 1]]


# odd data


def test_a_warning_of_a_gap_is_counted_and_the_record_applied(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1, LAST | MAYBE_BAD_BOOK), record("T", flags=MAYBE_BAD_BOOK))
    assert len(book) == 1
    assert book.anomalies == {"maybe_bad_book": 2}


def test_an_unknown_action_is_counted_and_ignored(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), record("X", "B", 100, 5, 1))
    assert len(book) == 1
    assert book.anomalies == {"bad_action": 1}


@pytest.mark.parametrize("action", "ACM")
@pytest.mark.parametrize("side", "NX")
def test_an_order_of_no_side_is_counted_and_ignored(book: OrderBook, action: str, side: str) -> None:
    apply(book, add("B", 100, 5, 1), record(action, side, 100, 2, 1))
    assert bids(book) == [[100, 5, 1]]
    assert book.anomalies == {"bad_side": 1}


def test_order_ids_fill_all_64_bits(book: OrderBook) -> None:
    ids = [2**64 - 1, 2**63, 2**63 - 1, 0, 1]
    apply(book, *(add("B", 100, 1, order_id) for order_id in ids))
    assert order_ids(book) == ids
    apply(book, cancel("B", 100, 1, 2**64 - 1), cancel("B", 100, 1, 0))
    assert order_ids(book) == ids[1:3] + ids[4:]


def test_prices_may_be_negative(book: OrderBook) -> None:
    apply(book, add("B", -38, 1, 1), add("B", 0, 1, 2), add("B", -37, 1, 3), add("A", -1, 1, 4), add("A", 2, 1, 5))
    assert [price for price, _, _ in bids(book)] == [0, -37, -38]
    assert [price for price, _, _ in asks(book)] == [-1, 2]


def test_prices_fill_all_of_their_64_bits(book: OrderBook) -> None:
    prices = [2**63 - 2, 0, -(2**63)]
    apply(book, *(add(side, price, 1, ord(side) + n * 100) for side in "BA" for n, price in enumerate(prices)))
    assert [price for price, _, _ in bids(book)] == prices
    assert [price for price, _, _ in asks(book)] == prices[::-1]


def test_a_level_may_hold_more_than_32_bits_of_size(book: OrderBook) -> None:
    apply(book, *(add("A", 101, 2**32 - 1, order_id) for order_id in range(3)))
    assert asks(book) == [[101, 3 * (2**32 - 1), 3]]


def test_a_crossed_book_is_kept_as_it_is(book: OrderBook) -> None:
    apply(book, add("B", 101, 1, 1), add("A", 100, 1, 2))
    assert book_state(book.bbo()) == BookState.CROSSED
    apply(book, modify("B", 100, 1, 1))
    assert book_state(book.bbo()) == BookState.LOCKED


# the face


def test_the_event_end_follows_the_flag_of_the_last_record(book: OrderBook) -> None:
    apply(book, add("B", 100, 1, 1, flags=LAST), add("B", 100, 1, 2, flags=0))
    assert not book.at_event_end
    apply(book, record("N", flags=LAST))
    assert book.at_event_end
    apply(book, record("T", flags=2))
    assert not book.at_event_end
    apply(book, record("N", flags=130))
    assert book.at_event_end


def test_the_book_knows_where_it_stands_in_the_stream(book: OrderBook) -> None:
    records = stream(add("B", 100, 1, 1), record("T"))
    records["ts_recv"][1] = UNDEF_TIMESTAMP
    records["sequence"][1] = 2**32 - 1
    book.apply(records)
    assert book.ts_event == int(records["ts_event"][1])
    assert (book.ts_recv, book.sequence) == (UNDEF_TIMESTAMP, 2**32 - 1)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 100])
def test_levels_are_cut_to_the_depth(book: OrderBook, depth: int) -> None:
    apply(book, *(add(side, price, 1, ord(side) * 10 + price) for side in "BA" for price in (1, 2, 3)))
    assert book.levels(BIDS, depth).tolist() == [[3, 1, 1], [2, 1, 1], [1, 1, 1]][:depth]
    assert book.levels(ASKS, depth).tolist() == [[1, 1, 1], [2, 1, 1], [3, 1, 1]][:depth]


def test_what_was_read_never_changes_afterwards(book: OrderBook) -> None:
    apply(book, add("B", 100, 1, 1))
    levels, orders, anomalies = book.levels(BIDS), book.orders(), book.anomalies
    apply(book, add("B", 100, 1, 2), cancel("B", 100, 1, 9))
    assert (levels.tolist(), len(orders), anomalies) == ([[100, 1, 1]], 1, {})


def test_records_may_be_read_only_or_strided(book: OrderBook) -> None:
    records = stream(add("B", 100, 1, 1), record("X"), add("B", 100, 1, 2), record("X"))
    frozen = np.frombuffer(records.tobytes(), MBO)
    book.apply(frozen[::2])
    book.apply(np.frombuffer(stream(add("B", 100, 1, 3)).tobytes(), MBO))
    assert order_ids(book) == [1, 2, 3]
    assert book.anomalies == {}


def test_timed_records_leave_the_same_book(kind: BookKind) -> None:
    records = stream(*(add("B", 100 + n % 7, 1, n) for n in range(500)), clear(SNAPSHOT), *snapshot_of_two(1))
    plain, timed = make_book(kind), make_book(kind)
    plain.apply(records)
    spent = timed.apply_timed(records)
    assert (spent.dtype, len(spent)) == (np.int64, len(records))
    assert (spent >= 0).all()
    assert spent.any()
    assert picture(timed) == picture(plain)
    assert timed.apply_timed(records[:0]).tolist() == []
