"""What the engine says of itself: for Redis once a second, for the terminal, for the log. Floor 3.

Read by other threads than the one that counts: only numbers and finished snapshots are looked at.
"""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from engine_worker.engine import Engine
from engine_worker.sinks.base import Sink
from orderbook.book.price import format_price
from orderbook.book.snapshot import BookSnapshot, Level
from orderbook.book.timestamp import format_ns
from orderbook.live import EngineStatus


class Feed(Protocol):
    """Where records come from."""

    fault: str
    """Why nothing can come; empty while it can."""


class StatusReader:
    """Makes the status; its rates are over the time since its own last one."""

    def __init__(self, engine: Engine, sinks: Sequence[Sink[Any]], feed: Feed | None = None) -> None:
        self._engine = engine
        self._feed = feed
        self._sinks = sinks
        self._then = time.monotonic()
        self._applied = engine.counters.applied

    def __call__(self) -> EngineStatus:
        engine, config = self._engine, self._engine.config
        counters = {sink.name: sink.counters for sink in self._sinks}
        database = counters.get("database")
        degraded = {sink.name: sink.degraded for sink in self._sinks if sink.degraded}
        if engine.fault:
            degraded["results"] = engine.fault
        if self._feed is not None and self._feed.fault:
            degraded["feed"] = self._feed.fault
        run = engine.shown
        return EngineStatus(
            state=engine.state,
            run_id=run.run_id,
            records=run.records,
            records_per_s=self._rate(),
            snapshots=engine.counters.snapshots,
            snapshots_stored=database.written + database.duplicates if database else 0,
            queue_items=sum(counts.pending for counts in counters.values()),
            symbols={symbol: _best_texts(snapshot) for symbol, snapshot in engine.pusher.newest.items()},
            feed_path=str(config.feed_path) if config.feed_enabled else "",
            feed_size_bytes=_size(config.feed_path),
            degraded=degraded,
            ts=datetime.now(UTC).isoformat(),
        )

    def _rate(self) -> int:
        now, applied = time.monotonic(), self._engine.counters.applied
        rate = (applied - self._applied) / max(now - self._then, 1e-3)
        self._then, self._applied = now, applied
        return round(rate)


def status_line(status: EngineStatus) -> str:
    """Write a status as one readable line.

    >>> status_line(EngineStatus(state="streaming", run_id="", records=12000, records_per_s=1000, snapshots=12,
    ...     snapshots_stored=11, queue_items=1, symbols={"CLX5": {"bid": "64.83 x 5", "ask": "64.84 x 2"}},
    ...     feed_path="", feed_size_bytes=0, degraded={}, ts=""))
    'streaming | 12,000 records | 1,000/s | 12 snapshots, 11 stored, 1 queued | CLX5 64.83 x 5 / 64.84 x 2'
    """
    parts = [
        status["state"],
        f"{status['records']:,} records",
        f"{status['records_per_s']:,}/s",
        f"{status['snapshots']:,} snapshots, {status['snapshots_stored']:,} stored, {status['queue_items']:,} queued",
        *(f"{symbol} {best['bid']} / {best['ask']}" for symbol, best in status["symbols"].items()),
        *(f"DEGRADED {part}: {reason}" for part, reason in status["degraded"].items()),
    ]
    return " | ".join(parts)


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
