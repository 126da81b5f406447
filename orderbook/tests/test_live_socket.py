"""`/ws` over a real daphne, as programs reach it: keys, origins, and servers that go away."""

import http.client
import json
import socket as sockets_of_python
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from django.apps import apps
from django.db import connection, transaction
from django.test import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from batonic_site.services.valkey import Valkey
from batonic_site.services.valkey import connect as connect_valkey
from batonic_site.tests.fixtures import Spawn
from orderbook.signing_out import SIGNED_OUT
from orderbook.tests.books import keep, publish, snapshot
from orderbook.tests.web import listens
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


def test_redis_may_die_and_come_back_under_open_sockets(
    spawn: Spawn, process_env: dict[str, str], key: str, own_redis: Valkey, wait_for: Any
) -> None:
    base = f"http://127.0.0.1:{process_env['WEB_PORT']}"
    spawn("runweb", env=process_env | {"REDIS_URL": own_redis.url})
    sockets = [wait_for(lambda: _try_open(base, key), what="daphne") for _ in range(3)]
    with ExitStack() as stack, connect_valkey(own_redis.url) as client:
        for socket in sockets:
            stack.enter_context(socket)
        keep(client, snapshot(1))
        for socket in sockets:
            subscribe(socket, push_ms=10)
            assert read(socket)["seq"] == 1
        own_redis.stop()
        for socket in sockets:
            stale = read(socket)
            assert (stale["type"], stale["status"], stale["reason"], stale["seq"]) == ("status", "stale", "redis", 1)
        own_redis.start()
        keep(client, snapshot(2, run_id="run-2"))
        for socket in sockets:
            found = [read(socket), read(socket)]
            assert {told["type"] for told in found} == {"book", "status"}
            assert [told["run_id"] for told in found if told["type"] == "book"] == ["run-2"]
        wait_for(lambda: client.pubsub_numsub("asgi__group__book.CLX5")[0][1], what="the new subscription")
        publish(client, [snapshot(3, run_id="run-2")])
        for socket in sockets:
            assert read(socket)["seq"] == 3


def test_who_signs_out_on_the_site_is_out_here_too_and_who_stays_signed_in_is_not(
    web: str, reader: Any, redis_client: redis.Redis, wait_for: Any
) -> None:
    here, elsewhere = Client(), Client()
    for client in (here, elsewhere):
        client.force_login(reader)
    first, second = (_open_with_login(web, client) for client in (here, elsewhere))
    with first, second:
        assert read(first)["type"] == read(second)["type"] == "hello"
        wait_for(lambda: redis_client.pubsub_numsub(f"asgi__group__{SIGNED_OUT}")[0][1], what="a process that listens")
        _sign_out(web, here)
        with pytest.raises(ConnectionClosed) as closed:
            first.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "signed out")
        second.send(json.dumps({"type": "unsubscribe"}))
        assert read(second)["type"] == "ack"


def _sign_out(base: str, client: Client) -> None:
    """Sign out as the button of the page does, over HTTP."""
    token = "t" * 32
    cookies = f"sessionid={client.cookies['sessionid'].value}; csrftoken={token}"
    with closing(http.client.HTTPConnection(base.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/logout/", headers={"Cookie": cookies, "X-CSRFToken": token})
        assert connection.getresponse().status == 302


def _open_with_login(base: str, client: Client) -> ClientConnection:
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    return connect(base.replace("http", "ws", 1) + "/ws", origin=base, additional_headers={"Cookie": cookie})


def _try_open(base: str, key: str) -> ClientConnection | None:
    try:
        return open_socket(base, key)
    except OSError:
        return None


@pytest.fixture
def own_web(spawn: Spawn, process_env: dict[str, str], redis_client: redis.Redis) -> tuple[str, int]:
    """Return the base URL and the process id of a web process that is quick to give up slow clients."""
    quick = process_env | {"WS_SLOW_CLOSE_S": "1"}
    process = spawn("runweb", env=quick, until=lambda: listens(quick))
    return f"http://127.0.0.1:{process_env['WEB_PORT']}", process.pid


def test_clients_that_read_nothing_cost_the_others_nothing_and_are_closed_with_4008(
    own_web: tuple[str, int], key: str, redis_client: redis.Redis
) -> None:
    base, pid = own_web
    with ExitStack() as stack:
        healthy = stack.enter_context(open_socket(base, key))
        subscribe(healthy, push_ms=10, depth=200)
        stalled = [stack.enter_context(_narrow(base, key)) for _ in range(20)]
        for client in stalled:
            client.send(json.dumps({"type": "subscribe", "push_ms": 10, "depth": 200}))
        before_kb = _resident_kb(pid)
        for seq in range(1, 301):
            publish(redis_client, [snapshot(seq, count=200)])
            while (read(healthy)["seq"] or 0) < seq:  # before the first book there may be a status, without
                pass
        assert _resident_kb(pid) - before_kb < 20 * 1024  # daphne alone would hold 20 x 300 x 5 KB
        for client in stalled:
            seqs = []
            with pytest.raises(ConnectionClosed) as closed:
                while (told := json.loads(client.recv(timeout=15))) is not None:
                    seqs += [told["seq"]] if told["type"] == "book" else []
            assert seqs == sorted(set(seqs))
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4008, "too slow: nothing taken for 1 s")


def _narrow(base: str, key: str) -> ClientConnection:
    """Return a client that holds next to nothing of what it does not read."""
    narrow = sockets_of_python.socket()
    narrow.setsockopt(sockets_of_python.SOL_SOCKET, sockets_of_python.SO_RCVBUF, 4096)
    host, port = base.removeprefix("http://").split(":")
    narrow.connect((host, int(port)))
    return open_socket(base, key, sock=narrow, max_queue=1)


def _resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_a_message_that_is_too_long_is_answered_and_closed_with_1009(web: str, key: str) -> None:
    with open_socket(web, key) as client:
        assert read(client)["type"] == "hello"
        client.send("x" * 60_000)
        assert read(client)["code"] == "too_big"
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=5)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1009, "a message has at most 16384 bytes")


FLOOD_BYTES = 128 << 20
KERNELS_BYTES = 32 << 20  # more than the two kernels hold between them


def test_while_a_key_is_looked_up_what_a_client_sends_stays_at_its_end(web: str, key: str, wait_for: Any) -> None:
    with _locked("replay.ApiKey"), _raw(web, key) as client:
        wait_for(_somebody_waits, what="the look-up")
        assert _flood(client) < KERNELS_BYTES


def test_while_a_symbol_is_looked_up_what_a_client_sends_stays_at_its_end(web: str, key: str, wait_for: Any) -> None:
    with _raw(web, key) as client:
        _read_until(client, b'"hello"')
        with _locked("history.Instrument"):
            client.sendall(_masked('{"type":"subscribe","symbol":"ESZ5"}'))
            wait_for(_somebody_waits, what="the look-up")
            assert _flood(client) < KERNELS_BYTES
        _read_until(client, b'"unknown_symbol"')


@contextmanager
def _locked(model: str) -> Iterator[None]:
    """Keep everybody else waiting for a table."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{apps.get_model(model)._meta.db_table}" IN ACCESS EXCLUSIVE MODE')
        yield


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def _read_until(client: sockets_of_python.socket, expected: bytes) -> None:
    found = b""
    while expected not in found:
        part = client.recv(4096)
        assert part, found
        found += part


def test_one_client_too_many_is_soon_cut_off_and_costs_nothing_whatever_it_sends(
    spawn: Spawn, process_env: dict[str, str], key: str
) -> None:
    narrow = process_env | {"WS_MAX_CLIENTS": "1"}
    process = spawn("runweb", env=narrow, until=lambda: listens(narrow))
    base = f"http://127.0.0.1:{process_env['WEB_PORT']}"
    with open_socket(base, key) as first, _raw(base, key) as second:
        assert read(first)["type"] == "hello"
        _read_until(second, b"1 are connected")
        with pytest.raises(InvalidStatus):
            open_socket(base, key)  # while the second is not gone
        before_kb = _resident_kb(process.pid)
        with pytest.raises(ConnectionError):
            while True:
                _flood(second)
        assert _resident_kb(process.pid) - before_kb < 20 * 1024
        first.send(json.dumps({"type": "unsubscribe"}))
        assert read(first)["type"] == "ack"


def _raw(base: str, key: str) -> sockets_of_python.socket:
    """Return a client that has asked to come in, and waits for nothing."""
    host, port = base.removeprefix("http://").split(":")
    client = sockets_of_python.create_connection((host, int(port)), timeout=5)
    client.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {key}\r\n\r\n".encode()
    )
    return client


def _masked(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=True)


def _flood(client: sockets_of_python.socket) -> int:
    """Send until it is enough, or nobody takes more for a second; return the bytes that were taken."""
    frame = _masked("x" * 60_000)
    client.settimeout(1)
    taken = 0
    with suppress(TimeoutError):
        while taken < FLOOD_BYTES:
            client.sendall(frame)
            taken += len(frame)
    return taken


def test_clients_that_vanish_leave_no_file_open(
    own_web: tuple[str, int], key: str, redis_client: redis.Redis, wait_for: Any
) -> None:
    base, pid = own_web
    keep(redis_client, snapshot(1))
    with open_socket(base, key) as client:  # from now on the hub has its connections to Redis
        subscribe(client, push_ms=10)
        assert read(client)["seq"] == 1
        files = Path(f"/proc/{pid}/fd")
        before = len(list(files.iterdir()))
    for _ in range(100):
        with open_socket(base, key) as client:
            subscribe(client, push_ms=10)
            assert read(client)["seq"] == 1
            client.socket.shutdown(sockets_of_python.SHUT_RDWR)  # without a close frame
    wait_for(lambda: len(list(files.iterdir())) < before, what="the files of clients that are gone")
