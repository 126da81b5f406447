"""Everything the engine is told, frozen. Built once from the settings; nothing below reads them. Floor 3."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from django.conf import settings
from django.db import DatabaseError, connection

from history.models import Instrument
from orderbook.book.market import BookKind

Framing = Literal["csv", "dbn"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One engine: what it connects to, what it keeps, how often, and where."""

    host: str
    port: int
    framing: Framing
    symbol: str
    """Name of an instrument for which the feed sends none."""
    book: BookKind
    depth: int
    snapshot_every: int
    max_msgs: int
    """Records to apply in a replay; -1 = all."""
    push_ms: int
    feed_enabled: bool
    feed_path: Path
    bench_log_path: Path
    final_book_folder: Path
    tick_sizes: Mapping[str, int]
    """symbol -> tick in 1e-9 units; a symbol that is missing gets one from its prices."""
    pg_conninfo: str
    redis_url: str


def engine_config() -> EngineConfig:
    """Build the configuration of this process from the settings and the instruments known so far."""
    return EngineConfig(
        host=settings.FEED_HOST,
        port=settings.FEED_PORT,
        framing=cast(Framing, settings.FEED_FRAMING),
        symbol=settings.SYMBOL,
        book=cast(BookKind, settings.BOOK),
        depth=settings.DEPTH,
        snapshot_every=settings.SNAPSHOT_EVERY,
        max_msgs=settings.MAX_MSGS,
        push_ms=settings.PUSH_MS,
        feed_enabled=settings.FEED_ENABLED,
        feed_path=settings.FEED_PATH,
        bench_log_path=settings.BENCH_LOG_PATH,
        final_book_folder=settings.FINAL_BOOK_FOLDER,
        tick_sizes=known_tick_sizes(),
        pg_conninfo=settings.PG_CONNINFO,
        redis_url=settings.REDIS_URL,
    )


def known_tick_sizes() -> dict[str, int]:
    """Return the tick of every instrument in the database; empty, with a warning, when that cannot be asked."""
    try:
        return dict(Instrument.objects.values_list("symbol", "tick_size"))
    except DatabaseError as error:
        log.warning(
            "tick sizes are inferred from prices: PostgreSQL does not answer (%s)", " ".join(str(error).split())
        )
        return {}
    finally:
        if not connection.in_atomic_block:  # the sink has a connection of its own
            connection.close()
