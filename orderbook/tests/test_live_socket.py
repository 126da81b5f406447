"""`/ws` over a real daphne, as programs reach it: keys, origins, and servers that go away."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from batonic_site.services.valkey import Valkey
from batonic_site.services.valkey import connect as connect_valkey
from batonic_site.tests.fixtures import Spawn
from orderbook.tests.books import keep, publish, snapshot
from replay.keys import create_key

pytestmark = pytest.mark.django_db(transaction=True)


def open_socket(base: str, key: str, path: str = "/ws", **options: Any) -> ClientConnection:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(base.replace("http", "ws", 1) + path, additional_headers=headers, **options)


def read(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(timeout=10))


def subscribe(socket: ClientConnection, **wish: Any) -> None:
    assert read(socket)["type"] == "hello"
    socket.send(json.dumps({"type": "subscribe", **wish}))
    assert read(socket)["type"] == "ack"


@pytest.fixture
def key(reader: Any) -> str:
    return create_key(reader, "bot", ["read"])[1]


@pytest.mark.parametrize("path", ["/ws", "/ws/"])
def test_a_program_with_a_key_gets_the_book(web: str, key: str, redis_client: redis.Redis, path: str) -> None:
    keep(redis_client, snapshot(4))
    with open_socket(web, key, path) as socket:
        subscribe(socket, depth=3, push_ms=10)
        assert (book := read(socket))["seq"] == 4
        assert len(book["bids"]) == 3
        publish(redis_client, [snapshot(5)])
        assert read(socket)["seq"] == 5


@pytest.mark.parametrize("wrong", ["", "db-wrong"])
def test_without_a_key_the_door_stays_shut(web: str, wrong: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        open_socket(web, wrong)
    assert refused.value.response.status_code == 403


def test_a_key_without_the_read_scope_is_refused(web: str, reader: Any) -> None:
    with pytest.raises(InvalidStatus):
        open_socket(web, create_key(reader, "feed only", ["feed"])[1])


def test_a_page_of_another_site_is_refused(web: str, key: str) -> None:
    with pytest.raises(InvalidStatus):
        open_socket(web, key, origin="https://evil.example")


def test_redis_may_restart_under_open_sockets(
    spawn: Spawn, process_env: dict[str, str], key: str, tmp_path: Path, wait_for: Any
) -> None:
    server = Valkey(tmp_path / "other")
    server.start()
    try:
        base = f"http://127.0.0.1:{process_env['WEB_PORT']}"
        spawn("runweb", env=process_env | {"REDIS_URL": server.url})
        socket = wait_for(lambda: _try_open(base, key), what="daphne")
        with socket, connect_valkey(server.url) as client:
            keep(client, snapshot(1))
            subscribe(socket, push_ms=10)
            assert read(socket)["seq"] == 1
            server.stop()
            server.start()
            publish(client, [snapshot(2, run_id="run-2")])
            assert read(socket)["run_id"] == "run-2"
            wait_for(lambda: client.pubsub_numsub("asgi__group__book.CLX5")[0][1], what="the new subscription")
            publish(client, [snapshot(3, run_id="run-2")])
            assert read(socket)["seq"] == 3
    finally:
        server.stop()


def _try_open(base: str, key: str) -> ClientConnection | None:
    try:
        return open_socket(base, key)
    except OSError:
        return None


def test_the_web_process_never_loads_numba() -> None:
    code = "import sys, batonic_site.asgi; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
