"""What the channel layer brings to one event loop: one channel of it, whatever the number of groups. Floor 4.

A message of our own goes round by Redis with each look of the hub. Where not even that comes back, the connection is
dead though nobody has said so, and everything is subscribed anew: the layer itself would wait for ever.
"""

import asyncio
import logging
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Any, Final

import redis.exceptions
from channels.layers import get_channel_layer

log = logging.getLogger(__name__)

REDIS_ERRORS: Final = (redis.exceptions.RedisError, OSError)  # an OSError: what came too late, too
ANSWER_S: Final = 2.0
"""What Redis may take for an answer."""
DEAF_S: Final = 5.0
"""So long a silence, our own message included, means that nothing is heard at all."""
AGAIN_S: Final = 1.0
COMPLAIN_S: Final = 10.0
"""Messages that are not understood are told of once in so long."""
_PULSE: Final = "batonic.pulse"


class Pushes:
    """The subscription of one event loop. ``take`` gets each message; ``begun`` is called when it is there."""

    def __init__(self, take: Callable[[dict[str, Any]], object], begun: Callable[[], object]) -> None:
        self.groups: set[str] = set()
        """Those that are heard."""
        self._take, self._begun = take, begun
        self._loop = asyncio.get_running_loop()
        self._layer = get_channel_layer()
        self._channel = ""
        self._lost = 0
        self._complain_at = 0.0

    async def listen(self) -> None:
        """Hand on every message of every group, for ever."""
        while not is_cancelled():
            try:
                async with asyncio.timeout(DEAF_S) as patience:
                    self._channel = await self._layer.new_channel()
                    self._begun()
                    while not is_cancelled():
                        await self._hear()
                        patience.reschedule(self._loop.time() + DEAF_S)
            except REDIS_ERRORS as error:
                log.warning("live books: nothing is heard of Redis (%r); subscribing anew", error)
            await self._forget()
            await asyncio.sleep(AGAIN_S)

    async def follow(self, groups: Set[str]) -> None:
        """Hear these groups and no others, and send our own message round. Raises one of REDIS_ERRORS.

        Cost: one PUBLISH; what is heard already costs nothing.
        """
        channel, heard = self._channel, self.groups  # a new channel gets a new set, also while this one waits
        if not channel:
            return
        with suppress(RuntimeError):  # from the layer: the channel was given up meanwhile, and a new one is on its way
            async with asyncio.timeout(ANSWER_S):
                for group in heard - groups:
                    await self._layer.group_discard(group, channel)
                    heard.discard(group)
                for group in groups - heard:
                    await self._layer.group_add(group, channel)
                    heard.add(group)
                await self._layer.send(channel, {"type": _PULSE})

    async def _hear(self) -> None:
        """Take the next message. One that is not understood is passed over: it must not end books for everybody."""
        try:
            message = await self._layer.receive(self._channel)
            if message["type"] != _PULSE:
                self._take(message)
        except REDIS_ERRORS:
            raise
        except Exception:
            self._lost += 1
            if self._loop.time() >= self._complain_at:
                log.exception("live books: %d messages were not understood; the last of them:", self._lost)
                self._lost, self._complain_at = 0, self._loop.time() + COMPLAIN_S

    async def _forget(self) -> None:
        """Give up the channel, its groups and its connection: what stays in the layer fills up unread."""
        self._channel = ""
        self.groups = set()
        with suppress(*REDIS_ERRORS):
            async with asyncio.timeout(ANSWER_S):
                await self._layer.flush()


def is_cancelled() -> bool:
    """Say whether somebody wants this task to end: redis-py 8 can swallow the cancellation itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
