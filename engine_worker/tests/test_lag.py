"""How far an engine is behind what has arrived for it, on real sockets."""

import socket
import time
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from engine_worker.connection import Connection
from engine_worker.feed_client import FeedClient
from engine_worker.lag import NO_LAG
from engine_worker.raw_feed import decoder_factory, raw_feed
from engine_worker.tests.builders import FeedServer, csv_bytes, dbn_bytes, send_and_stay, session

WaitFor = Callable[..., object]
LOOK_S = 0.001


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    far, near = socket.socketpair()
    with far, near:
        yield far, near


def test_what_was_not_received_is_behind(pair: tuple[socket.socket, socket.socket], wait_for: WaitFor) -> None:
    far, near = pair
    connection, records = Connection(near, decoder_factory("dbn")()), session(300)
    data = dbn_bytes(records)
    for part in (data[: -200 * 56], data[-200 * 56 : -100 * 56]):  # the second is records and nothing else
        far.sendall(part)
        connection.receive(LOOK_S)
    assert connection.lag() == NO_LAG
    emptied_ns = time.monotonic_ns()
    far.sendall(data[-100 * 56 :])
    lag = wait_for(lambda: connection.lag().records == 100 and connection.lag())
    assert lag.unread_bytes == 5600  # type: ignore[attr-defined]
    begun_ns = time.monotonic_ns()
    lag_ns = connection.lag().ns
    assert begun_ns - emptied_ns <= lag_ns
    connection.receive(LOOK_S)
    assert connection.lag() == NO_LAG


def test_lines_are_counted_by_their_mean(pair: tuple[socket.socket, socket.socket]) -> None:
    far, near = pair
    connection, data = Connection(near, decoder_factory("csv")()), csv_bytes(session(400))
    middle = data.index(b"\n", len(data) // 2) + 1
    far.sendall(data[:middle])
    while connection.lag().unread_bytes:
        connection.receive(LOOK_S)
    far.sendall(data[middle:])
    assert 190 <= connection.lag().records <= 210


def test_without_a_connection_nothing_is_behind(wait_for: WaitFor) -> None:
    with FeedServer(send_and_stay(dbn_bytes(session(50)))) as server:
        client = FeedClient("127.0.0.1", server.port, raw_feed("dbn"))
        assert client.lag() == NO_LAG
        connection = client.connect(Event())
        assert connection is not None
        wait_for(lambda: client.lag().unread_bytes > 50 * 56)
        connection.close()
        assert client.lag() == NO_LAG
