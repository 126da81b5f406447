"""The contract between the engine and the web processes: group names, message shapes, Redis keys. Floor 2.

The engine publishes complete states, never deltas: a client may skip any number of them and still be right.
A published book is a ready-made JSON head and one JSON fragment a level, so that each depth asked for costs a
join of strings and no encoding.
"""

import hashlib
import re
from typing import Final, Literal, NotRequired, TypedDict

LIVE_DEPTH: Final = 200
"""Levels a side that travel to the web processes: the most that a client may ask for."""

BOOK_TTL_S: Final = 15
"""Life of the two keys below: the engine renews them once a second, so the books vanish with it, and not before."""

BOOK_KEY: Final = "batonic:book:{symbol}"
"""Redis: the newest BookMessage of a symbol (msgpack), for clients that join between two pushes."""

FULL_BOOK_KEY: Final = "batonic:full:{symbol}"
"""Redis: the newest complete book as JSON text, refreshed at most once a second."""

ENGINE_STATUS_KEY: Final = "batonic:engine"
"""Redis: the engine's status as JSON text; it expires when the engine is gone."""

ENGINE_STATUS_TTL_S: Final = 5

_GROUP_SAFE: Final = re.compile(r"[a-zA-Z\d\-_.]{1,80}")


class BookMessage(TypedDict):
    """What travels over the channel layer: one complete book."""

    type: Literal["book.update"]  # Channels calls the handler book_update
    symbol: str
    run_id: str
    seq: int
    head: str  # '{"type":"book","symbol":…,"state":"ok"' : an object left open
    bids: list[str]  # one '[price,size,count]' a level, best first
    asks: list[str]
    trades: NotRequired[list[str]]  # one '[price,size,"B","ts_ns"]' each, oldest first: those since the last push, cut
    trade_count: NotRequired[int]  # of the book in the run so far; both are missing in a complete book


class EngineStatus(TypedDict):
    """What the engine says of itself once a second."""

    state: str  # connecting | waiting | streaming | stopping
    run_id: str
    records: int
    records_per_s: int
    snapshots: int
    snapshots_stored: int  # in the table for sure: written now, or found there
    queue_items: int
    symbols: dict[str, dict[str, str]]  # symbol -> {"bid", "ask", "ts", "state"} as text
    feed_path: str
    feed_size_bytes: int
    degraded: dict[str, str]  # a sink, the results or the feed -> why
    ts: str


def group_name(symbol: str) -> str:
    """Return the channel-layer group of a symbol: letters, digits and ``-_.`` only, under 100 characters.

    >>> group_name("CLX5"), group_name("ES Z5")[:15]
    ('book.CLX5', 'book-sha256.f2f')
    """
    if _GROUP_SAFE.fullmatch(symbol):
        return f"book.{symbol}"
    return f"book-sha256.{hashlib.sha256(symbol.encode()).hexdigest()}"


def final_book_name(symbol: str) -> str:
    """Return the file name of a symbol's final book in FINAL_BOOK_FOLDER: safe whatever the symbol holds.

    >>> final_book_name("CLX5"), final_book_name("../x")[:10]
    ('CLX5.json', 'sha256.d6b')
    """
    return f"{group_name(symbol)[len('book.') :]}.json"


def book_text(message: BookMessage, depth: int) -> str:
    """Return the JSON text of a book cut to ``depth`` levels a side, and of its trades. Cost: one join."""
    bids = ",".join(message["bids"][:depth])
    asks = ",".join(message["asks"][:depth])
    trades = ""
    if "trades" in message:
        trades = f',"trades":[{",".join(message["trades"])}],"trade_count":{message.get("trade_count", 0)}'
    return f'{message["head"]},"bids":[{bids}],"asks":[{asks}]{trades}}}'
