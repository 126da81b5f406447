"""The checked pass over a recording: books rebuilt piece by piece, and their invariants checked. Floor 1.

Memory is that of the books and of one piece's tape, however long the recording is. building.py makes the report of
what comes out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.audit import Audit
from orderbook.book.errors import InvariantError
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import Flags, MboArray, book_key, book_tags
from orderbook.book.tape import Tape
from orderbook.book.timestamp import NS_PER_S
from orderbook.quality.continuity import Continuity
from orderbook.quality.difference import Rebuild, book_difference, written_difference
from orderbook.quality.report import Trades, Violation
from orderbook.quality.spans import Crossing

BookChoice = Literal["kernel", "reference", "both"]
KINDS: Final[Mapping[BookChoice, tuple[BookKind, ...]]] = {
    "kernel": ("kernel",),
    "reference": ("reference",),
    "both": ("kernel", "reference"),
}
PIECE_RECORDS: Final[Mapping[BookChoice, int]] = {"kernel": 1 << 16, "reference": 1 << 12, "both": 1 << 12}
"""Applied at once: progress is told, and a Ctrl-C heard, between two pieces."""

MOST_VISITS: Final[Mapping[BookChoice, int]] = {"kernel": 10**9, "reference": 2 * 10**6, "both": 2 * 10**6}
"""About so many orders are looked at by the checks of ``affordable_every``: ten seconds, at 10 ns and 4 us each."""

Progress = Callable[[str, int], None]
"""Told what is under way (orders, books) and how many more records of it are done. What it raises ends the pass."""


class RecordedFile(NamedTuple):
    """What is checked: the records, and how they are named in the report."""

    name: str
    format: str
    sha256: str | None
    records: MboArray
    symbols: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """How it is checked: by which books, at every how many event ends, and what counts as idle.

    ``every`` None is as often as takes about ten seconds; see ``affordable_every``.
    """

    book: BookChoice = "kernel"
    every: int | None = 1
    idle_ns: int = 60 * NS_PER_S
    piece_records: int | None = None


class Tally:
    """Counts of the pieces so far; memory is bounded by the number of books and channels."""

    def __init__(self, idle_ns: int) -> None:
        self.continuity = Continuity(idle_ns)
        self.crossing = Crossing()
        self.records: Counter[int] = Counter()
        """By the tag of the book."""
        self.bbo_changes = 0
        self.trades: Trades = {"count": 0, "size": 0}
        self._last_ts_recv = 0

    def take(self, records: MboArray, start: int, tape: Tape) -> None:
        """Take a piece that begins at this record of the stream, and what the books wrote for it."""
        self._last_ts_recv = int(records["ts_recv"][-1])
        self.continuity.take(records, start)
        self.crossing.take(tape.bbos)
        self.bbo_changes += len(tape.bbos)
        self.trades["count"] += len(tape.trades)
        self.trades["size"] += int(tape.trades["size"].sum(dtype=np.int64))
        self.records.update(_counts(book_tags(records)))

    def finish(self) -> None:
        """Take the end of the stream: what is crossed now is so until the last record."""
        self.crossing.finish(self._last_ts_recv)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A pass that is over: what was checked and how, what was counted, and one kind of its books.

    After a violation all of it is of the same records, and the books are those that broke; see ``Report``.
    """

    file: RecordedFile
    book: BookChoice
    every: int
    rebuild: Rebuild
    tally: Tally
    violation: Violation | None


def verify(
    file: RecordedFile,
    options: CheckOptions = CheckOptions(),  # noqa: B008 - frozen
    progress: Progress = lambda stage, n: None,
) -> Outcome:
    """Rebuild the books of a recording, checked.

    Data faults are counted. A broken invariant, or with both books a difference, ends the pass. Cost: applying, one
    column pass over each piece, and O(orders) for each check.
    """
    every = options.every or affordable_every(file.records, options, progress)
    rebuilds = [Rebuild(kind, make_market(kind), Tape(), Audit(every)) for kind in KINDS[options.book]]
    tally = Tally(options.idle_ns)
    for start, piece in _pieces(file.records, options):
        rebuild, applied, violation = _apply(rebuilds, piece, start)
        tally.take(piece[:applied], start, rebuild.tape)
        if violation:
            break
        progress("books", len(piece))
    tally.finish()
    return Outcome(file, options.book, every, rebuild, tally, violation or _check_all(rebuilds))


def affordable_every(records: MboArray, options: CheckOptions, progress: Progress = lambda stage, n: None) -> int:
    """Return at every how many event ends the checks of a pass look at about MOST_VISITS orders in all.

    Counts, in a pass without checks, the orders that rest in the book of each event, as they are behind its piece.
    """
    market = make_market(KINDS[options.book][0])
    visits = 0
    for _, piece in _pieces(records, options):
        market.apply(piece)
        ends = _counts(book_tags(piece)[piece["flags"] & Flags.LAST > 0])
        visits += sum((len(market.book(book_key(tag))) + 1) * count for tag, count in ends.items())
        progress("orders", len(piece))
    return -(-visits // MOST_VISITS[options.book]) or 1


def _pieces(records: MboArray, options: CheckOptions) -> Iterator[tuple[int, MboArray]]:
    """Yield the records in the pieces that are applied at once, each with the number of its first one."""
    size = options.piece_records or PIECE_RECORDS[options.book]
    for start in range(0, len(records), size):
        yield start, records[start : start + size]


def _counts(tags: npt.NDArray[np.int64]) -> dict[int, int]:
    """Return how often each tag comes."""
    found, counts = np.unique(tags, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _apply(rebuilds: list[Rebuild], piece: MboArray, start: int) -> tuple[Rebuild, int, Violation | None]:
    """Apply a piece to the books of each kind.

    Returns whose counts are to be taken, of how many records, and what is wrong: the books that broke, up to the
    record behind which they did, or else the first ones with the whole piece.
    """
    for rebuild in rebuilds:
        events = rebuild.audit.events
        rebuild.tape.empty()
        try:
            rebuild.market.apply_audited(piece, rebuild.tape, rebuild.audit)
        except InvariantError as error:
            ends = np.flatnonzero(piece["flags"] & Flags.LAST)
            last = int(ends[rebuild.audit.events - events - 1])
            return rebuild, last + 1, _broken(rebuild.kind, error, start + last)
    return rebuilds[0], len(piece), _difference(rebuilds, piece, start) if len(rebuilds) == 2 else None


def _difference(rebuilds: list[Rebuild], piece: MboArray, start: int) -> Violation | None:
    """Compare what both kinds wrote for a piece, and every book that it has records of."""
    kernel, reference = rebuilds
    keys = map(book_key, np.unique(book_tags(piece)).tolist())
    return written_difference(kernel, reference) or book_difference(kernel, reference, keys, start + len(piece) - 1)


def _check_all(rebuilds: list[Rebuild]) -> Violation | None:
    """Check all books and what they share once more at the end of the stream, whether an event ends there or not."""
    for rebuild in rebuilds:
        try:
            rebuild.market.check()
        except InvariantError as error:
            return _broken(rebuild.kind, error, None)
    if len(rebuilds) == 1:
        return None
    kernel, reference = rebuilds
    return book_difference(kernel, reference, sorted({*kernel.market.books, *reference.market.books}), None)


def _broken(kind: str, error: InvariantError, record: int | None) -> Violation:
    return {
        "book": kind,
        "kind": "invariant",
        "record": record,
        "text": str(error),
        "kernel": None,
        "reference": None,
    }
