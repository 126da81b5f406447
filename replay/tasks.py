"""Celery doors of replay control: short, idempotent, acknowledged early. Floor 3.

No task lives as long as a replay: the streamer is a daemon and owns the clock. A task brings one verb to it,
writes the row, and returns an outcome as plain data: the status, or why there is none.

Work on files takes minutes: of each kind (reading, verifying, indexing) a worker does one at a time, and the others go
back into the broker. So three threads at most are busy with files, and the rest are there for the verbs.
"""

import contextlib
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypedDict

from celery import shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from replay import driving, idempotency, report_queue, runs, schedule
from replay.models import Dataset
from replay.runs import RunRequest
from replay.streamer.messages import PaceArgs, Place, StepUnit, StreamerRefused, StreamerStatus
from replay.streamer.remote import StreamerRemote, StreamerUnreachable

task: Callable[[Callable[..., Any]], Any] = shared_task  # Celery has no types
_VERIFY_AGAIN_S: Final = 5  # when another file is being verified
_RESCAN_AGAIN_S: Final = 2  # when other files are being read
_INDEX_AGAIN_S: Final = 2  # when another file is being indexed

_reading = threading.Lock()
_indexing = threading.Lock()
_stopping = threading.Event()


class Outcome(TypedDict, total=False):
    """Exactly one key is set."""

    status: StreamerStatus
    refused: str
    unreachable: str


@task
def start_replay(request: RunRequest) -> Outcome:
    """Start a replay, or report the one that runs; of two at the same instant the database lets one through."""
    return _outcome(lambda: driving.start(request, streamer_remote()))


@task
def pause_replay(once: str | None = None) -> Outcome:
    """Hold what runs."""
    return _outcome(lambda: driving.pause(streamer_remote(), once))


@task
def resume_replay(once: str | None = None) -> Outcome:
    """Let go on what is paused."""
    return _outcome(lambda: driving.resume(streamer_remote(), once))


@task
def stop_replay(once: str | None = None) -> Outcome:
    """Stop what runs; harmless when nothing does."""
    return _outcome(lambda: driving.stop(streamer_remote(), once))


@task
def change_pace(args: PaceArgs, once: str | None = None) -> Outcome:
    """Change the pace of what runs."""
    return _outcome(lambda: driving.change_pace(args, streamer_remote(), once))


@task
def seek_replay(to: Place, once: str | None = None) -> Outcome:
    """Go to a place."""
    return _outcome(lambda: driving.seek(to, streamer_remote(), once))


@task
def step_replay(unit: StepUnit, by: int, once: str | None = None) -> Outcome:
    """Go so many units on, or back."""
    return _outcome(lambda: driving.step(unit, by, streamer_remote(), once))


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def start_scheduled() -> None:
    """Start what is due; the clock asks for it each second."""
    schedule.tick()
    with contextlib.suppress(StreamerUnreachable):  # then it is tried again a second later
        schedule.start_due(streamer_remote())


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def forget_old_answers() -> None:
    """Delete the answers to requests that nobody will send again."""
    idempotency.forget_old()


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def rescan_datasets(dataset_ids: list[int]) -> None:
    """Register these files anew; what is wrong with one ends up in its row. One request at a time."""
    # here, because reading files needs numba, and web processes load this module to send tasks
    from replay.datasets import register, request_missing

    if not _reading.acquire(blocking=False):
        with contextlib.suppress(OperationalError, RedisError):  # then it is asked for again by whoever looks
            rescan_datasets.apply_async((dataset_ids,), countdown=_RESCAN_AGAIN_S, retry=False)
        return
    try:
        for dataset in Dataset.objects.defer("quality").filter(pk__in=dataset_ids):
            register(Path(dataset.path))
        request_missing()
    finally:
        _reading.release()


class Stopping(Exception):
    """The worker is to end: its work is given up, to be done later."""


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def verify_dataset(dataset_id: int, sha256: str, anew: bool = False) -> None:
    """Make the quality report of a content that has none, or a new one, and ask for the next that is missing.

    One at a time, of all workers: while another one is being made, this one waits in the broker.
    """
    rows = Dataset.objects.all() if anew else Dataset.objects.without_report()
    is_wanted = rows.filter(pk=dataset_id, sha256=sha256).exists()
    if is_wanted and not _store_report(dataset_id, sha256):
        report_queue.mark(dataset_id, sha256, report_queue.WAITING_S)
        with contextlib.suppress(OperationalError, RedisError):  # then the next registration asks for it
            verify_dataset.apply_async((dataset_id, sha256, anew), countdown=_VERIFY_AGAIN_S, retry=False)
        return
    report_queue.unmark(dataset_id, sha256)
    with contextlib.suppress(OperationalError, RedisError):  # likewise
        report_queue.ask_next()


def _store_report(dataset_id: int, sha256: str) -> bool:
    """Make a report; False when another one is being made, or the worker is to end first."""
    # here, because it loads what reads files: see rescan_datasets
    from replay.quality import store_report

    def look() -> None:
        if _stopping.is_set():
            raise Stopping
        report_queue.mark(dataset_id, sha256, report_queue.RUNNING_S)

    with report_queue.turn() as is_mine:
        if not is_mine:
            return False
        try:
            store_report(dataset_id, look)
        except Stopping:
            return False
    return True


@shared_task(ignore_result=True)  # type: ignore[untyped-decorator]
def index_dataset(dataset_id: int) -> None:
    """Make the index of a dataset that has none; its row tells how far it is. One file at a time, as reports."""
    # here, because it rebuilds books: see rescan_datasets
    from replay.indexes import store_index

    if not _indexing.acquire(blocking=False):
        _index_later(dataset_id)
        return
    try:
        store_index(dataset_id, _go_on)
    except Stopping:
        _index_later(dataset_id)
    finally:
        _indexing.release()


def _index_later(dataset_id: int) -> None:
    with contextlib.suppress(OperationalError, RedisError):  # then the next registration asks for it
        index_dataset.apply_async((dataset_id,), countdown=_INDEX_AGAIN_S, retry=False)


def _go_on(n: int) -> None:
    if _stopping.is_set():
        raise Stopping


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _give_up(**_: object) -> None:
    _stopping.set()


@lru_cache(maxsize=1)
def streamer_remote() -> StreamerRemote:
    """Return this process's connection to the streamer."""
    return StreamerRemote(settings.REDIS_URL, runs.FEED)


def _outcome(verb: Callable[[], StreamerStatus]) -> Outcome:
    try:
        return {"status": verb()}
    except StreamerUnreachable as error:
        return {"unreachable": str(error)}
    except StreamerRefused as error:
        return {"refused": str(error)}
