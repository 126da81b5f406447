"""From numbers to what an SVG template writes down: fewer points, coordinates, stepped paths. Floor 1.

A series is a column of integers and a mask that says where there is a value. A value holds until the next
point, so the line is stepped; where a side of the book is empty the line has a gap. A chart wider than its
pixels is thinned by MinMaxLTTB, which keeps the extremes that plain LTTB drops (a spread spike must show).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from tsdownsample import MinMaxLTTBDownsampler

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_POINTS: Final = 1600
_DOWNSAMPLER: Final = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]  # tsdownsample is typed by half


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, and its values at the chart's times; ``present`` is False where there is none."""

    name: str
    values: Ints
    present: Mask

    def __post_init__(self) -> None:
        if len(self.values) != len(self.present):
            raise ValueError(f"series {self.name}: {len(self.values)} values but {len(self.present)} marks")

    @property
    def points(self) -> int:
        """Number of values there are."""
        return int(np.count_nonzero(self.present))


@dataclass(frozen=True, slots=True)
class Frame:
    """The drawing area in SVG units, and the ranges of time (ns) and value that fill it."""

    left: float
    top: float
    width: float
    height: float
    start_ns: int
    end_ns: int
    low: int
    high: int

    def x(self, ns: int) -> float:
        """Return where a time lies, to a tenth of a unit."""
        return round(self.left + self.width * (ns - self.start_ns) / max(self.end_ns - self.start_ns, 1), 1)

    def y(self, value: int) -> float:
        """Return where a value lies, to a tenth of a unit; larger values are higher up."""
        return round(self.top + self.height * (self.high - value) / max(self.high - self.low, 1), 1)


def thin(times: Ints, series: Series, most: int = MAX_POINTS) -> tuple[Ints, Series]:
    """Return at most about ``most`` points of a series: its shape, its extremes and the edges of its gaps.

    Cost: one pass. A missing value takes the last value before it, so that a gap cannot look like a spike.
    """
    if len(times) <= most:
        return times, series
    edges = np.flatnonzero(series.present[1:] != series.present[:-1]) + 1
    edges = edges[:: max(1, 2 * len(edges) // most)]
    kept = _DOWNSAMPLER.downsample(
        np.ascontiguousarray(times), np.ascontiguousarray(_filled(series)), n_out=max(most - len(edges), 16)
    )
    kept = np.unique(np.concatenate([kept.astype(np.int64), edges]))
    return times[kept], Series(series.name, series.values[kept], series.present[kept])


def stepped_path(times: Ints, series: Series, frame: Frame) -> str:
    """Return an SVG path that holds each value until the next point and breaks where there is none.

    A point that moves nothing by a tenth of a unit adds nothing to the path.
    """
    parts: list[str] = []
    drawing = False
    x = y = 0.0
    for ns, value, present in zip(times.tolist(), series.values.tolist(), series.present.tolist(), strict=True):
        next_x = frame.x(ns)
        if drawing and next_x != x:
            parts.append(f"H{next_x:g}")
        if present:
            next_y = frame.y(value)
            if not drawing:
                parts.append(f"M{next_x:g} {next_y:g}")
            elif next_y != y:
                parts.append(f"V{next_y:g}")
            y = next_y
        drawing, x = present, next_x
    return "".join(parts)


def _filled(series: Series) -> Ints:
    """Return the values with every missing one replaced by the last before it (the first one, at the start)."""
    if series.points == 0:
        return np.zeros_like(series.values)
    places = np.where(series.present, np.arange(len(series.values)), 0)
    np.maximum.accumulate(places, out=places)
    places = np.where(series.present[places], places, int(np.argmax(series.present)))
    return series.values[places]
