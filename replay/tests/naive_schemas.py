"""The derived schemas as one would compute them by hand: look at a plain book after every event, and compare lists.

Shares nothing with the product but the readable book and the layouts of the records.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orderbook.book.mbo import UNDEF_PRICE, UNDEF_TIMESTAMP, BookKey, MboArray, Side
from orderbook.book.reference import ReferenceBook

LEVELS = 10
SECOND_NS = 1_000_000_000
NOTHING = (UNDEF_PRICE, 0, 0)

Row = dict[str, Any]


@dataclass
class Book:
    """One book, and what was last said of it."""

    book: ReferenceBook = field(default_factory=ReferenceBook)
    said: list[Any] = field(default_factory=lambda: [(NOTHING, NOTHING)] * LEVELS)
    event: list[np.void] = field(default_factory=list)
    sample: Row | None = None
    changed_at: int | None = None
    sale: Row = field(
        default_factory=lambda: {"price": UNDEF_PRICE, "size": 0, "side": ord("N"), "ts_event": UNDEF_TIMESTAMP}
    )


def naive_schemas(records: MboArray) -> dict[str, list[Row]]:
    """Return the rows of every derived schema, each with the place ``at`` of the record behind which it stands."""
    books: dict[BookKey, Book] = {}
    out: dict[str, list[Row]] = {name: [] for name in ("trades", "tbbo", "mbp-1", "mbp-10", "bbo-1s")}
    second = None
    for at, record in enumerate(records):
        if record["ts_recv"] != UNDEF_TIMESTAMP:
            now = int(record["ts_recv"]) // SECOND_NS
            if second is None or now > second:
                out["bbo-1s"] += samples(books, second, at)
                second = now
        mine = books.setdefault(BookKey(int(record["publisher_id"]), int(record["instrument_id"])), Book())
        mine.book.apply(np.expand_dims(record, 0))
        mine.event.append(record)
        if chr(record["action"]) == "T":
            out["trades"].append(head(at, record, record))
            say(out, at, mine, record, record, 0, trade=True)
        if record["flags"] & 0x80:
            end_event(out, at, mine)
            mine.event = []
    return out


def end_event(out: dict[str, list[Row]], at: int, mine: Book) -> None:
    record = mine.event[-1]
    before, mine.said = mine.said, ten_levels(mine.book)
    cleared = any(chr(each["action"]) == "R" for each in mine.event)
    differs = [number for number in range(LEVELS) if before[number] != mine.said[number]]
    if not cleared and not differs:
        return
    about = [each for each in mine.event if chr(each["action"]) in "ACMR"]
    say(out, at, mine, record, about[-1] if about else None, 0 if cleared else differs[0], trade=False)


def say(
    out: dict[str, list[Row]], at: int, mine: Book, record: np.void, cause: np.void | None, depth: int, trade: bool
) -> None:
    out["mbp-10"].append(head(at, record, cause, depth) | levels_of(mine.said))
    if not trade and depth > 0:
        return
    top = head(at, record, cause) | levels_of(mine.said[:1])
    out["mbp-1"].append(top)
    if trade:
        out["tbbo"].append(top)
        mine.sale = {name: int(record[name]) for name in ("price", "size", "side", "ts_event")}
    names = ("publisher_id", "instrument_id", "flags", "sequence")
    mine.sample = {name: int(record[name]) for name in names} | levels_of(mine.said[:1])
    mine.changed_at = at if mine.changed_at is None else mine.changed_at


def samples(books: dict[BookKey, Book], second: int | None, at: int) -> list[Row]:
    changed = sorted(
        (book for book in books.values() if book.changed_at is not None), key=lambda book: book.changed_at or 0
    )
    rows = []
    for book in changed:
        assert book.sample is not None and second is not None
        rows.append({"at": at, "ts_recv": (second + 1) * SECOND_NS} | book.sample | book.sale)
        book.changed_at = None
    return rows


def head(at: int, record: np.void, cause: np.void | None, depth: int = 0) -> Row:
    of_record = ("publisher_id", "instrument_id", "ts_event", "flags", "ts_recv", "ts_in_delta", "sequence")
    row = {"at": at, "depth": depth} | {name: int(record[name]) for name in of_record}
    if cause is None:
        return row | {"action": ord("R"), "side": ord("N"), "price": UNDEF_PRICE, "size": 0}
    return row | {name: int(cause[name]) for name in ("action", "side", "price", "size")}


def ten_levels(book: ReferenceBook) -> list[Any]:
    sides = []
    for side in (Side.BID, Side.ASK):
        levels = [(px, min(sz, 2**32 - 1), ct) for px, sz, ct in book.levels(side).tolist()][:LEVELS]
        sides.append(levels + [NOTHING] * (LEVELS - len(levels)))
    return list(zip(*sides, strict=True))


def levels_of(levels: list[Any]) -> Row:
    row: Row = {}
    for number, (bid, ask) in enumerate(levels):
        for side, level in (("bid", bid), ("ask", ask)):
            for name, value in zip(("px", "sz", "ct"), level, strict=True):
                row[f"{side}_{name}_{number:02}"] = value
    return row


def as_rows(of: Callable[[str], tuple[Any, Any]], schema: str, since: int = 0) -> list[Row]:
    """Return what the product derived in the shape of ``naive_schemas``; ``since`` is the place of the block."""
    positions, records = of(schema)
    names = [name for name in records.dtype.names if name not in ("length", "rtype") and "reserved" not in name]
    columns = [(positions + since).tolist(), *(records[name].tolist() for name in names)]
    return [dict(zip(["at", *names], values, strict=True)) for values in zip(*columns, strict=True)]
