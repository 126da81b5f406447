"""The tape: every change of the best prices at event ends, and every trade, from both books and both markets."""

import numpy as np
import pytest

from orderbook.book.market import BookKind, make_book, make_market
from orderbook.book.mbo import MBO, UNDEF_PRICE, UNDEF_TIMESTAMP, BookKey, MboArray
from orderbook.book.protocol import OrderBook
from orderbook.book.tape import BBO_ROW, TRADE_ROW, Tape
from orderbook.tests.records import (
    FIRST_TS,
    KINDS,
    LAST,
    SNAPSHOT,
    TOB,
    Row,
    add,
    cancel,
    clear,
    eventful_session,
    modify,
    record,
    stream,
)

NO_SIDE = (UNDEF_PRICE, 0, 0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


@pytest.fixture
def book(kind: BookKind) -> OrderBook:
    return make_book(kind)


@pytest.fixture
def tape() -> Tape:
    return Tape()


def changes(tape: Tape) -> list[tuple[int, tuple[int, int, int], tuple[int, int, int]]]:
    """Return number, bid and ask (price, size, count) of each BBO row."""
    return [
        (row["record"], (row["bid_px"], row["bid_sz"], row["bid_ct"]), (row["ask_px"], row["ask_sz"], row["ask_ct"]))
        for row in tape.bbos
    ]


def at(key: BookKey, row: Row) -> Row:
    return (*row[:2], *key, *row[4:])


# layout


def test_the_rows_lie_as_readers_of_history_expect_them() -> None:
    offsets = {name: BBO_ROW.fields[name][1] for name in BBO_ROW.names}  # type: ignore[union-attr,index]
    assert offsets == {
        "record": 0,
        "ts_event": 8,
        "ts_recv": 16,
        "bid_px": 24,
        "ask_px": 32,
        "bid_sz": 40,
        "ask_sz": 48,
        "bid_ct": 56,
        "ask_ct": 60,
        "sequence": 64,
        "instrument_id": 68,
        "publisher_id": 72,
    }
    assert (BBO_ROW.itemsize, TRADE_ROW.itemsize) == (80, 56)
    assert TRADE_ROW.fields["side"][1] == 54  # type: ignore[index]


# BBO rows


def test_a_new_tape_is_empty(tape: Tape) -> None:
    assert (len(tape.bbos), len(tape.trades), tape.records) == (0, 0, 0)
    assert (tape.bbos.dtype, tape.trades.dtype) == (BBO_ROW, TRADE_ROW)


def test_a_row_tells_when_where_and_what(book: OrderBook, tape: Tape) -> None:
    records = stream(add("B", 100, 5, 1), add("B", 100, 6, 2), add("A", 101, 7, 3))
    records["publisher_id"], records["instrument_id"] = 65535, 2**32 - 1
    records["ts_recv"][2], records["sequence"][2] = UNDEF_TIMESTAMP, 2**32 - 1
    book.apply(records, tape)
    ts = FIRST_TS
    ids = (2**32 - 1, 65535)
    assert tape.bbos.tolist() == [
        (0, ts + 1000, ts + 1500, 100, UNDEF_PRICE, 5, 0, 1, 0, 1, *ids),
        (1, ts + 2000, ts + 2500, 100, UNDEF_PRICE, 11, 0, 2, 0, 2, *ids),
        (2, ts + 3000, UNDEF_TIMESTAMP, 100, 101, 11, 7, 2, 1, 2**32 - 1, *ids),
    ]
    assert tape.records == 3


def test_rows_come_at_event_ends_only(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1, flags=0), add("B", 101, 5, 2, flags=0), record("N")), tape)
    assert changes(tape) == [(2, (101, 5, 1), NO_SIDE)]


def test_an_event_that_restores_the_best_prices_writes_nothing(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), add("B", 101, 5, 2, flags=0), cancel("B", 101, 5, 2)), tape)
    assert changes(tape) == [(0, (100, 5, 1), NO_SIDE)]


@pytest.mark.parametrize(
    ("second", "bid"),
    [
        (add("B", 100, 1, 9), (100, 6, 2)),  # size and count
        (cancel("B", 100, 2, 1), (100, 3, 1)),  # size alone
        (modify("B", 99, 5, 1), (99, 5, 1)),  # price alone
        (cancel("B", 100, 5, 1), NO_SIDE),
    ],
)
def test_each_change_of_the_best_level_is_a_row(
    book: OrderBook, tape: Tape, second: Row, bid: tuple[int, int, int]
) -> None:
    book.apply(stream(add("B", 100, 5, 1), second), tape)
    assert changes(tape)[1:] == [(1, bid, NO_SIDE)]


def test_a_change_of_the_count_alone_is_a_row(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), add("B", 100, 3, 2, flags=0), cancel("B", 100, 3, 1)), tape)
    assert changes(tape) == [(0, (100, 5, 1), NO_SIDE), (2, (100, 5, 2), NO_SIDE)]


def test_what_happens_below_the_best_level_writes_nothing(book: OrderBook, tape: Tape) -> None:
    below = [add("B", 99, 5, 2), cancel("B", 99, 5, 2), modify("A", 105, 1, 3), record("T", "B", 100, 1), record("N")]
    book.apply(stream(add("B", 100, 5, 1), add("A", 101, 5, 4), *below), tape)
    assert len(tape.bbos) == 2


def test_a_modify_that_loses_priority_but_changes_nothing_visible_writes_nothing(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), add("B", 100, 5, 2), cancel("B", 100, 5, 1, 0), add("B", 100, 5, 1)), tape)
    assert len(tape.bbos) == 2


def test_an_emptied_side_is_undefined_with_no_size(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), add("A", 101, 6, 2), clear()), tape)
    assert changes(tape)[2:] == [(2, NO_SIDE, NO_SIDE)]


def test_a_clear_of_an_empty_book_writes_nothing(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(clear(), record("N")), tape)
    assert len(tape.bbos) == 0


def test_a_top_of_book_level_has_a_count_of_zero(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 0, LAST | TOB), add("B", 100, 2, 7), add("A", 100, 1, 0, LAST | TOB)), tape)
    assert changes(tape) == [
        (0, (100, 5, 0), NO_SIDE),
        (1, (100, 7, 1), NO_SIDE),
        (2, (100, 7, 1), (100, 1, 0)),
    ]


def test_a_snapshot_is_one_row(book: OrderBook, tape: Tape) -> None:
    book.apply(
        stream(
            add("B", 100, 5, 1),
            clear(SNAPSHOT),
            add("B", 90, 1, 2, SNAPSHOT),
            add("A", 91, 2, 3, SNAPSHOT | LAST),
        ),
        tape,
    )
    assert changes(tape)[1:] == [(3, (90, 1, 1), (91, 2, 1))]


def test_a_snapshot_of_the_same_best_prices_is_no_row(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), clear(SNAPSHOT), add("B", 100, 5, 9, SNAPSHOT | LAST)), tape)
    assert len(tape.bbos) == 1


def test_prices_and_sizes_keep_all_their_bits(book: OrderBook, tape: Tape) -> None:
    most = 2**32 - 1
    book.apply(stream(add("B", -(2**63), most, 1), add("B", -(2**63), most, 2), add("A", 2**63 - 2, most, 3)), tape)
    assert changes(tape)[-1] == (2, (-(2**63), 2 * most, 2), (2**63 - 2, most, 1))


# trades


def test_a_trade_is_written_where_it_comes_and_not_at_the_end_of_its_event(book: OrderBook, tape: Tape) -> None:
    book.apply(
        stream(
            add("A", 101, 5, 1),
            record("T", "B", 101, 3, 2**64 - 1, flags=0),
            record("F", "A", 101, 3, 1, flags=0),
            modify("A", 101, 2, 1),
        ),
        tape,
    )
    ts = FIRST_TS + 2000
    assert tape.trades.tolist() == [(1, ts, ts + 500, 101, 2**64 - 1, 3, 2, 432669, 1, ord("B"))]
    assert changes(tape) == [(0, NO_SIDE, (101, 5, 1)), (3, NO_SIDE, (101, 2, 1))]


@pytest.mark.parametrize("side", "BANX")
@pytest.mark.parametrize("price", [-37_630_000_000, 0, UNDEF_PRICE])
def test_a_trade_is_written_as_it_was_told(book: OrderBook, tape: Tape, side: str, price: int) -> None:
    book.apply(stream(record("T", side, price, 0, 0)), tape)
    [trade] = tape.trades
    assert (trade["side"], trade["price"], trade["size"]) == (ord(side), price, 0)
    assert len(tape.bbos) == 0


@pytest.mark.parametrize("action", "ACMRFN?")
def test_nothing_else_is_a_trade(book: OrderBook, tape: Tape, action: str) -> None:
    book.apply(stream(record(action, "B", 100, 5, 1)), tape)
    assert len(tape.trades) == 0


# a stream in batches


def test_the_records_are_numbered_over_all_batches(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), record("N")), tape)
    book.apply(np.zeros(0, MBO), tape)
    book.apply(stream(record("N"), record("T", "B", 100, 1), add("B", 101, 5, 2)), tape)
    assert (tape.bbos["record"].tolist(), tape.trades["record"].tolist(), tape.records) == ([0, 4], [3], 5)


def test_an_emptied_tape_goes_on_numbering(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1), record("T")), tape)
    tape.empty()
    assert (len(tape.bbos), len(tape.trades), tape.records) == (0, 0, 2)
    book.apply(stream(record("N"), add("B", 101, 5, 2), record("T")), tape)
    assert (tape.bbos["record"].tolist(), tape.trades["record"].tolist(), tape.records) == ([3], [4], 5)


def test_what_was_applied_without_a_tape_is_one_row_at_the_next_event_end(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1)), tape)
    book.apply(stream(add("B", 101, 5, 2), add("B", 102, 5, 3), record("T")))
    book.apply(stream(record("N", flags=0), record("N")), tape)
    assert changes(tape)[1:] == [(2, (102, 5, 1), NO_SIDE)]
    assert (len(tape.trades), tape.records) == (0, 3)


def test_what_was_applied_without_a_tape_and_taken_back_is_no_row(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1)), tape)
    book.apply(stream(add("B", 101, 5, 2), cancel("B", 101, 5, 2)))
    book.apply(stream(record("N")), tape)
    assert len(tape.bbos) == 1


def test_a_book_cleared_by_hand_is_a_row_at_the_next_event_end(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1)), tape)
    book.clear()
    book.apply(stream(record("N")), tape)
    assert changes(tape)[1:] == [(1, NO_SIDE, NO_SIDE)]


def test_an_event_may_be_cut_by_a_batch(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1, flags=0)), tape)
    assert len(tape.bbos) == 0
    book.apply(stream(record("N")), tape)
    assert changes(tape) == [(1, (100, 5, 1), NO_SIDE)]


def test_a_second_tape_gets_only_what_comes_while_it_runs(book: OrderBook, tape: Tape) -> None:
    book.apply(stream(add("B", 100, 5, 1)), tape)
    second = Tape()
    book.apply(stream(record("N"), add("B", 101, 5, 2)), second)
    assert changes(second) == [(1, (101, 5, 1), NO_SIDE)]
    assert len(tape.bbos) == 1


def test_a_long_tape_keeps_what_was_written_before_it_grew(kind: BookKind, tape: Tape) -> None:
    records = stream(*(record("T", "B", n, 1, flags=0) if n % 3 else add("B", n, 1, n) for n in range(1, 5000)))
    book = make_book(kind)
    for part in np.array_split(records, 40):
        book.apply(part, tape)
    assert tape.trades["price"].tolist() == [n for n in range(1, 5000) if n % 3]
    assert tape.bbos["bid_px"].tolist() == list(range(3, 5000, 3))


# many instruments


ONE, TWO = BookKey(1, 7), BookKey(2, 7)


def test_mixed_books_keep_the_order_of_the_stream(kind: BookKind, tape: Tape) -> None:
    market = make_market(kind)
    market.apply(
        stream(
            at(ONE, add("B", 100, 1, 1, flags=0)),
            at(TWO, add("A", 201, 2, 1)),  # an event of its own inside the other's
            at(ONE, record("T", "B", 100, 1)),
            at(TWO, record("T", "A", 200, 2, flags=0)),
            at(ONE, add("B", 101, 3, 2)),
            at(TWO, record("N")),
        ),
        tape,
    )
    assert [(row["record"], row["publisher_id"], row["bid_px"], row["ask_px"]) for row in tape.bbos] == [
        (1, 2, UNDEF_PRICE, 201),
        (2, 1, 100, UNDEF_PRICE),
        (4, 1, 101, UNDEF_PRICE),
    ]
    assert [(row["record"], row["publisher_id"], row["price"]) for row in tape.trades] == [(2, 1, 100), (3, 2, 200)]
    assert tape.records == 6


def test_a_batch_of_one_book_and_a_mixed_one_are_numbered_alike(kind: BookKind, tape: Tape) -> None:
    market = make_market(kind)
    market.apply(stream(at(ONE, add("B", 100, 1, 1))), tape)
    market.apply(stream(at(TWO, add("B", 200, 1, 1)), at(ONE, add("B", 101, 1, 2))), tape)
    market.apply(stream(at(TWO, add("B", 201, 1, 2))), tape)
    assert tape.bbos[["record", "bid_px"]].tolist() == [(0, 100), (1, 200), (2, 101), (3, 201)]


def by_looking(records: MboArray) -> tuple[list[tuple[int, object]], list[int]]:
    """Return number and BBO of every change, and the number of every trade, found by looking after every record."""
    market = make_market("reference")
    seen: dict[BookKey, object] = {}
    found, trades = [], []
    for number, row in enumerate(records):
        key = BookKey(int(row["publisher_id"]), int(row["instrument_id"]))
        market.apply(records[number : number + 1])
        book = market.book(key)
        if row["action"] == ord("T"):
            trades.append(number)
        if book.at_event_end and book.bbo() != seen.get(key, (None, None)):
            seen[key] = book.bbo()
            bid, ask = (tuple(level or NO_SIDE) for level in book.bbo())
            found.append((number, bid, ask))
    return found, trades


@pytest.mark.parametrize("seed", range(3))
def test_the_tape_is_what_one_finds_by_looking_after_every_record(kind: BookKind, tape: Tape, seed: int) -> None:
    records = eventful_session(seed, 6000, ids=60, prices=6)
    records["instrument_id"] = np.random.default_rng(seed).integers(0, 3, len(records))
    market = make_market(kind)
    for part in np.array_split(records, 7):
        market.apply(part, tape)
    assert (changes(tape), tape.trades["record"].tolist()) == by_looking(records)
    assert len(tape.bbos) > 500
