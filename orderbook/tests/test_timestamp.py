from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.book.timestamp import format_iso_us, format_ns, parse_ns

NANOSECONDS = st.integers(0, 2**63 - 1)


@given(NANOSECONDS)
def test_every_instant_survives_its_text(ns: int) -> None:
    assert parse_ns(format_ns(ns)) == ns


@given(NANOSECONDS)
def test_the_microsecond_form_is_what_datetime_writes(ns: int) -> None:
    assert parse_ns(format_iso_us(ns)) == ns // 1000 * 1000
    assert datetime.fromisoformat(format_iso_us(ns)).isoformat(timespec="microseconds") == format_iso_us(ns)


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("2025-09-24T19:30:00Z", 0),
        ("2025-09-24T19:30:00.123Z", 123_000_000),
        ("2025-09-24T19:30:00.000000001Z", 1),
        ("2025-09-24T19:30:00.5+00:00", 500_000_000),
        ("2025-09-24T21:30:00+02:00", 0),
        ("2025-09-24T15:00:00-0430", 0),
        ("2025-09-24 19:30:00z", 0),
    ],
)
def test_each_outward_form_is_read(text: str, fraction: int) -> None:
    second = int(datetime(2025, 9, 24, 19, 30, tzinfo=UTC).timestamp())
    assert parse_ns(text) == second * 10**9 + fraction


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2025-09-24",
        "2025-09-24T19:30:00",
        "2025-09-24T19:30:00.Z",
        "2025-09-24T19:30:00.1234567890Z",
        "2025-02-30T00:00:00Z",
        "2025-09-24T25:00:00Z",
        "2025-09-24T19:30:00+99:00",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "2263-01-01T00:00:00Z",
        "1758742200",
    ],
)
def test_a_text_that_is_no_instant_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time"):
        parse_ns(text)


def test_the_largest_venue_time_can_be_written() -> None:
    assert format_ns(2**64 - 1) == "2554-07-21T23:34:33.709551615Z"
