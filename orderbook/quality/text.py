"""Tables of words as text for a terminal. Floor 1."""

import textwrap
from typing import Final

from orderbook.quality.tables import Table

WIDTH: Final = 80
_GAP: Final = "  "
_LEAST: Final = 10  # of the last column, however wide the others are; words are not broken


def as_text(table: Table) -> str:
    """Write a table as aligned lines, numbers to the right; the last column is wrapped to the terminal's width."""
    rows = [table.head, *table.rows] if table.head else table.rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if is_numeric else "<" for is_numeric in table.numeric]
    indent = sum(width + len(_GAP) for width in widths[:-1])
    lines = [table.title] if table.title else []
    for row in rows:
        *cells, last = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        first, *more = textwrap.wrap(last.rstrip(), max(WIDTH - indent, _LEAST), break_long_words=False) or [""]
        lines.append(_GAP.join([*cells, first if sides[-1] == "<" else last]))
        lines += [" " * indent + line for line in more]
    return "\n".join(line.rstrip() for line in lines)
