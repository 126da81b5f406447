"""Books and snapshots -> the JSON that the outside world reads. Floor 0. The only owner of its field names.

Prices become JSON numbers with the instrument's decimals, written digit by digit from integers; 64-bit
times and sequences become strings, because a JSON number loses digits beyond 2**53.
"""

import json
from typing import NamedTuple

from orderbook.book.price import SCALE_DIGITS, format_price, format_units
from orderbook.book.snapshot import Bbo, BookSnapshot, Level, Levels, book_state
from orderbook.book.timestamp import format_iso_us, format_ns


class BookParts(NamedTuple):
    """A book as text in pieces: any depth of it is a join away."""

    head: str  # a JSON object left open
    bids: list[str]
    asks: list[str]


def encode_levels(levels: Levels, decimals: int) -> list[str]:
    """Write each level as ``[price,size,count]``, best first. Cost: about 0.3 us a level.

    >>> import numpy as np
    >>> encode_levels(np.array([[64_830_000_000, 5, 4], [64_800_000_000, 1, 1]]), 2)
    ['[64.83,5,4]', '[64.80,1,1]']
    """
    return [f"[{format_price(price, decimals)},{size},{count}]" for price, size, count in levels.tolist()]


def book_head(snapshot: BookSnapshot, decimals: int) -> str:
    """Write everything of a book but its levels, as a JSON object left open."""
    return (
        f'{{"type":"book","symbol":{json.dumps(snapshot.symbol)},"ts":"{format_ns(snapshot.ts_event)}",'
        f'"ts_ns":"{snapshot.ts_event}","ts_recv_ns":"{snapshot.ts_recv}","sequence":"{snapshot.sequence}",'
        f'"run_id":{json.dumps(snapshot.run_id)},"seq":{snapshot.seq},"records":{snapshot.records},'
        f'"state":"{snapshot.state}","decimals":{decimals},"tick":{format_price(snapshot.tick or 1, decimals)}'
    )


def book_message(snapshot: BookSnapshot) -> BookParts:
    """Write a book once for every depth that may be asked for."""
    decimals = snapshot.decimals
    return BookParts(
        book_head(snapshot, decimals),
        encode_levels(snapshot.bids, decimals),
        encode_levels(snapshot.asks, decimals),
    )


def book_json(snapshot: BookSnapshot, depth: int) -> str:
    """Write the top ``depth`` levels of a book as one line, without the newline: what the feed file holds."""
    decimals = snapshot.decimals
    bids = ",".join(encode_levels(snapshot.bids[:depth], decimals))
    asks = ",".join(encode_levels(snapshot.asks[:depth], decimals))
    return f'{book_head(snapshot, decimals)},"depth":{depth},"bids":[{bids}],"asks":[{asks}]}}'


def final_book_json(symbol: str, bids: Levels, asks: Levels) -> str:
    """Write every level of a book: ``px`` is the price in 1e-9 units, ``px_f`` the same as a decimal number."""
    return f'{{"symbol":{json.dumps(symbol)},"bids":{_final_side(bids)},"asks":{_final_side(asks)}}}'


def _final_side(levels: Levels) -> str:
    rows = (
        f'{{"px":{price},"px_f":{format_price(price, 0)},"sz":{size},"ct":{count}}}'
        for price, size, count in levels.tolist()
    )
    return f"[{','.join(rows)}]"


def snapshot_row_json(
    *, symbol: str, ts_event: int, sequence: int, bid: Level | None, ask: Level | None, decimals: int
) -> str:
    """Write one row of the history with exact prices; ``mid`` has the one digit more that a half tick needs."""
    mid = spread = "null"
    if bid is not None and ask is not None:
        mid = format_units((bid.price + ask.price) * 5, SCALE_DIGITS + 1, decimals)
        spread = format_price(ask.price - bid.price, decimals)
    bid_px, bid_sz, bid_ct = _best_texts(bid, decimals)
    ask_px, ask_sz, ask_ct = _best_texts(ask, decimals)
    return (
        f'{{"ts":"{format_iso_us(ts_event)}","symbol":{json.dumps(symbol)},'
        f'"best_bid_px":{bid_px},"best_bid_sz":{bid_sz},"best_ask_px":{ask_px},"best_ask_sz":{ask_sz},'
        f'"mid":{mid},"spread":{spread},"ts_ns":"{ts_event}","sequence":"{sequence}",'
        f'"best_bid_ct":{bid_ct},"best_ask_ct":{ask_ct},"state":"{book_state(Bbo(bid, ask))}"}}'
    )


def _best_texts(level: Level | None, decimals: int) -> tuple[str, int, int]:
    if level is None:
        return "null", 0, 0
    return format_price(level.price, decimals), level.size, level.count
