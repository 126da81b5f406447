"""The newest books that the engine left in Redis, as the web processes read them. Floor 4.

For whoever arrives between two pushes, and to see whether the engine is there: it renews what it left once a second.
The names of the keys are in orderbook.live.
"""

from collections.abc import Collection
from functools import cache
from typing import NamedTuple, cast

import msgpack
import redis
import redis.asyncio
from django.conf import settings

from orderbook.live import BOOK_KEY, BOOK_TTL_S, FULL_BOOK_KEY, BookMessage


class KeptBook(NamedTuple):
    """What Redis knows of a symbol."""

    age_s: float | None
    """How long ago the engine renewed it; None when there is none."""
    book: BookMessage | None
    """None also where it was not asked for."""


async def kept_books(
    client: redis.asyncio.Redis, symbols: Collection[str], wanted: Collection[str]
) -> dict[str, KeptBook]:
    """Return what is kept of each symbol, with the book itself where it is wanted. Raises RedisError."""
    pipeline = client.pipeline(transaction=False)
    for symbol in symbols:
        pipeline.pttl(BOOK_KEY.format(symbol=symbol))
    for symbol in wanted:
        pipeline.get(BOOK_KEY.format(symbol=symbol))
    answers = await pipeline.execute()
    raw = dict(zip(wanted, answers[len(symbols) :], strict=True))
    return {
        symbol: KeptBook(_age_s(life_ms), _book(raw.get(symbol)))
        for symbol, life_ms in zip(symbols, answers, strict=False)
    }


def _age_s(life_ms: int) -> float | None:
    if life_ms == -2:  # no such key
        return None
    return BOOK_TTL_S - life_ms / 1000 if life_ms >= 0 else 0.0  # -1: it lives for ever


def _book(raw: bytes | None) -> BookMessage | None:
    return None if raw is None else cast(BookMessage, msgpack.unpackb(raw))


def full_book_json(symbol: str) -> str | None:
    """Return the newest complete book as JSON text; None when there is none. Raises RedisError."""
    raw = _client().get(FULL_BOOK_KEY.format(symbol=symbol))
    return None if raw is None else cast(bytes, raw).decode()


def async_client() -> redis.asyncio.Redis:
    """Return a client for the calling event loop. Its owner closes it."""
    return redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
