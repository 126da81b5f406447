"""Snapshots into PostgreSQL: the best bid and offer of each, and every symbol they name. Floor 3.

Rows go by binary COPY straight into the table. COPY knows no conflict rule, so a batch that meets a stored row goes
again through a temporary table, and rows that exist are counted as duplicates: the market's past is stored once,
however often a file is replayed. Not Django's connection: this thread has its own.
"""

import logging
from typing import Any, Final

import psycopg
from psycopg import errors

from engine_worker.mailbox import FifoMailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from history.models import Instrument, Snapshot
from orderbook.book.snapshot import BookSnapshot, Level

QUEUE_SNAPSHOTS: Final = 10_000  # about 30 MB of snapshots of 50 levels
BATCH_SNAPSHOTS: Final = 2_000
BATCH_AGE_S: Final = 0.2
# A server that vanished without a word is noticed after 5 + 3 * 3 s, also while it owes an answer.
CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 14_000,  # ms: keepalives say nothing of bytes that were sent and not acknowledged
    "application_name": "batonic-engine",
}

# The texts below are put together from names of our own models only (hence the noqa); every value is a parameter.
_TABLE: Final = Snapshot._meta.db_table
_INSTRUMENTS: Final = Instrument._meta.db_table
_COLUMNS: Final = (
    "symbol, ts_event, sequence, ts_recv, best_bid_px, best_bid_sz, best_bid_ct, best_ask_px, best_ask_sz, best_ask_ct"
)
_TYPES: Final = ("text", "int8", "int8", "int8", "int8", "int8", "int4", "int8", "int8", "int4")
_COPY: Final = f"COPY {_TABLE} ({_COLUMNS}) FROM STDIN (FORMAT binary)"
_STAGE: Final = f"CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT {_COLUMNS} FROM {_TABLE} WITH NO DATA"  # noqa: S608
_COPY_STAGED: Final = f"COPY staged ({_COLUMNS}) FROM STDIN (FORMAT binary)"
_MERGE: Final = f"INSERT INTO {_TABLE} ({_COLUMNS}) SELECT {_COLUMNS} FROM staged ON CONFLICT DO NOTHING"  # noqa: S608
_INTRODUCE: Final = (
    f"INSERT INTO {_INSTRUMENTS} (symbol, instrument_id, publisher_id, tick_size) "  # noqa: S608
    "VALUES (%s, %s, %s, %s) ON CONFLICT (symbol) DO NOTHING"
)
# Only a tick that we inferred ourselves, and that nobody has corrected since, may become finer.
_REFINE: Final = f"UPDATE {_INSTRUMENTS} SET tick_size = %s WHERE symbol = %s AND tick_size = %s"  # noqa: S608

_BIGINT_END: Final = 2**63
_SYMBOL_CHARACTERS: Final = 71

log = logging.getLogger(__name__)


class DatabaseWriter:
    """One connection, made when it is needed and made again when it was lost."""

    target = "PostgreSQL"

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[Any] | None = None
        self._ticks: dict[str, int | None] = {}  # symbol -> the tick that we inserted; None: it was known before
        self._met_duplicates = False

    def write(self, batch: list[BookSnapshot]) -> Written:
        """Store a batch, all of it or nothing. Raises SinkUnavailable when the server is away or refuses."""
        storable = [snapshot for snapshot in batch if _fits(snapshot)]
        refused = [snapshot for snapshot in batch if not _fits(snapshot)]
        stored = self._store(storable) if storable else 0
        if refused:  # said once they cost nothing more: a batch that is tried again says it once
            first = refused[0]
            log.error(
                "database: refused %d snapshots whose times, sequence or name no row can hold; "
                "the first is %.80r, sequence %d, ts_event %d",
                len(refused), first.symbol, first.sequence, first.ts_event,
            )  # fmt: skip
        return Written(stored, len(storable) - stored, len(refused))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _store(self, batch: list[BookSnapshot]) -> int:
        """Return how many rows are new."""
        try:
            connection = self._connect()
            self._introduce(connection, batch)
            if not self._met_duplicates:  # they come in rows: a file that is replayed again
                try:
                    self._copy(connection, _COPY, batch)
                    return len(batch)
                except errors.UniqueViolation:
                    pass
            stored = self._merge(connection, batch)
            self._met_duplicates = stored < len(batch)
            return stored
        except psycopg.Error as error:
            self.close()
            raise SinkUnavailable(" ".join(str(error).split())) from error

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._conninfo, autocommit=True, **CONNECTION)
        return self._connection

    def _introduce(self, connection: psycopg.Connection[Any], batch: list[BookSnapshot]) -> None:
        """Make a row for each symbol once its tick is known, and correct the grid of those that are ours."""
        for symbol, newest in {snapshot.symbol: snapshot for snapshot in batch if snapshot.tick}.items():
            if symbol not in self._ticks:
                values = (symbol, newest.key.instrument_id, newest.key.publisher_id, newest.tick)
                inserted = connection.execute(_INTRODUCE, values).rowcount
                self._ticks[symbol] = newest.tick if inserted else None
            ours = self._ticks[symbol]
            if ours is not None and newest.tick < ours:
                connection.execute(_REFINE, (newest.tick, symbol, ours))
                self._ticks[symbol] = newest.tick

    def _copy(self, connection: psycopg.Connection[Any], statement: str, batch: list[BookSnapshot]) -> None:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_TYPES)
            for snapshot in batch:
                copy.write_row(row_of(snapshot))

    def _merge(self, connection: psycopg.Connection[Any], batch: list[BookSnapshot]) -> int:
        with connection.transaction():
            connection.execute(_STAGE)
            self._copy(connection, _COPY_STAGED, batch)
            return connection.execute(_MERGE).rowcount


def database_sink(conninfo: str) -> ThreadedSink[BookSnapshot]:
    """Return the sink that loses nothing: while its queue is full the feed waits."""
    mailbox = FifoMailbox[BookSnapshot](QUEUE_SNAPSHOTS, BATCH_SNAPSHOTS, BATCH_AGE_S)
    return ThreadedSink("database", mailbox, DatabaseWriter(conninfo))


def row_of(snapshot: BookSnapshot) -> tuple[str | int | None, ...]:
    """Return the columns of a snapshot: price null, size and count 0 where a side is empty."""
    bbo = snapshot.bbo
    key = (snapshot.symbol, snapshot.ts_event, snapshot.sequence, snapshot.ts_recv)
    return (*key, *_side(bbo.bid), *_side(bbo.ask))


def _side(best: Level | None) -> tuple[int | None, int, int]:
    return (None, 0, 0) if best is None else best


def _fits(snapshot: BookSnapshot) -> bool:
    numbers_fit = max(snapshot.ts_event, snapshot.ts_recv, snapshot.sequence) < _BIGINT_END
    return numbers_fit and len(snapshot.symbol) <= _SYMBOL_CHARACTERS and "\0" not in snapshot.symbol
