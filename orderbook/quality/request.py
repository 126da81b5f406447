"""What is asked of a checked pass: the records, and how their books are checked. Floor 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from orderbook.book.market import BookKind
from orderbook.book.mbo import MboArray
from orderbook.book.timestamp import NS_PER_S

Choice = Literal["kernel", "reference", "both"]
KINDS: Final[Mapping[Choice, tuple[BookKind, ...]]] = {
    "kernel": ("kernel",),
    "reference": ("reference",),
    "both": ("kernel", "reference"),
}
CHUNK_RECORDS: Final[Mapping[Choice, int]] = {"kernel": 1 << 16, "reference": 1 << 12, "both": 1 << 12}
"""Applied at once: progress is told, and a Ctrl-C heard, between two chunks."""


class Source(NamedTuple):
    """What is checked: the records, and how they are named in the report."""

    file: str
    format: str
    sha256: str | None
    records: MboArray
    symbols: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class How:
    """How it is checked: by which books, at every how many event ends, and what counts as idle."""

    book: Choice = "kernel"
    every: int = 1
    idle_ns: int = 60 * NS_PER_S
    chunk_records: int | None = None
