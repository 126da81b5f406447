"""An engine in a process of its own, as benchmarks drive it: all its threads, fed by one replay. Floor 3.

Imports nothing of Django's at its top: a new process must read the settings first.
"""

import logging
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import django

from replay.feed.stream import FramingName

_LOOK_S: Final = 0.01
_WITHIN_S: Final = 100.0


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


class Outcome(NamedTuple):
    """What one replay came to."""

    line: dict[str, Any]
    """As in benchmarks.jsonl."""
    refused: dict[str, int]
    """Of records: ignored, rejected."""
    sinks: dict[str, dict[str, int]]
    """By sink: its counters, in snapshots."""
    stored_s: float
    """From the first record until every sink had written everything."""
    cpu_s: float
    publish_p50_ns: int
    publish_p99_ns: int
    publish_max_ns: int
    state_hash: str


class TooSlow(Exception):
    """What was waited for did not come."""


def run(order: Order, control: Connection) -> None:
    """Connect, say so, follow one replay to its end, and tell the Outcome."""
    django.setup()
    logging.disable(logging.INFO)
    from engine_worker.threads import EngineThreads, prefer_feed

    prefer_feed()
    threads = EngineThreads(_config(order))
    threads.start()
    try:
        _wait(lambda: threads.engine.counters.connections)
        cpu_s = time.process_time()
        control.send(None)
        control.send(_outcome(threads, cpu_s))
    finally:
        threads.stop()


def _outcome(threads: Any, cpu_s: float) -> Outcome:
    from engine_worker.results import benchmark_line
    from orderbook.book.digest import market_hash

    engine = threads.engine
    _wait(lambda: engine.shown.finished and engine.shown.over)
    run, config = engine.shown, engine.config
    for sink in threads.sinks:
        if not sink.flush(_WITHIN_S):
            raise TooSlow(f"{sink.name} had not written everything after {_WITHIN_S:.0f} s: {sink.degraded}")
    stored_s = (time.perf_counter_ns() - run.first_ns) / 1e9
    publish = threads.live.publish_ns
    refused = {name: getattr(engine.counters, name) for name in ("ignored", "rejected")}
    return Outcome(
        line=benchmark_line(run, config),
        refused=refused,
        sinks={
            sink.name: {name: getattr(sink.counters, name) for name in ("offered", "written", "duplicates", "dropped")}
            for sink in threads.sinks
        },
        stored_s=stored_s,
        cpu_s=time.process_time() - cpu_s,
        publish_p50_ns=publish.percentile(50),
        publish_p99_ns=publish.percentile(99),
        publish_max_ns=publish.max_ns,
        state_hash=market_hash((key, track.book) for key, track in run.tracks.items()),
    )


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
    )


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TooSlow(f"expected the replay to go on, found nothing new after {_WITHIN_S:.0f} s")
        time.sleep(_LOOK_S)
