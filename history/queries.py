"""Every read of the history, and nothing else reads it. Floor 3.

A range includes both its ends. Rows come in time order: by (ts_event, sequence), the order of the unique index.
"""

from collections.abc import Generator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from django.db import connection, transaction
from django.db.models import BigIntegerField, Count, Max, Min, QuerySet, Value
from django.db.models.functions import Coalesce

from history.models import Instrument, Snapshot
from orderbook.book.mbo import UNDEF_PRICE
from orderbook.book.price import decimals_of
from orderbook.book.snapshot import Level

EXPORT_CHUNK: Final = 5000

COLUMNS: Final = np.dtype(
    [("ts_event", "<i8"), ("bid_px", "<i8"), ("bid_sz", "<i8"), ("ask_px", "<i8"), ("ask_sz", "<i8")]
)
"""What charts are drawn from; UNDEF_PRICE where a side was empty."""

_QUOTE_FIELDS: Final = (
    "ts_event",
    "sequence",
    "best_bid_px",
    "best_bid_sz",
    "best_bid_ct",
    "best_ask_px",
    "best_ask_sz",
    "best_ask_ct",
)

# Jumps from one symbol to the next through the unique index: its cost is the number of symbols, not of rows.
_STORED_SYMBOLS: Final = """
    WITH RECURSIVE found AS (
        (SELECT symbol FROM history_snapshot ORDER BY symbol LIMIT 1)
        UNION ALL
        SELECT (SELECT symbol FROM history_snapshot WHERE symbol > found.symbol ORDER BY symbol LIMIT 1)
        FROM found WHERE found.symbol IS NOT NULL
    )
    SELECT symbol FROM found WHERE symbol IS NOT NULL
"""


class Quote(NamedTuple):
    """Best bid and offer at the end of one event."""

    ts_event: int
    sequence: int
    bid: Level | None
    ask: Level | None


class Span(NamedTuple):
    """What is stored of a symbol."""

    start_ns: int
    end_ns: int
    rows: int


def symbols() -> list[str]:
    """Return every symbol that is registered or has snapshots, sorted. Cost: O(symbols)."""
    return sorted({*Instrument.objects.values_list("symbol", flat=True), *stored_symbols()})


def stored_symbols() -> list[str]:
    """Return every symbol that has snapshots. Cost: O(symbols)."""
    with connection.cursor() as cursor:
        cursor.execute(_STORED_SYMBOLS)
        return [symbol for (symbol,) in cursor.fetchall()]


def is_known(symbol: str) -> bool:
    """Say whether a symbol is registered or has snapshots."""
    return Instrument.objects.filter(symbol=symbol).exists() or Snapshot.objects.filter(symbol=symbol).exists()


def tick(symbol: str) -> int:
    """Return the price step of a symbol, 1e-9 units; 1 for a symbol that is not registered."""
    found = Instrument.objects.filter(symbol=symbol).values_list("tick_size", flat=True).first()
    return 1 if found is None else found


def decimals(symbol: str) -> int:
    """Return how many digits the prices of a symbol are shown with; all nine for one that is not registered."""
    return decimals_of(tick(symbol))


def latest(symbol: str) -> Quote | None:
    """Return the newest snapshot of a symbol by market time; None when there is none. Cost: one index look-up."""
    row = Snapshot.objects.filter(symbol=symbol).order_by("-ts_event", "-sequence").values_list(*_QUOTE_FIELDS).first()
    return None if row is None else _quote(row)


def span(symbol: str) -> Span | None:
    """Return the first and last time and the number of snapshots; None when there is none. Cost: O(rows)."""
    found = Snapshot.objects.filter(symbol=symbol).aggregate(
        start=Min("ts_event"), end=Max("ts_event"), rows=Count("ts_event")
    )
    return Span(found["start"], found["end"], found["rows"]) if found["rows"] else None


def history(symbol: str, start_ns: int, end_ns: int, limit: int) -> list[Quote]:
    """Return the first ``limit`` snapshots of a range. Cost: O(limit)."""
    return [_quote(row) for row in _within(symbol, start_ns, end_ns).values_list(*_QUOTE_FIELDS)[:limit]]


def count(symbol: str, start_ns: int, end_ns: int) -> int:
    """Return the number of snapshots in a range. Cost: O(rows), from the index alone."""
    return _within(symbol, start_ns, end_ns).order_by().count()


def export(symbol: str, start_ns: int, end_ns: int) -> Generator[Quote]:
    """Yield every snapshot of a range through a server-side cursor: the memory does not grow with the range.

    The transaction spares the server from storing the whole result first; close the generator to end it.
    """
    with transaction.atomic():
        rows = _within(symbol, start_ns, end_ns).values_list(*_QUOTE_FIELDS)
        for row in rows.iterator(chunk_size=EXPORT_CHUNK):
            yield _quote(row)


def columns(symbol: str, start_ns: int, end_ns: int, most: int) -> npt.NDArray[np.void]:
    """Return the first ``most`` snapshots of a range as an array of dtype COLUMNS."""
    undefined = Value(UNDEF_PRICE, output_field=BigIntegerField())
    rows = _within(symbol, start_ns, end_ns).values_list(
        "ts_event",
        Coalesce("best_bid_px", undefined),
        "best_bid_sz",
        Coalesce("best_ask_px", undefined),
        "best_ask_sz",
    )[:most]
    return np.fromiter(rows.iterator(chunk_size=EXPORT_CHUNK), dtype=COLUMNS)


def _within(symbol: str, start_ns: int, end_ns: int) -> QuerySet[Snapshot]:
    return Snapshot.objects.filter(symbol=symbol, ts_event__range=(start_ns, end_ns)).order_by("ts_event", "sequence")


def _quote(row: tuple[int, int, int | None, int, int, int | None, int, int]) -> Quote:
    ts_event, sequence, bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct = row
    return Quote(
        ts_event,
        sequence,
        None if bid_px is None else Level(bid_px, bid_sz, bid_ct),
        None if ask_px is None else Level(ask_px, ask_sz, ask_ct),
    )
