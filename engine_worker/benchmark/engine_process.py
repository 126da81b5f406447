"""An engine in a process of its own, as benchmarks drive it: all its threads, fed by replays. Floor 3.

Imports nothing of Django's at its top: a new process must read the settings first.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import django

from replay.feed.stream import FramingName

_LOOK_S: Final = 0.01
_PATIENCE_S: Final = 100.0


class Order(NamedTuple):
    """What the engine is to do."""

    port: int
    framing: FramingName
    folder: Path
    """Where it writes."""
    snapshot_every: int
    depth: int
    push_ms: int
    pg_conninfo: str
    """Empty: no database."""
    redis_url: str
    replays: int
    """That it follows, one after the other."""
    lasts_s: float
    """What each of them takes by itself."""


class Outcome(NamedTuple):
    """What one replay came to. Counters are those of all replays so far."""

    line: dict[str, Any]
    """As in benchmarks.jsonl."""
    refused: dict[str, int]
    """Of records: ignored, rejected."""
    sinks: dict[str, dict[str, int]]
    """By sink: its counters, in snapshots."""
    stored_s: float
    """From the first record until every sink had written everything."""
    cpu_s: float
    behind: float
    """Share of the looks during the replay at which records lay unread in the socket: near 1, it waited for us."""
    publish_p50_ns: int
    publish_p99_ns: int
    publish_max_ns: int


class TooSlow(Exception):
    """What was waited for did not come."""


def run(order: Order, control: Connection) -> None:
    """Connect and say so, follow a replay to its end and tell its Outcome, so many times; then tell the books' hash.

    The hash takes memory of its own, and waits until it is asked for.
    """
    django.setup()
    logging.disable(logging.INFO)
    from engine_worker.heap import return_large_blocks
    from engine_worker.threads import EngineThreads, prefer_feed
    from orderbook.book.digest import market_hash

    prefer_feed()
    return_large_blocks()
    threads = EngineThreads(_config(order))
    threads.start()
    try:
        for number in range(order.replays):
            _wait(partial(_is_connected, threads, number + 1))
            cpu_s = time.process_time()
            control.send(None)
            control.send(_outcome(threads, number + 1, order.lasts_s, cpu_s))
        control.recv()
        control.send(market_hash((key, track.book) for key, track in threads.engine.shown.tracks.items()))
    finally:
        threads.stop()


def _is_connected(threads: Any, times: int) -> bool:
    return bool(threads.engine.counters.connections >= times)


def _outcome(threads: Any, replay: int, lasts_s: float, cpu_s: float) -> Outcome:
    """Wait until a replay, numbered from 1, is over and stored, and return what it came to."""
    from engine_worker.results import benchmark_line

    engine, looks = threads.engine, _Looks()

    def is_over() -> bool:
        if engine.counters.runs < replay:
            return False
        if not engine.shown.finished:
            looks.note(threads.feed.lag().records > 0)  # a look costs the feed thread nothing
        return bool(engine.shown.finished and engine.shown.over)

    _wait(is_over, lasts_s)
    run, config = engine.shown, engine.config
    for sink in threads.sinks:
        if not sink.flush(_PATIENCE_S):
            raise TooSlow(f"{sink.name} had not written everything after {_PATIENCE_S:.0f} s: {sink.degraded}")
    stored_s = (time.perf_counter_ns() - run.first_ns) / 1e9
    publish = threads.live.publish_ns
    return Outcome(
        line=benchmark_line(run, config),
        refused={name: getattr(engine.counters, name) for name in ("ignored", "rejected")},
        sinks={
            sink.name: {name: getattr(sink.counters, name) for name in ("offered", "written", "duplicates", "dropped")}
            for sink in threads.sinks
        },
        stored_s=stored_s,
        cpu_s=time.process_time() - cpu_s,
        behind=looks.share,
        publish_p50_ns=publish.percentile(50),
        publish_p99_ns=publish.percentile(99),
        publish_max_ns=publish.max_ns,
    )


class _Looks:
    """How often something was so when it was looked at."""

    def __init__(self) -> None:
        self._all = self._so = 0

    def note(self, is_so: bool) -> None:
        self._all += 1
        self._so += is_so

    @property
    def share(self) -> float:
        return self._so / self._all if self._all else 0.0


def _config(order: Order) -> Any:
    """Return the configuration: that of the settings, but for where things come from and go to."""
    from dataclasses import replace

    from engine_worker.config import engine_config

    return replace(
        engine_config(registered={}),
        host="127.0.0.1",
        port=order.port,
        protocol="raw",
        framing=order.framing,
        book="kernel",
        depth=order.depth,
        snapshot_every=order.snapshot_every,
        snapshot_ms=0,
        max_msgs=-1,
        push_ms=order.push_ms,
        feed_enabled=True,
        feed_path=order.folder / "snapshots_feed.jsonl",
        bench_log_path=order.folder / "benchmarks.jsonl",
        final_book_folder=order.folder / "final_books",
        spill_folder=order.folder / "spill",
        pg_conninfo=order.pg_conninfo,
        redis_url=order.redis_url,
        metrics_port=0,
        traces=False,
    )


def _wait(condition: Callable[[], Any], lasts_s: float = 0.0) -> None:
    deadline = time.monotonic() + lasts_s + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TooSlow(f"expected the replay to go on, found nothing new after {lasts_s + _PATIENCE_S:.0f} s")
        time.sleep(_LOOK_S)
