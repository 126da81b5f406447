"""Commands to the streamer over Redis, and its status back. Floor 1; no Django.

A command is an id in a list and a body under a key of its own. Whoever deletes the body owns the command: the
streamer to carry it out, or the caller to give up. So a command is carried out once or never, and never after
its caller gave up. The answer goes back through a list of its own. Redis holds no truth: when it is away the
market clock goes on, and callers are told that the streamer cannot be reached.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from replay.streamer.states import StreamerStatus

logger = logging.getLogger(__name__)

STATUS_KEY: Final = "batonic:streamer:{feed}:status"
"""Redis: StreamerStatus as JSON text; it expires when the streamer is gone."""

COMMANDS_KEY: Final = "batonic:streamer:{feed}:commands"
COMMAND_KEY: Final = "batonic:streamer:{feed}:command:{id}"
ANSWER_KEY: Final = "batonic:streamer:{feed}:answer:{id}"

STATUS_EVERY_S: Final = 0.25
STATUS_TTL_S: Final = 2
_ANSWER_TTL_S: Final = 30
_BODY_TTL_S: Final = 60  # only for the commands of callers that died while waiting
_GRACE_S: Final = 1.0  # for the answer to a command that was taken at the last moment
_POLL_S: Final = 1.0
_BACK_OFF_S: Final = (0.1, 2.0)

Handler = Callable[[str, dict[str, Any]], Awaitable[StreamerStatus]]
"""Carries out a verb with its arguments; raises StreamerRefused with the reason."""


class StreamerUnreachable(Exception):
    """Redis or the streamer did not answer in time; a command that was not taken will never be carried out."""


class StreamerRefused(Exception):
    """The streamer answered that it cannot do this, and why."""


class StreamerRemote:
    """The caller's side, synchronous. Safe to share between threads."""

    def __init__(self, redis_url: str, feed: str = "main") -> None:
        self._feed = feed
        # redis-py 8 would cut a longer wait after its own 5 s, and would retry behind our back
        self._redis = redis.Redis.from_url(
            redis_url, socket_connect_timeout=2, socket_timeout=15, retry=Retry(NoBackoff(), 0)
        )

    def call(self, verb: str, args: Mapping[str, Any] | None = None, timeout_s: float = 2.0) -> StreamerStatus:
        """Send a command and return the streamer's true status after it.

        Raises StreamerUnreachable when nobody answers in time, StreamerRefused when the streamer cannot.
        """
        try:
            answer = self._exchange(verb, dict(args or {}), timeout_s)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StreamerUnreachable(f"Redis does not answer: {error}") from error
        if "refused" in answer:
            raise StreamerRefused(answer["refused"])
        return cast(StreamerStatus, answer["status"])

    def status(self) -> StreamerStatus | None:
        """Return the last status the streamer wrote; None when it is gone. Raises StreamerUnreachable."""
        try:
            text = self._redis.get(STATUS_KEY.format(feed=self._feed))
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StreamerUnreachable(f"Redis does not answer: {error}") from error
        return None if text is None else cast(StreamerStatus, json.loads(cast(bytes, text)))

    def close(self) -> None:
        self._redis.close()

    def _exchange(self, verb: str, args: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        command_id = uuid.uuid4().hex
        commands = COMMANDS_KEY.format(feed=self._feed)
        body_key = COMMAND_KEY.format(feed=self._feed, id=command_id)
        answer_key = ANSWER_KEY.format(feed=self._feed, id=command_id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(body_key, json.dumps({"verb": verb, "args": args}), ex=_BODY_TTL_S)
            pipe.rpush(commands, command_id)
            pipe.execute()
        reply = self._redis.blpop([answer_key], timeout=timeout_s)
        if reply is None:
            if self._redis.delete(body_key):
                self._redis.lrem(commands, 1, command_id)
                raise StreamerUnreachable(f"the streamer did not take the command {verb} within {timeout_s:g} s")
            reply = self._redis.blpop([answer_key], timeout=_GRACE_S)
        if reply is None:
            raise StreamerUnreachable(f"the streamer took the command {verb} and did not answer")
        return cast(dict[str, Any], json.loads(cast(tuple[bytes, bytes], reply)[1]))


class CommandServer:
    """The streamer's side: takes commands one after the other and writes the status. Outlives outages of Redis."""

    def __init__(
        self, redis_url: str, handler: Handler, status: Callable[[], StreamerStatus], feed: str = "main"
    ) -> None:
        self._handler = handler
        self._status = status
        self._feed = feed
        self._ending = False
        self._redis = redis.asyncio.Redis.from_url(
            redis_url, socket_connect_timeout=2, socket_timeout=5, retry=AsyncRetry(NoBackoff(), 0)
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
        await self._redis.set(STATUS_KEY.format(feed=self._feed), json.dumps(self._status()), ex=STATUS_TTL_S)
        await asyncio.sleep(STATUS_EVERY_S)

    async def _take_command(self) -> None:
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
        answer = json.dumps(await self._carry_out(json.loads(body)))
        answer_key = ANSWER_KEY.format(feed=self._feed, id=command_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.rpush(answer_key, answer)
            pipe.expire(answer_key, _ANSWER_TTL_S)
            # whoever got the answer and looks at the status next must not see an older one
            pipe.set(STATUS_KEY.format(feed=self._feed), json.dumps(self._status()), ex=STATUS_TTL_S)
            await pipe.execute()

    async def _carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"status": await self._handler(command["verb"], command["args"])}
        except StreamerRefused as refusal:
            return {"refused": str(refusal)}
        except Exception as error:  # one bad command must not end the daemon; the caller hears of it
            logger.exception("the command %s failed", command.get("verb"))
            return {"refused": f"{type(error).__name__}: {error}"}
