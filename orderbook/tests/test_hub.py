"""Fan-out inside one process, over the real Redis."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from orderbook import hub as hub_module
from orderbook.hub import Hub, current_hub
from orderbook.tests.books import keep, push, snapshot

WITHIN_S = 5


class Client:
    """Something that watches: what it received, and how slowly it reads."""

    def __init__(self, read_s: float = 0) -> None:
        self.books: list[dict[str, Any]] = []
        self.read_s = read_s
        self.task: asyncio.Task[None] | None = None

    def watch(self, symbol: str = "CLX5", depth: int = 10, push_ms: int = 10) -> "Client":
        self.task = asyncio.create_task(current_hub().watch(symbol, depth, push_ms, self.send))
        return self

    async def send(self, text: str) -> None:
        self.books.append(json.loads(text))
        await asyncio.sleep(self.read_s)

    async def until(self, condition: Callable[[list[dict[str, Any]]], Any]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition(self.books):
                await asyncio.sleep(0.005)

    def seqs(self) -> list[int]:
        return [book["seq"] for book in self.books]


async def subscribed(hub: Hub, symbol: str = "CLX5") -> None:
    """Wait until Redis knows of the hub's subscription."""
    async with asyncio.timeout(WITHIN_S):
        while not hub._channel or f"asgi__group__book.{symbol}" not in _subscriptions():
            await asyncio.sleep(0.005)


def _subscriptions() -> set[str]:
    from channels.layers import get_channel_layer

    return set(get_channel_layer()._get_layer()._shards[0]._subscribed_to)


@pytest.fixture(autouse=True)
def empty_redis(redis_client: redis.Redis) -> redis.Redis:
    return redis_client


async def test_two_depths_of_one_push_are_cut_for_each_client() -> None:
    shallow, deep = Client().watch(depth=1), Client().watch(depth=200)
    await subscribed(current_hub())
    await push(snapshot(7))
    await shallow.until(len)
    await deep.until(len)
    assert [len(shallow.books[0][side]) for side in ("bids", "asks")] == [1, 1]
    assert [len(deep.books[0][side]) for side in ("bids", "asks")] == [100, 100]
    assert shallow.books[0]["bids"] == [[64.83, 1, 1]]
    assert deep.books[0]["asks"][:2] == [[64.84, 1, 1], [64.85, 2, 1]]


async def test_text_is_joined_once_for_all_clients_of_a_depth() -> None:
    clients = [Client().watch(depth=5) for _ in range(20)]
    await subscribed(current_hub())
    await push(snapshot(1))
    for client in clients:
        await client.until(len)
    topic = current_hub().topics["CLX5"]
    assert list(topic._texts) == [5]
    assert len(topic.watchers) == 20


async def test_a_slow_client_skips_books_and_ends_on_the_newest() -> None:
    slow, fast = Client(read_s=0.05).watch(), Client().watch()
    await subscribed(current_hub())
    for seq in range(1, 41):
        await push(snapshot(seq))
        await asyncio.sleep(0.003)
    await slow.until(lambda books: books and books[-1]["seq"] == 40)
    await fast.until(lambda books: books and books[-1]["seq"] == 40)
    assert slow.seqs() == sorted(set(slow.seqs()))
    assert len(slow.books) < 40


async def test_push_ms_bounds_how_often_a_client_is_sent_to() -> None:
    rare = Client().watch(push_ms=5000)
    often = Client().watch(push_ms=10)
    await subscribed(current_hub())
    for seq in range(1, 6):
        await push(snapshot(seq))
        await often.until(lambda books, seq=seq: books and books[-1]["seq"] == seq)
    assert often.seqs() == [1, 2, 3, 4, 5]
    assert rare.seqs() == [1]


async def test_a_book_that_did_not_change_is_not_sent_again(empty_redis: redis.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    keep(empty_redis, snapshot(3))
    client = Client().watch()
    await client.until(len)
    await asyncio.sleep(0.15)
    assert client.seqs() == [3]


async def test_a_client_that_joins_between_pushes_gets_the_book_that_redis_keeps(empty_redis: redis.Redis) -> None:
    keep(empty_redis, snapshot(9))
    client = Client().watch()
    await client.until(len)
    assert client.seqs() == [9]


async def test_a_second_client_gets_the_hubs_newest_book_at_once(empty_redis: redis.Redis) -> None:
    keep(empty_redis, snapshot(1))
    first = Client().watch()
    await subscribed(current_hub())
    await push(snapshot(2))
    await first.until(lambda books: books and books[-1]["seq"] == 2)
    empty_redis.flushdb()
    second = Client().watch()
    await second.until(len)
    assert second.seqs() == [2]


async def test_a_push_that_never_arrived_is_repaired_from_redis(empty_redis: redis.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.05)
    client = Client().watch()
    await subscribed(current_hub())
    await push(snapshot(1))
    await client.until(len)
    keep(empty_redis, snapshot(5))
    await client.until(lambda books: books[-1]["seq"] == 5)


async def test_symbols_do_not_mix(empty_redis: redis.Redis) -> None:
    oil, index = Client().watch("CLX5"), Client().watch("ESZ5")
    await subscribed(current_hub(), "CLX5")
    await subscribed(current_hub(), "ESZ5")
    await push(snapshot(1, symbol="CLX5"))
    await push(snapshot(2, symbol="ESZ5", bid=660000, ask=660025))
    await oil.until(len)
    await index.until(len)
    assert {book["symbol"] for book in oil.books} == {"CLX5"}
    assert {book["symbol"] for book in index.books} == {"ESZ5"}


async def test_a_topic_that_nobody_watches_is_dropped_and_can_come_back(
    empty_redis: redis.Redis, monkeypatch: Any
) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    client = Client().watch()
    await subscribed(current_hub())
    assert client.task is not None
    client.task.cancel()
    async with asyncio.timeout(WITHIN_S):
        while current_hub().topics or "asgi__group__book.CLX5" in _subscriptions():
            await asyncio.sleep(0.01)
    again = Client().watch()
    await subscribed(current_hub())
    await push(snapshot(4))
    await again.until(len)
    assert again.seqs() == [4]


async def test_one_layer_subscription_serves_every_client_of_a_symbol() -> None:
    hub = current_hub()
    clients = [Client().watch(depth=depth) for depth in range(1, 30)]
    await subscribed(hub)
    assert len(_subscriptions()) == 2  # the hub's own channel and the symbol's group
    assert len(clients) == len(hub.topics["CLX5"].watchers)


async def test_a_failing_send_ends_only_its_own_watch() -> None:
    async def broken(text: str) -> None:
        raise ConnectionError("gone")

    send: Callable[[str], Awaitable[None]] = broken
    healthy = Client().watch()
    task = asyncio.create_task(current_hub().watch("CLX5", 1, 10, send))
    await subscribed(current_hub())
    await push(snapshot(1))
    await healthy.until(len)
    with pytest.raises(ConnectionError):
        await task
    await push(snapshot(2))
    await healthy.until(lambda books: books[-1]["seq"] == 2)
    assert len(current_hub().topics["CLX5"].watchers) == 1
