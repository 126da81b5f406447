"""manage.py benchpipeline: how fast records get from a file into books and stores on this machine. Floor 5.

The servers that it needs are its own, made in a folder that goes with it: nothing of a running system is touched.
"""

import contextlib
import json
import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from django.core.management.base import BaseCommand, CommandError
from psycopg import sql

from batonic_site.services.process import ServiceError
from batonic_site.services.scratch import scratch_database, scratch_site
from batonic_site.services.valkey import Valkey
from engine_worker.benchmark.audience import Audience
from engine_worker.benchmark.pipeline import Plan, Report, make_file, measure
from history.models import Instrument, Snapshot
from orderbook.benchmark import socket_load
from orderbook.benchmark.records import MAX_INSTRUMENTS, interleaved, resting, tiled
from orderbook.benchmark.socket_client import Target
from orderbook.book.mbo import MboArray
from replay import simulator
from replay.benchmark.processes import BenchmarkError
from replay.feed.sources import SourceError, open_recording

MAX_RECORDS: Final = 100_000_000
MAX_CLIENTS: Final = 1000
SEED: Final = 1
_SIMULATED: Final = 1_000_000
_RESTING_IN: Final = 100
"""Instruments that resting orders are spread over."""
_RAMP_PER_S: Final = 100.0


class Command(BaseCommand):
    help = "Replay a made file from a streamer to an engine, both processes, and print what it took."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--records", type=int, default=5_000_000, help="records of the file (default: 5000000)")
        parser.add_argument("--file", type=Path, help="recording to repeat until there are so many (default: simulate)")
        parser.add_argument("--resting", action="store_true", help="make a file of orders that all rest instead")
        parser.add_argument(
            "--instruments",
            type=int,
            help="copies of the busiest one, interleaved (default: as in the file; 100 with --resting)",
        )
        parser.add_argument("--framing", choices=("dbn", "csv"), default="dbn", help="of the raw feed (default: dbn)")
        parser.add_argument("--rate", type=int, help="records a second (default: as fast as it goes)")
        parser.add_argument("--snapshot-every", type=int, default=1000, help="0 = each change of the best prices")
        parser.add_argument("--depth", type=int, default=50, help="levels a side in the feed file (default: 50)")
        parser.add_argument("--push-ms", type=int, default=50, help="time between two live books (default: 50)")
        parser.add_argument("--clients", type=int, default=0, help="WebSocket clients that look on; needs --rate")
        parser.add_argument("--database", action="store_true", help="store the snapshots in a PostgreSQL too")
        parser.add_argument("--replays", type=int, default=1, help="that one engine follows in a round (default: 1)")
        parser.add_argument("--rounds", type=int, default=3, help="each with a new engine; medians (default: 3)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        _require("--records", options["records"], 1, MAX_RECORDS)
        _require("--instruments", options["instruments"] or 1, 1, MAX_INSTRUMENTS)
        _require("--rate", options["rate"] or MAX_RECORDS, 1, MAX_RECORDS)
        _require("--snapshot-every", options["snapshot_every"], 0, 10**9)
        _require("--depth", options["depth"], 1, 200)
        _require("--push-ms", options["push_ms"], 10, 5000)
        _require("--clients", options["clients"], 0, MAX_CLIENTS)
        _require("--replays", options["replays"], 1, 1000)
        _require("--rounds", options["rounds"], 1, 1000)
        if options["clients"] and not options["rate"]:
            raise CommandError("--clients: expected --rate beside it, so that there is something to look on at.")
        with tempfile.TemporaryDirectory(prefix="batonic-bench-") as folder:
            try:
                report = self.measure(Path(folder), options)
            except (BenchmarkError, ServiceError, SourceError, ValueError) as error:
                raise CommandError(str(error)) from error
            except OSError as error:
                raise CommandError(f"The made file cannot be written to {folder}: {error}") from error
        self.stdout.write(json.dumps(report) if options["json"] else shown(report))

    def measure(self, folder: Path, options: dict[str, Any]) -> Report:
        stream = stream_of(options["records"], options["file"], options["instruments"], all_rest=options["resting"])
        made = make_file(folder / "made.dbn", *stream)
        del stream
        load_1m = os.getloadavg()[0]
        with contextlib.ExitStack() as stack:
            valkey = Valkey(folder)
            stack.callback(valkey.stop)
            valkey.start()
            needs_database = options["database"] or options["clients"]
            pg_conninfo = stack.enter_context(scratch_database(folder)) if needs_database else ""
            audience = None
            if options["clients"]:
                audience = stack.enter_context(_audience(folder, options, pg_conninfo, valkey.url))
            plan = Plan(
                framing=options["framing"],
                snapshot_every=options["snapshot_every"],
                depth=options["depth"],
                push_ms=options["push_ms"],
                rate=options["rate"],
                replays=options["replays"],
                redis_url=valkey.url,
                pg_conninfo=pg_conninfo if options["database"] else "",
                audience=audience,
            )
            report = measure(made, plan, folder, options["rounds"], _emptier(plan.pg_conninfo))
        return report | {"database": options["database"], "cpu_count": os.cpu_count(), "load_1m": round(load_1m, 2)}


def stream_of(
    count: int, file: Path | None, instruments: int | None, *, all_rest: bool
) -> tuple[MboArray, dict[int, str]]:
    """Return so many records, and what their instruments are called.

    They are of a recording or simulated, and repeated; or of so many copies of one instrument; or orders that all rest.
    Raises SourceError, ValueError.
    """
    if all_rest:
        instruments = instruments or _RESTING_IN
        return resting(count, instruments), _numbered(instruments)
    if file is None:
        symbols = simulator.instrument_ids(["CLX5"])
        records = simulator.simulate(max(min(count, _SIMULATED), 2 * simulator.MIN_RECORDS), ["CLX5"], SEED)
    else:
        recording = open_recording(file)
        records, symbols = recording.records, recording.symbols
    if instruments is None:
        return tiled(records, count), symbols
    return interleaved(records, count, instruments, SEED), _numbered(instruments)


def _numbered(instruments: int) -> dict[int, str]:
    return {number: f"I{number}" for number in range(1, instruments + 1)}


def shown(report: Report) -> str:
    """Return a report to read."""
    asked = f"asked for {report['rate']:,} a second" if report["rate"] else "as fast as it goes"
    stored = f", {report['snapshots_stored']:,} rows stored" if report["database"] else ""
    least, most = (report.get(f"records_per_s_{end}") or report["records_per_s"] for end in ("min", "max"))
    machine = f"{report['cpu_count']} cores, load {report['load_1m']}"
    lines = [
        f"{report['records']:,} records over {report['framing']}, {asked}, a snapshot every "
        f"{report['snapshot_every']:,}, {report['depth']} levels; {machine}",
        f"{report['records_per_s']:,} records/s [{least:,} - {most:,}], {report['rounds']} rounds, "
        f"{report['elapsed_s']} s; the limit: {report['limit']}",
        f"{report['snapshots']:,} snapshots{stored}, all written after {report['stored_s']} s",
        _latency(report, "snapshot", "snap", "us"),
        _latency(report, "apply", "apply", "ns"),
        _latency(report, "publish", "publish", "ms"),
        f"engine     {report['engine_cpu_s']} s CPU, {report['engine_peak_mb']} MB at most; "
        f"{report['engine_mb_first']} MB behind the first replay, {report['engine_mb_last']} behind the last of "
        f"{report['replays']}; {report['resting_orders']:,} orders rested in {report['instruments']:,} books",
        f"streamer   {report['streamer_cpu_s']} s CPU, {report['streamer_peak_mb']} MB",
    ]
    if "clients" in report:
        lines.append(
            f"{report['clients']} clients: {report['books_per_client']} of {report['books_expected']} books each; "
            f"staleness p50 {report['staleness_p50_ms']}, p99 {report['staleness_p99_ms']}, max "
            f"{report['staleness_max_ms']} ms; web {report['web_cpu_s']} s CPU, {report['web_peak_mb']} MB"
        )
    return "\n  ".join(lines)


def _latency(report: Report, label: str, name: str, unit: str) -> str:
    p50, p99, most = (report[f"{name}_{which}_{unit}"] for which in ("p50", "p99", "max"))
    return f"{label:<11}p50 {p50:,}, p99 {p99:,}, max {most:,} {unit}"


@contextlib.contextmanager
def _audience(folder: Path, options: dict[str, Any], pg_conninfo: str, redis_url: str) -> Iterator[Audience]:
    """Start a web process and the processes of its clients."""
    named = {
        "PG_CONNINFO": pg_conninfo,
        "REDIS_URL": redis_url,
        "PUSH_MS": str(options["push_ms"]),
        **dict.fromkeys(("WS_MAX_CLIENTS", "WS_MAX_PER_USER", "WS_MAX_PER_ADDRESS"), str(2 * MAX_CLIENTS)),
    }
    with scratch_site(folder, 1, named) as site:
        target = Target(f"ws://127.0.0.1:{site.port}/ws", site.key, "", options["depth"], options["push_ms"])
        with socket_load.crowds(target, 1) as pipes:
            plan = socket_load.Plan(target, seconds=0.0, ramp_per_s=_RAMP_PER_S, server_pids=site.pids)
            yield Audience(options["clients"], pipes, plan)


def _emptier(pg_conninfo: str) -> Callable[[], None]:
    """Return what empties the tables, or does nothing without a database."""
    tables = sql.SQL(", ").join(sql.Identifier(model._meta.db_table) for model in (Snapshot, Instrument))

    def empty() -> None:
        if pg_conninfo:
            with psycopg.connect(pg_conninfo, autocommit=True) as connection:
                connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(tables))

    return empty


def _require(option: str, found: int, least: int, most: int) -> None:
    if not least <= found <= most:
        raise CommandError(f"{option}: expected {least:,} to {most:,}, found {found:,}.")
