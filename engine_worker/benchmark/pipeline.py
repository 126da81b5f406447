"""How fast records get from a file into books and stores: a streamer and an engine, each a process. Floor 3.

They speak the raw feed over loopback. Every round replays one file and is checked: the books at the end must be those
that the records make, and every snapshot must be stored.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from engine_worker.benchmark import engine_process
from engine_worker.benchmark.audience import Audience, watched
from engine_worker.benchmark.engine_process import Order, Outcome
from orderbook.benchmark.spread import spread
from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import MboArray
from replay import simulator
from replay.benchmark import streamer_process
from replay.benchmark.processes import BenchmarkError, own_memory, process, take, watched_memory
from replay.benchmark.streamer_process import Spent
from replay.feed.dbn_metadata import encode_metadata
from replay.feed.stream import FramingName
from replay.streamer.messages import Pace

Report = dict[str, Any]

_MB: Final = 1e6
_KEPT_PACE: Final = 0.98
"""Of the rate asked for: a source that keeps to it is the limit."""
_BEHIND: Final = 0.5


class Made(NamedTuple):
    """The file that is replayed, and what it must come to."""

    path: Path
    records: int
    books: int
    resting: int
    """Orders in the books at the end."""
    state_hash: str


class Plan(NamedTuple):
    """What is measured."""

    framing: FramingName
    snapshot_every: int
    depth: int
    push_ms: int
    rate: int | None
    """Records a second; None: as fast as it goes."""
    replays: int
    """That one engine follows in a round, one after the other."""
    redis_url: str
    pg_conninfo: str
    """Empty: no database."""
    audience: Audience | None = None
    """Who looks on at the live books."""


def make_file(path: Path, records: MboArray, symbols: dict[int, str]) -> Made:
    """Write records as a recording, and work out the books that they leave."""
    with path.open("wb") as file:
        file.write(encode_metadata(simulator.VENUE_DATASET, int(records[0]["ts_event"]), symbols))
        records.view(np.uint8).tofile(file)
    market = make_market("kernel")
    market.apply(records)
    return Made(
        path, len(records), len(market.books), sum(map(len, market.books.values())), market_hash(market.books.items())
    )


def measure(made: Made, plan: Plan, folder: Path, rounds: int, before_round: Callable[[], None]) -> Report:
    """Replay the file in so many rounds, each to a new engine; of each figure return median, least and greatest.

    ``before_round`` empties what an earlier round has stored. Raises BenchmarkError.
    """
    reports = []
    for number in range(rounds):
        before_round()
        reports.append(_round(made, plan, folder / f"round-{number}"))
    report = spread(reports)
    return report | {"rounds": rounds, "limit": limit(plan.rate, report["records_per_s"], report["behind"])}


def limit(rate: int | None, achieved: float, behind: float) -> str:
    """Say what kept a replay from being faster: the pace that was asked for, the engine, or the source.

    ``behind``: how often records lay unread at the engine. A source that waits for the engine always leaves some.

    >>> limit(50_000, 49_990, 0.1), limit(None, 16e6, 0.95), limit(None, 4e6, 0.1)
    ('pace', 'engine', 'source')
    """
    if rate is not None and achieved >= _KEPT_PACE * rate:
        return "pace"
    return "engine" if behind >= _BEHIND else "source"


def _round(made: Made, plan: Plan, folder: Path) -> Report:
    folder.mkdir()
    pace: Pace = "max" if plan.rate is None else {"records_per_s": plan.rate}
    lasts_s = made.records / plan.rate if plan.rate else 0.0
    with contextlib.ExitStack() as stack:
        streamer, source = stack.enter_context(process(streamer_process.run, made.path, more=(plan.framing,)))
        port = take(source)
        order = Order(
            port, plan.framing, folder, plan.snapshot_every, plan.depth, plan.push_ms, plan.pg_conninfo,
            plan.redis_url, plan.replays, lasts_s,
        )  # fmt: skip
        engine, target = stack.enter_context(process(engine_process.run, order))
        engine_pid, engine_mb = engine.pid or 0, []
        streamer_memory = stack.enter_context(watched_memory(streamer.pid or 0))
        engine_memory = stack.enter_context(watched_memory(engine_pid))
        for replay in range(1, plan.replays + 1):
            take(target)  # it is connected
            source.send(pace)
            seen = watched(plan.audience, lasts_s) if plan.audience else {}
            outcome: Outcome = take(target, lasts_s)
            source.send(None)
            spent: Spent = take(source)
            _check(made, plan, outcome, replay)
            engine_mb.append(own_memory(engine_pid) / _MB)
        peak_mb = max(engine_memory) / _MB
        report = _report(plan, outcome) | seen
        target.send(None)
        _check_books(made, take(target))
    shutil.rmtree(folder)
    return report | {
        "streamer_cpu_s": round(spent.cpu_s, 3),
        "instruments": made.books,
        "resting_orders": made.resting,
        "replays": plan.replays,
        "engine_mb_first": round(engine_mb[0], 1),
        "engine_mb_last": round(engine_mb[-1], 1),
        "engine_peak_mb": round(peak_mb, 1),
        "streamer_peak_mb": round(max(streamer_memory) / _MB, 1),
    }


def _report(plan: Plan, outcome: Outcome) -> Report:
    line, database = outcome.line, outcome.sinks.get("database", {})
    return {
        "records": line["processed"],
        "elapsed_s": round(line["elapsed_s"], 4),
        "records_per_s": round(line["throughput_msgs_per_s"]),
        "rate": plan.rate,
        "framing": plan.framing,
        "snapshot_every": plan.snapshot_every,
        "depth": plan.depth,
        "push_ms": plan.push_ms,
        "snapshots": line["snapshots"],
        "snapshots_stored": database.get("written", 0) + database.get("duplicates", 0),
        "lines_written": outcome.sinks["jsonl"]["written"],
        "lines_dropped": outcome.sinks["jsonl"]["dropped"],
        "stored_s": round(outcome.stored_s, 4),
        "snapshots_per_s": round(line["snapshots"] / outcome.stored_s),
        "snap_p50_us": round(line["snap_p50_ms"] * 1e3, 1),
        "snap_p99_us": round(line["snap_p99_ms"] * 1e3, 1),
        "snap_max_us": round(line["snap_max_ms"] * 1e3, 1),
        "apply_p50_ns": round(line["apply_p50_us"] * 1e3),
        "apply_p99_ns": round(line["apply_p99_us"] * 1e3),
        "apply_max_ns": round(line["apply_max_us"] * 1e3),
        "publish_p50_ms": round(outcome.publish_p50_ns / 1e6, 2),
        "publish_p99_ms": round(outcome.publish_p99_ns / 1e6, 2),
        "publish_max_ms": round(outcome.publish_max_ns / 1e6, 2),
        "engine_cpu_s": round(outcome.cpu_s, 3),
        "behind": round(outcome.behind, 2),
    }


def _check(made: Made, plan: Plan, outcome: Outcome, replays: int) -> None:
    """Raise BenchmarkError where a replay was fast and wrong. What sinks count is that of all replays so far."""
    applied = outcome.line["processed"]
    if applied != made.records or any(outcome.refused.values()):
        raise BenchmarkError(f"expected {made.records} records applied, found {applied} and {outcome.refused}")
    snapshots = outcome.line["snapshots"] * replays
    for name, counts in outcome.sinks.items():
        if name == "broadcast":
            continue
        if counts["offered"] != snapshots:
            raise BenchmarkError(f"expected {snapshots} snapshots offered to {name}, found {counts['offered']}")
        if name == "database" and counts["written"] != outcome.line["snapshots"]:
            raise BenchmarkError(f"expected {outcome.line['snapshots']} rows that are new, found {counts}")


def _check_books(made: Made, state_hash: str) -> None:
    if state_hash != made.state_hash:
        raise BenchmarkError(f"expected the books {made.state_hash} at the end, found {state_hash}")
