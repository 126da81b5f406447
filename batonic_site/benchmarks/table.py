"""Reports of measurements as tables of Markdown: a row each, with the command that made it. Pure. Floor 5."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Report = Mapping[str, Any]


class Column(NamedTuple):
    """One figure of every row."""

    head: str
    key: str
    """In the report; with ``_min`` and ``_max`` behind it stands what the rounds lay between."""
    scale: float = 1.0
    """What one unit of the page is in units of the report."""
    digits: int = 0


class Row(NamedTuple):
    """One measurement, or one round of it."""

    label: str
    report: Report
    command: str


def cell(report: Report, column: Column) -> str:
    """Return a figure, and behind it what the rounds lay between; ``-`` where there is none.

    >>> speed = Column("M records/s", "per_s", 1e6, 1)
    >>> cell({"per_s": 16_300_000, "per_s_min": 14e6, "per_s_max": 17e6}, speed), cell({"per_s": 5e6}, speed)
    ('16.3 [14.0 - 17.0]', '5.0')
    >>> cell({"limit": "engine"}, Column("limit", "limit")), cell({}, speed)
    ('engine', '-')
    """
    value = report.get(column.key)
    if value is None:
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    shown = _number(value, column)
    least, most = report.get(f"{column.key}_min"), report.get(f"{column.key}_max")
    if least is None or most is None:
        return shown
    least, most = _number(least, column), _number(most, column)
    return f"{shown} [{least} - {most}]" if least != most else shown


def table(first: str, columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """Return a table whose last column has the commands; where there are no rows, a line that says so."""
    lines = [
        f"| {' | '.join([row.label, *(cell(row.report, column) for column in columns), f'`{row.command}`'])} |"
        for row in rows
    ]
    if not lines:
        return "Not measured."
    heads = [first, *(column.head for column in columns), "command"]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines])


def _number(value: float, column: Column) -> str:
    return f"{value / column.scale:,.{column.digits}f}"
