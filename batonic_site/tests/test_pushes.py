"""The subscription of a web process, over a way to Redis that can lead nowhere."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings
from redis.connection import parse_url

from engine_worker.tests.proxy import TcpProxy
from orderbook import pushes as pushes_module
from orderbook.pushes import Pushes

WITHIN_S = 10


@pytest.fixture
def way(redis_client: redis.Redis, free_port: Callable[[], int], monkeypatch: Any) -> Iterator[TcpProxy]:
    """Return the way that the subscription takes to Redis, with the options of the site."""
    target = parse_url(settings.REDIS_URL)
    proxy = TcpProxy(target["host"], target["port"], free_port())
    proxy.up()
    (options,) = settings.CHANNEL_LAYERS["default"]["CONFIG"]["hosts"]
    address = settings.REDIS_URL.replace(f":{target['port']}/", f":{proxy.port}/")
    layer = RedisPubSubChannelLayer(hosts=[options | {"address": address}])
    monkeypatch.setattr(pushes_module, "get_channel_layer", lambda: layer)
    for name, seconds in (("ANSWER_S", 0.3), ("DEAF_S", 0.6), ("AGAIN_S", 0.02)):
        monkeypatch.setattr(pushes_module, name, seconds)
    yield proxy
    proxy.down()


class Listener:
    """A subscription that is looked after, as the hub does it."""

    def __init__(self, *groups: str) -> None:
        self.taken: list[int] = []
        self.channels = 0
        self.pushes = Pushes(lambda message: self.taken.append(message["number"]), self._begin)
        self._groups = set(groups)
        self.tasks = [asyncio.create_task(work()) for work in (self.pushes.listen, self._look_after)]

    async def hear(self, number: int) -> None:
        """Publish a message, again and again, until it has been heard."""
        async with asyncio.timeout(WITHIN_S):
            while number not in self.taken:
                await get_channel_layer().group_send("book.CLX5", {"type": "book.update", "number": number})
                await asyncio.sleep(0.02)

    def _begin(self) -> None:
        self.channels += 1

    async def _look_after(self) -> None:
        while True:
            with suppress(*pushes_module.REDIS_ERRORS):
                await self.pushes.follow(self._groups)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("dead", [slice(1), slice(None)])  # the subscription's connection, or every one
async def test_a_connection_that_died_in_silence_is_made_anew(way: TcpProxy, dead: slice) -> None:
    listener = Listener("book.CLX5")
    await listener.hear(1)
    for link in way._links[dead]:
        link.held = True
    await listener.hear(2)
    assert listener.channels == 2
    assert len(get_layer().channels) == 1


async def test_a_subscription_without_messages_is_kept(way: TcpProxy) -> None:
    listener = Listener("book.CLX5")
    await listener.hear(1)
    await asyncio.sleep(1.5)  # longer than a silence that means something
    assert listener.channels == 1


async def test_redis_that_answers_nothing_keeps_nobody_waiting(way: TcpProxy) -> None:
    listener = Listener("book.CLX5")
    await listener.hear(1)
    way.hold()
    deadline = asyncio.timeout(WITHIN_S)
    with pytest.raises(TimeoutError):
        async with deadline:
            while True:
                await listener.pushes.follow({"book.CLX5", "book.ESZ5"})
                await asyncio.sleep(0.01)
    assert not deadline.expired()


async def test_groups_come_and_go(way: TcpProxy) -> None:
    listener = Listener("book.CLX5", "book.ESZ5")
    await listener.hear(1)
    assert len(get_layer().groups) == 2
    listener._groups.discard("book.ESZ5")
    async with asyncio.timeout(WITHIN_S):
        while len(get_layer().groups) != 1:
            await asyncio.sleep(0.01)
    assert listener.pushes.groups == {"book.CLX5"}


def get_layer() -> Any:
    return pushes_module.get_channel_layer()._get_layer()
