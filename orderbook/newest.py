"""The newest books that the engine left in Redis, as the web processes read them. Floor 4.

For whoever arrives between two pushes. The names of the keys are in orderbook.live.
"""

from functools import cache
from typing import cast

import msgpack
import redis
import redis.asyncio
from django.conf import settings

from orderbook.live import BOOK_KEY, FULL_BOOK_KEY, BookMessage


async def newest_book(client: redis.asyncio.Redis, symbol: str) -> BookMessage | None:
    """Return the newest pushed book of a symbol; None when there is none. Raises RedisError."""
    raw = await client.get(BOOK_KEY.format(symbol=symbol))
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
