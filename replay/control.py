"""The verbs of replay control, as pages and REST call them: start, stop, pace, status. Floor 3.

A command goes through a short Celery task to the streamer and comes back with the streamer's true state. The wait
for a task happens on a few threads of our own: Celery keeps Redis connections for each thread that waits, and
under ASGI every request has a new one. A command has one deadline, from the moment it was asked for: what was not
begun by then, here or on a worker, never is.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, TypeVar

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as TaskTimeoutError
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from orderbook.book.timestamp import format_ns
from replay import report_queue, tasks
from replay.models import Dataset
from replay.streamer.messages import Pace, ReplayState, StreamerStatus
from replay.streamer.remote import StreamerUnreachable

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


class StartAnswer(TypedDict):
    """What start, stop and pace answer; rate is None where the pace is not a constant rate."""

    state: str
    rate: int | None
    pace: Pace | None
    dataset: str
    upstream: StreamerStatus
    note: NotRequired[str]


class Position(TypedDict):
    """Where a replay is."""

    record: int
    records: int
    fraction: float
    ts: str | None


class StatusAnswer(TypedDict):
    """What status answers; state is RUNNING where the inside says REPLAYING."""

    state: str
    pid: int
    rate: int | None
    pace: Pace | None
    achieved_records_per_s: int
    dataset: str
    position: Position
    clients: int
    error: str
    upstream: StreamerStatus


def start(
    dataset_name: str | None, pace: Pace | None, requested_by: User | None, loop: bool | None = None, max_msgs: int = -1
) -> StartAnswer:
    """Start a replay, or join the one that runs (``note`` says so). Safe to call by many at once.

    Takes the default dataset, STREAMER_RATE and STREAMER_LOOP where None is given. Raises ControlError,
    ControlUnreachable.
    """
    dataset = find_dataset(dataset_name)
    request: tasks.StartRequest = {
        "dataset_id": dataset.pk,
        "pace": pace or {"records_per_s": settings.STREAMER_RATE},
        "loop": settings.STREAMER_LOOP if loop is None else loop,
        "max_msgs": max_msgs,
        "user_id": requested_by.pk if requested_by else None,
    }
    return _start_answer(_through_worker(tasks.start_replay, request))


def stop() -> StartAnswer:
    """Stop the replay that runs; nothing happens when none does. Raises ControlUnreachable."""
    return _start_answer(_through_worker(tasks.stop_replay))


def change_pace(pace: Pace) -> StartAnswer:
    """Change the pace in flight. Raises ControlError when no replay runs, ControlUnreachable."""
    return _start_answer(_through_worker(tasks.change_pace, pace))


def status() -> StatusAnswer:
    """Return the streamer's true state, at most 0.25 s old. Raises ControlUnreachable.

    Read where the streamer writes it and not through a task: every open page asks once a second.
    """
    try:
        upstream = tasks.streamer_remote().status()
    except StreamerUnreachable as error:
        raise ControlUnreachable(str(error)) from error
    if upstream is None:
        raise ControlUnreachable("the streamer is silent")
    records, record, ts_event = upstream["records"], upstream["position"], int(upstream["ts_event"])
    state = upstream["state"]
    return {
        "state": "RUNNING" if state == ReplayState.REPLAYING else state,
        "pid": upstream["pid"],
        "rate": _rate(upstream["pace"]),
        "pace": upstream["pace"],
        "achieved_records_per_s": upstream["achieved_records_per_s"],
        "dataset": upstream["dataset"],
        "position": {
            "record": record,
            "records": records,
            "fraction": round(record / records, 6) if records else 0.0,
            "ts": format_ns(ts_event) if ts_event else None,
        },
        "clients": upstream["clients"],
        "error": upstream["error"],
        "upstream": upstream,
    }


def rescan(dataset_ids: list[int]) -> None:
    """Have a worker read these files again; does not wait for it. Raises ControlUnreachable."""
    _send(lambda: tasks.rescan_datasets.apply_async((dataset_ids,), retry=False))


def verify(datasets: Iterable[Dataset]) -> int:
    """Have a worker make the quality reports of these files anew; does not wait. Raises ControlUnreachable.

    Returns of how many: not of those whose report waits or is being made already.
    """
    contents = [(dataset.pk, dataset.sha256) for dataset in datasets]
    return sum(_send(lambda: [report_queue.ask(*content, anew=True) for content in contents]))


def _send(send: Callable[[], _Result]) -> _Result:
    try:
        return _on_waiter(send)
    except (OperationalError, RedisError, FutureTimeoutError) as error:
        raise ControlUnreachable(f"Redis does not answer: {error}") from error


def pace_of(rate: int | None, pace: Pace | None) -> Pace | None:
    """Join the two ways of asking for a pace; None when neither was used. Raises ControlError."""
    if rate is not None and pace is not None:
        raise ControlError("Give rate or pace, not both.")
    if rate is None:
        return pace
    if rate not in settings.ALLOWED_RATES:
        raise ControlError(f"Invalid rate {rate}. Allowed: {list(settings.ALLOWED_RATES)}")
    return {"records_per_s": rate}


def find_dataset(name: str | None) -> Dataset:
    """Return the dataset with this name or id, or the default one; see ``_default_dataset``.

    Raises ControlError (404 unknown or none, 400 not ready).
    """
    if not name:
        return _default_dataset()
    dataset = Dataset.objects.filter(name=name).first()
    if dataset is None and name.isascii() and name.isdigit() and len(name) < 19:
        dataset = Dataset.objects.filter(pk=int(name)).first()
    if dataset is None:
        raise ControlError(f"No dataset {name!r}", status=404)
    return _ready(dataset)


def _default_dataset() -> Dataset:
    """Return CSV_PATH's dataset; without CSV_PATH the first of DATA_DIR that has SYMBOL, else its first.

    Rows of folders that were DATA_DIR before are there for whoever names them, and are nobody's default.
    """
    if settings.CSV_PATH:
        path = str(Path(settings.CSV_PATH).expanduser().absolute())
        named = Dataset.objects.filter(path=path).first()
        if named is None:
            raise ControlError(f"CSV_PATH={path} is not registered: run scandatasets.", status=404)
        return _ready(named)
    ready = Dataset.objects.filter(state=Dataset.State.READY, path__startswith=f"{settings.DATA_DIR}/")
    dataset = ready.filter(instruments__symbol=settings.SYMBOL).first() or ready.first()
    if dataset is None:
        raise ControlError("No dataset is ready: put a file into DATA_DIR and run scandatasets.", status=404)
    return dataset


def _ready(dataset: Dataset) -> Dataset:
    if dataset.state != Dataset.State.READY:
        raise ControlError(f"Dataset {dataset.name} is {dataset.state}: {dataset.error or 'wait until it is ready'}")
    return dataset


def _through_worker(task: Any, *args: Any) -> StreamerStatus:
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


def _run(task: Any, args: tuple[Any, ...], give_up_at: float) -> tasks.Outcome:
    patience_s = give_up_at - time.monotonic()
    if patience_s <= 0:
        raise TaskTimeoutError
    # The moment itself, and not how long until then: sending the task may take its time as well.
    result = task.apply_async(args, expires=timezone.now() + timedelta(seconds=patience_s), retry=False)
    try:
        outcome: tasks.Outcome = result.get(timeout=max(give_up_at - time.monotonic(), 0.01))  # 0 is for ever
        return outcome
    finally:
        with contextlib.suppress(OperationalError, RedisError):  # an answer is read once: leave nothing behind
            result.forget()


def _start_answer(upstream: StreamerStatus) -> StartAnswer:
    answer: StartAnswer = {
        "state": upstream["state"],
        "rate": _rate(upstream["pace"]),
        "pace": upstream["pace"],
        "dataset": upstream["dataset"],
        "upstream": upstream,
    }
    if "note" in upstream:
        answer["note"] = upstream["note"]
    return answer


def _rate(pace: Pace | None) -> int | None:
    return pace["records_per_s"] if isinstance(pace, dict) else None
