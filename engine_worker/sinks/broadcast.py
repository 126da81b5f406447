"""The newest books to the web processes, over Redis. Floor 3.

Each book is encoded once, kept under its key for those who join between two pushes, and sent to the group of its
symbol, both in one step of Redis: each journey there takes a millisecond or two beside a feed at full speed, most of
it waiting for a processor. While Redis is away newer books replace older ones, and the newest goes out when it is
back. The keys live as long as the engine does: once a second each is renewed, and written again where Redis has lost
it.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol, cast

import msgpack
import redis
from channels_redis.pubsub import RedisPubSubChannelLayer
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from engine_worker.histogram import LatencyHistogram
from engine_worker.mailbox import LatestMailbox
from engine_worker.sinks.base import Sink, SinkUnavailable, ThreadedSink, Written
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
    GROUP_CHANNEL,
    BookMessage,
    EngineStatus,
    book_text,
    group_name,
)

FEW: Final = 32
"""Books that are shown whoever looks at them; of more it is asked."""
BATCH_BOOKS: Final = 64  # 5 ms with 30 levels a side
STATUS_EVERY_S: Final = 1.0
WATCHED_EVERY_S: Final = 0.1
SOCKET_TIMEOUT_S: Final = 2.0
# Kept first, sent second: whoever subscribes and then reads the key misses nothing. As a script because Redis answers
# then once, and before it wakes the subscribers, who keep the processors busy for some ms.
_PUBLISH: Final = "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) return redis.call('PUBLISH', KEYS[2], ARGV[3])"
# One command a key takes 0.36 s for 20,000 books, in which the feed thread wants the interpreter too; this takes 0.07.
_RENEW: Final = (
    "local lost = {} for _, key in ipairs(KEYS) do "
    "if redis.call('EXPIRE', key, ARGV[1]) == 0 then lost[#lost + 1] = key end end return lost"
)
_RENEWED_AT_ONCE: Final = 1000  # less than 2 ms, in which Redis does nothing else
_AWAY: Final = (redis.RedisError, OSError)


class LiveBook(NamedTuple):
    """A snapshot for the web: the top of a book for the sockets, or all of it for the full-book key."""

    snapshot: BookSnapshot
    complete: bool
    traded: Traded = Traded()
    """The trades since the last push; not with a complete one."""
    since_ns: int = 0
    """When the oldest change that it shows had come, monotonic; 0: not told, as of one that waited for its turn."""

    @property
    def key(self) -> str:
        """Where Redis keeps it."""
        return (FULL_BOOK_KEY if self.complete else BOOK_KEY).format(symbol=self.snapshot.symbol)


class BroadcastWriter:
    """One connection to Redis, used by the thread that writes; without the event loop that a channel layer needs."""

    target = "Redis"
    encode_ns = 0  # what it encodes is not stored

    def __init__(self, redis_url: str, status: Callable[[], EngineStatus]) -> None:
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # our caller retries with a newer book; this would only hold an old one up
        )
        self._layer = RedisPubSubChannelLayer()  # for the form that its readers expect
        self._status = status
        self._status_due = 0.0
        self.publish_ns = LatencyHistogram()
        """From the arrival of the oldest change that a book shows until Redis has it, the wait for PUSH_MS included."""
        self._kept: dict[str, bytes | str] = {}  # key -> what was written under it
        self.watched: frozenset[str] = frozenset()
        """As of `LiveSink`. Replaced, never changed."""
        self._watched_due = 0.0

    def write(self, batch: list[LiveBook]) -> Written:
        """Publish a batch and, once a second, say that the engine lives. Raises SinkUnavailable while Redis is away."""
        try:
            self._publish(batch)
            if time.monotonic() >= self._status_due:
                self._live_on()
                self._status_due = time.monotonic() + STATUS_EVERY_S
            if len(self._kept) > FEW and time.monotonic() >= self._watched_due:
                self._look_who_watches()
                self._watched_due = time.monotonic() + WATCHED_EVERY_S
        except _AWAY as error:
            raise SinkUnavailable(f"Redis: {str(error) or type(error).__name__}") from error
        return Written(len(batch))

    def close(self) -> None:
        self._redis.close()

    def _publish(self, batch: list[LiveBook]) -> None:
        """Publish what is shown, and then keep the complete books, whose text takes ten times as long."""
        shown = [(book, message_of(book, time.time_ns())) for book in batch if not book.complete]
        if shown:
            pipeline = self._redis.pipeline(transaction=False)
            for book, message in shown:
                channel = GROUP_CHANNEL.format(group_name(message["symbol"]))
                self._kept[book.key] = form = bytes(msgpack.packb(message))
                pipeline.eval(_PUBLISH, 2, book.key, channel, form, BOOK_TTL_S, self._layer.serialize(message))
            pipeline.execute()
            now_ns = time.monotonic_ns()
            for book, _ in shown:
                if book.since_ns:
                    self.publish_ns.add(now_ns - book.since_ns)
        self._keep({book.key: _complete_text(book) for book in batch if book.complete})

    def _keep(self, forms: Mapping[str, bytes | str]) -> None:
        """Write books under their keys, however many, in one journey."""
        if forms:
            self._kept |= forms
            pipeline = self._redis.pipeline(transaction=False)
            for key, form in forms.items():
                pipeline.set(key, form, ex=BOOK_TTL_S)
            pipeline.execute()

    def _look_who_watches(self) -> None:
        found = cast(list[bytes], self._redis.pubsub_channels(GROUP_CHANNEL.format("book*")))
        prefix = len(GROUP_CHANNEL.format(""))
        watched = frozenset(channel[prefix:].decode(errors="replace") for channel in found)
        if watched != self.watched:
            self.watched = watched

    def _live_on(self) -> None:
        """Say that the engine lives: its status, and the life of every book. A Redis that was restarted has none."""
        pipeline = self._redis.pipeline(transaction=False)
        _tell(pipeline, self._status(), time.time())
        told = len(pipeline)
        keys = list(self._kept)
        for begin in range(0, len(keys), _RENEWED_AT_ONCE):
            some = keys[begin : begin + _RENEWED_AT_ONCE]
            pipeline.eval(_RENEW, len(some), *some, BOOK_TTL_S)
        lost = [key for some in pipeline.execute()[told:] for key in some]
        self._keep({key.decode(): self._kept[key.decode()] for key in lost})


class LiveSink(Sink[LiveBook], Protocol):
    """What the feed thread needs of the output that shows books."""

    @property
    def watched(self) -> frozenset[str]:
        """Groups that somebody is in, a tenth of a second ago; may be empty while there are few books."""


class BroadcastSink(ThreadedSink[LiveBook]):
    """Keeps the newest of each book; never makes the feed wait."""

    def __init__(self, redis_url: str, status: Callable[[], EngineStatus]) -> None:
        mailbox = LatestMailbox[LiveBook](lambda book: book.key, BATCH_BOOKS)
        writer = BroadcastWriter(redis_url, status)
        self.publish_ns = writer.publish_ns
        self._redis_writer = writer
        super().__init__("broadcast", mailbox, writer, retry_cap_s=0.5)

    @property
    def watched(self) -> frozenset[str]:
        return self._redis_writer.watched


def _tell(pipeline: Pipeline, status: EngineStatus, now_s: float) -> None:
    """Write the status under the engine's name, and the name among the others; who is long gone is forgotten."""
    pipeline.set(ENGINE_STATUS_KEY.format(name=status["name"]), json.dumps(status), ex=ENGINE_STATUS_TTL_S)
    pipeline.zadd(ENGINES_KEY, {status["name"]: now_s})
    pipeline.zremrangebyscore(ENGINES_KEY, 0, now_s - ENGINE_REMEMBERED_S)
    pipeline.expire(ENGINES_KEY, ENGINE_REMEMBERED_S)


def _complete_text(book: LiveBook) -> str:
    """Return a book with all of its levels as JSON."""
    levels = max(len(book.snapshot.bids), len(book.snapshot.asks))
    return book_text(message_of(book, time.time_ns()), levels)


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
