"""One control line of the live protocol, ``key=value|key=value``: split, and read by kind of value. Floor 1.

Clients may send keys in any order, keys that nobody knows, an empty value between two bars and ``\\r\\n``; what a
line must have, and what it means, is said in live_messages.py.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from orderbook.book.timestamp import parse_ns
from replay.feed.stream import FeedError, shown

MAX_LINE_BYTES: Final = 1 << 16
"""500 symbols of the longest kind, and the other keys, need little more than half of it."""

_DIGITS: Final = re.compile(r"[0-9]{1,20}")
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)


class Fields:
    """The values of one line; each reader raises FeedError with the key, what was expected there and what was found."""

    def __init__(self, message: str, values: Mapping[str, str]) -> None:
        self._message = message
        self._values = values

    def fault(self, key: str, expected: str) -> FeedError:
        """Return the error for a key, to be raised."""
        found = shown(self._values[key].encode()) if key in self._values else "no such key"
        return FeedError(f"{self._message}, {key}", expected, found)

    def text(self, key: str, default: str | None = None, most: int = 100) -> str:
        """Return printable text without spaces around it; without a default the key must be there and hold some."""
        value = self._values.get(key, default)
        if value is None or not value.isprintable() or len(value) > most or (default is None and not value):
            raise self.fault(key, f"1 to {most} printable characters")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """Return one of a few words."""
        value = self._values.get(key, default)
        if value is None or value not in choices:
            raise self.fault(key, f"one of {', '.join(choices)}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes or no, written 1 or 0."""
        return self.choice(key, ("0", "1"), str(int(default))) == "1"

    def number(self, key: str, least: int, most: int) -> int | None:
        """Return a whole number; None when the key is not there."""
        value = self._values.get(key)
        if value is None:
            return None
        if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
            raise self.fault(key, f"a whole number from {least} to {most}")
        return int(value)

    def instant(self, key: str) -> int | None:
        """Return ns since 1970, from a number or an ISO date or time (UTC when it says no zone); None without the key.

        Clients in C++ may send the ISO form, which the others turn into ns themselves.
        """
        value = self._values.get(key)
        if value is None:
            return None
        if _DIGITS.fullmatch(value) and int(value) < 2**63:
            return int(value)
        found = _INSTANT.fullmatch(value)
        if found is None:
            raise self.fault(key, "ns since 1970 or an ISO time")
        date, minutes, seconds, fraction, zone = found.groups()
        try:
            return parse_ns(f"{date}T{minutes or '00:00'}{seconds or ':00'}{fraction or ''}{zone or 'Z'}")
        except ValueError as error:
            raise self.fault(key, "ns since 1970 or an ISO time that exists") from error


def split_line(line: bytes) -> dict[str, str]:
    """Return the keys and values of a line, with or without its end; a bare word is a key without a value.

    Raises FeedError when a key stands there twice, or none at all.
    """
    values: dict[str, str] = {}
    for part in line.strip(b" \r\n").decode("utf-8", "replace").split("|"):
        key, _, value = part.partition("=")
        if key in values:
            raise FeedError(f"control line, {shown(key.encode())}", "each key once", "it twice")
        if part:
            values[key] = value
    if not values:
        raise FeedError("control line", "key=value|key=value", shown(line))
    return values


def join_line(values: Mapping[str, str | int | None]) -> bytes:
    """Return a line in the one form that the strictest client takes: no bar at the end, nothing for None.

    Raises ValueError for a value that would end its field or the line.
    """
    parts = [f"{key}={value}" for key, value in values.items() if value is not None]
    for part in parts:
        if "|" in part or not part.isprintable():
            raise ValueError(f"expected a value without | or a line end, found {part!r}")
    return "|".join(parts).encode() + b"\n"
