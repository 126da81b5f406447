"""Fan-out of live books inside one web process: one hub for each event loop. Floor 4.

The hub holds one channel-layer subscription a symbol, whatever the number of clients. A push is decoded
once, its text is joined once for each depth asked for, and each watcher is woken: a task a client, which
sends the newest text when its ``push_ms`` allows and skips what came in between. Nothing here touches the
database or hops through a thread.

Pushes that were missed (Redis was away, a first watcher came between two pushes) are repaired from the
newest book that the engine keeps in Redis, looked at when a symbol gets its first watcher and once a second
while no push arrives.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import redis.exceptions
from channels.layers import get_channel_layer

from orderbook.live import BookMessage, book_text, group_name
from orderbook.newest import async_client, newest_book

log = logging.getLogger(__name__)

REFRESH_S: Final = 1.0
_REDIS_ERRORS: Final = (redis.exceptions.RedisError, OSError)

_hubs: dict[asyncio.AbstractEventLoop, "Hub"] = {}


class Topic:
    """The newest book of one symbol, and the wake-up calls of those who watch it."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.group = group_name(symbol)
        self.watchers: set[asyncio.Event] = set()
        self.version = 0
        """Books taken so far; 0 means that there is no book yet."""
        self._newest: BookMessage | None = None
        self._texts: dict[int, str] = {}

    def take(self, book: BookMessage) -> None:
        """Make a book the newest one and wake every watcher. Cost: O(watchers)."""
        self._newest = book
        self._texts.clear()
        self.version += 1
        for woken in self.watchers:
            woken.set()

    def differs(self, book: BookMessage) -> bool:
        """Say whether a book is another one than the newest."""
        newest = self._newest
        return newest is None or (newest["run_id"], newest["seq"]) != (book["run_id"], book["seq"])

    def text(self, depth: int) -> str:
        """Return the newest book cut to a depth: joined once a push, however many watchers share the depth."""
        text = self._texts.get(depth)
        if text is None:
            if self._newest is None:
                raise LookupError(f"no book of {self.symbol} yet")
            text = self._texts[depth] = book_text(self._newest, depth)
        return text


class Hub:
    """Every topic that this event loop's clients watch."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._layer = get_channel_layer()
        self._redis = async_client()
        self._channel = ""
        self._changed = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep())]

    async def watch(self, symbol: str, depth: int, push_ms: int, send: Callable[[str], Awaitable[None]]) -> None:
        """Send the newest book of a symbol now and whenever there is another one, until cancelled.

        At most one goes out every ``push_ms`` on average; while ``send`` waits for a slow client, books are
        skipped. A book may go a tenth of ``push_ms`` early: a client that asks for the engine's own interval
        would otherwise miss books to the jitter of two clocks.
        """
        topic = self._topic(symbol)
        woken = asyncio.Event()
        woken.set()
        topic.watchers.add(woken)
        now = asyncio.get_running_loop().time
        push_s, due, sent = push_ms / 1000, 0.0, 0
        try:
            while True:
                await woken.wait()
                if (wait_s := due - push_s / 10 - now()) > 0:
                    await asyncio.sleep(wait_s)
                woken.clear()
                if topic.version == sent:
                    continue
                due = max(due, now()) + push_s
                sent = topic.version
                await send(topic.text(depth))
        finally:
            topic.watchers.discard(woken)
            if not topic.watchers:
                self._changed.set()

    def _topic(self, symbol: str) -> Topic:
        topic = self.topics.get(symbol)
        if topic is None:
            topic = self.topics[symbol] = Topic(symbol)
            self._changed.set()
        return topic

    async def _listen(self) -> None:
        """Take every push of every subscribed symbol, for ever."""
        while not _is_cancelled():
            try:
                self._channel = await self._layer.new_channel()
                self._changed.set()
                while not _is_cancelled():
                    message: BookMessage = await self._layer.receive(self._channel)
                    topic = self.topics.get(message["symbol"])
                    if topic is not None:
                        topic.take(message)
            except _REDIS_ERRORS as error:
                log.warning("live books: cannot subscribe (%s); trying again in %g s", error, REFRESH_S)
                await asyncio.sleep(REFRESH_S)
            except Exception:  # a message that is no book must not end live books for everybody
                log.exception("live books: a message was not understood; subscribing anew")
                await asyncio.sleep(REFRESH_S)

    async def _keep(self) -> None:
        """Subscribe new topics, drop abandoned ones, and repair what a push did not bring, for ever."""
        seen: dict[str, int] = {}
        try:
            while not _is_cancelled():
                self._changed.clear()
                for topic in list(self.topics.values()):
                    await self._keep_topic(topic, quiet=seen.get(topic.symbol) == topic.version)
                seen = {topic.symbol: topic.version for topic in self.topics.values()}
                with suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_S):
                        await self._changed.wait()
        finally:
            await self._redis.aclose()

    async def _keep_topic(self, topic: Topic, quiet: bool) -> None:
        try:
            if not topic.watchers:
                del self.topics[topic.symbol]
                await self._layer.group_discard(topic.group, self._channel)
                return
            if self._channel:
                await self._layer.group_add(topic.group, self._channel)  # free when done already
            if quiet or topic.version == 0:
                version = topic.version
                book = await newest_book(self._redis, topic.symbol)
                # A push that arrived while the answer was on its way is newer than the answer.
                if book is not None and topic.version == version and topic.differs(book):
                    topic.take(book)
        except _REDIS_ERRORS as error:
            log.warning("live books of %s: Redis does not answer (%s); trying again", topic.symbol, error)
        except Exception:
            log.exception("live books of %s: what Redis holds was not understood", topic.symbol)


def _is_cancelled() -> bool:
    """Say whether somebody wants this task to end: redis-py 8 can swallow the cancellation itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def current_hub() -> Hub:
    """Return the hub of the running event loop, making it on first use."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        for closed in [other for other in _hubs if other.is_closed()]:
            del _hubs[closed]
        hub = _hubs[loop] = Hub()
    return hub
