"""Celery doors of replay control: short, idempotent, acknowledged early. Floor 3.

No task lives as long as a replay: the streamer is a daemon and owns the clock. A task brings one verb to it,
writes the row, and returns an outcome as plain data: the status, or why there is none.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypedDict

from celery import shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from replay import report_queue, runs
from replay.models import Dataset, Replay
from replay.streamer.messages import ACTIVE_STATES, Pace, ReplayState, StreamerRefused, StreamerStatus
from replay.streamer.remote import StreamerRemote, StreamerUnreachable

task: Callable[[Callable[..., Any]], Any] = shared_task  # Celery has no types
ALREADY_RUNNING: Final = "already running"
_START_WITHIN_S: Final = 3.5  # the streamer opens the file before it answers
_OTHER_START_WITHIN_S: Final = 4.0
_OTHER_START_POLL_S: Final = 0.05
_VERIFY_AGAIN_S: Final = 5  # when another file is being verified
_INDEX_AGAIN_S: Final = 2  # when another file is being indexed

_indexing = threading.Lock()
_stopping = threading.Event()


class StartRequest(TypedDict):
    """What is asked of the start task."""

    dataset_id: int
    pace: Pace
    loop: bool
    max_msgs: int
    user_id: int | None


class Outcome(TypedDict, total=False):
    """Exactly one key is set."""

    status: StreamerStatus
    refused: str
    unreachable: str


@task
def start_replay(request: StartRequest) -> Outcome:
    """Start a replay, or report the one that runs; of two at the same instant the database lets one through."""
    return _outcome(lambda: start(request, streamer_remote()))


@task
def stop_replay() -> Outcome:
    """Stop what runs; harmless when nothing does."""
    return _outcome(lambda: stop(streamer_remote()))


@task
def change_pace(pace: Pace) -> Outcome:
    """Change the pace of what runs."""
    return _outcome(lambda: streamer_remote().call("pace", {"pace": pace}))


@task
def rescan_datasets(dataset_ids: list[int]) -> None:
    """Register these files anew; what is wrong with one ends up in its row."""
    # here, because reading files needs numba, and web processes load this module to send tasks
    from replay.datasets import register, request_missing

    for dataset in Dataset.objects.defer("quality").filter(pk__in=dataset_ids):
        register(Path(dataset.path))
    request_missing()


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


def start(request: StartRequest, remote: StreamerRemote) -> StreamerStatus:
    """Open a row and have the streamer run it; see start_replay. Raises what the remote raises."""
    give_up_at = time.monotonic() + _OTHER_START_WITHIN_S
    while time.monotonic() < give_up_at:
        run = runs.open_run(**request)
        if run is not None:
            return _start_run(run, remote)
        running = _join_active_run(remote)
        if running is not None:
            return running
        time.sleep(_OTHER_START_POLL_S)
    raise StreamerUnreachable("another start is under way and did not finish")


def stop(remote: StreamerRemote) -> StreamerStatus:
    """Stop the streamer and end the row, also one that no streamer runs. Raises what the remote raises."""
    status = remote.call("stop")
    if status["replay_id"] is not None:
        runs.record_status(status)
    run = runs.active_run()
    if run is not None and run.state != ReplayState.STARTING:
        runs.close_run(run, ReplayState.STOPPED, "Stopped; the streamer was not running it any more.")
    return status


def _start_run(run: Replay, remote: StreamerRemote) -> StreamerStatus:
    try:
        status = remote.call("start", runs.start_command(run), timeout_s=_START_WITHIN_S)
    except (StreamerUnreachable, StreamerRefused) as error:
        runs.close_run(run, ReplayState.FAILED, str(error))
        raise
    if status["replay_id"] == run.pk:
        runs.record_status(status)
    else:
        runs.close_run(run, ReplayState.FAILED, f"The streamer was already running replay #{status['replay_id']}.")
    return status


def _join_active_run(remote: StreamerRemote) -> StreamerStatus | None:
    """Return the status of the replay that runs; None when the caller should try again.

    1. Another start is under way: its worker will answer, or has died and left the row behind.
    2. The streamer runs it: that is the answer.
    3. The streamer does not: it has ended, or was lost, and the row is closed.
    """
    run = runs.active_run()
    if run is None:
        return None
    if run.state == ReplayState.STARTING:
        if runs.is_left_behind(run):
            runs.close_run(run, ReplayState.FAILED, "The start was never finished: its worker died.")
        return None
    status = remote.call("status")
    if status["replay_id"] != run.pk:
        runs.close_run(run, ReplayState.FAILED, "The streamer lost this replay.")
        return None
    if status["state"] not in ACTIVE_STATES:
        if not runs.record_status(status):
            runs.close_run(run, ReplayState(status["state"]), status["error"])
        return None
    return {**status, "note": ALREADY_RUNNING}


def _outcome(verb: Callable[[], StreamerStatus]) -> Outcome:
    try:
        return {"status": verb()}
    except StreamerUnreachable as error:
        return {"unreachable": str(error)}
    except StreamerRefused as error:
        return {"refused": str(error)}
