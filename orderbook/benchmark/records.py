"""Streams for a benchmark, made from a recording: as long and of as many instruments as asked. Floor 1.

A recording of an hour becomes a stream of any length by repeating it. A repetition is as good as the first pass: the
books are cleared before it, no order id comes twice, and sequence and times go on. What a stream costs the book
depends on what the records do and in which order they come, and both stay as the venue sent them.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.market import split_by_book
from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, UNDEF_PRICE, UNDEF_TIMESTAMP, Action, Flags, MboArray, Side

MAX_INSTRUMENTS: Final = 65_535
"""That `interleaved` can draw."""
_UNTYPED: Final = np.dtype((np.void, MBO.itemsize))
_UINT64_VALUES: Final = 2**64
_BEST_BID: Final = 65 * 10**9
_TICK: Final = 10**7
_PRICES: Final = 100
_BEGIN_NS: Final = 1_758_742_200_000_000_000


def tiled(records: MboArray, count: int) -> MboArray:
    """Return ``count`` records: copies of a recording, each begun by a clear of every book, the last one cut off.

    Sequences go on modulo 2^32, as a venue's do. Raises ValueError where ids or times leave no room for so many
    copies. Cost: O(count), 0.2 us each.
    """
    copied = np.concatenate([_clears(records).view(_UNTYPED), np.ascontiguousarray(records).view(_UNTYPED)])
    made = np.resize(copied, count).view(MBO)
    numbers = np.arange(count, dtype=np.uint64) // np.uint64(len(copied))
    made["order_id"] += numbers * np.uint64(_id_span(records, -(-count // len(copied))))
    made["sequence"] += numbers.astype(np.uint32) * _sequence_span(records)
    time_span = np.uint64(_time_span(records, -(-count // len(copied))))
    for field in ("ts_event", "ts_recv"):
        made[field] += numbers * time_span * (made[field] != UNDEF_TIMESTAMP)
    return made


def interleaved(records: MboArray, count: int, instruments: int, seed: int = 1) -> MboArray:
    """Return ``count`` records of the instruments 1 to ``instruments``, each of which lives through the recording.

    Its busiest book is the one that they live through. Who comes next is drawn evenly, record by record; each keeps
    its own order. No order id belongs to two instruments. Raises ValueError as ``tiled``. Cost: O(count), 0.2 us each.
    """
    _, busiest = max(split_by_book(records), key=lambda each: len(each[1]))
    drawn = np.random.default_rng(seed).integers(instruments, size=count, dtype=np.uint16)
    ranks = _ranks(drawn)
    own = tiled(busiest, int(ranks.max()) + 1)
    # Taken as untyped bytes: numpy copies records with named fields many times slower.
    mixed = own.view(_UNTYPED)[ranks].view(MBO)
    mixed["order_id"] += drawn * np.uint64(_id_span(own, instruments))
    mixed["instrument_id"] = drawn.astype(np.uint32) + np.uint32(1)
    return mixed


def resting(count: int, instruments: int) -> MboArray:
    """Return adds of so many orders that all rest, spread evenly over instruments, sides and 100 prices a side.

    A microsecond apart, each an event; the instruments are 1 to ``instruments``. Cost: O(count).
    """
    numbers = np.arange(count, dtype=np.int64)
    made = np.zeros(count, MBO)
    made["length"], made["rtype"], made["publisher_id"], made["flags"] = MBO_LENGTH, MBO_RTYPE, 1, Flags.LAST
    made["action"], made["instrument_id"] = Action.ADD, numbers % instruments + 1
    turns = numbers // instruments
    is_ask = turns % 2
    made["side"] = np.where(is_ask, Side.ASK, Side.BID)
    made["price"] = _BEST_BID + np.where(is_ask, 1 + turns // 2 % _PRICES, -(turns // 2 % _PRICES)) * _TICK
    made["order_id"], made["size"], made["sequence"] = numbers + 1, 1 + numbers % 9, numbers + 1
    made["ts_event"] = made["ts_recv"] = _BEGIN_NS + numbers * 1000
    return made


def _ranks(drawn: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Return for each place how often its value came before."""
    counts = np.bincount(drawn)
    ranks = np.empty(len(drawn), np.int64)
    ranks[np.argsort(drawn, kind="stable")] = np.arange(len(drawn)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks


def _clears(records: MboArray) -> MboArray:
    """Return a clear of each book, at the first instant of the recording."""
    books = split_by_book(records)
    made = np.zeros(len(books), MBO)
    made["length"], made["rtype"] = MBO_LENGTH, MBO_RTYPE
    made["action"], made["side"], made["price"], made["flags"] = Action.CLEAR, Side.NONE, UNDEF_PRICE, Flags.LAST
    for field in ("ts_event", "ts_recv", "sequence"):
        made[field] = records[0][field]
    for row, (key, part) in enumerate(books):
        made["publisher_id"][row], made["instrument_id"][row] = key
        made["channel_id"][row] = part[0]["channel_id"]
    return made


def _id_span(records: MboArray, copies: int) -> int:
    """Return how far apart the ids of two copies must be. Ids may go beyond 2^64 and begin anew: none meet."""
    least, most = int(records["order_id"].min()), int(records["order_id"].max())
    span = most - least + 1
    if copies > 1 and copies * span > _UINT64_VALUES:
        raise ValueError(f"expected order ids with room for {copies} copies in 64 bits, found {least} to {most}")
    return span % _UINT64_VALUES


def _sequence_span(records: MboArray) -> np.uint32:
    return np.uint32((int(records["sequence"].max()) - int(records["sequence"].min()) + 1) % 2**32)


def _time_span(records: MboArray, copies: int) -> int:
    times = np.concatenate([records["ts_event"], records["ts_recv"]])
    times = times[times != UNDEF_TIMESTAMP]
    least, most = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    span = most - least + 1
    if most + (copies - 1) * span >= UNDEF_TIMESTAMP:
        raise ValueError(f"expected times with room for {copies} copies in 64 bits, found {least} to {most} ns")
    return span
