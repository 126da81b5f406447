"""Where two books, or what they wrote, differ first. Floor 1."""

from typing import Final, NamedTuple

import numpy as np

from orderbook.book.audit import Audit
from orderbook.book.mbo import BookKey, Side
from orderbook.book.protocol import Market, OrderBook
from orderbook.book.tape import Rows, Tape
from orderbook.quality.report import Row, Violation

_LEVEL: Final = np.dtype([("px", "<i8"), ("sz", "<i8"), ("ct", "<i8")])  # the columns of Levels


class Books(NamedTuple):
    """The books of one kind on their way through a stream."""

    kind: str
    market: Market
    tape: Tape
    audit: Audit


def batch_difference(kernel: Books, reference: Books) -> Violation | None:
    """Compare what both wrote and counted in the last batch; None when it is the same. Cost: O(rows + books)."""
    found = [
        _tape_difference("bbo", kernel.tape.bbos, reference.tape.bbos),
        _tape_difference("trade", kernel.tape.trades, reference.tape.trades),
        _first_anomaly_difference(kernel.audit.first, reference.audit.first),
    ]
    earliest = min((each for each in found if each), key=lambda each: each["record"] or 0, default=None)
    return earliest or _anomaly_count_difference(kernel.market, reference.market)


def final_difference(kernel: Books, reference: Books) -> Violation | None:
    """Compare the books themselves, every order and level; None when they are the same. Cost: O(orders)."""
    for key in _keys(kernel.market, reference.market):
        found = _book_difference(key, kernel.market.book(key), reference.market.book(key))
        if found:
            return found
    return None


def _tape_difference(kind: str, kernel: Rows, reference: Rows) -> Violation | None:
    place = _first_differing(kernel, reference)
    if place is None:
        return None
    ours, theirs = (_row(each, place) for each in (kernel, reference))
    record = min(int(row["record"]) for row in (ours, theirs) if row)
    return _violation(kind, record, f"the books wrote different {kind} rows", ours, theirs)


def _first_anomaly_difference(kernel: dict[str, int], reference: dict[str, int]) -> Violation | None:
    differing = kernel.items() ^ reference.items()
    if not differing:
        return None
    record, kind = min((number, kind) for kind, number in differing)
    ours, theirs = (_first_row(each, kind) for each in (kernel, reference))
    return _violation("anomaly", record, "the books met the first anomaly of a kind at different records", ours, theirs)


def _first_row(first: dict[str, int], kind: str) -> Row | None:
    return {"anomaly": kind, "record": first[kind]} if kind in first else None


def _anomaly_count_difference(kernel: Market, reference: Market) -> Violation | None:
    for key in _keys(kernel, reference):
        counts = [market.book(key).anomalies for market in (kernel, reference)]
        if counts[0] != counts[1]:
            ours, theirs = (dict[str, int | str](each) for each in counts)
            return _violation("anomaly", None, f"the anomalies of {_name(key)} differ", ours, theirs)
    return None


def _book_difference(key: BookKey, kernel: OrderBook, reference: OrderBook) -> Violation | None:
    pairs = [("order", kernel.orders(), reference.orders())]
    pairs += [("level", _levels(kernel, side), _levels(reference, side)) for side in (Side.BID, Side.ASK)]
    for kind, ours, theirs in pairs:
        place = _first_differing(ours, theirs)
        if place is not None:
            text = f"{kind} {place} of {_name(key)} differs at the end of the stream"
            return _violation(kind, None, text, _row(ours, place), _row(theirs, place))
    return None


def _levels(book: OrderBook, side: Side) -> Rows:
    return np.ascontiguousarray(book.levels(side)).view(_LEVEL).reshape(-1)


def _first_differing(ours: Rows, theirs: Rows) -> int | None:
    """Return the place of the first row that is another or is missing. By field, because rows have padding."""
    common = min(len(ours), len(theirs))
    differs = np.zeros(common, bool)
    for name in ours.dtype.names or ():
        differs |= ours[name][:common] != theirs[name][:common]
    if differs.any():
        return int(differs.argmax())
    return None if len(ours) == len(theirs) else common


def _row(rows: Rows, place: int) -> Row | None:
    """Return a row as JSON, None behind the last: text where 64 bits are needed, but for the record's number."""
    if place >= len(rows):
        return None
    values = zip(rows.dtype.names or (), rows[place].tolist(), strict=True)
    return {name: value if name == "record" or rows.dtype[name].itemsize < 8 else str(value) for name, value in values}


def _keys(kernel: Market, reference: Market) -> list[BookKey]:
    return sorted({*kernel.books, *reference.books})


def _name(key: BookKey) -> str:
    return f"the book of instrument {key.instrument_id} of publisher {key.publisher_id}"


def _violation(kind: str, record: int | None, text: str, kernel: Row | None, reference: Row | None) -> Violation:
    return {"book": "both", "kind": kind, "record": record, "text": text, "kernel": kernel, "reference": reference}
