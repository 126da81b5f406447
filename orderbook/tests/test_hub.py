"""Fan-out inside one process, over the real Redis."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from channels.layers import get_channel_layer

from orderbook import hub as hub_module
from orderbook.hub import Hub, current_hub
from orderbook.outlet import Frame
from orderbook.rounds import BROKEN
from orderbook.socket_protocol import Wish
from orderbook.tests.books import keep, push, snapshot
from orderbook.tests.outlets import Paper
from orderbook.viewer import Subscription, Viewer

WITHIN_S = 5


class Client:
    """Something that follows a symbol, and what it was sent."""

    def __init__(
        self,
        symbol: str = "CLX5",
        depth: int = 10,
        push_ms: int = 10,
        paper: Paper | None = None,
        channels: tuple[str, ...] = ("book",),
    ) -> None:
        self.paper = paper or Paper()
        self.viewer = Viewer(self.paper, patience_s=60)
        wish = Wish(symbol, depth, push_ms, channels)
        self.subscription = Subscription(self.viewer, current_hub().topic(symbol), wish)
        current_hub().follow(self.subscription)

    @property
    def books(self) -> list[dict[str, Any]]:
        return self.paper.books

    @property
    def seqs(self) -> list[int]:
        return self.paper.seqs

    def leave(self) -> None:
        current_hub().leave(self.subscription)

    async def until(self, condition: Callable[[list[dict[str, Any]]], Any]) -> None:
        await until(lambda: condition(self.books))


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.005)


async def subscribed(hub: Hub, symbol: str = "CLX5") -> None:
    """Wait until Redis knows of the hub's subscription."""
    await until(lambda: f"book.{symbol}" in hub._pushes.groups)


def _subscriptions() -> set[str]:
    return set(get_channel_layer()._get_layer()._shards[0]._subscribed_to)


@pytest.fixture(autouse=True)
def empty_redis(redis_client: redis.Redis) -> redis.Redis:
    return redis_client


async def test_two_depths_of_one_push_are_cut_for_each_client() -> None:
    shallow, deep = Client(depth=1), Client(depth=200)
    await subscribed(current_hub())
    await push(snapshot(7))
    await shallow.until(len)
    await deep.until(len)
    assert [len(shallow.books[0][side]) for side in ("bids", "asks")] == [1, 1]
    assert [len(deep.books[0][side]) for side in ("bids", "asks")] == [100, 100]
    assert shallow.books[0]["bids"] == [[64.83, 1, 1]]
    assert deep.books[0]["asks"][:2] == [[64.84, 1, 1], [64.85, 2, 1]]


async def test_a_frame_is_made_once_for_all_clients_of_a_depth(monkeypatch: Any) -> None:
    clients = [Client(depth=5) for _ in range(20)] + [Client(depth=6)]
    made: list[str] = []
    monkeypatch.setattr("orderbook.topic.Frame", lambda text: made.append(text) or Frame(text))
    await subscribed(current_hub())
    await push(snapshot(1))
    for client in clients:
        await client.until(len)
    assert sum('"type":"book"' in text for text in made) == 2
    assert len(made) <= 4  # and that nobody renews the book, and that somebody does


async def test_a_slow_client_skips_books_and_ends_on_the_newest() -> None:
    slow, fast = Client(), Client()
    await subscribed(current_hub())
    for seq in range(1, 41):
        slow.paper.unsent = seq % 7
        await push(snapshot(seq))
        await fast.until(lambda books, seq=seq: books and books[-1]["seq"] == seq)
    slow.paper.unsent = 0
    await slow.until(lambda books: books[-1]["seq"] == 40)  # though no push comes any more
    assert slow.seqs == sorted(set(slow.seqs))
    assert len(slow.books) < 40
    assert len(slow.books) + sum(book["conflated"] for book in slow.books) == 40 - (slow.seqs[0] - 1)


async def test_push_ms_bounds_how_often_a_client_is_sent_to() -> None:
    rare, often = Client(push_ms=5000), Client(push_ms=10)
    await subscribed(current_hub())
    for seq in range(1, 6):
        await push(snapshot(seq))
        await often.until(lambda books, seq=seq: books and books[-1]["seq"] == seq)
    assert often.seqs == [1, 2, 3, 4, 5]
    assert rare.seqs == [1]


async def test_the_newest_book_goes_out_when_push_ms_is_over_though_no_push_comes() -> None:
    rare, often = Client(push_ms=200), Client(push_ms=10)
    await subscribed(current_hub())
    for seq in (1, 2, 3):
        await push(snapshot(seq))
        await often.until(lambda books, seq=seq: books and books[-1]["seq"] == seq)
    await rare.until(lambda books: books[-1]["seq"] == 3)
    assert rare.seqs == [1, 3]


async def test_a_book_that_did_not_change_is_not_sent_again(empty_redis: redis.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    keep(empty_redis, snapshot(3))
    client = Client()
    await client.until(len)
    await asyncio.sleep(0.15)
    assert client.seqs == [3]


async def test_a_client_that_joins_between_pushes_gets_the_book_that_redis_keeps(empty_redis: redis.Redis) -> None:
    keep(empty_redis, snapshot(9))
    client = Client()
    await client.until(len)
    assert client.seqs == [9]


async def test_a_second_client_gets_the_hubs_newest_book_at_once(empty_redis: redis.Redis) -> None:
    keep(empty_redis, snapshot(1))
    first = Client()
    await subscribed(current_hub())
    await push(snapshot(2))
    await first.until(lambda books: books and books[-1]["seq"] == 2)
    empty_redis.flushdb()
    second = Client()
    await second.until(len)
    assert second.seqs == [2]


async def test_a_push_that_never_arrived_is_repaired_from_redis(empty_redis: redis.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.05)
    client = Client()
    await subscribed(current_hub())
    await push(snapshot(1))
    await client.until(len)
    keep(empty_redis, snapshot(5))
    await client.until(lambda books: books[-1]["seq"] == 5)


async def test_a_book_that_nobody_renews_is_told_to_be_stale_until_somebody_does(
    empty_redis: redis.Redis, monkeypatch: Any
) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    monkeypatch.setattr(hub_module, "SILENT_S", 0.3)
    keep(empty_redis, snapshot(1), lives_s=15)
    client = Client()
    await until(lambda: client.paper.messages[-1:] and client.paper.messages[-1].get("status") == "stale")
    assert [message["type"] for message in client.paper.messages] == ["book", "status"]
    assert client.paper.messages[-1]["reason"] == "engine"
    keep(empty_redis, snapshot(1), lives_s=15)
    await until(lambda: client.paper.messages[-1].get("status") == "live")
    assert client.seqs == [1]


async def test_a_symbol_with_neither_book_nor_engine_is_not_told_to_be_live() -> None:
    client = Client(channels=("book", "status"))
    await until(lambda: client.paper.messages)
    assert [(told["type"], told["status"], told["reason"], told["seq"]) for told in client.paper.messages] == [
        ("status", "stale", "engine", None)
    ]
    await subscribed(current_hub())
    await push(snapshot(1))
    await until(lambda: len(client.paper.messages) == 3)
    assert [told.get("status") for told in client.paper.messages] == ["stale", "live", None]


async def test_seq_only_grows_though_an_older_book_is_pushed_or_kept(
    empty_redis: redis.Redis, monkeypatch: Any
) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    client = Client()
    await subscribed(current_hub())
    for seq, kept in ((5, 4), (5, 3), (3, 2), (6, 1)):
        keep(empty_redis, snapshot(kept))
        await push(snapshot(seq))
        await asyncio.sleep(0.06)  # some looks
    await client.until(lambda books: books and books[-1]["seq"] == 6)
    assert client.seqs in ([5, 6], [4, 5, 6])


@pytest.mark.parametrize("bad", [7, {"type": "book.update"}, {"type": "book.update", "symbol": "CLX5", "seq": 9}])
async def test_a_message_that_is_not_understood_is_passed_over(bad: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    hub = current_hub()
    await subscribed(hub)
    channel = hub._pushes._channel
    await push(snapshot(1))
    await client.until(len)
    for _ in range(3):
        await get_channel_layer().group_send("book.CLX5", bad)
    await push(snapshot(2))
    await client.until(lambda books: books[-1]["seq"] == 2)
    assert hub._pushes._channel == channel
    assert list(get_channel_layer()._get_layer().channels) == [channel]
    assert caplog.text.count("not understood") == 1


async def test_a_task_of_the_hub_that_fails_says_so_and_begins_again(
    monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    client = Client()
    rounds = current_hub()._rounds
    await subscribed(current_hub())
    whole = rounds._round
    failures = [ZeroDivisionError("a fault")]

    async def fail_once() -> float | None:
        if failures:
            rounds._waiting = {}
            raise failures.pop()
        return await whole()

    monkeypatch.setattr(rounds, "_round", fail_once)
    await push(snapshot(1))
    await client.until(len)  # though no other push comes
    assert client.seqs == [1]
    assert "begins again" in caplog.text and "a fault" in caplog.text


async def test_symbols_do_not_mix() -> None:
    oil, index = Client("CLX5"), Client("ESZ5")
    await subscribed(current_hub(), "CLX5")
    await subscribed(current_hub(), "ESZ5")
    await push(snapshot(1, symbol="CLX5"))
    await push(snapshot(2, symbol="ESZ5", bid=660000, ask=660025))
    await oil.until(len)
    await index.until(len)
    assert {book["symbol"] for book in oil.books} == {"CLX5"}
    assert {book["symbol"] for book in index.books} == {"ESZ5"}


async def test_a_topic_that_nobody_follows_is_dropped_and_can_come_back(monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "REFRESH_S", 0.02)
    client = Client()
    await subscribed(current_hub())
    client.leave()
    await until(lambda: not current_hub().topics and "asgi__group__book.CLX5" not in _subscriptions())
    again = Client()
    await subscribed(current_hub())
    await push(snapshot(4))
    await again.until(len)
    assert again.seqs == [4]
    assert client.seqs == []


async def test_one_layer_subscription_serves_every_client_of_a_symbol() -> None:
    hub = current_hub()
    clients = [Client(depth=depth) for depth in range(1, 30)]
    await subscribed(hub)
    assert len(_subscriptions()) == 2  # the hub's own channel and the symbol's group
    await push(snapshot(1))
    for client in clients:
        await client.until(len)


async def test_a_failing_send_ends_only_its_own_client(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Paper):
        def send(self, frame: Frame) -> None:
            raise ConnectionError("gone")

    healthy, broken = Client(), Client(paper=Broken())
    await subscribed(current_hub())
    await push(snapshot(1))
    await healthy.until(len)
    await until(lambda: broken.paper.closed)
    assert broken.paper.closed[0] == BROKEN
    await push(snapshot(2))
    await healthy.until(lambda books: books[-1]["seq"] == 2)
    assert "ended with an error" in caplog.text


async def test_a_long_round_lets_others_have_their_turn() -> None:
    turns = 0

    class Slow(Paper):
        def send(self, frame: Frame) -> None:
            deadline = asyncio.get_running_loop().time() + 0.001
            while asyncio.get_running_loop().time() < deadline:
                pass
            super().send(frame)

    async def count_turns() -> None:
        nonlocal turns
        while not clients[-1].books:
            turns += 1
            await asyncio.sleep(0)

    clients = [Client(paper=Slow()) for _ in range(50)]
    await subscribed(current_hub())
    await push(snapshot(1))
    await clients[0].until(len)
    await count_turns()
    assert turns >= 5
