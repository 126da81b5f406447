"""What several rounds of one measurement come to: of each figure the median, the least and the greatest. Floor 1."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

_MOST: Final = {"max", "peak"}


def spread(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one report of several with the same keys: medians, with ``_min`` and ``_max`` beside each that varies.

    Of a figure named a maximum or a peak the greatest stands for all: one that is not the worst says nothing. What is
    no number is that of the first. Raises ValueError when there is none.

    >>> spread([{"p99": 3, "max": 9, "of": "a"}, {"p99": 5, "max": 7, "of": "a"}, {"p99": 4, "max": 8, "of": "a"}])
    {'p99': 4, 'p99_min': 3, 'p99_max': 5, 'max': 9, 'max_min': 7, 'max_max': 9, 'of': 'a'}
    """
    if not reports:
        raise ValueError("expected at least one report, found none")
    made: dict[str, Any] = {}
    for name, first in reports[0].items():
        values = [report[name] for report in reports]
        if isinstance(first, int | float) and len(set(values)) > 1:
            middle = max(values) if _MOST & set(name.split("_")) else round(median(values), 4)
            made |= {name: middle, f"{name}_min": min(values), f"{name}_max": max(values)}
        else:
            made[name] = first
    return made
