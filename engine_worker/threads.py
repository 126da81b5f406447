"""The engine's threads, put together: feed, broadcast, database, JSONL. Floor 3."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine_worker import histogram, stream_kinds
from engine_worker.config import EngineConfig
from engine_worker.engine import Engine
from engine_worker.exposition import EngineCollector, registry_of
from engine_worker.feed_client import Enter, FeedClient
from engine_worker.ledger import Ledger
from engine_worker.live_feed import Login, live_feed
from engine_worker.metrics_server import MetricsServer, Page, Pages
from engine_worker.probes import livez, readyz
from engine_worker.raw_feed import raw_feed
from engine_worker.resumption import Known, Resumption
from engine_worker.sinks.base import ThreadedSink
from engine_worker.sinks.broadcast import BroadcastSink
from engine_worker.sinks.database import DatabaseSink, database_sink
from engine_worker.sinks.jsonl import JsonlSink, jsonl_sink
from engine_worker.sinks.mark_table import MarkTable
from engine_worker.sinks.store import ThreadedStore
from engine_worker.status import StatusReader, degraded_parts
from orderbook.book import market, snapshot_kernel
from orderbook.live import EngineStatus

if TYPE_CHECKING:
    from engine_worker.tracing import Tracing

DRAIN_S: Final = 4.5  # below the 5.5 s that `manage.py up` waits, and the 10 s of a container
SWITCH_INTERVAL_S: Final = 1e-4
_FEED_STOP_S: Final = 1.0

log = logging.getLogger(__name__)


class EngineThreads:
    """Starts the threads, notices when one dies, and ends them in order: the feed first, then each sink drained."""

    def __init__(self, config: EngineConfig) -> None:
        stores: list[ThreadedStore[Any]] = []
        if config.pg_conninfo:
            stores.append(
                database_sink(
                    config.pg_conninfo,
                    config.spill_folder,
                    queue_bytes=config.queue_bytes,
                    spill_bytes=config.spill_bytes,
                )
            )
        if config.feed_enabled:
            stores.append(jsonl_sink(config.feed_path, config.depth))
        self.live = BroadcastSink(config.redis_url, self.status)
        self.sinks: list[ThreadedSink[Any]] = [*stores, self.live]
        self._tracing = tracing_of(config)
        resumption = Resumption(ledger_of(config, stores))
        if self._tracing is None:
            self.engine = Engine(config, stores, self.live, resumption=resumption)
        else:
            self.engine = self._tracing.engine(config, stores, self.live, resumption=resumption)
            for sink in self.sinks:
                self._tracing.watch(sink, lambda: self.engine.shown.run_id)
        self.feed = FeedClient(config.host, config.port, feed_of(config, resumption.known))
        self._metrics = MetricsServer(config.metrics_host, config.metrics_port, self._pages())
        self._status = self.status_reader()
        self._stop = Event()
        self._thread = Thread(target=self.engine.run, args=(self.feed, self._stop), name="feed", daemon=True)

    def start(self) -> None:
        warm_up(self.engine.config)
        for sink in self.sinks:
            sink.start()
        self._thread.start()
        self._metrics.start()

    def status(self) -> EngineStatus:
        return self._status()

    def status_reader(self) -> StatusReader:
        """Return another one, whose rates are over its own looks."""
        return StatusReader(self.engine, self.sinks, self.feed, self._metrics)

    def _pages(self) -> Pages:
        registry = registry_of(EngineCollector(self.engine, self.sinks, self.feed, self.live.publish_ns, self._tracing))
        return {
            "/metrics": lambda: Page(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/livez": lambda: livez([] if self._stop.is_set() else self.dead_threads()),
            "/readyz": lambda: readyz(
                "stopping" if self._stop.is_set() else self.engine.state,
                degraded_parts(self.engine, self.sinks, self.feed, self._metrics),
            ),
        }

    def dead_threads(self) -> list[str]:
        """Return the threads that a programming fault has ended."""
        threads = {"feed": self._thread.is_alive(), **{sink.name: sink.alive for sink in self.sinks}}
        return [name for name, alive in threads.items() if not alive]

    def stop(self, drain_s: float = DRAIN_S) -> None:
        """End within ``drain_s``: what cannot be written by then is left, its count logged."""
        deadline = time.monotonic() + drain_s
        feed_s = min(_FEED_STOP_S, drain_s / 4)
        self._stop.set()
        self._thread.join(feed_s)
        for sink in self.sinks:  # also frees a feed that waits for room; from here on all drain at once
            sink.finish()
        self._thread.join(feed_s)
        for sink in self.sinks:
            sink.close(max(deadline - time.monotonic(), 0))
        if self._tracing is not None:
            self._tracing.close()
        self._metrics.close()


def tracing_of(config: EngineConfig) -> "Tracing | None":
    """Return what makes spans, where they are asked for."""
    if not config.traces:
        return None
    # Loads protobuf and an HTTP client, which an engine without traces does without.
    from engine_worker.tracing import Tracing

    return Tracing(config)


def ledger_of(config: EngineConfig, stores: Sequence[ThreadedStore[Any]]) -> Ledger | None:
    """Return what makes marks durable: none where there is no database, or a feed that cannot be asked for the past."""
    database = next((store for store in stores if isinstance(store, DatabaseSink)), None)
    if database is None or config.protocol != "live":
        return None
    table = mark_table_of(config)
    ledger = Ledger(database, next((store for store in stores if isinstance(store, JsonlSink)), None), table.load)
    database.keep_marks(table, ledger.reached)
    return ledger


def mark_table_of(config: EngineConfig) -> MarkTable:
    """Return where the marks are of all engines that store the same: numbers of replays are those of one gateway."""
    gateway = f"{config.host}:{config.port}"
    rule = (config.snapshot_every, config.snapshot_ms, config.max_msgs, config.book)
    return MarkTable(config.pg_conninfo, config.name, config.dataset, config.symbols, gateway, *rule)


def feed_of(config: EngineConfig, known: Callable[[], Known] | None = None) -> Enter:
    """Return what makes a connection in the protocol of the configuration; ``known`` is what to tell the gateway."""
    if config.protocol == "live":
        return live_feed(Login(config.key, config.dataset, config.symbols), known=known)
    return raw_feed(config.framing)


def prefer_feed() -> None:
    """Let the feed thread have the interpreter back sooner when a pass is over, in this whole process.

    Python's 5 ms would be how long other threads may keep it: fifty snapshots of a feed at full speed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def warm_up(config: EngineConfig) -> None:
    """Load or compile the kernels before the first record comes: about a second from the cache."""
    market.warm_up(config.book)
    snapshot_kernel.warm_up()
    histogram.warm_up()
    stream_kinds.warm_up()
    if config.framing == "csv":
        # Loads a compiled decoder, which an engine of DBN does without.
        from replay.feed import csv_codec

        csv_codec.warm_up()
