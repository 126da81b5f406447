"""A stored quote as a line of text: JSON as REST answers it, and CSV with the same columns. Floor 3."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Final

from history.queries import Quote
from orderbook.book.encoding import snapshot_row_json


def row_json(symbol: str, quote: Quote, decimals: int) -> str:
    """Write a quote as one JSON object."""
    return snapshot_row_json(
        symbol=symbol,
        ts_event=quote.ts_event,
        sequence=quote.sequence,
        bid=quote.bid,
        ask=quote.ask,
        decimals=decimals,
    )


def row_texts(symbol: str, quote: Quote, decimals: int) -> dict[str, str]:
    """Return the fields of ``row_json`` by name, each with exactly the digits that stand in the JSON."""
    fields = json.loads(row_json(symbol, quote, decimals), parse_float=str, parse_int=str)
    return {name: "" if text is None else text for name, text in fields.items()}


CSV_COLUMNS: Final = tuple(row_texts("", Quote(0, 0, None, None), 0))


def csv_line(texts: Iterable[str]) -> str:
    """Write texts as one CSV line."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(texts)
    return line.getvalue()
