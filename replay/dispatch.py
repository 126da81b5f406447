"""Has a task done by a worker, and waits for what comes of it. Floor 3.

The wait for a task happens on a few threads of our own: Celery keeps Redis connections for each thread that waits, and
under ASGI every request has a new one. A command has one deadline, from the moment it was asked for: what was not
begun by then, here or on a worker, never is.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from typing import Any, Final, TypeVar

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as TaskTimeoutError
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from replay.streamer.messages import StreamerStatus
from replay.tasks import Outcome

ANSWER_WITHIN_S: Final = 5.0
MAX_WAITING: Final = 64
_SLACK_S: Final = 1.0  # for a waiter to say itself what it waited for

_WAITERS: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="control")
_PLACES: Final = threading.BoundedSemaphore(MAX_WAITING)
_Result = TypeVar("_Result")


class ControlError(Exception):
    """The request cannot be carried out; ``status`` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ControlUnreachable(Exception):
    """The worker or the streamer did not answer."""


def through_worker(task: Any, *args: Any) -> StreamerStatus:
    """Run a task on a worker and return the streamer's status. Raises ControlError, ControlUnreachable."""
    give_up_at = time.monotonic() + ANSWER_WITHIN_S
    try:
        outcome = _on_waiter(lambda: _run(task, args, give_up_at))
    except (TaskTimeoutError, TaskRevokedError, FutureTimeoutError) as error:
        raise ControlUnreachable(f"no Celery worker answered within {ANSWER_WITHIN_S:g} s") from error
    except (OperationalError, RedisError) as error:
        raise ControlUnreachable(f"Redis does not answer: {error}") from error
    if "unreachable" in outcome:
        raise ControlUnreachable(outcome["unreachable"])
    if "refused" in outcome:
        raise ControlError(outcome["refused"])
    return outcome["status"]


def send(work: Callable[[], _Result]) -> _Result:
    """Send tasks and do not wait for them. Raises ControlUnreachable."""
    try:
        return _on_waiter(work)
    except (OperationalError, RedisError, FutureTimeoutError) as error:
        raise ControlUnreachable(f"Redis does not answer: {error}") from error


def _on_waiter(work: Callable[[], _Result]) -> _Result:
    """Do this on a waiter's thread; what still queues when our patience ends is never done.

    Raises ControlUnreachable when too many wait already, FutureTimeoutError, and what the work raises.
    """
    if not _PLACES.acquire(blocking=False):
        raise ControlUnreachable(f"{MAX_WAITING} commands are waiting for an answer already")
    waiting = _WAITERS.submit(work)
    waiting.add_done_callback(lambda _: _PLACES.release())
    try:
        return waiting.result(timeout=ANSWER_WITHIN_S + _SLACK_S)
    finally:
        waiting.cancel()


def _run(task: Any, args: tuple[Any, ...], give_up_at: float) -> Outcome:
    patience_s = give_up_at - time.monotonic()
    if patience_s <= 0:
        raise TaskTimeoutError
    # The moment itself, and not how long until then: sending the task may take its time as well.
    result = task.apply_async(args, expires=timezone.now() + timedelta(seconds=patience_s), retry=False)
    try:
        outcome: Outcome = result.get(timeout=max(give_up_at - time.monotonic(), 0.01))  # 0 is for ever
        return outcome
    finally:
        with contextlib.suppress(OperationalError, RedisError):  # an answer is read once: leave nothing behind
            result.forget()
