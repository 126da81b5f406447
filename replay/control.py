"""The verbs of replay control, as pages, REST and commands call them. Floor 3.

A command goes through a short Celery task to the streamer and comes back with the streamer's true state. ``once`` names
a request: asked again with the same name it is not carried out again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from orderbook.book.timestamp import format_ns
from replay import dispatch, report_queue, tasks
from replay import schedule as schedule_rows
from replay.dispatch import ControlError, ControlUnreachable
from replay.models import Dataset, ScheduledReplay
from replay.runs import RunRequest, defined_ts
from replay.streamer.messages import (
    AtRecord,
    FixedPlace,
    Pace,
    PaceArgs,
    Place,
    RecordsPerSecond,
    StepUnit,
    StreamerStatus,
)
from replay.streamer.remote import StreamerUnreachable

__all__ = ["ControlError", "ControlUnreachable"]  # what the verbs raise


class Position(TypedDict):
    """Where a replay is; event is None while the file has no index, ts before the first record."""

    record: int
    records: int
    event: int | None
    fraction: float
    ts: str | None


class VerbAnswer(TypedDict):
    """What every verb answers; rate is None where the pace is not a constant rate."""

    state: str
    rate: int | None
    pace: Pace | None
    dataset: str
    position: Position
    upstream: StreamerStatus
    note: NotRequired[str]


class StatusAnswer(TypedDict):
    """What status answers."""

    state: str
    pid: int
    rate: int | None
    pace: Pace | None
    skip_idle_s: float | None
    achieved_records_per_s: int
    dataset: str
    position: Position
    clients: int
    lag_records: int
    error: str
    upstream: StreamerStatus


@dataclass(frozen=True, slots=True)
class Start:
    """What is to be replayed and how; None = the default dataset, STREAMER_RATE, STREAMER_LOOP, the whole file."""

    dataset: str | None = None
    pace: Pace | None = None
    skip_idle_s: float | None = None
    loop: bool | None = None
    max_msgs: int = -1
    window_from: FixedPlace | None = None
    window_to: FixedPlace | None = None


def run_request(asked: Start, requested_by: User | None, request_id: str | None) -> RunRequest:
    """Fill in the defaults. Raises ControlError where there is no such dataset, or none that is ready."""
    return {
        "dataset_id": find_dataset(asked.dataset).pk,
        "pace": asked.pace or {"records_per_s": settings.STREAMER_RATE},
        "skip_idle_s": asked.skip_idle_s,
        "loop": settings.STREAMER_LOOP if asked.loop is None else asked.loop,
        "max_msgs": asked.max_msgs,
        "window_from": asked.window_from,
        "window_to": asked.window_to,
        "user_id": requested_by.pk if requested_by else None,
        "request_id": request_id,
    }


def start(asked: Start, requested_by: User | None, once: str | None = None) -> VerbAnswer:
    """Start a replay, or join the one that runs (``note`` says so). Safe to call by many at once.

    Raises ControlError, ControlUnreachable, as all verbs do.
    """
    return _answer(dispatch.through_worker(tasks.start_replay, run_request(asked, requested_by, once)))


def pause(once: str | None = None) -> VerbAnswer:
    """Hold the replay where it is."""
    return _answer(dispatch.through_worker(tasks.pause_replay, once))


def resume(once: str | None = None) -> VerbAnswer:
    """Go on from where it was paused."""
    return _answer(dispatch.through_worker(tasks.resume_replay, once))


def stop(once: str | None = None) -> VerbAnswer:
    """Stop the replay; nothing happens when none runs."""
    return _answer(dispatch.through_worker(tasks.stop_replay, once))


def change_pace(args: PaceArgs, once: str | None = None) -> VerbAnswer:
    """Change the pace in flight."""
    return _answer(dispatch.through_worker(tasks.change_pace, args, once))


def seek(to: Place, once: str | None = None) -> VerbAnswer:
    """Go to a place of the file; what ran runs on from there."""
    return _answer(dispatch.through_worker(tasks.seek_replay, to, once))


def step(unit: StepUnit, by: int, once: str | None = None) -> VerbAnswer:
    """Go so many units on, or back, and hold there."""
    return _answer(dispatch.through_worker(tasks.step_replay, unit, by, once))


def schedule(asked: Start, at: datetime, requested_by: User, once: str | None = None) -> ScheduledReplay:
    """Have a replay start at a time. Raises ControlError; see scheduled_request."""
    before = schedule_rows.made_by(once) if once is not None else None
    return before or schedule_rows.add(scheduled_request(asked, at, requested_by, once), at)


def scheduled_request(
    asked: Start, at: datetime, requested_by: User | None, request_id: str | None = None
) -> RunRequest:
    """Return what will be asked. Raises ControlError where its time is over, or there is no such dataset."""
    if at <= timezone.now():
        raise ControlError(f"at: expected a time to come, found {at:%Y-%m-%dT%H:%M:%SZ}.")
    records = find_dataset(asked.dataset).records
    for place in (asked.window_from, asked.window_to):  # the streamer would say so too, when nobody listens any more
        record = 0 if place is None else cast(AtRecord, place).get("record", 0)
        if record > records:
            raise ControlError(f"The file has {records} records: there is no record {record}.")
    return run_request(asked, requested_by, request_id)


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
    return {
        "state": upstream["state"],
        "pid": upstream["pid"],
        "rate": _rate(upstream["pace"]),
        "pace": upstream["pace"],
        "skip_idle_s": upstream["skip_idle_s"],
        "achieved_records_per_s": upstream["achieved_records_per_s"],
        "dataset": upstream["dataset"],
        "position": _position(upstream),
        "clients": upstream["clients"],
        "lag_records": upstream["lag_records"],
        "error": upstream["error"],
        "upstream": upstream,
    }


def rescan(dataset_ids: list[int]) -> None:
    """Have a worker read these files again; does not wait for it. Raises ControlUnreachable."""
    dispatch.send(lambda: tasks.rescan_datasets.apply_async((dataset_ids,), retry=False))


def verify(datasets: Iterable[Dataset]) -> int:
    """Have a worker make the quality reports of these files anew; does not wait. Raises ControlUnreachable.

    Returns of how many: not of those whose report waits or is being made already.
    """
    contents = [(dataset.pk, dataset.sha256) for dataset in datasets]
    return sum(dispatch.send(lambda: [report_queue.ask(*content, anew=True) for content in contents]))


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


def _answer(upstream: StreamerStatus) -> VerbAnswer:
    answer: VerbAnswer = {
        "state": upstream["state"],
        "rate": _rate(upstream["pace"]),
        "pace": upstream["pace"],
        "dataset": upstream["dataset"],
        "position": _position(upstream),
        "upstream": upstream,
    }
    if "note" in upstream:
        answer["note"] = upstream["note"]
    return answer


def _position(upstream: StreamerStatus) -> Position:
    record, records, ts_event = upstream["position"], upstream["records"], defined_ts(upstream["ts_event"])
    return {
        "record": record,
        "records": records,
        "event": upstream["event"],
        "fraction": round(record / records, 6) if records else 0.0,
        "ts": None if ts_event is None else format_ns(ts_event),
    }


def _rate(pace: Pace | None) -> int | None:
    return cast(RecordsPerSecond, pace)["records_per_s"] if isinstance(pace, dict) and "records_per_s" in pace else None
