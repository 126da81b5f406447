"""The streamer's side of its commands: it takes them in their order and writes its status. Floor 1; no Django.

They are begun in that order too, and a long one (a file that is opened, a place that is sought) holds no other up.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from replay.streamer.messages import (
    ANSWER_KEY,
    COMMAND_KEY,
    COMMANDS_KEY,
    LEASE_KEY,
    STATUS_KEY,
    StreamerRefused,
    StreamerStatus,
)

logger = logging.getLogger(__name__)

STATUS_EVERY_S: Final = 0.25
STATUS_TTL_S: Final = 2
_ANSWER_TTL_S: Final = 30
_POLL_S: Final = 1.0
_BACK_OFF_S: Final = (0.1, 2.0)
_TELL_AGAIN_S: Final = (0.0, 0.05, 0.1, 0.2, 0.4)
_AT_ONCE: Final = 16
"""Commands at work at the same time; the next one waits in Redis, where its caller may still give it up."""

_REMEMBERED: Final = 1024
"""Answers kept for those who ask for the same thing again; the oldest goes when one more comes."""

_WRITE_STATUS: Final = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
"""
"""Redis: write the lease and the status, unless a newer lease is there; returns whether it did."""

_REMOVE_STATUS: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1], KEYS[2]) end
"""

_TAKE: Final = """
if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then
    redis.call('LPUSH', KEYS[2], ARGV[2])
    return nil
end
local left_ms = redis.call('PTTL', KEYS[3])
return {redis.call('GETDEL', KEYS[3]) or '', left_ms}
"""
"""Redis: take a command's body and the patience of its caller; beside a newer lease put its id back instead."""

Handler = Callable[[str, dict[str, Any]], Awaitable[StreamerStatus]]
"""Carries out a verb with its arguments; raises StreamerRefused with the reason."""


class CommandServer:
    """Serves one streamer. Outlives outages of Redis."""

    def __init__(
        self,
        redis_url: str,
        handler: Handler,
        status: Callable[[], StreamerStatus],
        feed: str = "main",
        lease: int = 0,
    ) -> None:
        """``lease`` is the generation under which the feed is published; 0 = none."""
        self._lease = lease
        self._is_outdated = False  # another streamer has a newer one
        self._status_keys = (LEASE_KEY.format(feed=feed), STATUS_KEY.format(feed=feed))
        self._handler = handler
        self._status = status
        self._feed = feed
        self._ending = False
        self._at_work: set[asyncio.Task[None]] = set()
        self._asked: dict[str, asyncio.Task[dict[str, Any]]] = {}  # what was asked to be done once -> what comes of it
        self._writing = asyncio.Lock()  # an older status must not overwrite a newer one
        self._redis = redis.asyncio.Redis.from_url(
            redis_url, socket_connect_timeout=2, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )

    async def run(self) -> None:
        """Serve until cancelled; on the way out remove the status, as far as Redis answers."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_doing(self._take_command, "commands"))
                group.create_task(self._keep_doing(self._write_status, "status"))
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self._ending = True
        finally:
            for task in self._at_work:
                task.cancel()
            await asyncio.gather(*self._at_work, return_exceptions=True)
            try:
                await cast(Awaitable[None], self._redis.eval(_REMOVE_STATUS, 2, *self._status_keys, str(self._lease)))
            except (redis.ConnectionError, redis.TimeoutError):
                logger.info("Redis is away: the status will expire by itself")
            await self._redis.aclose()

    async def _keep_doing(self, step: Callable[[], Awaitable[None]], name: str) -> None:
        first_s, last_s = _BACK_OFF_S
        back_off_s = 0.0
        while not self._ending:  # redis-py may swallow a cancellation that comes together with an answer
            try:
                await step()
                if back_off_s:
                    logger.info("Redis is back (%s)", name)
                back_off_s = 0.0
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if not back_off_s:
                    logger.warning("Redis is away (%s): %s; the market clock goes on", name, error)
                back_off_s = min(max(back_off_s * 2, first_s), last_s)
                await asyncio.sleep(back_off_s)

    async def _write_status(self) -> None:
        async with self._writing:
            written = await cast(Awaitable[int], self._redis.eval(*self._status_to_write()))
        if self._is_outdated == bool(written):
            self._is_outdated = not written
            logger.warning(
                "commands are %s", "taken again" if written else "left to another streamer, which has a newer lease"
            )
        await asyncio.sleep(STATUS_EVERY_S)

    def _status_to_write(self) -> tuple[str, int, str, str, str, str, str]:
        """Return the script that writes the status, and what it takes."""
        return _WRITE_STATUS, 2, *self._status_keys, str(self._lease), json.dumps(self._told()), str(STATUS_TTL_S)

    def _told(self) -> StreamerStatus:
        return {**self._status(), "lease": self._lease}

    async def _take_command(self) -> None:
        while len(self._at_work) >= _AT_ONCE:
            await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
        if self._is_outdated:
            await asyncio.sleep(STATUS_EVERY_S)
            return
        commands_key = COMMANDS_KEY.format(feed=self._feed)
        popped = await cast(
            Awaitable[list[bytes] | None],
            self._redis.blpop([commands_key], timeout=_POLL_S),
        )
        if popped is None:
            return
        command_id = popped[1].decode()
        body_key = COMMAND_KEY.format(feed=self._feed, id=command_id)
        taken = await cast(
            Awaitable[tuple[bytes, int] | None],
            self._redis.eval(_TAKE, 3, self._status_keys[0], commands_key, body_key, str(self._lease), command_id),
        )
        if taken is None:
            self._is_outdated = True
            return
        body, left_ms = taken
        if not body:
            logger.info("command %s was given up by its caller", command_id)
            return
        patience_s = left_ms / 1000 if left_ms >= 0 else None
        task = asyncio.create_task(self._serve(command_id, body, patience_s))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _serve(self, command_id: str, body: bytes | str, patience_s: float | None) -> None:
        answer = json.dumps(await self.answer_to(body, patience_s))
        for wait_s in _TELL_AGAIN_S:  # after an outage each kept connection fails once
            try:
                await self._tell(command_id, answer)
                return
            except (redis.ConnectionError, redis.TimeoutError) as error:
                logger.info("the answer to command %s is given again: %s", command_id, error)
                await asyncio.sleep(wait_s)
        logger.warning("the command %s was carried out, and its caller cannot be told", command_id)

    async def _tell(self, command_id: str, answer: str) -> None:
        answer_key = ANSWER_KEY.format(feed=self._feed, id=command_id)
        async with self._writing, self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(answer_key, answer)
            pipe.expire(answer_key, _ANSWER_TTL_S)
            # whoever got the answer and looks at the status next must not see an older one
            pipe.eval(*self._status_to_write())
            await pipe.execute()

    async def answer_to(self, body: bytes | str, patience_s: float | None = None) -> dict[str, Any]:
        """Carry out a command and return the answer to its caller, whatever the body holds.

        What is to be done once is not done again while it is remembered: its answer is given again. What is not done
        when the caller's patience ends is given up, and is not remembered.
        """
        try:
            command = json.loads(body)
            once = command.get("once")
            if once is None:
                return await self._carry_out(command, patience_s)
            if once not in self._asked:
                self._remember(once, asyncio.create_task(self._carry_out(command, patience_s)))
            return await asyncio.shield(self._asked[once])
        except Exception as error:  # one bad command must not end the daemon; the caller hears of it
            logger.exception("the command %.200r failed", body)
            return {"refused": f"{type(error).__name__}: {error}"}

    async def _carry_out(self, command: dict[str, Any], patience_s: float | None) -> dict[str, Any]:
        patience = asyncio.timeout(patience_s)
        try:
            async with patience:
                status = await self._handler(command["verb"], command["args"])
            return {"status": {**status, "lease": self._lease}}
        except StreamerRefused as refusal:
            return {"refused": str(refusal), "lease": self._lease}
        except TimeoutError:
            if not patience.expired():
                raise
            logger.warning("the command %s took longer than its caller waits, and is given up", command["verb"])
            self._asked.pop(command.get("once", ""), None)
            return {"late": f"the streamer could not carry out the command {command['verb']} in time"}

    def _remember(self, once: str, answer: asyncio.Task[dict[str, Any]]) -> None:
        self._asked[once] = answer
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
