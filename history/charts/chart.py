"""A chart as plain data, ready for the template that writes it as SVG. Floor 1.

It is not a plotting library: one picture of a fixed size, time to the right, one or two stepped lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from history.charts.geometry import Frame, Ints, Series, stepped_path, thin
from history.charts.scale import time_ticks, value_ticks

WIDTH: Final = 960
HEIGHT: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 12, 28
_TIME_TICKS: Final = 8
_VALUE_TICKS: Final = 6


@dataclass(frozen=True, slots=True)
class AxisMark:
    """A grid line: where it lies in SVG units and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn series; ``kind`` becomes its CSS class."""

    kind: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything the template needs. ``lines`` is empty when there are fewer than two points to draw."""

    kind: str
    title: str
    points: int
    shown: int = 0
    low: str = ""
    high: str = ""
    lines: list[Line] = field(default_factory=list)
    times: list[AxisMark] = field(default_factory=list)
    values: list[AxisMark] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM

    @property
    def drawable(self) -> bool:
        """A line needs two points."""
        return bool(self.lines)


def build_chart(
    kind: str, title: str, times: Ints, series: Sequence[Series], label: Callable[[int], str], unit: int = 1
) -> Chart:
    """Lay out a chart of series that share their times (ascending, ns).

    ``label`` writes a value as text, and grid lines lie on multiples of ``unit``, the smallest step there is.

    Fewer than two points in every series, or no time between the first and the last, give a chart that is
    not drawable. Cost: one pass over the points.
    """
    points = max((line.points for line in series), default=0)
    if points < 2 or times[0] == times[-1]:
        return Chart(kind, title, points)
    low = min(int(line.values[line.present].min()) for line in series if line.points)
    high = max(int(line.values[line.present].max()) for line in series if line.points)
    margin = max((high - low) // 20, 1)  # a flat line lies in the middle and not on the frame
    frame = Frame(
        left=_LEFT,
        top=_TOP,
        width=WIDTH - _LEFT - _RIGHT,
        height=HEIGHT - _TOP - _BOTTOM,
        start_ns=int(times[0]),
        end_ns=int(times[-1]),
        low=low - margin,
        high=high + margin,
    )
    thinned = [thin(times, line) for line in series]
    return Chart(
        kind,
        title,
        points,
        shown=max(int(np.count_nonzero(line.present)) for _, line in thinned),
        low=label(low),
        high=label(high),
        lines=[Line(line.name.lower(), line.name, stepped_path(moments, line, frame)) for moments, line in thinned],
        times=[
            AxisMark(frame.x(tick.value), tick.label) for tick in time_ticks(frame.start_ns, frame.end_ns, _TIME_TICKS)
        ],
        values=[
            AxisMark(frame.y(value), label(value)) for value in value_ticks(frame.low, frame.high, _VALUE_TICKS, unit)
        ],
    )
