"""What one web process hears for all its clients: one hub for each event loop. Floor 4.

One channel-layer subscription a symbol, whatever the number of clients; a push is decoded once. Nothing here touches
the database or hops through a thread. Who is sent what, and when, is decided by orderbook.rounds.

Pushes that were missed (Redis was away, a first client came between two pushes) are repaired from the newest book that
the engine keeps in Redis, looked at once a second. The same look tells whether books are fresh: the engine renews them
there once a second.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import redis.exceptions
from channels.layers import get_channel_layer

from orderbook.newest import KeptBook, async_client, kept_books
from orderbook.rounds import Rounds
from orderbook.topic import Staleness, Topic
from orderbook.viewer import Subscription

log = logging.getLogger(__name__)

REFRESH_S: Final = 1.0
RETRY_S: Final = 0.25
"""Instead, while Redis is away."""
SILENT_S: Final = 2.5
"""A book that was not renewed for so long has no engine behind it."""
_REDIS_ERRORS: Final = (redis.exceptions.RedisError, OSError)

Listener = Callable[[dict[str, Any]], object]

_hubs: dict[asyncio.AbstractEventLoop, "Hub"] = {}


class Hub:
    """Every topic that this event loop's clients follow."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self._rounds = Rounds()
        self._listeners: dict[str, Listener] = {}
        self._pushed_at: dict[str, float] = {}  # by symbol, when the newest push came, by the loop's clock
        self._loop = asyncio.get_running_loop()
        self._layer = get_channel_layer()
        self._redis = async_client()
        self._channel = ""
        self._changed = asyncio.Event()
        self._tasks = [self._loop.create_task(work) for work in (self._listen(), self._keep(), self._rounds.run())]

    def topic(self, symbol: str) -> Topic:
        """Return the topic of a symbol, made on first use. It is kept as long as somebody follows it."""
        topic = self.topics.get(symbol)
        if topic is None:
            topic = self.topics[symbol] = Topic(symbol)
        return topic

    def follow(self, subscription: Subscription) -> None:
        """Show a client the newest of a topic now, and whatever is newer as it comes."""
        if not self._rounds.is_followed(subscription.topic.symbol):
            self._changed.set()
        self._rounds.add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Show it no more."""
        self._rounds.remove(subscription)
        if not self._rounds.is_followed(subscription.topic.symbol):
            self._changed.set()

    def listen(self, group: str, listener: Listener) -> None:
        """Call a function with each message of a group of no symbol; its messages have the group's name as type."""
        self._listeners[group] = listener
        self._changed.set()

    async def _listen(self) -> None:
        """Take every message of every subscribed group, for ever."""
        while not _is_cancelled():
            try:
                self._channel = await self._layer.new_channel()
                self._changed.set()
                while not _is_cancelled():
                    self._take(await self._layer.receive(self._channel))
            except _REDIS_ERRORS as error:
                log.warning("live books: cannot subscribe (%s); trying again in %g s", error, REFRESH_S)
                await asyncio.sleep(REFRESH_S)
            except Exception:  # a message that is no book must not end live books for everybody
                log.exception("live books: a message was not understood; subscribing anew")
                await asyncio.sleep(REFRESH_S)

    def _take(self, message: Any) -> None:
        listener = self._listeners.get(message["type"])
        if listener is not None:
            listener(message)
            return
        topic = self.topics.get(message["symbol"])
        if topic is not None:
            self._pushed_at[topic.symbol] = self._loop.time()
            topic.take(message)
            self._rounds.wake(topic.symbol)

    async def _keep(self) -> None:
        """Subscribe new topics, drop abandoned ones, repair what a push did not bring, tell what is stale, for ever."""
        seen: dict[str, int] = {}
        try:
            while not _is_cancelled():
                self._changed.clear()
                pause_s = REFRESH_S
                try:
                    await self._subscribe()
                    await self._repair([name for name, topic in self.topics.items() if seen.get(name) == topic.taken])
                except _REDIS_ERRORS as error:
                    log.warning("live books: Redis does not answer (%s); trying again", error)
                    self._tell_all(("redis", "Redis does not answer"))
                    pause_s = RETRY_S
                except Exception:
                    log.exception("live books: what Redis holds was not understood")
                seen = {name: topic.taken for name, topic in self.topics.items()}
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
        finally:
            await self._redis.aclose()

    async def _subscribe(self) -> None:
        """Make the layer's subscriptions those of the topics that are followed. What is done already costs nothing."""
        if not self._channel:
            return
        for group in self._listeners:
            await self._layer.group_add(group, self._channel)
        for topic in list(self.topics.values()):
            if self._rounds.is_followed(topic.symbol):
                await self._layer.group_add(topic.group, self._channel)
                continue
            del self.topics[topic.symbol]
            self._pushed_at.pop(topic.symbol, None)
            await self._layer.group_discard(topic.group, self._channel)

    async def _repair(self, quiet: list[str]) -> None:
        """Take the newest books from Redis where no push came since the last look, and tell whether they are fresh."""
        topics = list(self.topics.values())
        if not topics:
            return
        before = {topic.symbol: topic.taken for topic in topics}
        wanted = [name for name, taken in before.items() if taken == 0 or name in quiet]
        for symbol, kept in (await kept_books(self._redis, list(before), wanted)).items():
            topic = self.topics.get(symbol)
            if topic is None:
                continue
            # A push that arrived while the answer was on its way is newer than the answer.
            if kept.book is not None and topic.taken == before[symbol] and topic.differs(kept.book):
                topic.take(kept.book)
                self._rounds.wake(symbol)
            self._tell(topic, self._staleness(topic, kept))

    def _staleness(self, topic: Topic, kept: KeptBook) -> Staleness:
        pushed_at = self._pushed_at.get(topic.symbol)
        ages = [kept.age_s, None if pushed_at is None else self._loop.time() - pushed_at]
        if topic.newest is None or any(age is not None and age < SILENT_S for age in ages):
            return None
        return "engine", f"no engine renews the book of {topic.symbol}"

    def _tell_all(self, stale: Staleness) -> None:
        for topic in self.topics.values():
            self._tell(topic, stale)

    def _tell(self, topic: Topic, stale: Staleness) -> None:
        if topic.tell(stale):
            self._rounds.wake(topic.symbol)


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
