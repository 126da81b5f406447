"""What the requests of replay control may hold: strict, and refused in one sentence each. Floor 4."""

import json
from typing import Annotated, Any, Literal

from ninja import Field, Schema
from pydantic import (
    AfterValidator,
    ConfigDict,
    StrictBool,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from orderbook.book.timestamp import parse_ns
from replay import control
from replay.control import ControlError
from replay.streamer.messages import (
    MAX_MARKET_TIME,
    MAX_RECORDS_PER_S,
    MAX_SKIP_IDLE_S,
    MAX_STEP,
    MIN_MARKET_TIME,
    FixedPlace,
    Pace,
    PaceArgs,
    Place,
    StepUnit,
)


class StrictBody(Schema):
    """A misspelt field is refused: it must not start something else than was meant."""

    model_config = ConfigDict(extra="forbid")


class RecordsPerSecondBody(StrictBody):
    """A constant pace."""

    records_per_s: Annotated[StrictInt, Field(ge=1, le=MAX_RECORDS_PER_S)]


class MarketTimeBody(StrictBody):
    """As recorded, so many times as fast."""

    market_time: Annotated[float, Field(strict=True, ge=MIN_MARKET_TIME, le=MAX_MARKET_TIME)]


def _explained(expected: str) -> WrapValidator:
    """Say in one sentence what a field takes, instead of why it is none of its forms."""

    def explain(value: object, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError(f"expected {expected}, found {json.dumps(value)[:80]}") from error

    return WrapValidator(explain)


def _instant(text: str) -> str:
    """Return the nanoseconds of an ISO time, or of nanoseconds, as text."""
    if text.isascii() and text.isdigit():
        if len(text) > 19 or int(text) >= 2**63:
            raise ValueError(f"expected nanoseconds below 2^63, found {text[:40]}")
        return str(int(text))
    return str(parse_ns(text[:80]))


PaceField = Annotated[
    RecordsPerSecondBody | MarketTimeBody | Literal["max"] | None,
    _explained(
        f'"max", {{"records_per_s": 1 to {MAX_RECORDS_PER_S}}} or '
        f'{{"market_time": {MIN_MARKET_TIME:g} to {MAX_MARKET_TIME:g}}}'
    ),
]
DatasetField = Annotated[
    Annotated[str, Field(max_length=200, pattern=r"^\P{Cc}*$")] | Annotated[StrictInt, Field(ge=0, lt=2**63)] | None,
    _explained("the name of a dataset (at most 200 characters, no control characters) or its id"),
]
SkipIdleField = Annotated[
    Annotated[float, Field(strict=True, gt=0, le=MAX_SKIP_IDLE_S)] | None,
    _explained(f"seconds of market time, above 0 and at most {MAX_SKIP_IDLE_S:g}, or null"),
]


class FixedPlaceBody(StrictBody):
    """A place of the file: exactly one of its fields. ``ts`` is an ISO time, or nanoseconds, as text."""

    record: Annotated[StrictInt, Field(ge=0, lt=2**63)] | None = None
    ts: Annotated[str, AfterValidator(_instant)] | None = None
    fraction: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def has_one(self) -> "FixedPlaceBody":
        """Refuse none, and more than one."""
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"expected exactly one of {names}, found {', '.join(given) or 'none'}")
        return self

    def place(self) -> Any:
        """Return the place as the streamer takes it."""
        ((name, value),) = self.model_dump(exclude_none=True).items()
        return {"ts_ns" if name == "ts" else name: value}


class SeekBody(FixedPlaceBody):
    """A place to go to: also the next or previous of something, from where the replay is."""

    next: Literal["trade", "crossing", "anomaly", "event", "bbo"] | None = None
    previous: Literal["trade", "crossing", "event", "bbo"] | None = None

    def to(self) -> Place:
        """Return where to go."""
        place: Place = self.place()
        return place


class StepBody(StrictBody):
    """How far to go, and of what; a negative number goes back."""

    unit: StepUnit
    by: Annotated[StrictInt, Field(ge=-MAX_STEP, le=MAX_STEP)] = 1

    @model_validator(mode="after")
    def goes_somewhere(self) -> "StepBody":
        """Refuse a step of nothing."""
        if self.by == 0:
            raise ValueError("expected by to be above or below 0, found 0")
        return self


class PaceBody(StrictBody):
    """``rate`` is one of the allowed rates; ``pace`` is any other way to go. skip_idle_s stays as it is when absent."""

    rate: StrictInt | None = None
    pace: PaceField = None
    skip_idle_s: SkipIdleField = None

    def chosen(self) -> Pace | None:
        """Return the pace; None when neither is given. Raises ControlError."""
        pace: Any = self.pace if isinstance(self.pace, str | None) else self.pace.model_dump()
        return control.pace_of(self.rate, pace)

    def args(self) -> PaceArgs:
        """Return what a change of pace takes. Raises ControlError."""
        pace = self.chosen()
        if pace is None:
            raise ControlError("Give rate or pace.")
        args: PaceArgs = {"pace": pace}
        if "skip_idle_s" in self.model_fields_set:
            args["skip_idle_s"] = self.skip_idle_s
        return args


class StartBody(PaceBody):
    """What to replay; everything has a default."""

    dataset: DatasetField = None
    loop: StrictBool | None = None
    max_msgs: Annotated[StrictInt, Field(ge=-1, lt=2**63)] = -1
    window_from: FixedPlaceBody | None = Field(None, alias="from")
    window_to: FixedPlaceBody | None = Field(None, alias="to")

    def asked(self) -> control.Start:
        """Return what is asked. Raises ControlError."""
        return control.Start(
            dataset=None if self.dataset is None else str(self.dataset),
            pace=self.chosen(),
            skip_idle_s=self.skip_idle_s,
            loop=self.loop,
            max_msgs=self.max_msgs,
            window_from=_place(self.window_from),
            window_to=_place(self.window_to),
        )


class ScheduleBody(StartBody):
    """What to replay, and when."""

    at: Annotated[str, AfterValidator(_instant)]

    @property
    def at_ns(self) -> int:
        return int(self.at)


def pace_of_text(text: str | None) -> object:
    """Return what a person typed as a pace, in the form of a body: what is out of range is refused there.

    Raises ValueError.
    """
    if text is None or text == "max":
        return text
    try:
        return {"market_time": float(text[:-1])} if text.endswith("x") else {"records_per_s": int(text)}
    except ValueError as error:
        raise ValueError(f'expected a whole number of records a second, "max", or "10x", found {text!r}') from error


def _place(body: FixedPlaceBody | None) -> FixedPlace | None:
    if body is None:
        return None
    place: FixedPlace = body.place()
    return place
