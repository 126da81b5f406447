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

from replay.streamer.messages import ANSWER_KEY, COMMAND_KEY, COMMANDS_KEY, STATUS_KEY, StreamerRefused, StreamerStatus

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

Handler = Callable[[str, dict[str, Any]], Awaitable[StreamerStatus]]
"""Carries out a verb with its arguments; raises StreamerRefused with the reason."""


class CommandServer:
    """Serves one streamer. Outlives outages of Redis."""

    def __init__(
        self, redis_url: str, handler: Handler, status: Callable[[], StreamerStatus], feed: str = "main"
    ) -> None:
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
                await self._redis.delete(STATUS_KEY.format(feed=self._feed))
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
            await self._redis.set(STATUS_KEY.format(feed=self._feed), json.dumps(self._status()), ex=STATUS_TTL_S)
        await asyncio.sleep(STATUS_EVERY_S)

    async def _take_command(self) -> None:
        while len(self._at_work) >= _AT_ONCE:
            await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
        taken = await cast(
            Awaitable[list[bytes] | None],
            self._redis.blpop([COMMANDS_KEY.format(feed=self._feed)], timeout=_POLL_S),
        )
        if taken is None:
            return
        command_id = taken[1].decode()
        body = await self._redis.getdel(COMMAND_KEY.format(feed=self._feed, id=command_id))
        if body is None:
            logger.info("command %s was given up by its caller", command_id)
            return
        task = asyncio.create_task(self._serve(command_id, body))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _serve(self, command_id: str, body: bytes | str) -> None:
        answer = json.dumps(await self.answer_to(body))
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
            pipe.set(STATUS_KEY.format(feed=self._feed), json.dumps(self._status()), ex=STATUS_TTL_S)
            await pipe.execute()

    async def answer_to(self, body: bytes | str) -> dict[str, Any]:
        """Carry out a command and return the answer to its caller, whatever the body holds.

        What is to be done once is not done again while it is remembered: its answer is given again.
        """
        try:
            command = json.loads(body)
            once = command.get("once")
            if once is None:
                return await self._carry_out(command)
            if once not in self._asked:
                self._remember(once, asyncio.create_task(self._carry_out(command)))
            return await asyncio.shield(self._asked[once])
        except Exception as error:  # one bad command must not end the daemon; the caller hears of it
            logger.exception("the command %.200r failed", body)
            return {"refused": f"{type(error).__name__}: {error}"}

    async def _carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"status": await self._handler(command["verb"], command["args"])}
        except StreamerRefused as refusal:
            return {"refused": str(refusal)}

    def _remember(self, once: str, answer: asyncio.Task[dict[str, Any]]) -> None:
        self._asked[once] = answer
        if len(self._asked) > _REMEMBERED:
            del self._asked[next(iter(self._asked))]
