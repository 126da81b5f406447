"""The caller's side of the streamer's commands, and its status; the contract is in messages.py. Floor 1; no Django."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from replay.streamer.messages import ANSWER_KEY, COMMAND_KEY, COMMANDS_KEY, STATUS_KEY, StreamerRefused, StreamerStatus

_GRACE_S: Final = 1.0  # for the answer to a command that was taken at the last moment
_FOR_DOING: Final = 0.75  # of that time; what is not done by then is left undone, and the rest is for the answer


class StreamerUnreachable(Exception):
    """Redis or the streamer did not answer in time; what was not carried out by then never is."""


class StreamerRemote:
    """The caller's side, synchronous. Safe to share between threads."""

    def __init__(self, redis_url: str, feed: str = "main") -> None:
        self._feed = feed
        # redis-py 8 would cut a longer wait after its own 5 s, and would retry behind our back
        self._redis = redis.Redis.from_url(
            redis_url, socket_connect_timeout=2, socket_timeout=15, retry=Retry(NoBackoff(), 0)
        )

    def call(
        self, verb: str, args: Mapping[str, Any] | None = None, timeout_s: float = 2.0, once: str | None = None
    ) -> StreamerStatus:
        """Send a command and return the streamer's true status after it.

        ``once`` names what is asked: the streamer carries it out once and gives the same answer to whoever asks
        again, for as long as it remembers. Raises StreamerUnreachable when nobody answers in time, StreamerRefused when
        the streamer cannot.
        """
        try:
            answer = self._exchange(verb, dict(args or {}), timeout_s, once)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StreamerUnreachable(f"Redis does not answer: {error}") from error
        if "refused" in answer:
            refusal = StreamerRefused(answer["refused"])
            refusal.lease = answer.get("lease", 0)
            raise refusal
        if "late" in answer:
            raise StreamerUnreachable(answer["late"])
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

    def _exchange(self, verb: str, args: dict[str, Any], timeout_s: float, once: str | None) -> dict[str, Any]:
        command_id = uuid.uuid4().hex
        commands = COMMANDS_KEY.format(feed=self._feed)
        body_key = COMMAND_KEY.format(feed=self._feed, id=command_id)
        answer_key = ANSWER_KEY.format(feed=self._feed, id=command_id)
        patience_ms = round((timeout_s + _FOR_DOING * _GRACE_S) * 1000)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(body_key, json.dumps({"verb": verb, "args": args, "once": once}), px=patience_ms)
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
