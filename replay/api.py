"""REST of replay control and of the datasets. A door: validate, call a verb, answer. Floor 4.

A POST may carry an Idempotency-Key: sent again with the same key, it is answered again and not carried out again.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Body, Router
from ninja.errors import HttpError

from orderbook.book.timestamp import format_ns
from replay import control, idempotency, schedule
from replay.auth import CONTROL_AUTH, READ_AUTH
from replay.bodies import PaceBody, ScheduleBody, SeekBody, StartBody, StepBody, StrictBody
from replay.control import ControlError, ControlUnreachable, StatusAnswer
from replay.models import ApiKey, Dataset, ScheduledReplay
from replay.runs import FEED
from replay.streamer.messages import FixedPlace, Pace

router = Router()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

KEY_HEADER: Final = "Idempotency-Key"
MAX_LISTED: Final = 200  # scheduled replays: the newest

Verb = Callable[[str | None], object]
"""Carries a request out and returns the answer; gets the name under which nothing is done twice."""


class QualityRow(TypedDict):
    """What the quality report of a dataset comes to."""

    ok: bool
    anomalies: int
    hash: str | None


class DatasetRow(TypedDict):
    """A dataset as the page lists it."""

    id: int
    name: str
    state: str
    error: str
    format: str
    venue_dataset: str
    symbols: list[str]
    records: int
    events: int
    size_bytes: int
    first_ts: str | None
    last_ts: str | None
    quality: QualityRow | None  # None until a worker has made the report
    quality_error: str  # why it could not be made


class ScheduledRow(TypedDict):
    """A replay that starts at a time."""

    id: int
    at: str
    dataset: str
    pace: Pace
    skip_idle_s: float | None
    loop: bool
    max_msgs: int
    window_from: FixedPlace | None
    window_to: FixedPlace | None
    requested_by: str | None
    state: str
    replay: int | None
    error: str


@router.post("/control/replay/start", auth=CONTROL_AUTH)
def start_replay(request: HttpRequest, body: Body[StartBody | None] = None) -> HttpResponse:
    """Start a replay, or join the one that runs."""
    asked = body or StartBody.model_validate({})
    return _carry_out(request, "start", asked, lambda once: control.start(asked.asked(), _caller(request), once))


@router.post("/control/replay/pause", auth=CONTROL_AUTH)
def pause_replay(request: HttpRequest) -> HttpResponse:
    """Hold the replay where it is."""
    return _carry_out(request, "pause", None, control.pause)


@router.post("/control/replay/resume", auth=CONTROL_AUTH)
def resume_replay(request: HttpRequest) -> HttpResponse:
    """Go on from where it was paused."""
    return _carry_out(request, "resume", None, control.resume)


@router.post("/control/replay/stop", auth=CONTROL_AUTH)
def stop_replay(request: HttpRequest) -> HttpResponse:
    """Stop the replay that runs; harmless when none does."""
    return _carry_out(request, "stop", None, control.stop)


@router.post("/control/replay/pace", auth=CONTROL_AUTH)
def change_pace(request: HttpRequest, body: PaceBody) -> HttpResponse:
    """Change the pace of the running replay."""
    return _carry_out(request, "pace", body, lambda once: control.change_pace(body.args(), once))


@router.post("/control/replay/seek", auth=CONTROL_AUTH)
def seek_replay(request: HttpRequest, body: SeekBody) -> HttpResponse:
    """Go to a record, a time, a fraction, or the next or previous of something."""
    return _carry_out(request, "seek", body, lambda once: control.seek(body.to(), once))


@router.post("/control/replay/step", auth=CONTROL_AUTH)
def step_replay(request: HttpRequest, body: StepBody) -> HttpResponse:
    """Go so many records, events, trades or changes of the best prices on, or back, and hold there."""
    return _carry_out(request, "step", body, lambda once: control.step(body.unit, body.by, once))


@router.get("/control/replay/status", auth=READ_AUTH)
def replay_status(request: HttpRequest) -> StatusAnswer:
    """Say what the streamer does."""
    try:
        return control.status()
    except ControlUnreachable as error:
        raise HttpError(502, _unreachable(error)) from error


@router.post("/control/replay/schedule", auth=CONTROL_AUTH)
def schedule_replay(request: HttpRequest, body: ScheduleBody) -> HttpResponse:
    """Start a replay at a time."""
    at = _EPOCH + timedelta(microseconds=body.at_ns // 1000)

    def add(once: str | None) -> ScheduledRow:
        return _scheduled_row(control.schedule(body.asked(), at, _caller(request), once))

    return _carry_out(request, "schedule", body, add, status=201)


@router.get("/control/replay/schedule", auth=READ_AUTH)
def list_scheduled(request: HttpRequest) -> list[ScheduledRow]:
    """List the replays that start, or were to start, at a time; the latest first."""
    rows = ScheduledReplay.objects.select_related("dataset", "requested_by").defer("dataset__quality")
    return [_scheduled_row(row) for row in rows[:MAX_LISTED]]


@router.delete("/control/replay/schedule/{scheduled_id}", auth=CONTROL_AUTH)
def cancel_scheduled(request: HttpRequest, scheduled_id: int) -> ScheduledRow:
    """Cancel one that waits."""
    rows = ScheduledReplay.objects.filter(pk=scheduled_id).select_related("dataset", "requested_by")
    cancelled = schedule.cancel(rows)
    row = rows.first()
    if row is None:
        raise HttpError(404, f"No scheduled replay {scheduled_id}")
    if not cancelled:
        raise HttpError(409, f"Only one that waits can be cancelled: this one is {row.state}, or is being started.")
    return _scheduled_row(row)


@router.get("/datasets", auth=READ_AUTH)
def list_datasets(request: HttpRequest) -> list[DatasetRow]:
    """List the registered files, broken ones with the reason."""
    return [_dataset_row(dataset) for dataset in Dataset.objects.with_verdict().prefetch_related("instruments")]


def _dataset_row(dataset: Any) -> DatasetRow:  # a Dataset with its verdict
    quality: QualityRow | None = None
    if dataset.quality_ok is not None:
        quality = {"ok": dataset.quality_ok, "anomalies": dataset.quality_anomalies, "hash": dataset.quality_hash}
    return {
        "id": dataset.pk,
        "name": dataset.name,
        "state": dataset.state,
        "error": dataset.error,
        "format": dataset.format,
        "venue_dataset": dataset.venue_dataset,
        "symbols": [instrument.symbol for instrument in dataset.instruments.all()],
        "records": dataset.records,
        "events": dataset.events,
        "size_bytes": dataset.size_bytes,
        "first_ts": None if dataset.first_ts_event is None else format_ns(dataset.first_ts_event),
        "last_ts": None if dataset.last_ts_event is None else format_ns(dataset.last_ts_event),
        "quality": quality,
        "quality_error": dataset.quality_error or "",
    }


def _scheduled_row(row: ScheduledReplay) -> ScheduledRow:
    return {
        "id": row.pk,
        "at": row.start_at.isoformat(),
        "dataset": row.dataset.name,
        "pace": row.pace,
        "skip_idle_s": row.skip_idle_s,
        "loop": row.loop,
        "max_msgs": row.max_msgs,
        "window_from": row.window_from,
        "window_to": row.window_to,
        "requested_by": row.requested_by.username if row.requested_by else None,
        "state": row.state,
        "replay": row.replay_id,
        "error": row.error,
    }


def _carry_out(request: HttpRequest, name: str, body: StrictBody | None, verb: Verb, status: int = 200) -> HttpResponse:
    """Answer a verb. With a key in the header: carry it out once, and give its answer to all who send the same."""

    def answer(once: str | None) -> idempotency.Answer:
        try:
            return status, verb(once)
        except ControlError as error:
            return error.status, {"detail": str(error)}

    key = request.headers.get(KEY_HEADER)
    try:
        if key is None:
            return _json(answer(None))
        if not idempotency.is_key(key):
            raise HttpError(400, f"{KEY_HEADER}: expected 1 to {idempotency.MAX_KEY} printable characters.")
        digest = idempotency.digest_of(name, body and body.model_dump(exclude_unset=True))
        return _json(idempotency.once(_caller_name(request), key, digest, answer))
    except ControlUnreachable as error:
        raise HttpError(502, _unreachable(error)) from error
    except idempotency.OtherRequest as error:
        raise HttpError(422, f"{KEY_HEADER}: this key was sent with another request before.") from error
    except idempotency.UnderWay as error:
        raise HttpError(409, f"{KEY_HEADER}: the first request with this key is still being carried out.") from error


def _json(answer: idempotency.Answer) -> HttpResponse:
    status, content = answer
    return JsonResponse(content, status=status)


def _unreachable(error: ControlUnreachable) -> str:
    return f"Cannot reach streamer-control (feed {FEED}): {error}"


def _caller(request: Any) -> User:
    caller: User | ApiKey = request.auth
    return caller.owner if isinstance(caller, ApiKey) else caller


def _caller_name(request: Any) -> str:
    """Return whose keys these are: two callers may use the same."""
    caller: User | ApiKey = request.auth
    return f"{'key' if isinstance(caller, ApiKey) else 'user'}:{caller.pk}"
