"""Builders of MBO records for tests: name what matters, the rest is plausible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import settings

from orderbook.book.digest import state_hash
from orderbook.book.market import BookKind
from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, UNDEF_PRICE, BookKey, Flags, MboArray, Side
from orderbook.book.protocol import OrderBook

KINDS: list[BookKind] = ["reference", "kernel"]

LAST = int(Flags.LAST)
TOB = int(Flags.TOB)
SNAPSHOT = int(Flags.SNAPSHOT)
MAYBE_BAD_BOOK = int(Flags.MAYBE_BAD_BOOK)

FIRST_TS = 1_758_742_200_000_000_000

Row = tuple[int, ...]


def examples(usual: int, many: int) -> int:
    """Return how many examples a property gets: the usual number, or many under ``--hypothesis-profile=long``."""
    return many if settings.get_current_profile_name() == "long" else usual


def record(
    action: str,
    side: str = "N",
    price: int = 0,
    size: int = 0,
    order_id: int = 0,
    flags: int = LAST,
    *,
    publisher_id: int = 1,
    instrument_id: int = 432669,
    sequence: int = 0,
) -> Row:
    """Return one record as the tuple that ``stream`` takes; its time follows its sequence."""
    ts_event = FIRST_TS + 1000 * sequence
    return (
        MBO_LENGTH,
        MBO_RTYPE,
        publisher_id,
        instrument_id,
        ts_event,
        order_id,
        price,
        size,
        flags,
        0,
        ord(action),
        ord(side),
        ts_event + 500,
        100,
        sequence,
    )


def add(side: str, price: int, size: int, order_id: int, flags: int = LAST) -> Row:
    return record("A", side, price, size, order_id, flags)


def cancel(side: str, price: int, size: int, order_id: int, flags: int = LAST) -> Row:
    return record("C", side, price, size, order_id, flags)


def modify(side: str, price: int, size: int, order_id: int, flags: int = LAST) -> Row:
    return record("M", side, price, size, order_id, flags)


def clear(flags: int = LAST) -> Row:
    return record("R", flags=flags)


def stream(*rows: Row) -> MboArray:
    """Return the records as one array; those without a sequence are numbered from 1."""
    records = np.array(list(rows), MBO)
    unnumbered = records["sequence"] == 0
    numbers = np.arange(1, len(records) + 1)
    records["sequence"][unnumbered] = numbers[unnumbered]
    records["ts_event"] = FIRST_TS + 1000 * records["sequence"].astype(np.uint64)
    records["ts_recv"] = records["ts_event"] + np.uint64(500)
    return records


def random_session(seed: int, count: int, ids: int = 400, prices: int = 60) -> MboArray:
    """Return a seeded stream of valid and faulty records; about half of the ids rest at any time."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, MBO)
    records["length"], records["rtype"] = MBO_LENGTH, MBO_RTYPE
    records["publisher_id"], records["instrument_id"] = 1, 432669
    records["action"] = rng.choice([ord(code) for code in "AACCMMTFN"], count)
    records["side"] = rng.choice([ord("B"), ord("A")], count)
    records["order_id"] = rng.integers(0, ids, count).astype(np.uint64) * np.uint64(0x1_0000_0001)
    records["price"] = rng.integers(-prices, prices, count) * 10_000_000
    records["size"] = rng.integers(0, 12, count)
    records["flags"] = rng.choice([0, LAST], count)
    records["sequence"] = np.arange(1, count + 1)
    records["ts_event"] = FIRST_TS + 1000 * records["sequence"].astype(np.uint64)
    records["ts_recv"] = records["ts_event"] + np.uint64(500)
    return records


def eventful_session(seed: int, count: int, ids: int = 400, prices: int = 60) -> MboArray:
    """Return a random session with everything rare in it: clears, snapshots, top-of-book records, broken codes."""
    records = random_session(seed, count, ids, prices)
    rng = np.random.default_rng([seed, 1])
    for start in rng.integers(0, count, count // 400).tolist():
        run = records[start : start + 20]
        run["flags"] |= SNAPSHOT
        run["action"] = ord("A")
        if rng.random() < 0.5:
            run[0]["action"] = ord("R")
    rare = rng.random(count)
    records["action"][rare < 0.002] = ord("R")
    records["action"][(rare > 0.01) & (rare < 0.02)] = ord("?")
    records["side"][(rare > 0.02) & (rare < 0.03)] = ord("N")
    records["price"][(rare > 0.03) & (rare < 0.04)] = UNDEF_PRICE
    records["flags"][(rare > 0.035) & (rare < 0.045)] |= TOB
    records["flags"][(rare > 0.045) & (rare < 0.05)] |= MAYBE_BAD_BOOK
    return records


def interleaved(parts: Sequence[MboArray], seed: int) -> MboArray:
    """Return the records of several streams in one, each stream in its own order."""
    turns = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    np.random.default_rng(seed).shuffle(turns)
    mixed = np.zeros(len(turns), MBO)
    for number, part in enumerate(parts):
        mixed[turns == number] = part
    return mixed


def renamed_book(records: MboArray, key: BookKey) -> MboArray:
    """Return the same records as those of another book."""
    records = records.copy()
    records["publisher_id"], records["instrument_id"] = key
    return records


def retold(book: OrderBook) -> MboArray:
    """Return a stream that tells what a book shows: its top-of-book levels, then its orders in queue order."""
    orders = book.orders()
    rows = []
    for side, code in ((Side.BID, "B"), (Side.ASK, "A")):
        mine = orders[orders["side"] == side]
        for price, size, _ in book.levels(side).tolist():
            if shown := size - int(mine["size"][mine["price"] == price].sum()):
                rows.append(record("A", code, price, shown, flags=LAST | TOB))
    rows += [record("A", chr(side), price, size, order_id) for order_id, price, size, side in orders.tolist()]
    return stream(*rows)


def picture(book: OrderBook) -> dict[str, object]:
    """Return everything that the face of a book shows, in values that compare."""
    return {
        "hash": state_hash(book),
        "bids": book.levels(Side.BID).tolist(),
        "asks": book.levels(Side.ASK).tolist(),
        "bbo": book.bbo(),
        "orders": book.orders().tolist(),
        "len": len(book),
        "anomalies": book.anomalies,
        "stands": (book.ts_event, book.ts_recv, book.sequence, book.at_event_end),
    }


def order_ids(book: OrderBook) -> list[int]:
    """Return the ids of every resting order in the book's order."""
    ids: npt.NDArray[np.uint64] = book.orders()["order_id"]
    return ids.tolist()
