"""The quality reports that are to be made: each is asked for once, and one is made at a time. Floor 3.

Requests wait in the broker as tasks. A mark in Redis says of a content that its report waits or is being made; marks
expire, so that what a worker took with it when it died is asked for again. Which worker makes a report now is said by a
lock in the database, which is free as soon as the connection of its holder ends.
"""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import redis
from celery import current_app
from django.conf import settings
from django.db import connection

from replay.models import Dataset

VERIFY_TASK: Final = "replay.tasks.verify_dataset"  # by name: the tasks call this module
WAITING_S: Final = 300  # said again each time that a worker finds another report being made
RUNNING_S: Final = 60  # said again while it is being made
_MARK: Final = "batonic:report:{dataset_id}:{sha256}"
_LOCK: Final = 0x7665726966790001  # any number that nobody else uses as an advisory lock


def ask(dataset_id: int, sha256: str, anew: bool = False) -> bool:
    """Ask a worker for the report of a content, also for a new one where there is one.

    False when it waits or is being made already. Raises OperationalError, RedisError.
    """
    key = _MARK.format(dataset_id=dataset_id, sha256=sha256)
    if not _redis().set(key, 1, ex=WAITING_S, nx=True):
        return False
    try:
        current_app.send_task(VERIFY_TASK, [dataset_id, sha256, anew], retry=False, ignore_result=True)
    except BaseException:
        with contextlib.suppress(redis.RedisError):
            _redis().delete(key)
        raise
    return True


def ask_next() -> None:
    """Ask a worker for the first report that is missing; when it has made that, it asks for the next one.

    Raises OperationalError, RedisError.
    """
    missing = Dataset.objects.without_report().values_list("pk", "sha256").first()
    if missing is not None:
        ask(*missing)


def mark(dataset_id: int, sha256: str, for_s: int) -> None:
    """Say that a report waits or is being made. Without Redis nothing happens: it may then be asked for twice."""
    with contextlib.suppress(redis.RedisError):
        _redis().set(_MARK.format(dataset_id=dataset_id, sha256=sha256), 1, ex=for_s)


def unmark(dataset_id: int, sha256: str) -> None:
    """Say that a report is not being made any more."""
    with contextlib.suppress(redis.RedisError):
        _redis().delete(_MARK.format(dataset_id=dataset_id, sha256=sha256))


@contextlib.contextmanager
def turn() -> Iterator[bool]:
    """Give whether the caller may make a report now: nobody else does, in any process, until it leaves."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        (is_mine,) = cursor.fetchone()
        try:
            yield is_mine
        finally:
            if is_mine:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
