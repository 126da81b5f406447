"""Round ticks for an axis: times on round UTC times, values on 1, 2 or 5 times a power of ten. Floor 1.

Everything is integer: nanoseconds, and values in any integer unit that the caller chooses.
"""

from datetime import UTC, datetime
from typing import Final, NamedTuple

SECOND_NS: Final = 10**9
MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS
DAY_NS: Final = 24 * HOUR_NS

_SUB_SECOND: Final = tuple(step * 10**power for power in range(9) for step in (1, 2, 5))
_TIME_STEPS: Final = (
    *_SUB_SECOND,
    *(n * SECOND_NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * MINUTE_NS for n in (1, 2, 5, 10, 15, 30)),
    *(n * HOUR_NS for n in (1, 2, 3, 6, 12)),
    *(n * DAY_NS for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)


class Tick(NamedTuple):
    """A place on an axis, in the axis' own unit, and what to write beside it."""

    value: int
    label: str


def time_ticks(start_ns: int, end_ns: int, most: int) -> list[Tick]:
    """Return at most ``most`` ticks on round UTC times within [start_ns, end_ns].

    The label says no more than the step needs: a date, minutes, seconds, or the digits below a second.

    >>> [label for _, label in time_ticks(3 * SECOND_NS, 24 * SECOND_NS, 5)]
    ['00:00:05', '00:00:10', '00:00:15', '00:00:20']
    """
    step = _step(_TIME_STEPS, end_ns - start_ns, most)
    return [Tick(value, _time_label(value, step)) for value in _multiples(start_ns, end_ns, step)]


def value_ticks(low: int, high: int, most: int, unit: int = 1) -> list[int]:
    """Return at most ``most`` values within [low, high] on a grid of 1, 2 or 5 times a power of ten units.

    >>> value_ticks(3, 24, 5), value_ticks(0, 1100, 5, unit=25)
    ([5, 10, 15, 20], [0, 250, 500, 750, 1000])
    """
    span = max(high - low, 1)
    steps = [unit * step * 10**power for power in range(len(str(span)) + 1) for step in (1, 2, 5)]
    return _multiples(low, high, _step(tuple(steps), span, most))


def _step(steps: tuple[int, ...], span: int, most: int) -> int:
    """Pick the smallest step that gives at most ``most`` ticks wherever the span begins."""
    beyond = steps[-1] * (span // (steps[-1] * (most - 1)) + 1)
    return next((step for step in steps if span // step + 1 <= most), beyond)


def _multiples(low: int, high: int, step: int) -> list[int]:
    first = -(-low // step) * step
    return list(range(first, high + 1, step))


def _time_label(ns: int, step_ns: int) -> str:
    moment = datetime.fromtimestamp(ns // SECOND_NS, UTC)
    if step_ns >= DAY_NS:
        return f"{moment:%Y-%m-%d}"
    if step_ns >= MINUTE_NS:
        # A label at midnight names the day that begins there.
        return f"{moment:%d %b}" if ns % DAY_NS == 0 else f"{moment:%H:%M}"
    if step_ns >= SECOND_NS:
        return f"{moment:%H:%M:%S}"
    digits = 9 - (len(str(step_ns)) - 1)
    return f"{moment:%H:%M:%S}.{ns % SECOND_NS:09d}"[: 9 + digits]
