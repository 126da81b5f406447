import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.book.mbo import UNDEF_PRICE
from orderbook.book.price import SCALE, decimals_of, format_price, infer_tick, parse_price

PRICES = st.integers(-UNDEF_PRICE + 1, UNDEF_PRICE - 1)


@given(PRICES)
def test_every_price_survives_its_nine_decimal_text(price: int) -> None:
    assert parse_price(format_price(price, 9)) == price


@given(PRICES, st.integers(0, 9))
def test_fewer_decimals_never_change_the_value(price: int, decimals: int) -> None:
    text = format_price(price, decimals)
    assert parse_price(text) == price
    assert len(text.partition(".")[2]) >= decimals


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("64.830000000", 64_830_000_000),
        ("0.000000001", 1),
        ("-37.63", -37_630_000_000),
        ("-0.5", -500_000_000),
        ("+7", 7 * SCALE),
        ("65.", 65 * SCALE),
        ("1.5000000000000", 1_500_000_000),
        ("0000000000000000000000000000001", SCALE),
        pytest.param("0" * 5000, 0, id="more zeros than Python converts"),
        ("9223372036.854775806", UNDEF_PRICE - 1),
    ],
)
def test_decimal_text_is_read_exactly(text: str, price: int) -> None:
    assert parse_price(text) == price


@pytest.mark.parametrize(
    "text", ["", " ", "64,83", "64.83 ", "1e3", "nan", "inf", ".5", "--1", "0x10", "1.0000000001", "٣", "1.2.3"]
)
def test_a_text_that_is_no_price_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match="expected a .*found"):
        parse_price(text)


@pytest.mark.parametrize("text", ["9223372036.854775807", "-9223372036.854775808", "9" * 5000])
def test_a_price_beyond_64_bits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fits 64 bits"):
        parse_price(text)


@pytest.mark.parametrize(
    ("price", "decimals", "text"),
    [
        (64_830_000_000, 2, "64.83"),
        (64_800_000_000, 2, "64.80"),
        (64_000_000_000, 0, "64"),
        (64_000_000_000, 2, "64.00"),
        (-10_000_000, 2, "-0.01"),
        (0, 2, "0.00"),
        (6_712_500, 2, "0.0067125"),
    ],
)
def test_a_price_is_written_with_the_decimals_of_its_instrument(price: int, decimals: int, text: str) -> None:
    assert format_price(price, decimals) == text


@pytest.mark.parametrize(
    ("tick", "decimals"),
    [(10_000_000, 2), (250_000_000, 2), (7_812_500, 7), (SCALE, 0), (25 * SCALE, 0), (1, 9), (500_000, 4)],
)
def test_decimals_follow_from_the_tick(tick: int, decimals: int) -> None:
    assert decimals_of(tick) == decimals


@pytest.mark.parametrize("tick", [0, -10_000_000])
def test_a_tick_that_is_not_positive_is_refused(tick: int) -> None:
    with pytest.raises(ValueError, match="positive tick"):
        decimals_of(tick)


def test_the_tick_is_the_widest_grid_that_holds_every_price() -> None:
    prices = np.array([64_830_000_000, -37_630_000_000, 0, UNDEF_PRICE, 64_850_000_000])
    assert infer_tick(prices) == 10_000_000
    assert infer_tick(np.array([25 * 10**7, 75 * 10**7])) == 25 * 10**7
    assert infer_tick(np.array([-(2**63)])) == 2**62  # the widest that an int64 holds
    assert infer_tick(np.array([-25, -75])) == 25


@pytest.mark.parametrize("prices", [[], [0, 0], [UNDEF_PRICE]])
def test_prices_that_tell_nothing_give_no_tick(prices: list[int]) -> None:
    assert infer_tick(np.array(prices, np.int64)) == 0
