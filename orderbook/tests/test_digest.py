"""The state hash: equal for equal states of either book, different for everything that a state can differ in."""

import subprocess
import sys

import pytest

from orderbook.book.digest import market_hash, state_hash
from orderbook.book.market import BookKind, make_book, make_market
from orderbook.book.mbo import BookKey
from orderbook.book.protocol import OrderBook
from orderbook.tests.records import (
    KINDS,
    LAST,
    MAYBE_BAD_BOOK,
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

ONE, TWO = BookKey(1, 7), BookKey(2, 7)
BASE = [add("B", 100, 5, 1), add("B", 100, 6, 2), add("B", 99, 7, 3), add("A", 101, 8, 4)]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


def book_of(kind: BookKind, *rows: Row) -> OrderBook:
    book = make_book(kind)
    book.apply(stream(*rows))
    return book


# Pinned, because reports and exports keep hashes: another algorithm needs another version in the digest.


def test_the_hashes_of_known_books_never_change(kind: BookKind) -> None:
    assert state_hash(make_book(kind)) == "0ec9f2bf02b22dd602e4ec04adc13bc8"
    extremes = [add("B", -(2**63), 2**32 - 1, 2**64 - 1), add("A", 2**63 - 2, 1, 0), add("A", -3, 7, 5, LAST | TOB)]
    assert state_hash(book_of(kind, *BASE)) == "34973e0d19859476139a691656c5ac00"
    assert state_hash(book_of(kind, *BASE, *extremes)) == "779d8533cc06eab5120ed76d7f9a9acc"


def test_the_hashes_of_known_markets_never_change(kind: BookKind) -> None:
    assert market_hash({}.items()) == "82ad4a91b4f3bcd8ee650050366521b5"
    assert (
        market_hash({ONE: book_of(kind, *BASE), TWO: book_of(kind, *BASE[:2])}.items())
        == "172f2fb3c561e23ed9689143ceba3607"
    )


@pytest.mark.parametrize(
    "rows",
    [
        [add("B", 100, 5, 9), *BASE[1:]],  # an id
        [add("B", 98, 5, 1), *BASE[1:]],  # a price
        [add("B", 100, 4, 1), *BASE[1:]],  # a size
        [add("A", 100, 5, 1), *BASE[1:]],  # a side
        [BASE[1], BASE[0], *BASE[2:]],  # the order of a queue
        [add("B", 100, 6, 1), add("B", 100, 5, 2), *BASE[2:]],  # sizes that change places in a level
        [add("B", 100, 5, 3), add("B", 100, 6, 2), add("B", 99, 7, 1), BASE[3]],  # ids that change places
        BASE[:3],
        [*BASE, add("A", 101, 1, 5)],
        [add("B", 100, 3, 0, LAST | TOB), *BASE],  # what a top-of-book publisher shows
        [add("A", 101, 8, 0, LAST | TOB), *BASE[:3]],  # the same level without an order
    ],
)
def test_every_difference_in_state_is_a_difference_in_hash(kind: BookKind, rows: list[Row]) -> None:
    assert state_hash(book_of(kind, *rows)) != state_hash(book_of(kind, *BASE))


@pytest.mark.parametrize(
    "rows",
    [
        [BASE[3], BASE[2], *BASE[:2]],  # levels and sides came in another order
        [*BASE[:3], record("N"), BASE[3]],
        [*BASE, record("T", "B", 101, 1), record("F", "A", 101, 1, 4)],
        [*BASE, cancel("B", 100, 1, 999), cancel("B", 100, 0, 1)],  # faults that change nothing
        [*BASE[:3], add("A", 101, 8, 4, flags=0)],  # the event is open
        [*BASE[:3], add("A", 101, 8, 4, LAST | MAYBE_BAD_BOOK)],
        [*BASE, add("B", 103, 5, 9), cancel("B", 103, 5, 9)],
        [add("B", 90, 1, 1), add("A", 91, 1, 2, LAST | TOB), clear(), *BASE],
        [*BASE[:3], add("A", 101, 9, 4), modify("A", 101, 8, 4)],
    ],
)
def test_how_a_state_was_reached_is_no_part_of_its_hash(kind: BookKind, rows: list[Row]) -> None:
    assert state_hash(book_of(kind, *rows)) == state_hash(book_of(kind, *BASE))


@pytest.mark.parametrize("seed", range(3))
def test_both_books_have_the_same_hash(seed: int) -> None:
    records = eventful_session(seed, 4000)
    hashes = set()
    for kind in KINDS:
        book = make_book(kind)
        book.apply(records)
        hashes.add(state_hash(book))
    assert len(hashes) == 1


def test_the_order_of_the_books_is_no_part_of_the_hash_of_a_market(kind: BookKind) -> None:
    one, two = book_of(kind, *BASE), book_of(kind, *BASE[:2])
    assert market_hash({ONE: one, TWO: two}.items()) == market_hash({TWO: two, ONE: one}.items())


def test_an_empty_book_is_as_one_that_never_was(kind: BookKind) -> None:
    one = book_of(kind, *BASE)
    emptied = book_of(kind, *BASE, clear())
    assert market_hash({ONE: one, TWO: emptied}.items()) == market_hash({ONE: one}.items())
    assert market_hash({TWO: emptied}.items()) == market_hash({}.items())


def test_a_market_tells_whose_book_it_is(kind: BookKind) -> None:
    one, two = book_of(kind, *BASE), book_of(kind, *BASE[:2])
    hashes = [
        market_hash(books.items())
        for books in ({ONE: one, TWO: two}, {ONE: two, TWO: one}, {ONE: one}, {TWO: one}, {BookKey(1, 8): one})
    ]
    assert len(set(hashes)) == 5


def test_a_top_of_book_level_alone_makes_a_market(kind: BookKind) -> None:
    shown = book_of(kind, add("A", 101, 8, 0, LAST | TOB))
    assert market_hash({ONE: shown}.items()) != market_hash({}.items())


def test_a_market_hashes_its_own_books(kind: BookKind) -> None:
    market = make_market(kind)
    market.apply(stream(*((*row[:2], *key, *row[4:]) for row in BASE for key in (TWO, ONE))))
    both = {ONE: book_of(kind, *BASE), TWO: book_of(kind, *BASE)}
    assert market_hash(market.books.items()) == market_hash(both.items())


def test_the_hash_does_not_depend_on_the_process() -> None:
    program = (
        "from orderbook.book.digest import state_hash; from orderbook.book.market import make_book;"
        "from orderbook.tests.records import eventful_session as session;"
        "book = make_book('reference'); book.apply(session(1, 500)); print(state_hash(book))"
    )
    hashes = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in "12"
    ]
    book = make_book("reference")
    book.apply(eventful_session(1, 500))
    assert hashes == [state_hash(book)] * 2
