"""manage.py benchpipeline: how fast records get from a file into books and stores on this machine. Floor 5.

The servers that it needs are its own, made in a folder that goes with it: nothing of a running system is touched.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from psycopg import sql

from batonic_site.services.postgres import Postgres
from batonic_site.services.process import ServiceError
from batonic_site.services.valkey import Valkey
from engine_worker.benchmark.pipeline import Made, Plan, Report, make_file, measure
from history.models import Instrument, Snapshot
from orderbook.benchmark.records import tiled
from replay import simulator
from replay.benchmark.processes import BenchmarkError
from replay.feed.sources import SourceError, open_recording

MAX_RECORDS: Final = 100_000_000
SEED: Final = 1
_SIMULATED: Final = 1_000_000


class Command(BaseCommand):
    help = "Replay a made file at full speed from a streamer to an engine, both processes, and print what it took."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--records", type=int, default=5_000_000, help="records of the file (default: 5000000)")
        parser.add_argument("--file", type=Path, help="recording to repeat until there are so many (default: simulate)")
        parser.add_argument("--framing", choices=("dbn", "csv"), default="dbn", help="of the raw feed (default: dbn)")
        parser.add_argument("--snapshot-every", type=int, default=1000, help="0 = each change of the best prices")
        parser.add_argument("--depth", type=int, default=50, help="levels a side in the feed file (default: 50)")
        parser.add_argument("--push-ms", type=int, default=50, help="time between two live books (default: 50)")
        parser.add_argument("--database", action="store_true", help="store the snapshots in a PostgreSQL too")
        parser.add_argument("--rounds", type=int, default=3, help="replays; the median is told (default: 3)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        _require("--records", options["records"], 1, MAX_RECORDS)
        _require("--snapshot-every", options["snapshot_every"], 0, 10**9)
        _require("--depth", options["depth"], 1, 200)
        _require("--push-ms", options["push_ms"], 1, 5000)
        _require("--rounds", options["rounds"], 1, 1000)
        with tempfile.TemporaryDirectory(prefix="batonic-bench-") as folder:
            try:
                report = self.measure(Path(folder), options)
            except (BenchmarkError, ServiceError, SourceError, ValueError) as error:
                raise CommandError(str(error)) from error
            except OSError as error:
                raise CommandError(f"The made file cannot be written to {folder}: {error}") from error
        self.stdout.write(json.dumps(report) if options["json"] else shown(report))

    def measure(self, folder: Path, options: dict[str, Any]) -> Report:
        made = made_file(folder / "made.dbn", options["records"], options["file"])
        with contextlib.ExitStack() as stack:
            valkey = Valkey(folder)
            stack.callback(valkey.stop)
            valkey.start()
            pg_conninfo = stack.enter_context(_database(folder)) if options["database"] else ""
            plan = Plan(
                options["framing"],
                options["snapshot_every"],
                options["depth"],
                options["push_ms"],
                valkey.url,
                pg_conninfo,
            )
            load_1m = os.getloadavg()[0]
            report = measure(made, plan, folder, options["rounds"], _emptier(pg_conninfo))
        return report | {"database": options["database"], "cpu_count": os.cpu_count(), "load_1m": round(load_1m, 2)}


def made_file(path: Path, count: int, file: Path | None) -> Made:
    """Write the file to replay: so many records, of a recording or simulated, repeated. Raises SourceError."""
    if file is None:
        symbols = simulator.instrument_ids(["CLX5"])
        records = simulator.simulate(max(min(count, _SIMULATED), 2 * simulator.MIN_RECORDS), ["CLX5"], SEED)
        return make_file(path, tiled(records, count), symbols)
    recording = open_recording(file)
    return make_file(path, tiled(recording.records, count), recording.symbols)


def shown(report: Report) -> str:
    """Return a report to read."""
    stored = f", {report['snapshots_stored']:,} rows stored" if report["database"] else ""
    return f"""\
{report["records"]:,} records over {report["framing"]}, a snapshot every {report["snapshot_every"]:,}, \
{report["depth"]} levels; {report["cpu_count"]} cores, load {report["load_1m"]}
  {report["records_per_s"] / 1e6:.2f} M records/s [{report["records_per_s_min"] / 1e6:.2f} - \
{report["records_per_s_max"] / 1e6:.2f}], {report["rounds"]} rounds, {report["elapsed_s"]} s
  {report["snapshots"]:,} snapshots{stored}, all written after {report["stored_s"]} s
  snapshot   p50 {report["snap_p50_us"]:.1f}, p99 {report["snap_p99_us"]:.1f}, max {report["snap_max_us"]:.1f} us
  apply      p50 {report["apply_p50_ns"]}, p99 {report["apply_p99_ns"]}, max {report["apply_max_ns"]} ns
  publish    p50 {report["publish_p50_ms"]:.1f}, p99 {report["publish_p99_ms"]:.1f}, \
max {report["publish_max_ms"]:.1f} ms
  engine     {report["engine_cpu_s"]} s CPU, {report["engine_peak_mb"]} MB; streamer {report["streamer_cpu_s"]} s CPU, \
{report["streamer_peak_mb"]} MB"""


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[str]:
    """Start a PostgreSQL with our tables, empty; yields its connection string."""
    server = Postgres(folder)
    try:
        server.start()
        environment = os.environ | {"PG_CONNINFO": server.conninfo()}
        environment.pop("DATABASE_URL", None)
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "migrate", "--verbosity", "0"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ServiceError(f"The tables of the benchmark could not be made: {done.stderr}")
        yield server.conninfo()
    finally:
        server.stop()


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
