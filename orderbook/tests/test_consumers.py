"""The consumer behind `/ws`: admission, requests, answers, books."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User

from history.tests.rows import instrument
from orderbook.consumers import BookConsumer
from orderbook.tests.books import keep, push, snapshot


@pytest.fixture(autouse=True)
def empty_redis(redis_client: redis.Redis) -> redis.Redis:
    return redis_client


def socket(user: Any) -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(BookConsumer.as_asgi(), "/ws")
    communicator.scope["user"] = user
    return communicator


@pytest.fixture
async def ws() -> AsyncIterator[WebsocketCommunicator]:
    """An accepted connection whose greeting was read."""
    communicator = socket(User(username="ann"))
    connected, _ = await communicator.connect()
    assert connected
    assert (await communicator.receive_json_from())["type"] == "hello"
    yield communicator
    await communicator.disconnect()


async def ask(ws: WebsocketCommunicator, **message: Any) -> Any:
    await ws.send_json_to(message)
    return await ws.receive_json_from()


async def test_a_stranger_is_refused_before_accept() -> None:
    connected, _ = await socket(AnonymousUser()).connect()
    assert not connected


async def test_public_read_lets_anyone_in(settings: Any) -> None:
    settings.PUBLIC_READ = True
    communicator = socket(AnonymousUser())
    assert (await communicator.connect())[0]
    await communicator.disconnect()


async def test_the_greeting_names_the_defaults(settings: Any) -> None:
    settings.SYMBOL, settings.DEPTH, settings.PUSH_MS = "ESZ5", 20, 1
    communicator = socket(User(username="ann"))
    await communicator.connect()
    hello = await communicator.receive_json_from()
    assert (hello["symbol"], hello["depth"], hello["push_ms"], hello["protocol"]) == ("ESZ5", 20, 10, 1)
    await communicator.disconnect()


async def test_a_subscription_is_confirmed_and_the_current_book_follows(
    ws: WebsocketCommunicator, empty_redis: redis.Redis
) -> None:
    keep(empty_redis, snapshot(5))
    assert await ask(ws, type="subscribe", symbol="CLX5", depth=2, push_ms=10) == {
        "type": "ack",
        "symbol": "CLX5",
        "depth": 2,
        "push_ms": 10,
    }
    book = json.loads(await ws.receive_from(), parse_float=str)
    assert book["type"] == "book" and book["symbol"] == "CLX5"
    assert book["ts"] == "2025-09-24T19:30:00.001385399Z" and book["ts_ns"] == "1758742200001385399"
    assert book["bids"] == [["64.83", 1, 1], ["64.82", 2, 1]]
    assert book["asks"] == [["64.84", 1, 1], ["64.85", 2, 1]]
    assert (book["run_id"], book["seq"], book["records"], book["state"]) == ("run-1", 5, 50, "ok")


async def test_an_update_changes_depth_and_keeps_the_symbol(
    ws: WebsocketCommunicator, empty_redis: redis.Redis
) -> None:
    keep(empty_redis, snapshot(5))
    await ask(ws, type="subscribe", depth=2, push_ms=5000)
    assert len((await ws.receive_json_from())["bids"]) == 2
    assert (await ask(ws, type="update", depth=7)) == {"type": "ack", "symbol": "CLX5", "depth": 7, "push_ms": 5000}
    assert len((await ws.receive_json_from())["bids"]) == 7


async def test_after_unsubscribe_no_book_comes(ws: WebsocketCommunicator, empty_redis: redis.Redis) -> None:
    keep(empty_redis, snapshot(1))
    await ask(ws, type="subscribe", push_ms=10)
    assert (await ws.receive_json_from())["seq"] == 1
    while await ws.receive_nothing(0.05):  # until the hub is subscribed a push reaches nobody
        await push(snapshot(2))
    assert (await ws.receive_json_from())["seq"] == 2
    assert (await ask(ws, type="unsubscribe"))["symbol"] is None
    await push(snapshot(3))
    assert await ws.receive_nothing(0.2)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "bad_json"),
        ('{"type":"dance"}', "unknown_type"),
        ('{"type":"subscribe","depth":0}', "out_of_range"),
        ('{"type":"subscribe","push_ms":9}', "out_of_range"),
        ('{"type":"update","depth":9}', "not_subscribed"),
    ],
)
async def test_a_bad_message_is_answered_and_the_socket_stays(ws: WebsocketCommunicator, text: str, code: str) -> None:
    await ws.send_to(text_data=text)
    answer = await ws.receive_json_from()
    assert (answer["type"], answer["code"]) == ("error", code)
    assert answer["detail"]
    assert (await ask(ws, type="subscribe"))["type"] == "ack"


async def test_a_binary_message_is_answered(ws: WebsocketCommunicator) -> None:
    await ws.send_to(bytes_data=b"\x00\x01")
    assert (await ws.receive_json_from())["code"] == "bad_json"


async def test_a_message_beyond_16_kib_closes_the_socket(ws: WebsocketCommunicator) -> None:
    await ws.send_to(text_data='{"type":"subscribe","symbol":"' + "X" * 17_000 + '"}')
    assert (await ws.receive_json_from())["code"] == "too_big"
    assert await ws.receive_output() == {"type": "websocket.close", "code": 1009}


@pytest.mark.django_db(transaction=True)
async def test_an_unknown_symbol_is_refused_and_the_old_subscription_stays(
    ws: WebsocketCommunicator, empty_redis: redis.Redis
) -> None:
    keep(empty_redis, snapshot(1))
    await ask(ws, type="subscribe", push_ms=10)
    await ws.receive_json_from()
    answer = await ask(ws, type="update", symbol="NOPE")
    assert (answer["code"], "NOPE" in answer["detail"]) == ("unknown_symbol", True)
    keep(empty_redis, snapshot(2))
    await push(snapshot(2))
    assert (await ws.receive_json_from(timeout=3))["seq"] == 2


@pytest.fixture
def registered(transactional_db: None) -> None:
    instrument("ESZ5")


async def test_a_registered_symbol_can_be_watched_before_its_first_book(
    registered: None, ws: WebsocketCommunicator, empty_redis: redis.Redis
) -> None:
    assert (await ask(ws, type="subscribe", symbol="ESZ5", push_ms=10))["symbol"] == "ESZ5"
    keep(empty_redis, snapshot(1, symbol="ESZ5"))
    assert (await ws.receive_json_from(timeout=3))["symbol"] == "ESZ5"
