"""How fast records get from a file into books and stores: a streamer and an engine, each a process. Floor 3.

They speak the raw feed over loopback. Every round replays one file at ``max`` and is checked: the books at the end must
be those that the records make, and every snapshot must be stored.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from engine_worker.benchmark import engine_process
from engine_worker.benchmark.engine_process import Order, Outcome
from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import MboArray
from replay import simulator
from replay.benchmark import streamer_process
from replay.benchmark.processes import BenchmarkError, process, take, watched_memory
from replay.benchmark.streamer_process import Spent
from replay.feed.dbn_metadata import encode_metadata
from replay.feed.stream import FramingName

Report = dict[str, Any]


class Made(NamedTuple):
    """The file that is replayed, and what it must come to."""

    path: Path
    records: int
    state_hash: str


class Plan(NamedTuple):
    """What is measured."""

    framing: FramingName
    snapshot_every: int
    depth: int
    push_ms: int
    redis_url: str
    pg_conninfo: str
    """Empty: no database."""


def make_file(path: Path, records: MboArray, symbols: dict[int, str]) -> Made:
    """Write records as a recording, and work out the books that they leave."""
    with path.open("wb") as file:
        file.write(encode_metadata(simulator.VENUE_DATASET, int(records[0]["ts_event"]), symbols))
        records.view(np.uint8).tofile(file)
    market = make_market("kernel")
    market.apply(records)
    return Made(path, len(records), market_hash(market.books.items()))


def measure(made: Made, plan: Plan, folder: Path, rounds: int, before_round: Callable[[], None]) -> Report:
    """Replay the file so many times, each to a new engine, and return the round of median speed.

    ``before_round`` empties what an earlier round has stored. Raises BenchmarkError.
    """
    reports = []
    for number in range(rounds):
        before_round()
        reports.append(_round(made, plan, folder / f"round-{number}"))
    reports.sort(key=lambda report: float(report["records_per_s"]))
    speeds = [report["records_per_s"] for report in reports]
    middle = reports[len(reports) // 2]
    return middle | {
        "rounds": rounds,
        "records_per_s_min": speeds[0],
        "records_per_s_max": speeds[-1],
        "snap_p99_us_median": median(report["snap_p99_us"] for report in reports),
    }


def _round(made: Made, plan: Plan, folder: Path) -> Report:
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        streamer, source = stack.enter_context(process(streamer_process.run, made.path, more=(plan.framing,)))
        port = take(source)
        order = Order(
            port, plan.framing, folder, plan.snapshot_every, plan.depth, plan.push_ms, plan.pg_conninfo, plan.redis_url
        )
        engine, target = stack.enter_context(process(engine_process.run, order))
        take(target)  # it is connected
        streamer_memory = stack.enter_context(watched_memory(streamer.pid or 0))
        engine_memory = stack.enter_context(watched_memory(engine.pid or 0))
        source.send("max")
        spent: Spent = take(source)
        outcome: Outcome = take(target)
        report = _report(plan, outcome) | {
            "streamer_cpu_s": round(spent.cpu_s, 3),
            "engine_peak_mb": round(max(engine_memory) / 1e6, 1),
            "streamer_peak_mb": round(max(streamer_memory) / 1e6, 1),
        }
    _check(made, plan, outcome)
    shutil.rmtree(folder)
    return report


def _report(plan: Plan, outcome: Outcome) -> Report:
    line, database = outcome.line, outcome.sinks.get("database", {})
    return {
        "records": line["processed"],
        "elapsed_s": round(line["elapsed_s"], 4),
        "records_per_s": round(line["throughput_msgs_per_s"]),
        "framing": plan.framing,
        "snapshot_every": plan.snapshot_every,
        "depth": plan.depth,
        "snapshots": line["snapshots"],
        "snapshots_stored": database.get("written", 0) + database.get("duplicates", 0),
        "lines_written": outcome.sinks["jsonl"]["written"],
        "lines_dropped": outcome.sinks["jsonl"]["dropped"],
        "stored_s": round(outcome.stored_s, 4),
        "snapshots_per_s": round(line["snapshots"] / outcome.stored_s),
        "snap_p50_us": line["snap_p50_ms"] * 1e3,
        "snap_p99_us": line["snap_p99_ms"] * 1e3,
        "snap_max_us": line["snap_max_ms"] * 1e3,
        "apply_p50_ns": round(line["apply_p50_us"] * 1e3),
        "apply_p99_ns": round(line["apply_p99_us"] * 1e3),
        "apply_max_ns": round(line["apply_max_us"] * 1e3),
        "publish_p50_ms": outcome.publish_p50_ns / 1e6,
        "publish_p99_ms": outcome.publish_p99_ns / 1e6,
        "publish_max_ms": outcome.publish_max_ns / 1e6,
        "engine_cpu_s": round(outcome.cpu_s, 3),
    }


def _check(made: Made, plan: Plan, outcome: Outcome) -> None:
    """Raise BenchmarkError where a round was fast and wrong."""
    applied = outcome.line["processed"]
    if applied != made.records or any(outcome.refused.values()):
        raise BenchmarkError(f"expected {made.records} records applied, found {applied} and {outcome.refused}")
    if outcome.state_hash != made.state_hash:
        raise BenchmarkError(f"expected the books {made.state_hash} at the end, found {outcome.state_hash}")
    snapshots = outcome.line["snapshots"]
    for name, counts in outcome.sinks.items():
        if name == "broadcast":
            continue
        if counts["offered"] != snapshots:
            raise BenchmarkError(f"expected {snapshots} snapshots offered to {name}, found {counts['offered']}")
        if name == "database" and counts["written"] != snapshots:
            raise BenchmarkError(f"expected {snapshots} rows that are new, found {counts}")
