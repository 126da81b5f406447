"""Builders of live books, exactly as the engine publishes them."""

import time
from collections.abc import Sequence

import msgpack
import numpy as np
import redis
import redis.asyncio
from channels.layers import get_channel_layer

from orderbook.book.encoding import book_message
from orderbook.book.snapshot import BookSnapshot, Levels
from orderbook.live import BOOK_KEY, BookMessage, group_name

CENT = 10_000_000
TS = 1_758_742_200_001_385_399  # 2025-09-24T19:30:00.001385399Z


def levels(best: int, step: int, count: int) -> Levels:
    """Return ``count`` levels in cents from ``best`` on, of sizes 1, 2, 3 and so on."""
    return np.array([[(best + row * step) * CENT, row + 1, 1] for row in range(count)], dtype=np.int64).reshape(-1, 3)


def snapshot(
    seq: int = 1,
    *,
    symbol: str = "CLX5",
    run_id: str = "run-1",
    bid: int | None = 6483,
    ask: int | None = 6484,
    count: int = 100,
    ts_event: int = TS,
) -> BookSnapshot:
    """Return a book with its best prices in cents; None makes a side empty."""
    return BookSnapshot(
        symbol=symbol,
        run_id=run_id,
        seq=seq,
        records=seq * 10,
        ts_event=ts_event,
        ts_recv=ts_event + 1000,
        sequence=seq,
        tick=CENT,
        bids=levels(bid, -1, count) if bid is not None else levels(0, 0, 0),
        asks=levels(ask, 1, count) if ask is not None else levels(0, 0, 0),
    )


def message(book: BookSnapshot, trades: Sequence[str] = (), trade_count: int = 0) -> BookMessage:
    """Return a book in the shape that travels over the channel layer."""
    head, bids, asks = book_message(book)
    return BookMessage(
        type="book.update",
        symbol=book.symbol,
        run_id=book.run_id,
        seq=book.seq,
        head=f'{head},"published_ns":"{time.time_ns()}"',
        bids=bids,
        asks=asks,
        trades=list(trades),
        trade_count=trade_count,
    )


async def push(book: BookSnapshot) -> None:
    """Publish a book to every web process."""
    await get_channel_layer().group_send(group_name(book.symbol), message(book))


def keep(client: redis.Redis, book: BookSnapshot, lives_s: int | None = None) -> None:
    """Leave a book in Redis for those who come between two pushes; without a life no engine needs to renew it."""
    client.set(BOOK_KEY.format(symbol=book.symbol), msgpack.packb(message(book)), ex=lives_s)


def publish(client: redis.Redis, books: Sequence[BookSnapshot]) -> None:
    """Publish books from a plain thread, in the wire format of the channel layer."""
    for book in books:
        keep(client, book)
        client.publish(f"asgi__group__{group_name(book.symbol)}", msgpack.packb(message(book)))
