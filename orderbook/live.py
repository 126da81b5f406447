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

GROUP_CHANNEL: Final = "asgi__group__{}"
"""Where Redis publishes what is sent to a group, as channels_redis names it for its default prefix."""
BOOK_KEY: Final = "batonic:book:{symbol}"
"""Redis: the newest BookMessage of a symbol (msgpack), for clients that join between two pushes."""

FULL_BOOK_KEY: Final = "batonic:full:{symbol}"
"""Redis: the newest complete book as JSON text, refreshed at most once a second."""

ENGINE_STATUS_KEY: Final = "batonic:engine:{name}"
"""Redis: the status of the engine of that name as JSON text; it expires when the engine is gone."""

ENGINE_STATUS_TTL_S: Final = 5

ENGINES_KEY: Final = "batonic:engines"
"""Redis: the names of the engines that have lived, in a sorted set by their last sign of life, in Unix seconds."""

ENGINE_REMEMBERED_S: Final = 600
"""How long an engine that is gone is missed; then it is forgotten."""

DEFAULT_ENGINE: Final = "engine"
"""The name of the only one."""

HEAD_START: Final = '{"type":"book"'
"""How the head of each BookMessage begins."""

_GROUP_SAFE: Final = re.compile(r"[a-zA-Z\d\-_.]{1,80}")


class BookMessage(TypedDict):
    """What travels over the channel layer: one complete book."""

    type: Literal["book.update"]  # Channels calls the handler book_update
    symbol: str
    run_id: str
    seq: int
    head: str  # '{"type":"book","symbol":…,"state":"ok","published_ns":"…"' : an object left open
    bids: list[str]  # one '[price,size,count]' a level, best first
    asks: list[str]
    trades: NotRequired[list[str]]  # one '[price,size,"B","ts_ns"]' each, oldest first: those since the last push, cut
    trade_count: NotRequired[int]  # of the book in the run so far; both are missing in a complete book


class EngineStatus(TypedDict):
    """What the engine says of itself once a second."""

    name: str
    state: str  # connecting | waiting | streaming | stopping
    run_id: str
    records: int
    records_per_s: int
    snapshots: int
    snapshots_stored: int  # in the table for sure: written now, or found there
    queue_items: int  # of all sinks, on disk or in memory
    queue_bytes: int  # in memory
    queue_capacity_bytes: int
    spilled: int  # moved to the disk since the start, because PostgreSQL was slow or away
    on_disk: int  # of those, still there
    dropped: int  # lost by any sink since the start
    lag_records: int  # arrived and not received yet
    lag_ms: float  # how long the oldest of them has waited, at most
    symbols: dict[str, dict[str, str]]  # symbol -> {"bid", "ask", "ts", "state"} as text, of at most 101
    feed_path: str
    feed_size_bytes: int
    degraded: dict[str, str]  # a sink, the results or the feed -> why
    ts: str


def blank_status(name: str) -> EngineStatus:
    """Return the status of an engine to which nothing has come yet."""
    return EngineStatus(
        name=name,
        state="waiting",
        run_id="",
        records=0,
        records_per_s=0,
        snapshots=0,
        snapshots_stored=0,
        queue_items=0,
        queue_bytes=0,
        queue_capacity_bytes=0,
        spilled=0,
        on_disk=0,
        dropped=0,
        lag_records=0,
        lag_ms=0.0,
        symbols={},
        feed_path="",
        feed_size_bytes=0,
        degraded={},
        ts="",
    )


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
    return message["head"] + book_tail(message, depth)


def book_tail(message: BookMessage, depth: int) -> str:
    """Return what follows the head in that text: levels, trades, the end."""
    bids = ",".join(message["bids"][:depth])
    asks = ",".join(message["asks"][:depth])
    trades = ""
    if "trades" in message:
        trades = f',"trades":[{",".join(message["trades"])}],"trade_count":{message.get("trade_count", 0)}'
    return f',"bids":[{bids}],"asks":[{asks}]{trades}}}'


def head_as(message: BookMessage, kind: str) -> str:
    """Return the head of a book as that of a message of another type: an object left open, with its run, seq and times.

    >>> head_as({"head": '{"type":"book","symbol":"CLX5","seq":7'}, "bbo")
    '{"type":"bbo","symbol":"CLX5","seq":7'
    """
    return f'{{"type":"{kind}"{message["head"][len(HEAD_START) :]}'
