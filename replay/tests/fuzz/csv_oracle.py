"""Databento's CSV read slowly, with Python's own numbers and dates: what the compiled decoder must agree with.

It says which lines are records and what they hold, not which column is at fault. Being Python, it also shows the
fuzzer the cases that the compiled code hides.
"""

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np

from orderbook.book.mbo import MBO, MBO_LENGTH, UNDEF_PRICE, UNDEF_TIMESTAMP, MboArray

_BITS: Final = {
    **{"rtype": 8, "publisher_id": 16, "instrument_id": 32, "size": 32},
    **{"channel_id": 8, "order_id": 64, "flags": 8, "sequence": 32},
}
_TIME: Final = re.compile(rb"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)")
_PRICE: Final = re.compile(rb"(-?)(\d{1,20})(?:\.(\d{1,9}))?")
_SYMBOL: Final = re.compile(rb"[^\x00-\x1f\x7f-\xff,\"]{0,70}")


class Reading(NamedTuple):
    """What a text holds: its records, its symbols, and how many lines are no records."""

    records: MboArray
    symbols: dict[int, str]
    rejected: int


def read(columns: list[str], lines: list[bytes]) -> Reading:
    """Read complete lines, without their line ends, that follow a header of these columns."""
    rows: list[dict[str, int]] = []
    symbols: dict[int, str] = {}
    form = None
    for line in lines:
        fields = line.removesuffix(b"\r").split(b",")
        try:
            if len(fields) != len(columns):
                raise ValueError("another number of columns")
            texts = dict(zip(columns, fields, strict=True))
            symbol = texts.pop("symbol", b"")
            if not _SYMBOL.fullmatch(symbol):
                raise ValueError("no symbol")
            row = {name: _value(name, text) for name, text in texts.items()}
        except ValueError:
            continue
        price = texts["price"]
        if price:
            if form is not None and form != (b"." in price):
                continue
            form = b"." in price
        rows.append(row)
        if symbol:
            symbols[row["instrument_id"]] = symbol.decode()
    return Reading(_records(rows), dict(sorted(symbols.items())), len(lines) - len(rows))


def _records(rows: list[dict[str, int]]) -> MboArray:
    records = np.zeros(len(rows), MBO)
    for record, row in zip(records, rows, strict=True):
        record["length"] = MBO_LENGTH
        for name, value in row.items():
            record[name] = value
    return records


def _value(name: str, text: bytes) -> int:
    if name in ("ts_event", "ts_recv"):
        return _time(text)
    if name == "price":
        return _price(text)
    if name in ("action", "side"):
        if len(text) != 1 or text not in (b"ACMRTFN" if name == "action" else b"ABN"):
            raise ValueError("no code")
        return ord(text)
    if name == "ts_in_delta":
        return _within(-(2**31), int(text) if re.fullmatch(rb"-?\d{1,20}", text) else 2**31, 2**31 - 1)
    value = _within(0, _digits(text), 2 ** _BITS[name] - 1)
    return _within(160, value, 160) if name == "rtype" else value


def _digits(text: bytes) -> int:
    """Read what the compiled code takes as a number: at most 20 digits, leading zeros among them."""
    if not re.fullmatch(rb"\d{1,20}", text):
        raise ValueError("no digits")
    return int(text)


def _within(low: int, value: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError("out of range")
    return value


def _price(text: bytes) -> int:
    if not text:
        return UNDEF_PRICE
    found = _PRICE.fullmatch(text)
    if found is None:
        raise ValueError("no price")
    sign, whole, fraction = found.groups()
    value = int(whole) if fraction is None else int(whole) * 10**9 + int(fraction.ljust(9, b"0"))
    return _within(-(2**63), -value if sign else value, 2**63 - 1)


def _time(text: bytes) -> int:
    if not text:
        return UNDEF_TIMESTAMP
    if text[4:5] != b"-":
        return _within(0, _digits(text), 2**64 - 1)
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("no time")
    date, clock, fraction = (part and part.decode() for part in found.groups())
    second = int(datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=UTC).timestamp())
    _within(0, second, (2**64 - 1) // 10**9 - 1)
    return second * 10**9 + int((fraction or "").ljust(9, "0"))
