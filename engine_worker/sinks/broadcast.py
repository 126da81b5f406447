"""The newest books to the web processes, over Redis. Floor 3.

Each book is encoded once, kept under its key for those who join between two pushes, and sent to the group of its
symbol. While Redis is away newer books replace older ones, and the newest goes out when it is back. The keys live as
long as the engine does: once a second each is renewed, and written again where Redis has lost it.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack
import redis.asyncio
import redis.exceptions
from channels_redis.pubsub import RedisPubSubChannelLayer
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from engine_worker.histogram import LatencyHistogram
from engine_worker.mailbox import LatestMailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from engine_worker.trades import Traded
from orderbook.book.encoding import book_message, encode_trades
from orderbook.book.snapshot import BookSnapshot
from orderbook.live import (
    BOOK_KEY,
    BOOK_TTL_S,
    ENGINE_REMEMBERED_S,
    ENGINE_STATUS_KEY,
    ENGINE_STATUS_TTL_S,
    ENGINES_KEY,
    FULL_BOOK_KEY,
    BookMessage,
    EngineStatus,
    book_text,
    group_name,
)

STATUS_EVERY_S: Final = 1.0
SOCKET_TIMEOUT_S: Final = 2.0
_AWAY: Final = (redis.exceptions.RedisError, OSError, TimeoutError)


class LiveBook(NamedTuple):
    """A snapshot for the web: the top of a book for the sockets, or all of it for the full-book key."""

    snapshot: BookSnapshot
    complete: bool
    traded: Traded = Traded()
    """The trades since the last push; not with a complete one."""
    since_ns: int = 0
    """When the oldest change that it shows had come, monotonic; 0: not told."""

    @property
    def key(self) -> str:
        """Where Redis keeps it."""
        return (FULL_BOOK_KEY if self.complete else BOOK_KEY).format(symbol=self.snapshot.symbol)


class BroadcastWriter:
    """One event loop, one channel layer and one Redis client, used by the thread that writes."""

    target = "Redis"
    encode_ns = 0  # what it encodes is not stored

    def __init__(self, redis_url: str, status: Callable[[], EngineStatus]) -> None:
        # Our caller retries with a newer book; the client's own retries would only hold an old one up.
        options: dict[str, Any] = {
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        }
        self._loop = asyncio.new_event_loop()
        self._redis = redis.asyncio.Redis.from_url(redis_url, **options)
        self._layer = RedisPubSubChannelLayer(hosts=[{"address": redis_url, **options}])
        self._status = status
        self._status_due = 0.0
        self.publish_ns = LatencyHistogram()
        """From the arrival of the oldest change that a book shows until Redis has it, the wait for PUSH_MS included."""
        self._kept: dict[str, bytes | str] = {}  # key -> what was written under it

    def write(self, batch: list[LiveBook]) -> Written:
        """Publish a batch and, once a second, say that the engine lives. Raises SinkUnavailable while Redis is away."""
        try:
            self._loop.run_until_complete(self._publish(batch))
        except _AWAY as error:
            raise SinkUnavailable(f"Redis: {str(error) or type(error).__name__}") from error
        return Written(len(batch))

    def close(self) -> None:
        self._loop.run_until_complete(self._redis.aclose())
        self._loop.close()  # closes the layer's connections too

    async def _publish(self, batch: list[LiveBook]) -> None:
        messages = [(book, message_of(book, time.time_ns())) for book in batch]
        await self._keep({book.key: _kept_form(book, message) for book, message in messages})
        if time.monotonic() >= self._status_due:
            await self._live_on()
            self._status_due = time.monotonic() + STATUS_EVERY_S
        # Kept first, sent second: whoever subscribes and then reads the key misses nothing.
        for book, message in messages:
            if not book.complete:
                await self._layer.group_send(group_name(message["symbol"]), message)
                if book.since_ns:
                    self.publish_ns.add(time.monotonic_ns() - book.since_ns)

    async def _keep(self, forms: dict[str, bytes | str]) -> None:
        """Write books under their keys."""
        if not forms:
            return
        self._kept |= forms
        pipeline = self._redis.pipeline(transaction=False)
        for key, form in forms.items():
            pipeline.set(key, form, ex=BOOK_TTL_S)
        await pipeline.execute()

    async def _live_on(self) -> None:
        """Say that the engine lives: its status, and the life of every book. A Redis that was restarted has none."""
        await self._tell(self._status(), time.time())
        pipeline = self._redis.pipeline(transaction=False)
        for key in self._kept:
            pipeline.expire(key, BOOK_TTL_S)
        renewed = await pipeline.execute()
        lost = {key: form for (key, form), is_there in zip(self._kept.items(), renewed, strict=True) if not is_there}
        await self._keep(lost)

    async def _tell(self, status: EngineStatus, now_s: float) -> None:
        """Write the status under the engine's name, and the name among the others; who is long gone is forgotten."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(ENGINE_STATUS_KEY.format(name=status["name"]), json.dumps(status), ex=ENGINE_STATUS_TTL_S)
        pipeline.zadd(ENGINES_KEY, {status["name"]: now_s})
        pipeline.zremrangebyscore(ENGINES_KEY, 0, now_s - ENGINE_REMEMBERED_S)
        pipeline.expire(ENGINES_KEY, ENGINE_REMEMBERED_S)
        await pipeline.execute()


class BroadcastSink(ThreadedSink[LiveBook]):
    """Keeps the newest of each book; never makes the feed wait."""

    def __init__(self, redis_url: str, status: Callable[[], EngineStatus]) -> None:
        mailbox = LatestMailbox[LiveBook](lambda book: book.key)
        writer = BroadcastWriter(redis_url, status)
        self.publish_ns = writer.publish_ns
        super().__init__("broadcast", mailbox, writer, retry_cap_s=0.5)


def _kept_form(book: LiveBook, message: BookMessage) -> bytes | str:
    """Return what Redis keeps of a book: the message for the sockets, JSON text of a complete one."""
    if not book.complete:
        return bytes(msgpack.packb(message))
    return book_text(message, max(len(book.snapshot.bids), len(book.snapshot.asks)))


def message_of(book: LiveBook, published_ns: int) -> BookMessage:
    """Encode a book for the channel layer. ``published_ns`` (wall clock, now) tells readers how old a book is."""
    snapshot = book.snapshot
    parts = book_message(snapshot)
    message = BookMessage(
        type="book.update",
        symbol=snapshot.symbol,
        run_id=snapshot.run_id,
        seq=snapshot.seq,
        head=f'{parts.head},"published_ns":"{published_ns}"',
        bids=parts.bids,
        asks=parts.asks,
    )
    if not book.complete:
        message["trades"] = encode_trades(book.traded.newest, snapshot.decimals)
        message["trade_count"] = book.traded.total
    return message
