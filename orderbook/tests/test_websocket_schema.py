"""docs/websocket.schema.json against real messages, the requests of docs/websocket.md, and the limits of the code."""

import json
from typing import Any

import jsonschema
import pytest
import redis
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User

from orderbook.consumers import live_socket
from orderbook.socket_protocol import ACKS_RANGE, CHANNELS, DEPTH_RANGE, MAX_SYMBOL, PUSH_MS_RANGE, Close
from orderbook.tests.books import keep, message, push, snapshot
from orderbook.tests.test_topic import trade
from orderbook.tests.websocket_page import DOCS, PAGE, blocks
from orderbook.topic import Topic

SCHEMA = json.loads((DOCS / "websocket.schema.json").read_text())


def checker(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{name}"}]})


def test_the_schema_is_one_and_knows_the_limits_of_the_code() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    definitions = SCHEMA["$defs"]
    for name, (low, high) in (("depth", DEPTH_RANGE), ("pushMs", PUSH_MS_RANGE), ("acks", ACKS_RANGE)):
        assert (definitions[name]["minimum"], definitions[name]["maximum"]) == (low, high)
    assert definitions["symbol"]["maxLength"] == MAX_SYMBOL
    assert definitions["channels"]["items"]["enum"] == list(CHANNELS)


def test_the_requests_of_the_page_are_in_the_schema() -> None:
    requests = [json.loads(line) for line in blocks("json")[0].splitlines()]
    for request in requests:
        checker("fromClient").validate(request)
    assert {request["type"] for request in requests} == {"subscribe", "update", "unsubscribe", "ack"}


def test_every_close_code_and_error_code_is_on_the_page() -> None:
    for code in Close:
        assert f"| {code.value} |" in PAGE
    for code in SCHEMA["$defs"]["error"]["properties"]["code"]["enum"]:
        assert f"`{code}`" in PAGE


async def test_what_a_client_is_sent_is_in_the_schema(redis_client: redis.Redis) -> None:
    keep(redis_client, snapshot(1, bid=None))
    communicator = WebsocketCommunicator(live_socket, "/ws")
    communicator.scope["user"] = User(username="ann")
    await communicator.connect()
    found = [await communicator.receive_json_from()]
    for request in (
        {"type": "subscribe", "push_ms": 10, "channels": list(CHANNELS), "acks": 50},
        {"type": "update", "depth": 201},
        {"type": "dance"},
    ):
        await communicator.send_json_to(request)
    while not {"hello", "ack", "error", "book", "bbo", "status"} <= {told["type"] for told in found}:
        found.append(await communicator.receive_json_from(timeout=5))
    while await communicator.receive_nothing(0.05):  # until the hub is subscribed a push reaches nobody
        await push(snapshot(2))
    await communicator.send_json_to({"type": "unsubscribe"})
    while found[-1]["type"] != "ack":
        found.append(await communicator.receive_json_from(timeout=5))
    await communicator.disconnect()
    for told in found:
        checker("fromServer").validate(told)


def test_trades_and_statuses_without_a_book_are_in_the_schema() -> None:
    topic = Topic("CLX5")
    checker("fromServer").validate(json.loads(topic.status_frame().text))
    topic.tell(("engine", "gone"))
    topic.take(message(snapshot(1), [trade(1), trade(2)], 2))
    for text in (topic.status_frame().text, topic.frame("trades", 1, 2).text, topic.frame("book", 5, 1).text):
        checker("fromServer").validate(json.loads(text))


@pytest.mark.parametrize("change", [{"seq": "1"}, {"bids": [["64.83", 1, 1]]}, {"published_ns": 1}, {"conflated": -1}])
def test_the_schema_refuses_what_is_not_so(change: dict[str, Any]) -> None:
    topic = Topic("CLX5")
    topic.take(message(snapshot(1)))
    book = json.loads(topic.frame("book", 5, 1).text)
    checker("fromServer").validate(book)
    assert not checker("fromServer").is_valid(book | change)
