"""What the engine says of itself: for Redis once a second, for the terminal, for the log. Floor 3.

Read by other threads than the one that counts: only numbers and finished snapshots are looked at.
"""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Protocol

from engine_worker.engine import Engine
from engine_worker.lag import NO_LAG, Lag
from engine_worker.sinks.base import Sink
from orderbook.book.price import format_price
from orderbook.book.snapshot import BookSnapshot, Level
from orderbook.book.timestamp import format_ns
from orderbook.live import EngineStatus

BOOKS_TOLD: Final = 100  # of thousands: each takes 5 us, during which no other thread runs
BOOKS_SHOWN: Final = 8


class Part(Protocol):
    """What else may not work."""

    name: str

    @property
    def fault(self) -> str:
        """Why it does not; empty while it does."""


class Feed(Protocol):
    """Where records come from."""

    fault: str
    """Why nothing can come; empty while it can."""

    def lag(self) -> Lag:
        """Return how far behind what has arrived here the engine is."""


def degraded_parts(engine: Engine, sinks: Sequence[Sink[Any]], feed: Feed | None, *others: Part) -> dict[str, str]:
    """Return which parts do not work now, and why; none while all do."""
    parts = [*((sink.name, sink.degraded) for sink in sinks), ("results", engine.fault)]
    if feed is not None:
        parts.append(("feed", feed.fault))
    parts += [(other.name, other.fault) for other in others]
    return {name: why for name, why in parts if why}


class StatusReader:
    """Makes the status; its rates are over the time since its own last one."""

    def __init__(self, engine: Engine, sinks: Sequence[Sink[Any]], feed: Feed | None = None, *others: Part) -> None:
        self._engine = engine
        self._feed = feed
        self._sinks = sinks
        self._others = others
        self._then = time.monotonic()
        self._applied = engine.counters.applied

    def __call__(self) -> EngineStatus:
        engine, config = self._engine, self._engine.config
        counters = {sink.name: sink.counters for sink in self._sinks}
        database = counters.get("database")
        every = list(counters.values())
        lag = NO_LAG if self._feed is None else self._feed.lag()
        run = engine.shown
        return EngineStatus(
            name=config.name,
            state=engine.state,
            run_id=run.run_id,
            records=run.records,
            records_per_s=self._rate(),
            snapshots=engine.counters.snapshots,
            snapshots_stored=database.written + database.duplicates if database else 0,
            queue_items=sum(counts.pending for counts in every),
            queue_bytes=sum(counts.queue_bytes for counts in every),
            queue_capacity_bytes=sum(counts.queue_capacity_bytes for counts in every),
            spilled=sum(counts.spilled for counts in every),
            on_disk=sum(counts.on_disk for counts in every),
            dropped=sum(counts.dropped for counts in every),
            lag_records=lag.records,
            lag_ms=round(lag.ns / 1e6, 1),
            symbols=_best_of_some(engine.pusher.newest.copy(), config.symbol),
            feed_path=str(config.feed_path) if config.feed_enabled else "",
            feed_size_bytes=_size(config.feed_path),
            degraded=degraded_parts(engine, self._sinks, self._feed, *self._others),
            ts=datetime.now(UTC).isoformat(),
        )

    def _rate(self) -> int:
        now, applied = time.monotonic(), self._engine.counters.applied
        rate = (applied - self._applied) / max(now - self._then, 1e-3)
        self._then, self._applied = now, applied
        return round(rate)


def status_line(status: EngineStatus) -> str:
    """Write a status as one readable line.

    >>> from orderbook.live import blank_status
    >>> status_line(blank_status("engine") | {"records": 12000, "records_per_s": 1000, "snapshots": 12,
    ...     "snapshots_stored": 11, "queue_items": 1, "lag_records": 7,
    ...     "symbols": {"CLX5": {"bid": "64.83 x 5", "ask": "64.84 x 2"}}})
    'waiting | 12,000 records | 1,000/s, 7 behind | 12 snapshots, 11 stored, 1 queued | CLX5 64.83 x 5 / 64.84 x 2'
    """
    behind = f", {status['lag_records']:,} behind" if status["lag_records"] else ""
    on_disk = f", {status['on_disk']:,} on disk" if status["on_disk"] else ""
    dropped = f", {status['dropped']:,} DROPPED" if status["dropped"] else ""
    stored = f"{status['snapshots_stored']:,} stored, {status['queue_items']:,} queued"
    parts = [
        status["state"],
        f"{status['records']:,} records",
        f"{status['records_per_s']:,}/s{behind}",
        f"{status['snapshots']:,} snapshots, {stored}{on_disk}{dropped}",
        *(f"{symbol} {best['bid']} / {best['ask']}" for symbol, best in islice(status["symbols"].items(), BOOKS_SHOWN)),
        *(f"DEGRADED {part}: {reason}" for part, reason in status["degraded"].items()),
    ]
    return " | ".join(parts)


def _best_of_some(books: Mapping[str, BookSnapshot], first: str) -> dict[str, dict[str, str]]:
    """Return the best prices of the first books, and of that of the default instrument before all, if it is there."""
    some = {symbol: books[symbol] for symbol in (first, *islice(books, BOOKS_TOLD)) if symbol in books}
    return {symbol: _best_texts(snapshot) for symbol, snapshot in some.items()}


def _best_texts(snapshot: BookSnapshot) -> dict[str, str]:
    bbo, decimals = snapshot.bbo, snapshot.decimals
    return {
        "bid": _level_text(bbo.bid, decimals),
        "ask": _level_text(bbo.ask, decimals),
        "ts": format_ns(snapshot.ts_event),
        "state": snapshot.state,
    }


def _level_text(level: Level | None, decimals: int) -> str:
    return "-" if level is None else f"{format_price(level.price, decimals)} x {level.size}"


def _size(path: os.PathLike[str]) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
