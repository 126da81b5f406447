"""How engines say in Redis that they live, and how they are found there."""

import asyncio
import time
from collections.abc import Callable

import redis
import redis.asyncio
from django.conf import settings

from engine_worker.sinks.broadcast import BroadcastSink
from orderbook.engines import engine_statuses, engine_statuses_async
from orderbook.live import ENGINE_REMEMBERED_S, ENGINE_STATUS_KEY, ENGINES_KEY, blank_status

WaitFor = Callable[..., object]


def living(name: str) -> BroadcastSink:
    sink = BroadcastSink(settings.REDIS_URL, lambda: blank_status(name))
    sink.start()
    return sink


def test_engines_are_found_by_name_and_one_that_is_gone_is_missed_for_a_while(
    redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    assert engine_statuses(redis_client) == {}
    redis_client.zadd(ENGINES_KEY, {"long-gone": time.time() - ENGINE_REMEMBERED_S - 1})
    sinks = [living(name) for name in ("west", "east")]
    wait_for(lambda: engine_statuses(redis_client).keys() == {"east", "west"})
    assert engine_statuses(redis_client) == {name: blank_status(name) for name in ("east", "west")}
    assert 0 < redis_client.ttl(ENGINE_STATUS_KEY.format(name="west")) <= 5
    for sink in sinks:
        sink.close(2)
    redis_client.delete(ENGINE_STATUS_KEY.format(name="west"))
    assert engine_statuses(redis_client) == {"east": blank_status("east"), "west": None}
    assert 0 < redis_client.ttl(ENGINES_KEY) <= ENGINE_REMEMBERED_S


def test_the_event_loop_finds_the_same(redis_client: redis.Redis) -> None:
    async def find() -> object:
        async with redis.asyncio.Redis.from_url(settings.REDIS_URL) as client:
            return await engine_statuses_async(client)

    assert asyncio.run(find()) == {}
    redis_client.zadd(ENGINES_KEY, {"east": 1})
    assert asyncio.run(find()) == {"east": None}
