"""The engine's threads, put together: feed, broadcast, database, JSONL. Floor 3."""

import logging
import sys
import time
from threading import Event, Thread
from typing import Any, Final

from engine_worker.config import EngineConfig
from engine_worker.engine import Engine
from engine_worker.feed_client import Enter, FeedClient
from engine_worker.live_feed import Login, live_feed
from engine_worker.raw_feed import raw_feed
from engine_worker.sinks.base import ThreadedSink
from engine_worker.sinks.broadcast import BroadcastSink
from engine_worker.sinks.database import database_sink
from engine_worker.sinks.jsonl import jsonl_sink
from engine_worker.status import StatusReader
from orderbook.book import grid_kernel, market
from orderbook.live import EngineStatus

DRAIN_S: Final = 4.5  # below the 5.5 s that `manage.py up` waits, and the 10 s of a container
SWITCH_INTERVAL_S: Final = 1e-4
_FEED_STOP_S: Final = 1.0

log = logging.getLogger(__name__)


class EngineThreads:
    """Starts the threads, notices when one dies, and ends them in order: the feed first, then each sink drained."""

    def __init__(self, config: EngineConfig) -> None:
        stores: list[ThreadedSink[Any]] = []
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
        self.engine = Engine(config, stores, self.live)
        self._feed = FeedClient(config.host, config.port, feed_of(config))
        self._status = self.status_reader()
        self._stop = Event()
        self._thread = Thread(target=self.engine.run, args=(self._feed, self._stop), name="feed", daemon=True)

    def start(self) -> None:
        warm_up(self.engine.config)
        for sink in self.sinks:
            sink.start()
        self._thread.start()

    def status(self) -> EngineStatus:
        return self._status()

    def status_reader(self) -> StatusReader:
        """Return another one, whose rates are over its own looks."""
        return StatusReader(self.engine, self.sinks, self._feed)

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


def feed_of(config: EngineConfig) -> Enter:
    """Return what makes a connection in the protocol of the configuration."""
    if config.protocol == "live":
        return live_feed(Login(config.key, config.dataset, config.symbols))
    return raw_feed(config.framing)


def prefer_feed() -> None:
    """Let the feed thread have the interpreter back sooner when a pass is over, in this whole process.

    Python's 5 ms would be how long other threads may keep it: six passes of a feed at full speed.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def warm_up(config: EngineConfig) -> None:
    """Load or compile the kernels before the first record comes: about a second from the cache."""
    market.warm_up(config.book)
    grid_kernel.warm_up()
    if config.framing == "csv":
        # Loads a compiled decoder, which an engine of DBN does without.
        from replay.feed import csv_codec

        csv_codec.warm_up()
