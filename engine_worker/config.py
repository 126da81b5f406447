"""Everything the engine is told, frozen. Built once from the settings; nothing below reads them. Floor 3."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from django.conf import settings
from django.db import DatabaseError, connection

from engine_worker.naming import Registered
from history.models import Instrument
from orderbook.book.market import BookKind
from orderbook.book.mbo import BookKey
from orderbook.book.snapshot_tape import SnapshotRule
from replay.feed.stream import FramingName
from replay.keys import feed_key

FeedProtocol = Literal["live", "raw"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One engine: what it connects to, what it keeps, how often, and where."""

    name: str
    """Tells it from other engines on the same Redis and data folder."""
    host: str
    port: int
    protocol: FeedProtocol
    framing: FramingName
    """How records come; the live protocol knows DBN only."""
    key: str = field(repr=False)
    """What opens a gateway; this, the dataset and the symbols are for the live protocol."""
    dataset: str
    symbols: tuple[str, ...]
    """What is subscribed to."""
    symbol: str
    """Name of an instrument for which the feed sends none."""
    book: BookKind
    depth: int
    snapshot_every: int
    """Records of a book between two snapshots; 0 = one at each change of its best prices."""
    snapshot_ms: int
    """Also one whenever so much market time has gone by; 0 = not by time."""
    max_msgs: int
    """Records to apply in a replay; -1 = all."""
    push_ms: int
    feed_enabled: bool
    feed_path: Path
    bench_log_path: Path
    final_book_folder: Path
    registered: Mapping[str, Registered]
    """By symbol; one that is missing goes to the first publisher to come, and its tick comes from its prices."""
    pg_conninfo: str
    """Empty: nothing is stored in a database."""
    queue_bytes: int
    """Memory for snapshots that wait for PostgreSQL, half of it before the oldest go to the disk."""
    spill_bytes: int
    """Disk for those that have no room in memory."""
    spill_folder: Path
    redis_url: str
    metrics_host: str
    metrics_port: int
    """Where metrics and probes are served; 0: nowhere."""
    traces: bool
    """Whether spans go to the OpenTelemetry collector that the environment names."""
    version: str

    @property
    def rule(self) -> SnapshotRule:
        """When a snapshot is due to be stored."""
        return SnapshotRule(self.snapshot_every, self.snapshot_ms * 10**6, self.depth)


def engine_config(registered: Mapping[str, Registered] | None = None) -> EngineConfig:
    """Build the configuration of this process from the settings, and from the database what it knows, unless told."""
    protocol = cast(FeedProtocol, settings.FEED_PROTOCOL)
    return EngineConfig(
        name=settings.ENGINE_NAME,
        host=settings.FEED_HOST,
        port=settings.FEED_PORT,
        protocol=protocol,
        framing="dbn" if protocol == "live" else cast(FramingName, settings.FEED_FRAMING),
        key=settings.FEED_KEY or feed_key(),
        dataset=settings.FEED_DATASET,
        symbols=settings.FEED_SYMBOLS,
        symbol=settings.SYMBOL,
        book=cast(BookKind, settings.BOOK),
        depth=settings.DEPTH,
        snapshot_every=settings.SNAPSHOT_EVERY,
        snapshot_ms=settings.SNAPSHOT_MS,
        max_msgs=settings.MAX_MSGS,
        push_ms=settings.PUSH_MS,
        feed_enabled=settings.FEED_ENABLED,
        feed_path=settings.FEED_PATH,
        bench_log_path=settings.BENCH_LOG_PATH,
        final_book_folder=settings.FINAL_BOOK_FOLDER,
        registered=registered_instruments() if registered is None else registered,
        pg_conninfo=settings.PG_CONNINFO,
        queue_bytes=settings.QUEUE_MB << 20,
        spill_bytes=settings.SPILL_MB << 20,
        spill_folder=settings.SPILL_FOLDER,
        redis_url=settings.REDIS_URL,
        metrics_host=settings.METRICS_HOST,
        metrics_port=settings.METRICS_PORT,
        traces=settings.OTEL_TRACES,
        version=settings.VERSION,
    )


def registered_instruments() -> dict[str, Registered]:
    """Return every instrument in the database; none, with a warning, when that cannot be asked."""
    try:
        rows = Instrument.objects.values_list("symbol", "publisher_id", "instrument_id", "tick_size")
        return {
            symbol: Registered(BookKey(publisher, instrument), tick) for symbol, publisher, instrument, tick in rows
        }
    except DatabaseError as error:
        reason = " ".join(str(error).split())
        log.warning("ticks are inferred and symbols go to the first to come: PostgreSQL does not answer (%s)", reason)
        return {}
    finally:
        if not connection.in_atomic_block:  # the sink has a connection of its own
            connection.close()
