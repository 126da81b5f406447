"""The verbs of replay control, as pages and REST call them: start, stop, pace, status. Floor 3.

A command goes through a short Celery task to the streamer and comes back with the streamer's true state. The wait
for a task happens on a few threads of our own: Celery keeps Redis connections for each thread that waits, and
under ASGI every request has a new one.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict

from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as TaskTimeoutError
from django.conf import settings
from django.contrib.auth.models import User
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from orderbook.book.timestamp import format_ns
from replay import tasks
from replay.models import Dataset
from replay.streamer.remote import StreamerUnreachable
from replay.streamer.states import Pace, ReplayState, StreamerStatus

ANSWER_WITHIN_S: Final = 5.0
_WAITERS: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="control")


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
    try:
        _WAITERS.submit(tasks.rescan_datasets.apply_async, (dataset_ids,), retry=False).result(timeout=ANSWER_WITHIN_S)
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
    """Return the dataset with this name or id; without one the default: CSV_PATH's, else SYMBOL's, else the first.

    Raises ControlError (404 unknown or none, 400 not ready).
    """
    if not name:
        return _default_dataset()
    dataset = Dataset.objects.filter(name=name).first()
    if dataset is None and name.isascii() and name.isdigit() and len(name) < 19:
        dataset = Dataset.objects.filter(pk=int(name)).first()
    if dataset is None:
        raise ControlError(f"No dataset {name!r}", status=404)
    if dataset.state != Dataset.State.READY:
        raise ControlError(f"Dataset {dataset.name} is {dataset.state}: {dataset.error or 'wait until it is ready'}")
    return dataset


def _default_dataset() -> Dataset:
    ready = Dataset.objects.filter(state=Dataset.State.READY)
    path = str(Path(settings.CSV_PATH).expanduser().absolute()) if settings.CSV_PATH else ""
    named = ready.filter(path=path)
    dataset = named.first() or ready.filter(instruments__symbol=settings.SYMBOL).first() or ready.first()
    if dataset is None:
        raise ControlError("No dataset is ready: put a file into DATA_DIR and run scandatasets.", status=404)
    return dataset


def _through_worker(task: Any, *args: Any) -> StreamerStatus:
    """Run a task on a worker and return the streamer's status; neither outlives the deadline."""
    try:
        outcome: tasks.Outcome = _WAITERS.submit(_run, task, args).result(timeout=ANSWER_WITHIN_S + 1)
    except (TaskTimeoutError, TaskRevokedError, FutureTimeoutError) as error:
        raise ControlUnreachable(f"no Celery worker answered within {ANSWER_WITHIN_S:g} s") from error
    except (OperationalError, RedisError) as error:
        raise ControlUnreachable(f"Redis does not answer: {error}") from error
    if "unreachable" in outcome:
        raise ControlUnreachable(outcome["unreachable"])
    if "refused" in outcome:
        raise ControlError(outcome["refused"])
    return outcome["status"]


def _run(task: Any, args: tuple[Any, ...]) -> tasks.Outcome:
    # a task that nobody waits for any longer is not carried out: it expires with our patience
    result = task.apply_async(args, expires=ANSWER_WITHIN_S, retry=False)
    try:
        outcome: tasks.Outcome = result.get(timeout=ANSWER_WITHIN_S)
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
