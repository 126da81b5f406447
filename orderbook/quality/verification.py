"""The checked pass over a recording: books rebuilt chunk by chunk, and their invariants checked. Floor 1.

Memory is that of the books and of one chunk's tape, however long the recording is.
"""

from collections.abc import Callable

import numpy as np

from orderbook.book.audit import Audit
from orderbook.book.errors import InvariantError
from orderbook.book.market import make_market
from orderbook.book.mbo import Flags, MboArray
from orderbook.book.tape import Tape
from orderbook.quality.difference import Books, batch_difference, final_difference
from orderbook.quality.report import Report, Violation
from orderbook.quality.reporting import make_report
from orderbook.quality.request import CHUNK_RECORDS, KINDS, How, Source
from orderbook.quality.tally import Tally

Progress = Callable[[int], None]
"""Told how many more records were applied. What it raises ends the pass."""


def verify(source: Source, how: How = How(), progress: Progress = lambda n: None) -> Report:  # noqa: B008 - frozen
    """Rebuild the books of a recording and report what it is worth.

    Data faults are counted. A broken invariant, or with both books a difference, ends the pass and is the report's
    ``violation``. Cost: applying, one column pass over each chunk, and O(orders) for each check.
    """
    books = [Books(kind, make_market(kind), Tape(), Audit(how.every)) for kind in KINDS[how.book]]
    tally = Tally(how.idle_ns)
    violation = None
    size = how.chunk_records or CHUNK_RECORDS[how.book]
    for start in range(0, len(source.records), size):
        chunk = source.records[start : start + size]
        violation = _apply(books, chunk, start)
        if violation:
            break
        tally.take(chunk, start, books[0].tape)
        progress(len(chunk))
    tally.finish()
    return make_report(source, how, books[0], tally, violation or _check_all(books))


def _apply(books: list[Books], chunk: MboArray, start: int) -> Violation | None:
    """Apply a chunk to the books of each kind; None when every check holds."""
    for kind, market, tape, audit in books:
        tape.empty()
        events = audit.events
        try:
            market.apply_audited(chunk, tape, audit)
        except InvariantError as error:
            ends = np.flatnonzero(chunk["flags"] & Flags.LAST)
            return _broken(kind, error, start + int(ends[audit.events - events - 1]))
    return batch_difference(*books) if len(books) == 2 else None


def _check_all(books: list[Books]) -> Violation | None:
    """Check every book once more at the end of the stream, whether an event ends there or not."""
    for kind, market, _, _ in books:
        for book in market.books.values():
            try:
                book.check()
            except InvariantError as error:
                return _broken(kind, error, None)
    return final_difference(*books) if len(books) == 2 else None


def _broken(kind: str, error: InvariantError, record: int | None) -> Violation:
    return {
        "book": kind,
        "kind": "invariant",
        "record": record,
        "text": str(error),
        "kernel": None,
        "reference": None,
    }
