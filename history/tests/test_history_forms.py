"""What the history understands."""

import pytest

from history.forms import HistoryForm, first_errors

GOOD = {"symbol": "CLX5", "start": "2025-09-24T19:30:00Z", "end": "2025-09-24T19:31:00Z"}


def errors(**changes: str) -> str:
    form = HistoryForm(GOOD | changes)
    assert not form.is_valid()
    return first_errors(form)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2025-09-24T19:30:00Z", 1_758_742_200_000_000_000),
        ("2025-09-24T19:30:00.123Z", 1_758_742_200_123_000_000),
        ("2025-09-24T19:30:00.123456789Z", 1_758_742_200_123_456_789),
        ("2025-09-24T19:30:00+00:00", 1_758_742_200_000_000_000),
        ("2025-09-24T21:30:00+02:00", 1_758_742_200_000_000_000),
        ("2025-09-24T19:30:00 00:00", 1_758_742_200_000_000_000),  # a plus that was not escaped in the address
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    form = HistoryForm(GOOD | {"start": text, "end": "2025-09-24T20:30:00Z"})
    assert form.is_valid(), form.errors
    assert form.cleaned_data["start"] == ns


def test_limit_defaults_to_2000() -> None:
    form = HistoryForm(GOOD)
    assert form.is_valid()
    assert form.cleaned_data["limit"] == 2000


@pytest.mark.parametrize("limit", ["0", "-1", "20001", "many", "1.5", "9" * 400])
def test_a_limit_out_of_range_is_named(limit: str) -> None:
    assert errors(limit=limit).startswith("limit: ")


@pytest.mark.parametrize("name", ["symbol", "start", "end"])
def test_a_missing_parameter_is_named(name: str) -> None:
    assert errors(**{name: ""}) == f"{name}: This field is required."


@pytest.mark.parametrize("text", ["yesterday", "2025-09-24", "2025-09-24T19:30:00", "2025-02-30T00:00:00Z", "1" * 5000])
def test_a_wrong_time_says_what_was_expected(text: str) -> None:
    message = errors(start=text)
    assert message.startswith("start: expected a time")
    assert len(message) < 250


def test_a_reversed_range_is_refused() -> None:
    assert errors(end="2025-09-24T19:29:59Z").startswith("end: expected a time not before start")


def test_a_symbol_with_a_null_byte_is_refused() -> None:
    assert errors(symbol="CL\0X5").startswith("symbol: ")
