"""Snapshots into PostgreSQL: the best bid and offer of each, and every symbol they name. Floor 3.

Rows go by binary COPY straight into the table. COPY knows no conflict rule, so a batch that meets a stored row goes
again through a temporary table, and rows that exist are counted as duplicates: the market's past is stored once,
however often a file is replayed, and a batch whose fate is not known is just sent again. Not Django's connection: this
thread has its own.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from psycopg import Error, OperationalError, errors

from engine_worker.batch import SnapshotBatch
from engine_worker.copy_rows import COLUMNS, copy_bytes
from engine_worker.mark import Mark
from engine_worker.named_rows import NamedRows, joined, named_rows, storable
from engine_worker.sinks.base import POLL_S, SinkUnavailable, Written
from engine_worker.sinks.deadline import CONNECTION, DeadlineConnection, NoAnswer
from engine_worker.sinks.mark_table import MarkTable
from engine_worker.sinks.store import ThreadedStore
from engine_worker.spill import Spill
from engine_worker.spill_mailbox import SpillMailbox
from history.models import Instrument, Snapshot

QUEUE_BYTES: Final = 64 << 20
SPILL_BYTES: Final = 1 << 30
BATCH_SNAPSHOTS: Final = 20_000  # 2 MB
BATCH_AGE_S: Final = 0.2
ANSWER_S: Final = 5.0
"""How long a batch may take before its connection is given up; doubled after each that took longer."""
_ANSWER_CAP_S: Final = 60.0
_LAST_MARK_S: Final = 1.0  # at the end, for the newest mark
_MARK_RETRY_S: Final = 2.0
_KEEP_S: Final = 2.0  # at the end, beyond what was granted, for what is left to go to the disk
_SYNC_EVERY_S: Final = 1.0
_ROOM_WITHIN_S: Final = 5.0  # a disk that makes no room for so long is taken for one that hangs
_LOOK_EVERY_S: Final = 2.0

# The texts below are put together from names of our own models only (hence the noqa); every value is a parameter.
_TABLE: Final = Snapshot._meta.db_table
_INSTRUMENTS: Final = Instrument._meta.db_table
_NAMES: Final = ", ".join(COLUMNS)
_COPY: Final = f"COPY {_TABLE} ({_NAMES}) FROM STDIN (FORMAT binary)"
_STAGE: Final = (
    f"CREATE TEMP TABLE IF NOT EXISTS staged ON COMMIT DELETE ROWS AS SELECT {_NAMES} FROM {_TABLE} WITH NO DATA"  # noqa: S608
)
_COPY_STAGED: Final = f"COPY staged ({_NAMES}) FROM STDIN (FORMAT binary)"
_MERGE: Final = f"INSERT INTO {_TABLE} ({_NAMES}) SELECT {_NAMES} FROM staged ON CONFLICT DO NOTHING"  # noqa: S608
_INTRODUCE: Final = (
    f"INSERT INTO {_INSTRUMENTS} (symbol, instrument_id, publisher_id, tick_size) "  # noqa: S608
    "VALUES (%s, %s, %s, %s) ON CONFLICT (symbol) DO NOTHING"
)
# Only a tick that we inferred ourselves, and that nobody has corrected since, may become finer.
_REFINE: Final = f"UPDATE {_INSTRUMENTS} SET tick_size = %s WHERE symbol = %s AND tick_size = %s"  # noqa: S608
# Ends on the server what we have left here: a statement that waits for a lock would wait on without us.
_LIMIT: Final = f"SET statement_timeout = {int(_ANSWER_CAP_S * 1000)}"

log = logging.getLogger(__name__)


class DatabaseWriter:
    """One connection, made when it is needed and made again when it was lost or did not answer in time."""

    target = "PostgreSQL"
    encode_ns = 0

    def __init__(self, conninfo: str, *, answer_s: float = ANSWER_S) -> None:
        self.abandoned: Callable[[], bool] = lambda: False
        """Whether to give up at once, whatever is under way."""
        self.reached: Callable[[], Mark | None] = lambda: None
        """The newest mark before which everything is stored, once; None when there is no newer one."""
        self.marks: MarkTable | None = None
        self._mark: Mark | None = None  # to be written down
        self._mark_at = 0.0
        self._mark_fault = ""
        self._conninfo = conninfo
        self._first_answer_s = self._answer_s = answer_s
        self._connection: DeadlineConnection | None = None
        self._ticks: dict[str, int | None] = {}  # symbol -> the tick that we inserted; None: it was known before
        self._met_duplicates = False
        self._look_at = 0.0

    def write(self, batch: list[NamedRows]) -> Written:
        """Store a batch, all of it or nothing. Raises SinkUnavailable when the server is away, frozen or refuses.

        Behind it a mark is written down that earlier batches have reached: rows wait for no mark.
        """
        if batch:
            done = self._write(batch)
        else:
            self._look()
            done = Written(0)
        if time.monotonic() >= self._mark_at:
            self._keep_mark()
        return done

    def close(self) -> None:
        """Write the last mark down, where the server is there, and give the connection back."""
        if self._connection is not None and not self._connection.closed and not self.abandoned():
            self._answer_s = min(self._answer_s, _LAST_MARK_S)
            self._keep_mark()
        self._disconnect()

    def _write(self, batch: list[NamedRows]) -> Written:
        whole = joined(batch)
        fits = storable(whole)
        rows = whole if fits.all() else joined([NamedRows(whole.rows[fits], whole.names)])
        stored = self._store(rows) if len(rows) else 0
        if refused := len(whole) - len(rows):  # said when the rest is stored: a batch that is tried again says it once
            first = whole.rows[~fits][0]
            symbol, sequence = whole.names[first["book"]].symbol, int(first["sequence"])
            log.error(
                "database: refused %d snapshots whose times or name no row can hold; "
                "the first is %.80r, sequence %d, ts_event %d",
                refused, symbol, sequence, first["ts_event"], extra={"symbol": symbol, "seq": sequence},
            )  # fmt: skip
        return Written(stored, len(rows) - stored, refused)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _keep_mark(self) -> None:
        """Write the newest mark that is reached down, so that the next engine goes on from there.

        One that cannot be written is tried again later, one that is refused for good is given up. Either is said once.
        """
        self._mark = self.reached() or self._mark
        if self._mark is None or self.marks is None:
            return
        try:
            with self._answering() as connection:
                self.marks.keep(connection, self._mark)
        except SinkUnavailable as error:
            if not self._mark_fault:
                log.error("database: a mark cannot be written, an older one counts: %s", error)
            self._mark_fault = str(error)
            self._mark_at = time.monotonic() + _MARK_RETRY_S
            self._look_at = 0.0
            if isinstance(error.__cause__, OperationalError):
                return
        else:
            self._mark_fault = ""
        self._mark = None

    def _look(self) -> None:
        """Ask the server for a sign of life every few seconds: that it is away is known before there are rows."""
        if time.monotonic() < self._look_at:
            return
        with self._answering() as connection:
            connection.execute("SELECT 1")
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def _store(self, rows: NamedRows) -> int:
        """Return how many rows are new."""
        with self._answering() as connection:
            self._introduce(connection, rows)
            stored = self._insert(connection, self._encoded(rows), len(rows))
        self._answer_s = self._first_answer_s
        return stored

    @contextmanager
    def _answering(self) -> Iterator[DeadlineConnection]:
        """Return the connection, which is given up where the server refuses something or does not answer in time."""
        try:
            connection = self._connect()
            connection.deadline_s = time.monotonic() + self._answer_s
            yield connection
        except Error as error:
            if isinstance(error, NoAnswer):
                self._answer_s = min(2 * self._answer_s, _ANSWER_CAP_S)  # slow is not frozen
            self._disconnect()
            raise SinkUnavailable(" ".join(str(error).split())) from error
        except BaseException:
            self._disconnect()  # it is not known what is under way there
            raise

    def _encoded(self, rows: NamedRows) -> bytes:
        begun_ns = time.perf_counter_ns()
        data = copy_bytes(rows)
        self.encode_ns = (time.perf_counter_ns() - begun_ns) // len(rows)
        return data

    def _connect(self) -> DeadlineConnection:
        if self._connection is None or self._connection.closed:
            connection = DeadlineConnection.connect(self._conninfo, autocommit=True, **CONNECTION)
            self._connection = connection
            connection.abandoned = self.abandoned
            connection.deadline_s = time.monotonic() + self._answer_s
            connection.execute(_LIMIT)
        return self._connection

    def _introduce(self, connection: DeadlineConnection, rows: NamedRows) -> None:
        """Make a row for each symbol once its tick is known, and correct the grid of those that are ours."""
        for symbol, tick, key in rows.names:
            if not tick:
                continue
            if symbol not in self._ticks:
                inserted = connection.execute(_INTRODUCE, (symbol, key.instrument_id, key.publisher_id, tick)).rowcount
                self._ticks[symbol] = tick if inserted else None
            ours = self._ticks[symbol]
            if ours is not None and tick < ours:
                connection.execute(_REFINE, (tick, symbol, ours))
                self._ticks[symbol] = tick

    def _insert(self, connection: DeadlineConnection, data: bytes, count: int) -> int:
        if not self._met_duplicates:  # they come in rows: a file that is replayed again
            try:
                _copy(connection, _COPY, data)
                return count
            except errors.UniqueViolation:
                pass
        with connection.transaction():
            connection.execute(_STAGE)
            _copy(connection, _COPY_STAGED, data)
            stored = connection.execute(_MERGE).rowcount
        self._met_duplicates = stored < count
        return stored


def _copy(connection: DeadlineConnection, statement: str, data: bytes) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(data)


class DatabaseSink(ThreadedStore[NamedRows]):
    """The sink that loses nothing before memory and disk are full: what PostgreSQL does not take in time is spilled.

    What an engine left on disk is written first, and what is left at the end stays there for the next one.
    """

    def __init__(self, mailbox: SpillMailbox, writer: DatabaseWriter) -> None:
        super().__init__("database", mailbox, writer, named_rows)
        self._box = mailbox
        writer.abandoned = self._abandon.is_set
        self._ending = Event()
        self._mover = Thread(target=self._move, name="spill", daemon=True)
        self._rows = writer

    def start(self) -> None:
        if found := self._box.recover():
            log.warning("database: %d snapshots that an earlier engine could not write come first", found)
        self._mover.start()
        self._box.patience_s = _ROOM_WITHIN_S
        super().start()

    def keep_marks(self, marks: MarkTable, reached: Callable[[], Mark | None]) -> None:
        """Write the marks that are reached into a table. To be called before the start."""
        self._rows.marks, self._rows.reached = marks, reached

    def offer(self, item: SnapshotBatch | NamedRows) -> None:
        super().offer(item if isinstance(item, NamedRows) else named_rows(item))

    @property
    def degraded(self) -> str:
        return "; ".join(filter(None, (super().degraded, self._box.fault)))

    @property
    def alive(self) -> bool:
        return super().alive and self._mover.is_alive()

    def _end(self, timeout_s: float) -> None:
        """Move to the disk what PostgreSQL has not taken by then."""
        deadline = time.monotonic() + timeout_s
        super()._end(timeout_s)
        self._ending.set()
        self._mover.join(max(deadline - time.monotonic(), 0) + _KEEP_S)
        if not self._thread.is_alive() and not self._mover.is_alive():
            self._box.leave()

    def _left(self) -> str:
        return f"; {self.counters.on_disk} of them wait on disk for the next engine"

    def _move(self) -> None:
        synced_s = time.monotonic()
        while not self._ending.is_set():
            if not self._box.move(POLL_S):
                if self._box.fault:
                    self._ending.wait(POLL_S)
                elif time.monotonic() - synced_s > _SYNC_EVERY_S:  # when there is time: it may take long
                    self._box.sync()
                    synced_s = time.monotonic()
            self.tell_drops(time.monotonic())
        while self._box.move(0, everything=True):
            pass
        self._box.sync()


def database_sink(
    conninfo: str, spill_folder: Path, *, queue_bytes: int = QUEUE_BYTES, spill_bytes: int = SPILL_BYTES
) -> DatabaseSink:
    """Return the sink with its bounds of memory and of disk."""
    spill = Spill(spill_folder, spill_bytes)
    return DatabaseSink(SpillMailbox(queue_bytes, BATCH_SNAPSHOTS, BATCH_AGE_S, spill), DatabaseWriter(conninfo))
