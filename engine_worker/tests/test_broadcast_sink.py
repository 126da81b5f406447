"""Books over a real Redis, as a web process gets them."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import redis
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings

from engine_worker.sinks.base import SinkUnavailable
from engine_worker.sinks.broadcast import FEW, BroadcastSink, BroadcastWriter, LiveBook, message_of
from engine_worker.tests.builders import Desk, reference_book, session
from engine_worker.tests.proxy import TcpProxy
from orderbook.book.mbo import Side
from orderbook.live import (
    BOOK_KEY,
    BOOK_TTL_S,
    ENGINE_STATUS_KEY,
    FULL_BOOK_KEY,
    GROUP_CHANNEL,
    BookMessage,
    EngineStatus,
    blank_status,
    book_text,
    group_name,
)

WaitFor = Callable[..., object]


def status() -> EngineStatus:
    return blank_status("engine")


@pytest.fixture
def live(tmp_path: Path) -> list[LiveBook]:
    desk = Desk(tmp_path, push_ms=1)
    desk.feed(*[session(2000)[i : i + 50] for i in range(0, 2000, 50)], wait_ms=100)
    desk.engine.end()
    return desk.live


async def test_a_subscriber_gets_exactly_the_book_of_that_moment(
    redis_client: redis.Redis, live: list[LiveBook]
) -> None:
    records = session(2000)
    layer = RedisPubSubChannelLayer(hosts=[{"address": settings.REDIS_URL, "socket_timeout": None}])
    channel = await layer.new_channel()
    await layer.group_add(group_name("CLX5"), channel)
    writer = BroadcastWriter(settings.REDIS_URL, status)
    sent = [book for book in live if not book.complete][:5]
    for book in sent:
        await asyncio.to_thread(writer.write, [book])
        message: BookMessage = await asyncio.wait_for(layer.receive(channel), 5)
        assert (message["type"], message["run_id"], message["seq"]) == (
            "book.update",
            book.snapshot.run_id,
            book.snapshot.seq,
        )
        text = json.loads(book_text(message, 200))
        expected = reference_book(records[: text["records"]])
        for name, side in (("bids", Side.BID), ("asks", Side.ASK)):
            levels = [[round(px * 10**9), size, count] for px, size, count in text[name]]
            assert levels == expected.levels(side, 200).tolist()
    await asyncio.to_thread(writer.close)
    await layer.flush()


def test_the_newest_book_waits_under_its_key_and_the_complete_one_under_another(
    redis_client: redis.Redis, live: list[LiveBook]
) -> None:
    writer = BroadcastWriter(settings.REDIS_URL, status)
    newest = [book for book in live if not book.complete][-1]
    complete = [book for book in live if book.complete][-1]
    writer.write([newest, complete])
    writer.close()
    kept = msgpack.unpackb(redis_client.get(BOOK_KEY.format(symbol="CLX5")))
    published_ns = int(json.loads(book_text(kept, 0))["published_ns"])
    assert kept == message_of(newest, published_ns)
    assert 0 <= time.time_ns() - published_ns < 60 * 10**9
    full = json.loads(redis_client.get(FULL_BOOK_KEY.format(symbol="CLX5")))
    book = reference_book(session(2000))
    assert [[round(px * 10**9), size, count] for px, size, count in full["asks"]] == book.levels(Side.ASK).tolist()


def test_the_status_is_there_while_the_engine_is(redis_client: redis.Redis) -> None:
    writer = BroadcastWriter(settings.REDIS_URL, status)
    writer.write([])
    assert json.loads(redis_client.get(ENGINE_STATUS_KEY.format(name="engine"))) == status()
    assert 0 < redis_client.ttl(ENGINE_STATUS_KEY.format(name="engine")) <= 5
    redis_client.delete(ENGINE_STATUS_KEY.format(name="engine"))
    writer.write([])
    assert redis_client.get(ENGINE_STATUS_KEY.format(name="engine")) is None  # not before a second has passed
    writer.close()


def test_the_books_live_as_long_as_the_engine_however_idle_it_is(
    redis_client: redis.Redis, live: list[LiveBook]
) -> None:
    books = newest_of(live)
    writer = BroadcastWriter(settings.REDIS_URL, status)
    writer.write(books)
    assert {redis_client.ttl(book.key) for book in books} <= {BOOK_TTL_S - 1, BOOK_TTL_S}
    for book in books:
        redis_client.expire(book.key, 3)
    a_second_later(writer)
    writer.write([])
    assert {redis_client.ttl(book.key) for book in books} <= {BOOK_TTL_S - 1, BOOK_TTL_S}
    writer.close()


def test_books_that_redis_lost_are_written_again_in_their_newest_form(
    redis_client: redis.Redis, live: list[LiveBook]
) -> None:
    books = newest_of(live)
    writer = BroadcastWriter(settings.REDIS_URL, status)
    writer.write(live[:2])
    writer.write(books)
    before = {book.key: redis_client.get(book.key) for book in books}
    assert None not in before.values()
    redis_client.flushdb()
    writer.write([])
    assert redis_client.keys() == []  # not before a second has passed
    a_second_later(writer)
    writer.write([])
    assert {book.key: redis_client.get(book.key) for book in books} == before
    assert all(redis_client.ttl(book.key) > 0 for book in books)
    writer.close()


def test_of_many_books_it_knows_which_ones_somebody_watches(redis_client: redis.Redis, live: list[LiveBook]) -> None:
    newest = newest_of(live)[0]
    books = [newest._replace(snapshot=replace(newest.snapshot, symbol=f"I{number}")) for number in range(FEW + 1)]
    somebody = redis_client.pubsub(ignore_subscribe_messages=True)
    ours = [GROUP_CHANNEL.format(group_name(symbol)) for symbol in ("I3", "E S")]
    somebody.subscribe(*ours, "another", GROUP_CHANNEL.format("book").encode() + b"\xff")  # the last is no text
    somebody.get_message(timeout=1)
    writer = BroadcastWriter(settings.REDIS_URL, status)
    writer.write(books[:FEW])
    assert not writer.watched  # so few are shown in any case
    writer.write(books)
    assert writer.watched == {group_name("I3"), group_name("E S"), "book\N{REPLACEMENT CHARACTER}"}
    told = writer.watched
    a_moment_later(writer)
    writer.write([])
    assert writer.watched is told  # who knows it need not look again
    somebody.unsubscribe()
    while somebody.subscribed:
        somebody.get_message(timeout=1)
    a_moment_later(writer)
    writer.write([])
    assert not writer.watched
    writer.close()
    somebody.close()


def newest_of(live: list[LiveBook]) -> list[LiveBook]:
    """Return the newest book of each key."""
    return list({book.key: book for book in live}.values())


def a_moment_later(writer: BroadcastWriter) -> None:
    writer._watched_due = 0.0


def a_second_later(writer: BroadcastWriter) -> None:
    """Let the next write find the status due."""
    writer._status_due = 0


def test_redis_away_is_said(free_port: Callable[[], int], live: list[LiveBook]) -> None:
    writer = BroadcastWriter(f"redis://127.0.0.1:{free_port()}", status)
    with pytest.raises(SinkUnavailable, match="Redis: "):
        writer.write(live[:1])
    writer.close()


def test_the_newest_book_goes_out_as_soon_as_redis_is_back(
    redis_client: redis.Redis, redis_proxied: str, redis_proxy: TcpProxy, live: list[LiveBook], wait_for: WaitFor
) -> None:
    def kept_seq() -> int | None:
        raw = redis_client.get(BOOK_KEY.format(symbol="CLX5"))
        return None if raw is None else msgpack.unpackb(raw)["seq"]

    books = [book for book in live if not book.complete]
    sink = BroadcastSink(redis_proxied, status)
    sink.start()
    sink.offer(books[0])
    wait_for(lambda: sink.degraded)
    for book in books[1:10]:
        sink.offer(book)
    redis_proxy.up()
    wait_for(lambda: kept_seq() == books[9].snapshot.seq)
    redis_proxy.down()
    for book in books[10:20]:
        sink.offer(book)
    wait_for(lambda: sink.degraded)
    redis_proxy.up()
    wait_for(lambda: kept_seq() == books[19].snapshot.seq)
    wait_for(lambda: not sink.degraded)
    assert redis_client.get(ENGINE_STATUS_KEY.format(name="engine"))
    sink.close(5)
    counters = sink.counters
    assert (counters.offered, counters.pending, counters.dropped) == (20, 0, 0)
    assert counters.written + counters.conflated == 20
    assert counters.conflated > 0
