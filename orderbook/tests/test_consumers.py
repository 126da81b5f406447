"""The consumer behind `/ws`: admission, requests, answers, books."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError, InterfaceError, connections

from history.tests.rows import instrument
from orderbook import consumers
from orderbook.consumers import live_socket
from orderbook.live import group_name
from orderbook.socket_counts import socket_counts
from orderbook.socket_protocol import MESSAGES_PER_S
from orderbook.tests.books import keep, message, push, snapshot
from orderbook.viewer import Viewer
from orderbook.visitors import place_of


@pytest.fixture(autouse=True)
def empty_redis(redis_client: redis.Redis) -> redis.Redis:
    return redis_client


def socket(user: Any) -> WebsocketCommunicator:
    communicator = WebsocketCommunicator(live_socket, "/ws")
    communicator.scope |= {"user": user, "client": ["192.0.2.7", 4711]}
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
    await sync_to_async(connections.close_all)()  # the communicator keeps Channels from closing them


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
    assert (hello["symbol"], hello["depth"], hello["push_ms"], hello["protocol"]) == ("ESZ5", 20, 10, 2)
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
        "channels": ["book"],
        "acks": 0,
        "symbols": ["CLX5"],
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
    await ask(ws, type="subscribe", depth=2, push_ms=50)
    assert len((await ws.receive_json_from())["bids"]) == 2
    answer = await ask(ws, type="update", depth=7)
    assert (answer["symbol"], answer["depth"], answer["push_ms"]) == ("CLX5", 7, 50)
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
    closed = await ws.receive_output()
    assert (closed["type"], closed["code"]) == ("websocket.close", 1009)


async def test_a_message_is_measured_in_bytes(ws: WebsocketCommunicator) -> None:
    await ws.send_to(text_data='{"type":"subscribe","symbol":"' + "é" * 9_000 + '"}')
    assert (await ws.receive_json_from())["code"] == "too_big"
    assert (await ws.receive_output())["code"] == 1009


@pytest.mark.parametrize("fault", [DatabaseError, InterfaceError, None])
async def test_without_the_database_a_new_symbol_is_for_later_and_everything_else_goes_on(
    ws: WebsocketCommunicator, empty_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch, fault: type[Exception] | None
) -> None:
    done = threading.Event()

    def look_up(symbol: str) -> bool:
        if fault is not None:
            raise fault("the connection is closed")
        done.wait(10)  # or it does not answer
        return True

    monkeypatch.setattr(consumers, "is_known", look_up)
    monkeypatch.setattr(consumers, "LOOK_UP_WITHIN_S", 0.05)
    keep(empty_redis, snapshot(1))
    await ask(ws, type="subscribe", push_ms=10)
    assert (await ws.receive_json_from())["seq"] == 1
    answer = await ask(ws, type="subscribe", symbol="ESZ5")
    done.set()
    assert (answer["code"], "ESZ5" in answer["detail"]) == ("try_later", True)
    assert (await ask(ws, type="update", depth=3))["symbols"] == ["CLX5"]


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


async def test_one_socket_follows_several_symbols_and_channels(
    registered: None, ws: WebsocketCommunicator, empty_redis: redis.Redis
) -> None:
    keep(empty_redis, snapshot(1))
    keep(empty_redis, snapshot(1, symbol="ESZ5", bid=660000, ask=660025))
    assert (await ask(ws, type="subscribe", push_ms=10))["symbols"] == ["CLX5"]
    assert (await ws.receive_json_from())["symbol"] == "CLX5"
    answer = await ask(ws, type="subscribe", symbol="ESZ5", push_ms=10, channels=["bbo", "status"])
    assert (answer["symbols"], answer["channels"]) == (["CLX5", "ESZ5"], ["bbo", "status"])
    found = [await ws.receive_json_from(timeout=3) for _ in range(2)]
    assert {(told["type"], told["symbol"]) for told in found} == {("bbo", "ESZ5"), ("status", "ESZ5")}
    assert (await ask(ws, type="unsubscribe", symbol="CLX5"))["symbols"] == ["ESZ5"]


async def test_the_trades_of_a_push_come_on_their_channel(ws: WebsocketCommunicator, empty_redis: redis.Redis) -> None:
    keep(empty_redis, snapshot(1))
    await ask(ws, type="subscribe", push_ms=10, channels=["trades"])
    text = '[64.83,5,"B","1758742200001385399"]'
    while await ws.receive_nothing(0.05):  # until the hub is subscribed a push reaches nobody
        await _send(message(snapshot(2), [text], 1))
    told = await ws.receive_json_from()
    assert (told["type"], told["trades"], told["trade_count"]) == ("trades", [json.loads(text)], 1)


async def _send(book: Any) -> None:
    await get_channel_layer().group_send(group_name(book["symbol"]), book)


async def test_a_client_that_acknowledges_goes_on_and_one_that_does_not_stands(
    ws: WebsocketCommunicator, empty_redis: redis.Redis
) -> None:
    keep(empty_redis, snapshot(1))
    await ask(ws, type="subscribe", push_ms=10, acks=1)
    assert (await ws.receive_json_from())["seq"] == 1
    for seq in range(2, 6):
        keep(empty_redis, snapshot(seq))
        await push(snapshot(seq))
    assert await ws.receive_nothing(0.3)
    await ws.send_json_to({"type": "ack", "seq": 1})
    book = await ws.receive_json_from(timeout=3)
    assert book["seq"] == 5


async def test_more_than_20_messages_a_second_are_refused_and_a_flood_is_closed(ws: WebsocketCommunicator) -> None:
    for _ in range(3 * MESSAGES_PER_S):
        await ws.send_json_to({"type": "unsubscribe"})
    outputs = []
    while (output := await ws.receive_output())["type"] == "websocket.send":
        outputs.append(json.loads(output["text"]))
    answers = [told["type"] for told in outputs]
    assert MESSAGES_PER_S <= answers.count("ack") < 2 * MESSAGES_PER_S
    assert {told["code"] for told in outputs if told["type"] == "error"} == {"too_many_messages"}
    assert answers.count("error") == MESSAGES_PER_S
    assert (output["code"], output["reason"]) == (4029, "a client sends at most 20 messages a second")


@pytest.mark.parametrize("limit", ["WS_MAX_CLIENTS", "WS_MAX_PER_ADDRESS", "WS_MAX_PER_USER"])
async def test_one_client_too_many_is_told_so_and_closed_and_leaves_its_place(settings: Any, limit: str) -> None:
    setattr(settings, limit, 1)
    ann = User(pk=7, username="ann")
    first, second = socket(ann), socket(ann)
    assert (await first.connect())[0] and (await second.connect())[0]
    assert (await first.receive_json_from())["type"] == "hello"
    closed = await second.receive_output()
    assert (closed["code"], "1 are connected" in closed["reason"]) == (4013, True)
    await second.disconnect()
    await first.disconnect()
    third = socket(ann)
    assert (await third.connect())[0]
    assert (await third.receive_json_from())["type"] == "hello"
    await third.disconnect()


async def test_an_owner_of_many_ipv6_addresses_has_one_place(settings: Any) -> None:
    settings.WS_MAX_PER_ADDRESS = 1
    clients = [socket(User(pk=number, username="ann")) for number in (1, 2, 3)]
    for client, address in zip(clients, ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"), strict=True):
        client.scope["client"] = [address, 4711]
        assert (await client.connect())[0]
    assert [(await client.receive_output()).get("code") for client in clients] == [None, 4013, None]
    for client in clients:
        await client.disconnect()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_an_address_counts_as_far_as_it_is_given_out(address: str, place: str) -> None:
    assert place_of(address) == place


async def test_what_happened_is_counted() -> None:
    before = socket_counts()
    await socket(AnonymousUser()).connect()
    communicator = socket(User(username="ann"))
    await communicator.connect()
    assert socket_counts()["clients"] == before["clients"] + 1
    await communicator.disconnect(code=1001)
    after = socket_counts()
    assert after["clients"] == before["clients"]
    assert after["closed"]["1001"] == before["closed"].get("1001", 0) + 1
    assert after["refused"]["forbidden"] == before["refused"].get("forbidden", 0) + 1
    assert after["admitted"] == before["admitted"] + 1


async def test_our_own_close_is_counted_where_it_is_not_answered(ws: WebsocketCommunicator) -> None:
    before = socket_counts()["closed"]
    await ws.send_to(text_data="x" * 17_000)
    assert (await ws.receive_json_from())["code"] == "too_big"
    await ws.disconnect(code=1006)
    assert socket_counts()["closed"] == before | {"1009": before.get("1009", 0) + 1}


async def test_nothing_is_left_of_a_client_that_has_gone_without_a_collection_of_garbage(
    empty_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Viewer]] = []

    def noted(*arguments: Any) -> Viewer:
        viewer = Viewer(*arguments)
        made.append(weakref.ref(viewer))
        return viewer

    monkeypatch.setattr(consumers, "Viewer", noted)
    keep(empty_redis, snapshot(1))
    gc.disable()
    try:
        communicator = socket(User(username="ann"))
        await communicator.connect()
        await communicator.receive_json_from()
        await ask(communicator, type="subscribe", push_ms=10)
        assert (await communicator.receive_json_from())["seq"] == 1
        await communicator.disconnect()
        async with asyncio.timeout(30):
            while made[0]() is not None:
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
