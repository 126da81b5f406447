"""The load generator's client and its figures, against a server of the same library."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from orderbook.benchmark.crowd import Close, Closed, Count, Counted, Crowd, Open, Opened
from orderbook.benchmark.socket_client import SocketClient, Tally, Target
from orderbook.benchmark.socket_load import percentile_ms

LATE_NS = 250_000_000


def book(seq: int, run_id: str = "run-1", published_ns: int | None = None) -> str:
    head = {"type": "book", "symbol": "CLX5", "run_id": run_id, "seq": seq}
    published_ns = time.time_ns() - LATE_NS if published_ns is None else published_ns
    return json.dumps(head | {"published_ns": str(published_ns), "bids": [], "asks": []}, separators=(",", ":"))


@asynccontextmanager
async def served(handler: Callable[[ServerConnection], Awaitable[None]], **options: Any) -> AsyncIterator[Target]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = server.sockets[0].getsockname()[1]
        yield Target(f"ws://127.0.0.1:{port}/ws", "db-secret", "", 10, 50)


async def nobody(server: ServerConnection) -> None:
    raise AssertionError("nobody may come so far")


async def connected(target: Target, tally: Tally) -> SocketClient:
    client = SocketClient(target, tally)
    port = int(target.url.split(":")[2].split("/")[0])
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    return client


def always() -> Tally:
    return Tally(begin_ns=0, end_ns=2**63)


async def test_a_client_shows_its_key_subscribes_and_counts_what_is_a_book() -> None:
    asked: list[str] = []

    async def handler(server: ServerConnection) -> None:
        assert server.request is not None
        asked.append(server.request.headers["Authorization"])
        await server.send('{"type":"hello"}')
        asked.append(str(await server.recv()))
        for seq in (1, 2, 3):
            await server.send(book(seq))
        await server.send('{"type":"status","status":"live"}')

    tally = always()
    async with served(handler) as target:
        client = await connected(target, tally)
        await client.shown
        await client.gone
    assert asked[0] == "Bearer db-secret"
    assert json.loads(asked[1]) == {"type": "subscribe", "depth": 10, "push_ms": 50}
    assert client.books == 3 and tally.disorder == 0
    assert all(late >= LATE_NS // 1000 for late in tally.staleness_us) and len(tally.staleness_us) == 3


async def test_only_what_comes_within_the_window_counts() -> None:
    async def handler(server: ServerConnection) -> None:
        await server.send(book(1))

    tally = Tally(begin_ns=time.time_ns() + 10**12, end_ns=2**63)
    async with served(handler) as target:
        client = await connected(target, tally)
        await client.gone
    assert client.shown.done() and client.books == 0 and not tally.staleness_us


async def test_a_book_that_is_not_newer_is_noted_unless_the_run_is_another() -> None:
    async def handler(server: ServerConnection) -> None:
        for text in (book(5), book(5), book(4), book(1, "run-2"), book(2, "run-2")):
            await server.send(text)

    tally = always()
    async with served(handler) as target:
        client = await connected(target, tally)
        await client.gone
    assert (client.books, tally.disorder) == (5, 2)


async def test_a_close_is_told_with_its_code_and_reason() -> None:
    async def handler(server: ServerConnection) -> None:
        await server.send(book(1))
        await server.close(4008, "too slow")

    async with served(handler) as target:
        client = await connected(target, always())
        await client.gone
    assert (client.code, client.fault) == (4008, "closed with 4008: too slow")


async def test_a_refused_client_has_failed_and_says_why() -> None:
    async with served(nobody, process_request=lambda server, request: server.respond(403, "no")) as target:
        opened = await Crowd(target).follow(Open(3, time.time(), 0.0))
    assert isinstance(opened, Opened)
    assert not opened.connect_s and opened.faults.total() == 3
    assert next(iter(opened.faults)).startswith("expected a handshake, found 403")


async def test_a_client_that_is_let_in_and_sent_away_at_once_has_failed() -> None:
    async def handler(server: ServerConnection) -> None:
        await server.close(4013, "full")

    async with served(handler) as target:
        opened = await Crowd(target).follow(Open(2, time.time(), 0.0))
    assert isinstance(opened, Opened)
    assert len(opened.connect_s) == 2 and opened.faults == {"closed with 4013: full": 2}


async def test_a_crowd_counts_each_client_and_knows_who_is_left() -> None:
    leaving: list[ServerConnection] = []

    async def handler(server: ServerConnection) -> None:
        leaving.append(server)
        for seq in range(1, 1000):
            await server.send(book(seq))
            await asyncio.sleep(0.02)

    async with served(handler) as target:
        crowd = Crowd(target)
        await crowd.follow(Open(3, time.time(), 0.0))
        now = time.time_ns()
        counting = asyncio.ensure_future(crowd.follow(Count(now, now + 500_000_000)))
        await leaving[0].close(1001, "going away")
        counted = await counting
        await crowd.follow(Close())
    assert isinstance(counted, Counted)
    assert counted.standing == 2 and dict(counted.faults) == {"closed with 1001: going away": 1}
    assert sorted(counted.books)[1] > 1 and counted.disorder == 0
    assert len(counted.staleness_us) == sum(counted.books)


async def test_a_stalled_client_reads_nothing_until_the_end_and_then_knows_how_it_was_closed() -> None:
    stalled, answered = asyncio.Event(), asyncio.Queue[bool]()

    async def handler(server: ServerConnection) -> None:
        await server.send(book(1))
        await stalled.wait()
        pong, _ = await asyncio.wait([asyncio.ensure_future(await server.ping())], timeout=0.5)
        answered.put_nowait(bool(pong))
        await server.close(4008, "too slow")

    async with served(handler) as target:
        crowd = Crowd(target)
        opened = await crowd.follow(Open(2, time.time(), 0.0, stalled=True))
        stalled.set()
        assert [await answered.get(), await answered.get()] == [False, False]
        closed = await crowd.follow(Close())
    assert isinstance(opened, Opened) and not opened.faults
    assert isinstance(closed, Closed) and closed.stalled == {4008: 2}


@pytest.mark.parametrize(("percent", "expected"), [(50, 5.0), (95, 10.0), (99, 10.0), (100, 10.0), (10, 1.0), (1, 1.0)])
def test_a_percentile_is_a_value_that_was_seen(percent: float, expected: float) -> None:
    assert percentile_ms(np.arange(1, 11) * 1000.0, percent) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile_ms(np.array([]), 99) is None
