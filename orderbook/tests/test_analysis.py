"""Microprice, imbalance and the price of taking a size: exact, by hand and against brute force."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.book.analysis import Taken, imbalance, microprice, take
from orderbook.book.market import BookKind, make_book
from orderbook.book.mbo import Side
from orderbook.book.snapshot import Bbo, Level, Levels
from orderbook.tests.records import KINDS, LAST, TOB, add, stream

PRICES = st.integers(-(2**63), 2**63 - 2)
SIZES = st.integers(1, 2**50)


def levels(*rows: tuple[int, int]) -> Levels:
    return np.array([(price, size, 1) for price, size in rows], np.int64).reshape(-1, 3)


def bbo(bid_px: int, bid_sz: int, ask_px: int, ask_sz: int) -> Bbo:
    return Bbo(Level(bid_px, bid_sz, 1), Level(ask_px, ask_sz, 1))


def half_even(numerator: int, denominator: int) -> int:
    with localcontext() as context:
        context.prec = 200
        return int((Decimal(numerator) / Decimal(denominator)).quantize(Decimal(1), ROUND_HALF_EVEN))


# microprice


@pytest.mark.parametrize(
    ("best", "price"),
    [
        (bbo(100, 10, 104, 10), 102),
        (bbo(100, 30, 104, 10), 103),  # towards the side with less size
        (bbo(100, 10, 104, 30), 101),
        (bbo(-38_000_000_000, 1, -37_000_000_000, 3), -37_750_000_000),
        (bbo(-10, 5, 10, 5), 0),
        (bbo(100, 5, 100, 7), 100),  # locked
        (bbo(104, 10, 100, 10), 102),  # crossed: before the open
    ],
)
def test_the_microprice_weighs_each_price_with_the_size_of_the_other_side(best: Bbo, price: int) -> None:
    assert microprice(best) == price


@pytest.mark.parametrize(("bid_px", "price"), [(0, 0), (1, 2), (2, 2), (3, 4), (-1, 0), (-2, -2), (-3, -2)])
def test_halves_of_the_microprice_go_to_even(bid_px: int, price: int) -> None:
    assert microprice(bbo(bid_px, 1, bid_px + 1, 1)) == price


@pytest.mark.parametrize("best", [Bbo(None, None), Bbo(Level(100, 1, 1), None), Bbo(None, Level(100, 1, 1))])
def test_a_book_without_two_sides_has_no_microprice(best: Bbo) -> None:
    assert microprice(best) is None


def test_the_microprice_is_exact_where_floats_are_not() -> None:
    assert microprice(bbo(9 * 10**18, 2**60, 9 * 10**18 + 1, 2**60 - 1)) == 9 * 10**18 + 1
    assert microprice(bbo(9 * 10**18, 2**60 - 1, 9 * 10**18 + 1, 2**60)) == 9 * 10**18


@given(PRICES, SIZES, PRICES, SIZES)
def test_the_microprice_is_the_rounded_quotient_and_between_the_prices(
    bid_px: int, bid_sz: int, ask_px: int, ask_sz: int
) -> None:
    price = microprice(bbo(bid_px, bid_sz, ask_px, ask_sz))
    assert price == half_even(bid_px * ask_sz + ask_px * bid_sz, bid_sz + ask_sz)
    assert min(bid_px, ask_px) <= price <= max(bid_px, ask_px)


# imbalance


BIDS = levels((100, 30), (99, 20), (98, 10))
ASKS = levels((101, 10), (102, 50))


@pytest.mark.parametrize(
    ("depth", "ratio"), [(1, Fraction(20, 40)), (2, Fraction(-10, 110)), (3, Fraction(0)), (1000, Fraction(0))]
)
def test_the_imbalance_counts_the_best_levels_only(depth: int, ratio: Fraction) -> None:
    assert imbalance(BIDS, ASKS, depth) == ratio


def test_the_imbalance_of_one_side_is_one() -> None:
    assert imbalance(BIDS, levels(), 5) == 1
    assert imbalance(levels(), ASKS, 5) == -1


def test_two_empty_sides_have_no_imbalance() -> None:
    assert imbalance(levels(), levels(), 5) is None


def test_the_imbalance_is_exact_where_floats_are_not() -> None:
    assert imbalance(levels((100, 2**53 + 1)), levels((101, 2**53)), 1) == Fraction(1, 2**54 + 1)


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_of_no_levels_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=f"expected a depth of 1 or more levels, found {depth}"):
        imbalance(BIDS, ASKS, depth)


# take


@pytest.mark.parametrize(
    ("size", "taken", "average_px"),
    [
        (1, Taken(1, 101, 101), 101),
        (10, Taken(10, 1010, 101), 101),
        (11, Taken(11, 1112, 102), 101),
        (60, Taken(60, 6110, 102), 102),
        (61, Taken(60, 6110, 102), 102),  # all that rests
        (2**70, Taken(60, 6110, 102), 102),
    ],
)
def test_taking_pays_the_best_levels_first(size: int, taken: Taken, average_px: int) -> None:
    assert take(ASKS, size) == taken
    assert take(ASKS, size).average_px == average_px


def test_taking_from_the_bids_is_selling() -> None:
    assert take(BIDS, 45) == Taken(45, 30 * 100 + 15 * 99, 99)


def test_taking_at_negative_prices_costs_less_than_nothing() -> None:
    taken = take(levels((-38_000_000_000, 2), (-37_630_000_000, 2)), 3)
    assert taken == Taken(3, -113_630_000_000, -37_630_000_000)
    assert taken.average_px == -37_876_666_667


@pytest.mark.parametrize(("price", "average_px"), [(0, 0), (1, 2), (2, 2), (-1, 0), (-2, -2), (-3, -2)])
def test_halves_of_the_average_go_to_even(price: int, average_px: int) -> None:
    assert take(levels((price, 1), (price + 1, 1)), 2).average_px == average_px


def test_nothing_to_take_has_no_price() -> None:
    assert take(levels(), 5) == Taken(0, 0, None)
    assert take(levels(), 5).average_px is None


def test_the_cost_is_exact_beyond_64_bits() -> None:
    assert take(levels((2**62, 2**53 + 1)), 2**60) == Taken(2**53 + 1, 2**62 * (2**53 + 1), 2**62)


@pytest.mark.parametrize("size", [0, -5])
def test_taking_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"expected a size of 1 or more to take, found {size}"):
        take(ASKS, size)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 5)), max_size=6), st.integers(1, 40))
def test_taking_is_what_one_gets_piece_by_piece(rows: list[tuple[int, int]], size: int) -> None:
    pieces = [price for price, resting in rows for _ in range(resting)][:size]
    taken = take(levels(*rows), size)
    assert taken == Taken(len(pieces), sum(pieces), pieces[-1] if pieces else None)
    assert taken.average_px == (half_even(sum(pieces), len(pieces)) if pieces else None)


# live books


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_come_from_a_live_book_as_plain_integers(kind: BookKind) -> None:
    book = make_book(kind)
    book.apply(stream(add("B", 100, 30, 1), add("A", 104, 4, 2), add("A", 104, 6, 3), add("A", 105, 7, 0, LAST | TOB)))
    assert microprice(book.bbo()) == 104  # the top-of-book level replaced the asks: (100 * 7 + 105 * 30) / 37
    assert imbalance(book.levels(Side.BID), book.levels(Side.ASK), 1) == Fraction(23, 37)
    taken = take(book.levels(Side.ASK), 9)
    assert taken == Taken(7, 735, 105)
    assert {type(value) for value in (*taken, taken.average_px, microprice(book.bbo()))} == {int}
