"""The way out to a client under the installed daphne: if its inside changes, this says so."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame as ReadFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader
from websockets.sync.client import ClientConnection, connect

from orderbook.outlet import MAX_REASON_BYTES, AsgiOutlet, Frame, outlet_of
from orderbook.rounds import BROKEN
from orderbook.socket_protocol import Close


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_a_frame_on_the_wire_is_what_rfc_6455_says(size: int) -> None:
    text = "é" * (size // 2) + "x" * (size % 2)
    reader = StreamReader()
    reader.feed_data(Frame(text).wire)
    reader.feed_eof()
    parser = ReadFrame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as parsed:
        next(parser)
    frame = parsed.value.value
    assert (frame.opcode, frame.fin, frame.data.decode()) == (Opcode.TEXT, True, text)
    assert next(reader.at_eof(), None) is None


@pytest.fixture(scope="module")
def daphne_port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "orderbook.tests.outlet_server", str(port)]) as process:
        try:
            yield port
        finally:
            process.terminate()


@pytest.fixture
def client(daphne_port: int, wait_for: Callable[..., Any]) -> Iterator[ClientConnection]:
    def try_open() -> ClientConnection | None:
        try:
            return connect(f"ws://127.0.0.1:{daphne_port}/", max_queue=None)
        except ConnectionRefusedError:
            return None

    with wait_for(try_open, what="daphne") as opened:
        assert opened.recv(5) == "DaphneOutlet"
        yield opened


def ask(client: ClientConnection, **wish: Any) -> None:
    client.send(json.dumps(wish))


def test_frames_arrive_whole_and_in_order_whatever_the_socket_takes_at_once(client: ClientConnection) -> None:
    ask(client, frames=300, bytes=30_000)
    assert [int(client.recv(5).rstrip(".")) for _ in range(300)] == list(range(300))
    ask(client, unsent=False)
    assert client.recv(5) == "so it is"


def test_what_a_client_does_not_take_is_seen(daphne_port: int, client: ClientConnection) -> None:
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.connect(("127.0.0.1", daphne_port))
    with connect(f"ws://127.0.0.1:{daphne_port}/", sock=stalled, max_queue=1) as slow:
        assert slow.recv(5) == "DaphneOutlet"
        ask(slow, frames=30, bytes=30_000, unsent=True)  # more than the kernel is allowed to keep for it
        for number in range(30):
            assert int(slow.recv(5).rstrip(".")) == number
        assert slow.recv(5) == "so it is"


@pytest.mark.parametrize("code", [*map(int, Close), BROKEN])
def test_a_close_has_its_code_and_reason_and_nothing_follows(client: ClientConnection, code: int) -> None:
    ask(client, close=[code, "why: " + "x" * 500])
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    assert closed.value.rcvd.reason == ("why: " + "x" * 500)[:MAX_REASON_BYTES]


def test_nothing_is_left_of_clients_that_are_gone_without_a_collection_of_garbage(
    daphne_port: int, client: ClientConnection
) -> None:
    for way in ("cut off", "closed", "closed by the server"):
        with connect(f"ws://127.0.0.1:{daphne_port}/") as other:
            assert other.recv(5) == "DaphneOutlet"
            if way == "cut off":
                other.socket.shutdown(socket.SHUT_RDWR)
            elif way == "closed by the server":
                ask(other, close=[Close.TOO_SLOW, way])
                with pytest.raises(ConnectionClosed):
                    other.recv(5)
    ask(client, alone=True)
    assert client.recv(30) == "so it is"


async def test_without_daphne_messages_go_one_after_the_other_and_what_waits_is_known() -> None:
    sent: list[dict[str, Any]] = []
    taken = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        await taken.wait()
        sent.append(message)

    outlet = outlet_of(send)
    assert isinstance(outlet, AsgiOutlet)
    outlet.send(Frame("one"))
    outlet.send(Frame("two"))
    outlet.close(4001, "over")
    assert outlet.unsent > 0
    taken.set()
    while outlet.unsent:
        await asyncio.sleep(0)
    assert [message.get("text", message.get("code")) for message in sent] == ["one", "two", 4001]


async def test_without_daphne_a_client_that_is_gone_is_no_error() -> None:
    async def send(message: dict[str, Any]) -> None:
        raise ConnectionError("gone")

    outlet = AsgiOutlet(send)
    outlet.send(Frame("one"))
    await asyncio.sleep(0.01)
    outlet.send(Frame("two"))
    await asyncio.sleep(0.01)
