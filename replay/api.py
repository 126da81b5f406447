"""REST of replay control and of the datasets. A door: validate, call a verb, answer. Floor 4."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from django.contrib.auth.models import User
from django.http import HttpRequest
from ninja import Body, Field, Router, Schema
from ninja.errors import HttpError
from pydantic import ConfigDict, StrictBool, StrictInt, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from orderbook.book.timestamp import format_ns
from replay import control
from replay.auth import CONTROL_AUTH, READ_AUTH
from replay.control import ControlError, ControlUnreachable, StartAnswer, StatusAnswer
from replay.models import ApiKey, Dataset
from replay.runs import FEED
from replay.streamer.messages import MAX_RECORDS_PER_S, Pace

router = Router()
Answer = TypeVar("Answer")


class StrictBody(Schema):
    """A misspelt field is refused: it must not start something else than was meant."""

    model_config = ConfigDict(extra="forbid")


class RecordsPerSecondBody(StrictBody):
    """A constant pace."""

    records_per_s: Annotated[StrictInt, Field(ge=1, le=MAX_RECORDS_PER_S)]


def _explained(expected: str) -> WrapValidator:
    """Say in one sentence what a field takes, instead of why it is none of its forms."""

    def explain(value: object, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError(f"expected {expected}, found {json.dumps(value)[:80]}") from error

    return WrapValidator(explain)


PaceField = Annotated[
    RecordsPerSecondBody | Literal["max"] | None,
    _explained(f'"max" or {{"records_per_s": 1 to {MAX_RECORDS_PER_S}}}'),
]
DatasetField = Annotated[
    Annotated[str, Field(max_length=200, pattern=r"^\P{Cc}*$")] | Annotated[StrictInt, Field(ge=0, lt=2**63)] | None,
    _explained("the name of a dataset (at most 200 characters, no control characters) or its id"),
]


class PaceBody(StrictBody):
    """``rate`` is one of the allowed rates; ``pace`` is any other way to go."""

    rate: StrictInt | None = None
    pace: PaceField = None

    def chosen(self) -> Pace | None:
        """Return the pace; None when neither is given. Raises ControlError."""
        pace: Pace | None = None
        if isinstance(self.pace, RecordsPerSecondBody):
            pace = {"records_per_s": self.pace.records_per_s}
        elif self.pace is not None:
            pace = self.pace
        return control.pace_of(self.rate, pace)


class StartBody(PaceBody):
    """What to replay; everything has a default."""

    dataset: DatasetField = None
    loop: StrictBool | None = None
    max_msgs: Annotated[StrictInt, Field(ge=-1, lt=2**63)] = -1


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


@router.post("/control/replay/start", auth=CONTROL_AUTH)
def start_replay(request: HttpRequest, body: Body[StartBody | None] = None) -> StartAnswer:
    """Start a replay, or join the one that runs."""
    asked = body or StartBody()
    name = None if asked.dataset is None else str(asked.dataset)
    return _answer(
        lambda: control.start(name, asked.chosen(), _caller(request), loop=asked.loop, max_msgs=asked.max_msgs)
    )


@router.post("/control/replay/stop", auth=CONTROL_AUTH)
def stop_replay(request: HttpRequest) -> StartAnswer:
    """Stop the replay that runs; harmless when none does."""
    return _answer(control.stop)


@router.post("/control/replay/pace", auth=CONTROL_AUTH)
def change_pace(request: HttpRequest, body: PaceBody) -> StartAnswer:
    """Change the pace of the running replay."""

    def change() -> StartAnswer:
        pace = body.chosen()
        if pace is None:
            raise ControlError("Give rate or pace.")
        return control.change_pace(pace)

    return _answer(change)


@router.get("/control/replay/status", auth=READ_AUTH)
def replay_status(request: HttpRequest) -> StatusAnswer:
    """Say what the streamer does."""
    return _answer(control.status)


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


def _answer(verb: Callable[[], Answer]) -> Answer:
    try:
        return verb()
    except ControlError as error:
        raise HttpError(error.status, str(error)) from error
    except ControlUnreachable as error:
        raise HttpError(502, f"Cannot reach streamer-control (feed {FEED}): {error}") from error


def _caller(request: Any) -> User:
    caller: User | ApiKey = request.auth
    return caller.owner if isinstance(caller, ApiKey) else caller
