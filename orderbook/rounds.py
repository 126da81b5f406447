"""Who is sent to next: one task that goes round the clients whose turn it is. Floor 4.

No task a client and no queue: each round visits every client that waits at most once, so that none starves, and what
it is sent is the newest at that moment. The loop is given back every few milliseconds, for connects, pushes, answers.
"""

import asyncio
import logging
from typing import Final

from orderbook.viewer import Subscription

log = logging.getLogger(__name__)

SLICE_S: Final = 0.003
"""A round goes on for so long before others have their turn."""
TICK_S: Final = 0.005
"""Between two rounds for clients whose push_ms has come, at least."""
BROKEN: Final = 1011


class Rounds:
    """The subscriptions of one event loop."""

    def __init__(self) -> None:
        self._followers: dict[str, dict[Subscription, None]] = {}  # by symbol, in the order of their coming
        self._waiting: dict[Subscription, None] = {}  # those that may have something to be sent
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, subscription: Subscription) -> None:
        """Show a client the newest of a topic now, and whatever is newer as it comes."""
        self._followers.setdefault(subscription.topic.symbol, {})[subscription] = None
        self._waiting[subscription] = None
        self._woken.set()

    def remove(self, subscription: Subscription) -> None:
        """Show it no more."""
        symbol = subscription.topic.symbol
        followers = self._followers.get(symbol, {})
        followers.pop(subscription, None)
        if not followers:
            self._followers.pop(symbol, None)

    def is_followed(self, symbol: str) -> bool:
        return symbol in self._followers

    def wake(self, symbol: str) -> None:
        """Note that there is something new of a symbol. Cost: O(its followers), some 20 ns each."""
        self._waiting |= self._followers.get(symbol, {})
        self._woken.set()

    async def run(self) -> None:
        """Go round for ever."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            look_at = await self._round()
            if self._timer is not None:
                self._timer.cancel()
            if look_at is not None:
                self._timer = self._loop.call_at(max(look_at, self._loop.time() + TICK_S), self._woken.set)

    async def _round(self) -> float | None:
        """Visit all who wait. Returns when the next of those that still wait is due; None when none does."""
        waiting, self._waiting = self._waiting, {}
        look_at: float | None = None
        now = self._loop.time()
        slice_end = now + SLICE_S
        for subscription in waiting:
            if now > slice_end:
                await asyncio.sleep(0)
                slice_end = self._loop.time() + SLICE_S
            now = self._loop.time()
            again = self._look(subscription, now)
            if again is not None:
                self._waiting[subscription] = None
                look_at = again if look_at is None else min(look_at, again)
        return look_at

    def _look(self, subscription: Subscription, now: float) -> float | None:
        if subscription not in self._followers.get(subscription.topic.symbol, ()):  # it left while it waited
            return None
        try:
            return subscription.look(now)
        except Exception:  # one client's fault must not end live books for everybody
            log.exception("a live view of %s ended with an error", subscription.topic.symbol)
            self._break_off(subscription)
            return None

    def _break_off(self, subscription: Subscription) -> None:
        """Show a client nothing more, and close it if that can still be done."""
        self.remove(subscription)
        try:
            subscription.viewer.close(BROKEN, "the server made a mistake")
        except Exception:
            log.exception("a client of %s cannot be closed", subscription.topic.symbol)
