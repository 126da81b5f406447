"""What one web process hears for all its clients: one hub for each event loop. Floor 4.

One channel-layer subscription a symbol, whatever the number of clients; a push is decoded once. Nothing here touches
the database or hops through a thread. Who is sent what, and when, is decided by orderbook.rounds.

Pushes that were missed (Redis was away, a first client came between two pushes) are repaired from the newest book that
the engine keeps in Redis, looked at once a second. The same look tells whether books are fresh: the engine renews them
there once a second.

Three tasks never end: what listens, what looks, what sends. One that fails all the same says so and begins again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from orderbook.live import BookMessage
from orderbook.newest import KeptBook, async_client, kept_books
from orderbook.pushes import REDIS_ERRORS, Pushes, is_cancelled
from orderbook.rounds import Rounds
from orderbook.topic import Staleness, Topic
from orderbook.viewer import Subscription

log = logging.getLogger(__name__)

REFRESH_S: Final = 1.0
RETRY_S: Final = 0.25
"""Instead, while Redis is away."""
SILENT_S: Final = 2.5
"""A book that was not renewed for so long has no engine behind it."""

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
        self._redis = async_client()
        self._changed = asyncio.Event()
        self._pushes = Pushes(self._take, self._changed.set)
        works = (self._pushes.listen, self._keep, self._rounds.run)
        self._tasks = [self._loop.create_task(self._go_on(work)) for work in works]

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

    async def _go_on(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do a work that never ends, and begin it again should it fail: without it there are no live books."""
        while not is_cancelled():
            try:
                await work()
            except Exception:
                log.exception("live books: a task of the hub failed (%r); it begins again", work)
                await asyncio.sleep(REFRESH_S)
                for symbol in self.topics:  # whoever was being sent to waits no more
                    self._rounds.wake(symbol)

    def _take(self, message: Any) -> None:
        listener = self._listeners.get(message["type"])
        if listener is not None:
            listener(message)
            return
        topic = self.topics.get(message["symbol"])
        if topic is not None:
            self._take_book(topic, message)
            self._pushed_at[topic.symbol] = self._loop.time()
            self._tell(topic, None)

    def _take_book(self, topic: Topic, book: BookMessage) -> None:
        if topic.take(book):
            self._rounds.wake(topic.symbol)

    async def _keep(self) -> None:
        """Subscribe new topics, drop abandoned ones, repair what a push did not bring, tell what is stale, for ever."""
        seen: dict[str, int] = {}
        try:
            while not is_cancelled():
                self._changed.clear()
                pause_s = REFRESH_S
                try:
                    await self._subscribe()
                    await self._repair([name for name, topic in self.topics.items() if seen.get(name) == topic.taken])
                except REDIS_ERRORS as error:
                    log.warning("live books: Redis does not answer (%r); trying again", error)
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
        """Hear of the topics that are followed, and forget the others."""
        for symbol in [name for name in self.topics if not self._rounds.is_followed(name)]:
            del self.topics[symbol]
            self._pushed_at.pop(symbol, None)
        await self._pushes.follow({*self._listeners, *(topic.group for topic in self.topics.values())})

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
            if kept.book is not None and topic.taken == before[symbol]:
                self._take_book(topic, kept.book)
            self._tell(topic, self._staleness(topic, kept))

    def _staleness(self, topic: Topic, kept: KeptBook) -> Staleness:
        pushed_at = self._pushed_at.get(topic.symbol)
        ages = [kept.age_s, None if pushed_at is None else self._loop.time() - pushed_at]
        if any(age is not None and age < SILENT_S for age in ages):
            return None
        return "engine", f"no engine renews the book of {topic.symbol}"

    def _tell_all(self, stale: Staleness) -> None:
        for topic in self.topics.values():
            self._tell(topic, stale)

    def _tell(self, topic: Topic, stale: Staleness) -> None:
        if topic.tell(stale):
            self._rounds.wake(topic.symbol)


def current_hub() -> Hub:
    """Return the hub of the running event loop, making it on first use."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        for closed in [other for other in _hubs if other.is_closed()]:
            del _hubs[closed]
        hub = _hubs[loop] = Hub()
    return hub
