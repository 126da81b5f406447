"""Which engines there are, and what each says of itself, as the web processes read it in Redis. Floor 4.

Not a registry: each engine writes its own name and status (orderbook.live has the keys), and readers change nothing.
"""

import json
from typing import Any

import redis
import redis.asyncio

from orderbook.live import ENGINE_STATUS_KEY, ENGINES_KEY, EngineStatus

Engines = dict[str, EngineStatus | None]
"""By name, in order; None for one that has been silent for some seconds and is still remembered."""


def engine_statuses(client: "redis.Redis") -> Engines:
    """Return every engine that lives, or did lately; none when there is no sign of any. Raises RedisError."""
    names = _named(client.zrange(ENGINES_KEY, 0, -1))
    return _statuses(names, client.mget(_keys(names))) if names else {}


async def engine_statuses_async(client: redis.asyncio.Redis) -> Engines:
    """As ``engine_statuses``, on an event loop."""
    names = _named(await client.zrange(ENGINES_KEY, 0, -1))
    return _statuses(names, await client.mget(_keys(names))) if names else {}


def _named(found: Any) -> list[str]:
    """Return names; the stubs of redis cannot say that they come as bytes."""
    return sorted(name.decode() for name in found)


def _keys(names: list[str]) -> list[str]:
    return [ENGINE_STATUS_KEY.format(name=name) for name in names]


def _statuses(names: list[str], texts: Any) -> Engines:
    return {name: None if text is None else json.loads(text) for name, text in zip(names, texts, strict=True)}
