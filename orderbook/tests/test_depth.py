"""The depth tape: the ten best levels at event ends and every trade, from both kinds of market."""

import numpy as np
import pytest

from orderbook.book import depth, kernel
from orderbook.book.depth import DEPTH, MBP10, DepthTape, row_words
from orderbook.book.kernel_market import KernelMarket
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, UNDEF_PRICE, BookKey, MboArray
from orderbook.book.protocol import Market
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
    examples,
    interleaved,
    modify,
    record,
    renamed_book,
    stream,
)

NO_SIDE = (UNDEF_PRICE, 0, 0)
ONE, TWO = BookKey(1, 7), BookKey(2, 7)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


@pytest.fixture
def market(kind: BookKind) -> Market:
    return make_market(kind)


@pytest.fixture
def tape() -> DepthTape:
    return DepthTape()


def told(tape: DepthTape) -> list[tuple[int, str, int]]:
    """Return the number, the action and the depth of each row."""
    return [
        (int(number), chr(row["action"]), int(row["depth"]))
        for number, row in zip(tape.numbers, tape.rows, strict=True)
    ]


def level(tape: DepthTape, row: int, number: int = 0) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return bid and ask of one level of a row."""
    bid, ask = (
        tuple(int(tape.rows[row][f"{side}_{name}_{number:02}"]) for name in ("px", "sz", "ct"))
        for side in ("bid", "ask")
    )
    return bid, ask  # type: ignore[return-value]


def at(key: BookKey, row: Row) -> Row:
    return (*row[:2], *key, *row[4:])


# layout


def test_the_codes_of_the_kernel_are_those_of_the_tape() -> None:
    for name in ("DEPTH", "ROW_WORDS", "LEVEL_WORDS", "HEAD_WORDS", "MBP10_RTYPE", "MAX_UINT32"):
        assert getattr(kernel, name) == getattr(depth, name)
    assert MBP10.itemsize == 368 == 8 * kernel.ROW_WORDS
    assert (MBP10.fields or {})["bid_px_00"][1] == 8 * kernel.HEAD_WORDS
    assert kernel.HOLDS == kernel.ROW_WORDS and kernel.CAUSE_SIDE < kernel.NEWEST_COLUMNS


def test_a_new_tape_is_empty(tape: DepthTape) -> None:
    assert (len(tape.rows), len(tape.numbers), len(tape.books), tape.records) == (0, 0, 0, 0)


def test_a_row_tells_everything_of_its_event(market: Market, tape: DepthTape) -> None:
    records = stream(add("B", 100, 5, 1, flags=0), add("B", 100, 2**32 - 6, 2, flags=0), record("F", "B", 1, 1, 1))
    records["publisher_id"], records["instrument_id"] = 65535, 2**32 - 1
    records["ts_in_delta"] = -1, -2, -3
    market.apply_depth(records, tape)
    [row] = tape.rows
    assert row.tolist()[:14] == (
        92,
        10,
        65535,
        2**32 - 1,
        FIRST_TS + 3000,
        100,
        2**32 - 6,
        ord("A"),
        ord("B"),
        LAST,
        0,
        FIRST_TS + 3500,
        -3,
        3,
    )
    assert row.tolist()[14:20] == (100, UNDEF_PRICE, 2**32 - 1, 0, 2, 0)
    assert row.tolist()[20:] == (UNDEF_PRICE, UNDEF_PRICE, 0, 0, 0, 0) * (DEPTH - 1)
    assert (tape.numbers.tolist(), tape.books.tolist(), tape.records) == ([2], [0], 3)


def test_a_size_beyond_32_bits_is_the_greatest_that_fits(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("A", 7, 2**32 - 1, 1), add("A", 7, 2**32 - 1, 2)), tape)
    assert [level(tape, row)[1] for row in (0, 1)] == [(7, 2**32 - 1, 1), (7, 2**32 - 1, 2)]


# the rules


def test_an_event_is_one_row_at_its_end(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("B", 100, 5, 1, flags=0), add("A", 101, 5, 2, flags=0), record("N")), tape)
    assert told(tape) == [(2, "A", 0)]
    assert level(tape, 0) == ((100, 5, 1), (101, 5, 1))


def test_an_event_that_restores_the_levels_is_no_row(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("B", 100, 5, 1), add("B", 101, 5, 2, flags=0), cancel("B", 101, 5, 2)), tape)
    assert told(tape) == [(0, "A", 0)]


def test_the_depth_is_the_first_level_that_changed(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(*(add("B", 100 - n, 1, n) for n in range(12)), cancel("B", 97, 1, 3)), tape)
    assert told(tape) == [*((n, "A", n) for n in range(10)), (12, "C", 3)]
    assert [level(tape, 10, n)[0][0] for n in range(10)] == [100, 99, 98, 96, 95, 94, 93, 92, 91, 90]


def test_the_eleventh_level_is_nobodys_business(market: Market, tape: DepthTape) -> None:
    asks = [add("A", 100 + n, 1, n) for n in range(11)]
    market.apply_depth(stream(*asks, add("A", 110, 5, 20), cancel("A", 110, 1, 10), modify("A", 110, 4, 20)), tape)
    assert len(tape.rows) == 10


def test_the_action_is_that_of_the_last_record_that_speaks_of_the_book(market: Market, tape: DepthTape) -> None:
    market.apply_depth(
        stream(
            add("A", 101, 5, 1),
            record("T", "B", 101, 3, flags=0),
            record("F", "A", 101, 3, 1, flags=0),
            modify("A", 101, 2, 1, flags=0),
            record("N"),
        ),
        tape,
    )
    assert told(tape) == [(0, "A", 0), (1, "T", 0), (4, "M", 0)]
    assert tape.rows[2][["price", "size", "side"]].tolist() == (101, 2, ord("A"))


def test_a_trade_shows_the_levels_of_before_its_event(market: Market, tape: DepthTape) -> None:
    market.apply_depth(
        stream(
            add("A", 101, 5, 1),
            cancel("A", 101, 2, 1, flags=0),
            record("T", "B", 101, 2),  # ends the event, too
        ),
        tape,
    )
    assert told(tape) == [(0, "A", 0), (2, "T", 0), (2, "C", 0)]
    assert [level(tape, row)[1] for row in range(3)] == [(101, 5, 1), (101, 5, 1), (101, 3, 1)]


def test_a_trade_of_a_book_that_nobody_saw_has_no_levels(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(record("T", "B", 101, 2)), tape)
    assert told(tape) == [(0, "T", 0)]
    assert level(tape, 0) == (NO_SIDE, NO_SIDE)


def test_a_clear_is_a_row_whatever_it_leaves(market: Market, tape: DepthTape) -> None:
    again = [clear(0), add("B", 100, 5, 1, 0), add("B", 99, 5, 2)]
    market.apply_depth(stream(clear(), add("B", 100, 5, 1), add("B", 99, 5, 2), *again, record("N")), tape)
    assert told(tape) == [(0, "R", 0), (1, "A", 0), (2, "A", 1), (5, "A", 0)]


def test_a_snapshot_is_one_row_with_the_times_of_its_last_record(market: Market, tape: DepthTape) -> None:
    market.apply_depth(
        stream(clear(SNAPSHOT), add("A", 101, 1, 1, SNAPSHOT), add("B", 99, 2, 2, SNAPSHOT | LAST)), tape
    )
    assert told(tape) == [(2, "A", 0)]
    assert tape.rows[0][["flags", "sequence", "ts_event"]].tolist() == (SNAPSHOT | LAST, 3, FIRST_TS + 3000)


def test_a_snapshot_that_replaces_the_book_without_a_word_is_told_as_a_clear(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("B", 100, 5, 1), record("N", flags=SNAPSHOT | LAST)), tape)
    assert told(tape) == [(0, "A", 0), (1, "R", 0)]
    assert level(tape, 1) == (NO_SIDE, NO_SIDE)
    assert tape.rows[1][["price", "size", "side"]].tolist() == (UNDEF_PRICE, 0, ord("N"))


def test_a_trade_inside_a_snapshot_shows_the_levels_of_before_it(market: Market, tape: DepthTape) -> None:
    inside = [clear(SNAPSHOT), add("B", 100, 5, 1, SNAPSHOT), record("T", "A", 100, 1, flags=0), record("N")]
    market.apply_depth(stream(*inside, *inside), tape)
    assert told(tape) == [(2, "T", 0), (3, "A", 0), (6, "T", 0), (7, "A", 0)]
    assert [level(tape, row)[0] for row in (0, 2)] == [NO_SIDE, (100, 5, 1)]


def test_a_top_of_book_level_has_a_count_of_zero(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("B", 100, 5, 0, LAST | TOB), add("B", UNDEF_PRICE, 0, 0, LAST | TOB)), tape)
    assert [level(tape, row)[0] for row in (0, 1)] == [(100, 5, 0), NO_SIDE]


def test_a_crossed_book_is_written_as_it_is(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("B", 105, 1, 1), add("A", 100, 2, 2)), tape)
    assert level(tape, 1) == ((105, 1, 1), (100, 2, 1))


# a stream in batches, and of many books


def test_mixed_books_keep_the_order_of_the_stream(market: Market, tape: DepthTape) -> None:
    first = stream(at(TWO, add("B", 100, 1, 1, flags=0)), at(ONE, add("A", 201, 2, 1)))
    market.apply_depth(first, tape)
    market.apply_depth(np.zeros(0, MBO), tape)
    market.apply_depth(stream(at(ONE, record("T", "A", 200, 2, flags=0)), at(TWO, record("N"))), tape)
    assert told(tape) == [(1, "A", 0), (2, "T", 0), (3, "A", 0)]
    assert tape.books.tolist() == [1, 1, 0]
    assert tape.rows["publisher_id"].tolist() == [1, 1, 2]
    assert level(tape, 1)[1] == (201, 2, 1)


def test_the_newest_row_of_each_book_is_kept(market: Market, tape: DepthTape) -> None:
    assert len(market.newest_depth()) == 0
    market.apply_depth(
        stream(
            at(TWO, record("T")),
            at(ONE, add("B", 100, 1, 1)),
            at(BookKey(3, 7), record("N")),
            at(TWO, add("B", 90, 1, 1)),
            at(ONE, add("B", 101, 1, 2)),
            at(ONE, record("T")),
        ),
        tape,
    )
    newest = market.newest_depth()
    assert newest[["publisher_id", "bid_px_00", "sequence"]].tolist() == [(2, 90, 4), (1, 101, 5)]
    newest["flags"] = 0  # a copy
    assert market.newest_depth()["flags"].tolist() == [LAST, LAST]


def test_a_second_tape_begins_its_numbers_anew(market: Market, tape: DepthTape) -> None:
    market.apply_depth(stream(add("B", 100, 1, 1)), tape)
    second = DepthTape()
    market.apply_depth(stream(record("N"), add("B", 100, 1, 2)), second)
    assert told(second) == [(1, "A", 0)]
    assert len(tape.rows) == 1


def mixed(seed: int, books: int, count: int) -> MboArray:
    parts = [
        renamed_book(eventful_session(seed * 100 + n, count // books, ids=120, prices=20), BookKey(1 + n % 3, n))
        for n in range(books)
    ]
    return interleaved(parts, seed)


@pytest.mark.parametrize("books", [1, 3, 40])
@pytest.mark.parametrize("seed", range(examples(3, 100)))
def test_both_kinds_of_market_write_the_same(seed: int, books: int) -> None:
    records = mixed(seed, books, 1600)
    whole, parts = DepthTape(), DepthTape()
    markets = make_market("kernel"), make_market("reference")
    markets[0].apply_depth(records, whole)
    for part in np.array_split(records, 9):
        markets[1].apply_depth(part, parts)
    assert told(whole) == told(parts)
    assert whole.rows.tobytes() == parts.rows.tobytes()
    assert (whole.books.tolist(), whole.records) == (parts.books.tolist(), parts.records)
    assert markets[0].newest_depth().tobytes() == markets[1].newest_depth().tobytes()
    assert books > 1 or set(whole.rows["depth"].tolist()) == set(range(DEPTH))


def test_the_books_are_the_same_as_without_a_tape() -> None:
    records = mixed(7, 3, 3000)
    plain, taped = KernelMarket(), KernelMarket()
    plain.apply(records)
    taped.apply_depth(records, DepthTape())
    taped.check()
    for name, array in plain.arena.arrays._asdict().items():
        assert array.tobytes() == getattr(taped.arena.arrays, name).tobytes()


def test_a_tape_that_is_used_again_and_again_keeps_what_it_has(kind: BookKind) -> None:
    records = mixed(8, 3, 2000)
    tape, market = DepthTape(), make_market(kind)
    rows: list[bytes] = []
    for part in np.array_split(records, 50):
        before = len(tape.rows)
        market.apply_depth(part, tape)
        rows += [row_words(tape.rows)[before:].tobytes()]
    assert b"".join(rows) == tape.rows.tobytes()
    assert (np.diff(tape.numbers) >= 0).all()
