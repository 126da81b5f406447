"""Instants: integer nanoseconds since 1970 UTC, and their text. Floor 0.

``datetime`` holds microseconds only, so the fraction of a second never passes through it.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

NS_PER_S: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT_NS: Final = 2**63  # what a database column holds: the year 2262

_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-]\d\d:?[0-5]\d))", re.ASCII
)


@lru_cache(maxsize=256)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def format_ns(ns: int) -> str:
    """Write an instant with its nanoseconds.

    >>> format_ns(1758742200001385399)
    '2025-09-24T19:30:00.001385399Z'
    """
    seconds, fraction = divmod(ns, NS_PER_S)
    return f"{_second_text(seconds)}.{fraction:09d}Z"


def format_iso_us(ns: int) -> str:
    """Write an instant as Python's isoformat would: microseconds, cut and not rounded, and an offset.

    >>> format_iso_us(1758742200001385399)
    '2025-09-24T19:30:00.001385+00:00'
    """
    seconds, fraction = divmod(ns, NS_PER_S)
    return f"{_second_text(seconds)}.{fraction // 1000:06d}+00:00"


def parse_ns(text: str) -> int:
    """Return the nanoseconds since 1970 UTC of an ISO instant with up to nine fractional digits.

    Raise ValueError for anything else: a missing zone above all, and years that 64 bits do not hold.

    >>> parse_ns("2025-09-24T19:30:00.001385399Z")
    1758742200001385399
    >>> parse_ns("2025-09-24T21:30:00+02:00") == parse_ns("2025-09-24T19:30:00Z")
    True
    """
    found = _INSTANT.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a time such as 2025-09-24T19:30:00.123Z, found {text!r}")
    date, time, fraction, _, offset = found.groups()
    try:
        second = datetime.fromisoformat(f"{date}T{time}{offset or '+00:00'}")
    except ValueError as reason:
        raise ValueError(f"expected a time that exists, found {text!r}: {reason}") from reason
    elapsed = second - _EPOCH
    ns = (elapsed.days * 86_400 + elapsed.seconds) * NS_PER_S + int((fraction or "0").ljust(9, "0"))
    if not 0 <= ns < _LIMIT_NS:
        raise ValueError(f"expected a time between 1970 and 2262, found {text!r}")
    return ns
