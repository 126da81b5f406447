"""The book that a client of `/ws` holds, against the reference book at the same record. Engine's sink to socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

import redis
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User

from engine_worker.sinks.broadcast import BroadcastWriter, LiveBook
from engine_worker.tests.builders import Desk, reference_book, session
from engine_worker.tests.test_broadcast_sink import status
from orderbook.book.mbo import Side
from orderbook.consumers import live_socket

RECORDS = session(3000)
DEPTH = 30


def live_books(folder: Path) -> list[LiveBook]:
    """Return what an engine hands to its live sink over a session, one push every few records."""
    desk = Desk(folder, push_ms=1)
    desk.feed(*[RECORDS[i : i + 30] for i in range(0, len(RECORDS), 30)], wait_ms=100)
    desk.engine.end()
    return [book for book in desk.live if not book.complete]


async def test_every_book_of_a_client_is_the_engines_at_that_seq(redis_client: redis.Redis, tmp_path: Path) -> None:
    live = live_books(tmp_path)
    writer = BroadcastWriter(settings.REDIS_URL, status)
    await asyncio.to_thread(writer.write, [live[0]])
    client = WebsocketCommunicator(live_socket, "/ws")
    client.scope["user"] = User(username="ann")
    await client.connect()
    await client.send_json_to({"type": "subscribe", "depth": DEPTH, "push_ms": 10, "channels": ["book", "bbo"]})
    found: list[dict[str, Any]] = []

    async def read_until(seq: int) -> None:
        async with asyncio.timeout(10):
            while not any(told["type"] == "book" and told["seq"] == seq for told in found[-2:]):
                found.append(await client.receive_json_from(timeout=10))

    await read_until(live[0].snapshot.seq)
    for number, book in enumerate(live[1:], 1):
        await asyncio.to_thread(writer.write, [book])
        if number % 3 == 0:  # two of three may be skipped
            await read_until(book.snapshot.seq)
    await read_until(live[-1].snapshot.seq)
    await client.disconnect()
    await asyncio.to_thread(writer.close)

    snapshots = {book.snapshot.seq: book.snapshot for book in live}
    books = [told for told in found if told["type"] == "book"]
    assert [book["seq"] for book in books] == sorted({book["seq"] for book in books})
    assert len(books) > len(live) / 4
    for book in books:
        expected = reference_book(RECORDS[: book["records"]])
        assert snapshots[book["seq"]].records == book["records"]
        for name, side in (("bids", Side.BID), ("asks", Side.ASK)):
            held = [[round(px * 10**9), size, count] for px, size, count in book[name]]
            assert held == expected.levels(side, DEPTH).tolist()
    for best in (told for told in found if told["type"] == "bbo"):
        snapshot = snapshots[best["seq"]]
        for told, level in ((best["bid"], snapshot.bbo.bid), (best["ask"], snapshot.bbo.ask)):
            assert level is not None and told == json.loads(f"[{level.price / 1e9},{level.size},{level.count}]")
