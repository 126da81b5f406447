"""Where two kinds of books, or what they wrote, differ first. Floor 1."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from orderbook.book.audit import Audit
from orderbook.book.market import BookKind
from orderbook.book.mbo import BookKey, Side
from orderbook.book.price import SCALE_DIGITS, format_units
from orderbook.book.protocol import Market, OrderBook
from orderbook.book.snapshot import Levels
from orderbook.book.tape import Rows, Tape
from orderbook.quality.report import Evidence, Violation

_SIDES: Final = {Side.BID: "bid", Side.ASK: "ask"}


class Rebuild(NamedTuple):
    """The books of one kind on their way through a stream, what they wrote last, and how they are checked."""

    kind: BookKind
    market: Market
    tape: Tape
    audit: Audit


def written_difference(kernel: Rebuild, reference: Rebuild) -> Violation | None:
    """Compare what both wrote in the last piece, and the first anomalies; None when it is the same. Cost: O(rows)."""
    found = [
        _tape_difference("bbo", kernel.tape.bbos, reference.tape.bbos),
        _tape_difference("trade", kernel.tape.trades, reference.tape.trades),
        _first_anomaly_difference(kernel.audit.first, reference.audit.first),
    ]
    return min((each for each in found if each), key=lambda each: each["record"] or 0, default=None)


def book_difference(
    kernel: Rebuild, reference: Rebuild, keys: Iterable[BookKey], record: int | None
) -> Violation | None:
    """Compare these books behind a record: every level, order and count; None when all is the same. Cost: O(orders)."""
    for key in keys:
        found = next(_differences(kernel.market.book(key), reference.market.book(key)), None)
        if found:
            text = f"instrument {key.instrument_id} of publisher {key.publisher_id}: {found.what} differs"
            return _violation(found.kind, record, text, found.kernel, found.reference)
    return None


class _Found(NamedTuple):
    kind: str
    what: str
    kernel: Evidence | None
    reference: Evidence | None


def _differences(kernel: OrderBook, reference: OrderBook) -> Iterator[_Found]:
    """Yield the first difference of each kind, in the order in which they explain each other."""
    for side, name in _SIDES.items():
        yield from _level_difference(side, name, kernel.levels(side), reference.levels(side))
    yield from _order_difference(kernel.orders(), reference.orders())
    ours, theirs = kernel.anomalies, reference.anomalies
    if ours != theirs:
        yield _Found("anomaly", "the count of its anomalies", {**ours}, {**theirs})


def _level_difference(side: Side, name: str, kernel: Levels, reference: Levels) -> Iterator[_Found]:
    """Yield the difference at the best price where a side is not the same in both."""
    common = min(len(kernel), len(reference))
    differs = (kernel[:common] != reference[:common]).any(axis=1)
    if differs.any() or len(kernel) != len(reference):
        place = int(differs.argmax()) if differs.any() else common
        prices = [int(levels[place, 0]) for levels in (kernel, reference) if place < len(levels)]
        price = max(prices) if side == Side.BID else min(prices)
        ours, theirs = (_level(levels, place, price) for levels in (kernel, reference))
        yield _Found("level", f"the {name} level at {_decimal(price)}", ours, theirs)


def _level(levels: Levels, place: int, price: int) -> Evidence | None:
    """Return the level at this place as JSON, None where the book has no level of this price."""
    if place >= len(levels) or levels[place, 0] != price:
        return None
    return {"px": str(price), "sz": int(levels[place, 1]), "ct": int(levels[place, 2])}


def _order_difference(kernel: Rows, reference: Rows) -> Iterator[_Found]:
    """Yield the first order in queue order that is another one, of books whose levels are the same."""
    place = _first_differing(kernel, reference)
    if place is not None:
        rows = kernel if place < len(kernel) else reference
        side, price = rows["side"][place], rows["price"][place]
        number = place - int(((rows["side"] == side) & (rows["price"] == price)).argmax())
        what = f"order {number} in the queue of the {_SIDES[Side(side)]} level at {_decimal(int(price))}"
        yield _Found("order", what, _evidence(kernel, place), _evidence(reference, place))


def _tape_difference(kind: str, kernel: Rows, reference: Rows) -> Violation | None:
    place = _first_differing(kernel, reference)
    if place is None:
        return None
    ours, theirs = (_evidence(each, place) for each in (kernel, reference))
    record = min(int(row["record"]) for row in (ours, theirs) if row)
    return _violation(kind, record, f"the books wrote different {kind} rows", ours, theirs)


def _first_anomaly_difference(kernel: dict[str, int], reference: dict[str, int]) -> Violation | None:
    differing = kernel.items() ^ reference.items()
    if not differing:
        return None
    record, kind = min((number, kind) for kind, number in differing)
    ours, theirs = (_first_anomaly(each, kind) for each in (kernel, reference))
    return _violation("anomaly", record, "the books met the first anomaly of a kind at different records", ours, theirs)


def _first_anomaly(first: dict[str, int], kind: str) -> Evidence | None:
    return {"anomaly": kind, "record": first[kind]} if kind in first else None


def _first_differing(ours: Rows, theirs: Rows) -> int | None:
    """Return the place of the first row that is another or is missing. By field, because rows have padding."""
    common = min(len(ours), len(theirs))
    differs = np.zeros(common, bool)
    for name in ours.dtype.names or ():
        differs |= ours[name][:common] != theirs[name][:common]
    if differs.any():
        return int(differs.argmax())
    return None if len(ours) == len(theirs) else common


def _evidence(rows: Rows, place: int) -> Evidence | None:
    """Return a row as JSON, None behind the last: text where 64 bits are needed, but for the record's number."""
    if place >= len(rows):
        return None
    values = zip(rows.dtype.names or (), rows[place].tolist(), strict=True)
    return {name: value if name == "record" or rows.dtype[name].itemsize < 8 else str(value) for name, value in values}


def _decimal(price: int) -> str:
    return format_units(price, SCALE_DIGITS, 0)


def _violation(
    kind: str, record: int | None, text: str, kernel: Evidence | None, reference: Evidence | None
) -> Violation:
    return {"book": "both", "kind": kind, "record": record, "text": text, "kernel": kernel, "reference": reference}
