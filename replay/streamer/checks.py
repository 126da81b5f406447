"""What may be asked of the clock; the rest is refused with a sentence that says what was expected. Floor 1."""

from typing import Any, Final

from replay.streamer.messages import (
    MAX_MARKET_TIME,
    MAX_RECORDS_PER_S,
    MAX_SKIP_IDLE_S,
    MAX_STEP,
    MIN_MARKET_TIME,
    StepUnit,
    StreamerRefused,
)

_STEPS: Final[tuple[StepUnit, ...]] = ("record", "event", "trade", "bbo")


def check_pace(pace: object) -> None:
    """Raise StreamerRefused for a pace that is none."""
    match pace:
        case "max":
            return
        case {"records_per_s": int(rate), **more} if 1 <= rate <= MAX_RECORDS_PER_S and _is_plain(rate, more):
            return
        case {"market_time": int(times) | float(times), **more} if (
            MIN_MARKET_TIME <= times <= MAX_MARKET_TIME and _is_plain(times, more)
        ):
            return
    raise StreamerRefused(
        f'Expected a pace "max", {{"records_per_s": 1 to {MAX_RECORDS_PER_S}}} or '
        f'{{"market_time": {MIN_MARKET_TIME} to {MAX_MARKET_TIME:g}}}, found {pace!r}.'
    )


def check_skip(skip_idle_s: object) -> None:
    """Raise StreamerRefused for a time without records that cannot be skipped."""
    match skip_idle_s:
        case None:
            return
        case int(seconds) | float(seconds) if 0 <= seconds <= MAX_SKIP_IDLE_S and not isinstance(seconds, bool):
            return
    raise StreamerRefused(f"Expected skip_idle_s from 0 to {MAX_SKIP_IDLE_S:g} seconds or null, found {skip_idle_s!r}.")


def check_step(unit: object, by: object) -> None:
    """Raise StreamerRefused for a step that is none."""
    if unit not in _STEPS:
        raise StreamerRefused(f"Expected a unit record, event, trade or bbo, found {unit!r}.")
    if not isinstance(by, int) or isinstance(by, bool) or not 1 <= abs(by) <= MAX_STEP:
        raise StreamerRefused(f"Expected a step of 1 to {MAX_STEP} units, negative for back, found {by!r}.")


def _is_plain(number: object, more: dict[Any, Any]) -> bool:
    return not more and not isinstance(number, bool)
