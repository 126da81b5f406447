"""Every rule of a market-by-order book, one by one, for both books."""

import numpy as np
import pytest

from orderbook.book.market import BookKind, make_book
from orderbook.book.mbo import MBO, ORDER, UNDEF_PRICE, UNDEF_TIMESTAMP, Side
from orderbook.book.protocol import OrderBook, QueuePosition, RestingOrder
from orderbook.book.snapshot import BookState, Level, book_state
from orderbook.tests.records import (
    KINDS,
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


@pytest.fixture(params=KINDS)
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


# events, as the venues send them


def trade(side: str, price: int, size: int, order_id: int) -> Row:
    return record("T", side, price, size, order_id, flags=0)


def fill(side: str, price: int, size: int, order_id: int) -> Row:
    return record("F", side, price, size, order_id, flags=0)


def test_a_partial_fill_of_cme_is_trade_fill_and_modify(book: OrderBook) -> None:
    apply(book, add("A", 101, 10, 1), add("A", 101, 5, 2))
    apply(book, trade("B", 101, 4, 77), fill("A", 101, 4, 1), modify("A", 101, 6, 1))
    assert asks(book) == [[101, 11, 2]]
    assert order_ids(book) == [1, 2]  # keeps its place
    assert book.anomalies == {}


def test_a_full_fill_of_cme_is_trade_fill_and_cancel(book: OrderBook) -> None:
    apply(book, add("A", 101, 10, 1), add("A", 101, 5, 2))
    apply(book, trade("B", 101, 10, 77), fill("A", 101, 10, 1), cancel("A", 101, 10, 1))
    assert asks(book) == [[101, 5, 1]]
    assert book.anomalies == {}


def test_one_aggressor_may_fill_several_orders(book: OrderBook) -> None:
    apply(book, add("B", 100, 3, 1), add("B", 100, 3, 2), add("B", 99, 9, 3))
    apply(
        book,
        trade("A", 100, 6, 77),
        trade("A", 99, 1, 77),
        fill("B", 100, 3, 1),
        fill("B", 100, 3, 2),
        fill("B", 99, 1, 3),
        cancel("B", 100, 3, 1, flags=0),
        cancel("B", 100, 3, 2, flags=0),
        modify("B", 99, 8, 3),
    )
    assert bids(book) == [[99, 8, 1]]


def test_a_fill_is_never_subtracted_beside_the_modify_that_tells_it(book: OrderBook) -> None:
    # The refresh of an iceberg: 4 of 5 shown are filled, 5 are shown again.
    apply(book, add("A", 101, 5, 1), add("A", 101, 5, 2))
    apply(book, trade("B", 101, 4, 77), fill("A", 101, 4, 1), modify("A", 101, 5, 1))
    assert asks(book) == [[101, 10, 2]]
    assert order_ids(book) == [1, 2]


def test_the_refresh_of_an_iceberg_with_a_greater_size_loses_priority(book: OrderBook) -> None:
    apply(book, add("A", 101, 5, 1), add("A", 101, 5, 2))
    apply(book, trade("B", 101, 5, 77), fill("A", 101, 5, 1), modify("A", 101, 8, 1))
    assert asks(book) == [[101, 13, 2]]
    assert order_ids(book) == [2, 1]


def test_a_hidden_quantity_may_trade_under_an_order_id_that_was_never_added(book: OrderBook) -> None:
    apply(book, add("A", 101, 5, 1), trade("B", 100, 4, 77), fill("A", 100, 4, 999), record("N"))
    assert asks(book) == [[101, 5, 1]]
    assert book.anomalies == {}


def test_the_rest_of_an_aggressor_may_come_before_the_cancels_of_what_it_hit(book: OrderBook) -> None:
    apply(book, add("A", 101, 5, 1), add("A", 102, 5, 2), add("B", 100, 1, 3))
    apply(book, trade("B", 101, 5, 4), fill("A", 101, 5, 1), add("B", 101, 2, 4, flags=0))
    assert book_state(book.bbo()) == BookState.LOCKED
    assert not book.at_event_end
    apply(book, cancel("A", 101, 5, 1))
    assert book_state(book.bbo()) == BookState.OK
    assert book.at_event_end
    assert book.bbo() == (Level(101, 2, 1), Level(102, 5, 1))


def test_an_execution_of_nasdaq_is_a_partial_cancel(book: OrderBook) -> None:
    apply(book, add("B", 100, 500, 1), add("B", 100, 100, 2))
    for _ in range(2):
        apply(book, trade("N", 100, 200, 0), fill("B", 100, 200, 1), cancel("B", 100, 200, 1))
    assert book.orders().tolist() == [(1, 100, 100, BIDS), (2, 100, 100, BIDS)]
    apply(book, trade("N", 100, 100, 0), fill("B", 100, 100, 1), cancel("B", 100, 100, 1))
    assert order_ids(book) == [2]
    assert book.anomalies == {}


def test_a_replace_of_nasdaq_is_cancel_and_add_and_loses_priority(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 5, 2))
    apply(book, cancel("B", 100, 5, 1, flags=0), add("B", 100, 3, 9))
    assert book.orders().tolist() == [(2, 100, 5, BIDS), (9, 100, 3, BIDS)]


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


def test_a_second_snapshot_with_a_clear_replaces_the_first(book: OrderBook) -> None:
    apply(book, clear(SNAPSHOT), *snapshot_of_two(1), clear(SNAPSHOT), *snapshot_of_two(2))
    assert order_ids(book) == [2, 3]
    assert book.anomalies == {}


def test_snapshot_records_without_a_clear_right_behind_a_snapshot_belong_to_it(book: OrderBook) -> None:
    # Only a record without the flag in between tells that a snapshot is another one.
    apply(book, *snapshot_of_two(1), *snapshot_of_two(2))
    assert order_ids(book) == [1, 2, 3]
    assert book.anomalies == {"duplicate_add": 1}


def test_a_snapshot_in_mid_event_leaves_nothing_of_the_event(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1, flags=0), clear(SNAPSHOT), *snapshot_of_two(7))
    assert order_ids(book) == [7, 8]


def test_a_snapshot_may_be_empty(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), clear(SNAPSHOT | LAST), add("B", 99, 5, 2))
    assert order_ids(book) == [2]
    assert book.anomalies == {}


def test_a_snapshot_is_not_to_be_looked_at_before_its_last_record(book: OrderBook) -> None:
    first, second = snapshot_of_two(1)
    apply(book, clear(SNAPSHOT))
    assert not book.at_event_end
    apply(book, first)
    assert not book.at_event_end
    apply(book, second)
    assert book.at_event_end


def test_a_snapshot_keeps_the_priority_in_which_it_lists_the_orders(book: OrderBook) -> None:
    ids = [5, 3, 9, 1]
    apply(book, clear(SNAPSHOT), *(add("B", 100, 1, order_id, SNAPSHOT) for order_id in ids))
    assert order_ids(book) == ids


def test_the_stream_goes_on_behind_a_snapshot(book: OrderBook) -> None:
    apply(book, clear(SNAPSHOT), *snapshot_of_two(1), add("B", 90, 5, 9), cancel("B", 90, 1, 1), modify("A", 91, 1, 2))
    assert (bids(book), asks(book)) == ([[90, 5, 1]], [[91, 1, 1]])
    assert book.anomalies == {}


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
    most = 2**32 - 1
    apply(book, *(add("A", 101, most, order_id) for order_id in range(3)))
    assert asks(book) == [[101, 3 * most, 3]]
    assert book.bbo().ask == Level(101, 3 * most, 3)
    assert book.queue_position(2) == QueuePosition(2, 2 * most)
    apply(book, cancel("A", 101, most - 1, 1), modify("A", 101, most, 1))
    assert asks(book) == [[101, 3 * most, 3]]
    assert order_ids(book) == [0, 2, 1]
    apply(book, add("A", 100, most, 0, LAST | TOB), *(add("A", 100, most, order_id) for order_id in range(2)))
    assert asks(book) == [[100, 3 * most, 2]]


def test_orders_at_the_ends_of_the_price_range_can_be_changed(book: OrderBook) -> None:
    least, greatest = -(2**63), 2**63 - 2
    for side in "BA":
        apply(book, add(side, least, 5, 1), add(side, greatest, 6, 2))
        apply(book, modify(side, greatest, 5, 1), modify(side, least, 6, 2))
        assert book.order(1) == RestingOrder(1, Side(ord(side)), greatest, 5)
        assert book.order(2) == RestingOrder(2, Side(ord(side)), least, 6)
        assert book.queue(Side(ord(side)), least).tolist() == [(2, least, 6, ord(side))]
        apply(book, cancel(side, greatest, 5, 1), cancel(side, least, 6, 2))
        assert len(book) == 0
    assert book.anomalies == {}


def test_a_crossed_book_is_kept_as_it_is(book: OrderBook) -> None:
    apply(book, add("B", 101, 1, 1), add("A", 100, 1, 2))
    assert book_state(book.bbo()) == BookState.CROSSED
    apply(book, modify("B", 100, 1, 1))
    assert book_state(book.bbo()) == BookState.LOCKED


# the face


def test_an_order_is_found_by_its_id_as_it_rests_now(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 7), cancel("B", 100, 2, 7))
    assert book.order(7) == RestingOrder(7, BIDS, 100, 3)
    assert book.order(8) is None
    apply(book, modify("B", -4, 9, 7))
    found = book.order(7)
    assert found == RestingOrder(7, BIDS, -4, 9)
    assert found is not None
    assert [type(value) for value in found] == [int, Side, int, int]
    apply(book, cancel("B", -4, 9, 7))
    assert book.order(7) is None


def test_the_queue_of_a_level_is_in_time_priority(book: OrderBook) -> None:
    apply(book, add("A", 101, 5, 3), add("A", 101, 6, 1), add("A", 102, 7, 2), add("B", 100, 1, 4))
    assert book.queue(ASKS, 101).tolist() == [(3, 101, 5, ASKS), (1, 101, 6, ASKS)]
    assert book.queue(ASKS, 102).tolist() == [(2, 102, 7, ASKS)]
    assert book.queue(BIDS, 101).tolist() == []
    assert book.queue(ASKS, 103).tolist() == []
    assert book.queue(ASKS, UNDEF_PRICE).tolist() == []
    assert book.queue(ASKS, 103).dtype == book.queue(ASKS, 101).dtype == ORDER


def test_the_queue_position_counts_orders_and_sizes_ahead(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 100, 6, 2), add("B", 100, 7, 3), add("B", 101, 50, 4))
    assert [book.queue_position(order_id) for order_id in (1, 2, 3, 4)] == [(0, 0), (1, 5), (2, 11), (0, 0)]
    apply(book, cancel("B", 100, 3, 1))
    assert book.queue_position(3) == QueuePosition(orders_ahead=2, size_ahead=8)
    apply(book, modify("B", 100, 9, 1))
    assert [book.queue_position(order_id) for order_id in (2, 3, 1)] == [(0, 0), (1, 6), (2, 13)]
    apply(book, cancel("B", 100, 6, 2))
    assert [book.queue_position(order_id) for order_id in (2, 3, 1)] == [None, (0, 0), (1, 7)]


def test_what_a_top_of_book_publisher_shows_waits_in_no_queue(book: OrderBook) -> None:
    apply(book, add("B", 100, 50, 0, LAST | TOB), add("B", 100, 5, 1), add("B", 100, 6, 2))
    assert book.queue_position(2) == QueuePosition(1, 5)
    assert book.queue(BIDS, 100).tolist() == [(1, 100, 5, BIDS), (2, 100, 6, BIDS)]
    assert book.order(0) is None
    assert len(book) == 2


@pytest.mark.parametrize("order_id", [-1, 2**64, 2**70])
def test_a_number_that_is_no_order_id_is_no_order(book: OrderBook, order_id: int) -> None:
    apply(book, add("B", 100, 5, 2**64 - 1), add("B", 100, 5, 0))
    assert book.order(order_id) is None
    assert book.queue_position(order_id) is None


def test_a_depth_below_one_shows_no_level(book: OrderBook) -> None:
    apply(book, add("B", 100, 5, 1), add("B", 99, 5, 2))
    assert book.levels(BIDS, 0).shape == book.levels(BIDS, -1).shape == (0, 3)


@pytest.mark.parametrize("price", [-(2**63) - 1, 2**63, 2**70])
def test_a_number_that_is_no_price_has_no_queue(book: OrderBook, price: int) -> None:
    apply(book, add("B", 2**63 - 2, 5, 1), add("B", -(2**63), 5, 2))
    assert book.queue(BIDS, price).tolist() == []


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
