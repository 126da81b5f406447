"""manage.py benchbook: how fast the books are on this machine, and against what."""

import json
import os
import platform
import sys
import tempfile
from argparse import ArgumentParser
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from orderbook.benchmark.machine import cpu_name
from orderbook.benchmark.records import MAX_INSTRUMENTS, interleaved, tiled
from orderbook.benchmark.rounds import (
    PROOF_RECORDS,
    REFERENCE_RECORDS,
    Figures,
    Progress,
    WrongResultError,
    memory_of,
    outcome_over,
    run_rounds,
)
from orderbook.benchmark.start import StartError, start_figures
from orderbook.book.mbo import MboArray
from replay import simulator
from replay.feed.sources import SourceError, open_recording

INTERRUPTED: Final = 130  # what a shell reports for Ctrl-C
MAX_RECORDS: Final = 100_000_000
SEED: Final = 1
WARM_STARTS: Final = 5

Report = dict[str, int | float | str]


class Command(BaseCommand):
    help = "Measure the compiled book, the reference book and a memory scan of the same records, turn by turn."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--records", type=int, default=5_000_000, help="records in all (default: 5000000)")
        parser.add_argument("--file", type=Path, help="recording to repeat until there are so many (default: simulate)")
        parser.add_argument(
            "--instruments",
            type=int,
            help="instruments, interleaved; of a file, copies of its busiest one (default: as in the file, or 1)",
        )
        parser.add_argument("--rounds", type=int, default=7, help="turns of each contender (default: 7)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        _require("--records", options["records"], MAX_RECORDS)
        _require("--instruments", 1 if options["instruments"] is None else options["instruments"], MAX_INSTRUMENTS)
        _require("--rounds", options["rounds"], 1_000_000)
        try:
            self.measure(options)
        except KeyboardInterrupt:
            raise CommandError("Stopped before the end; nothing is measured.", returncode=INTERRUPTED) from None

    def measure(self, options: dict[str, Any]) -> None:
        """Make the records, measure, print. Raises CommandError."""
        try:
            records, data = stream_of(options["records"], options["file"], options["instruments"])
        except (SourceError, ValueError) as error:
            raise CommandError(str(error)) from error
        try:
            with tqdm(total=options["rounds"], unit="round", file=sys.stderr, disable=None) as bar:
                report = measured(records, data, options["rounds"], bar.update)
            with tempfile.TemporaryDirectory(prefix="batonic-numba-") as folder:
                report |= summary(start_figures(Path(folder), WARM_STARTS))
        except (WrongResultError, StartError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(report) if options["json"] else shown(report))


def measured(records: MboArray, data: str, rounds: int, progress: Progress = lambda: None) -> Report:
    """Return everything but the start times. Raises WrongResultError."""
    load_1m = os.getloadavg()[0]
    expected = outcome_over(records)
    figures = run_rounds(records, rounds, expected, progress)
    memory = memory_of(records)
    kernel, reference = median(figures["kernel_same_records_per_s"]), median(figures["reference_records_per_s"])
    return {
        "records": len(records),
        "records_reference": min(len(records), REFERENCE_RECORDS),
        "records_proven": min(len(records), PROOF_RECORDS),
        "instruments": len(expected.ends),
        "data": data,
        "rounds": rounds,
        "state_hash": expected.state_hash,
        **summary(figures),
        "kernel_to_reference": round(kernel / reference, 2),
        "bytes_per_order": round(memory.worst, 1),
        "bytes_per_order_at_most": round(memory.at_most, 1),
        "resting_orders_max": memory.resting_orders_max,
        "arena_bytes": memory.arena_bytes,
        "python": platform.python_version(),
        "numba": version("numba"),
        "numpy": version("numpy"),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count() or 0,
        "load_1m": round(load_1m, 2),
    }


def summary(figures: Figures) -> Report:
    """Return the median of each figure, and its least and its greatest value beside it.

    Of ``apply_max_ns`` the greatest stands for all: a maximum that is not the worst one says nothing.
    """
    report: Report = {}
    for name, values in figures.items():
        digits = 4 if name.endswith("_s") and not name.endswith("_per_s") else None
        value = max(values) if name == "apply_max_ns" else median(values)
        report[name] = round(value, digits)
        report[f"{name}_min"], report[f"{name}_max"] = round(min(values), digits), round(max(values), digits)
    return report


def shown(report: Report) -> str:
    """Return a report to read."""
    figures = "\n".join(
        f"  {label:<22}{_spread(report, name, 1e6, 2)} M records/s{note}"
        for label, name, note in (
            ("kernel", "kernel_records_per_s", ""),
            ("reference book", "reference_records_per_s", f" (the first {report['records_reference']:,} records)"),
            ("memory scan", "memory_scan_records_per_s", " (sum of one field)"),
        )
    )
    times = "\n".join(
        f"  {label:<22}{_spread(report, name, 1, 0)} ns"
        for label, name in (
            ("p50", "apply_p50_ns"),
            ("p99", "apply_p99_ns"),
            ("p99.9", "apply_p999_ns"),
            ("max", "apply_max_ns"),
            ("one clock reading", "clock_cost_ns"),
        )
    )
    return f"""\
{report["records"]:,} records, {report["data"]}; instruments: {report["instruments"]:,}
{report["cpu"]}, {report["cpu_count"]} cores, load {report["load_1m"]}; Python {report["python"]}, \
numba {report["numba"]}, numpy {report["numpy"]}

Throughput: apply alone, a new market each round; median [least - greatest] of {report["rounds"]} rounds, turn by turn
{figures}
  kernel / reference    {report["kernel_to_reference"]} (over the same records)

Latency: apply of one record inside the kernel, growth and one reading of the clock included; exact
{times}

Memory: {report["bytes_per_order"]} bytes a resting order at worst, {report["bytes_per_order_at_most"]} when most \
rested ({report["resting_orders_max"]:,})
Start over the imports ({report["import_s"]} s): {report["cold_start_s"]} s when it compiles, \
{_spread(report, "warm_start_s", 1, 2)} s from the cache
Right: every round applied all records and left state hash {report["state_hash"]}; both books agree over
the first {report["records_proven"]:,} records"""


def _spread(report: Report, name: str, unit: float, digits: int) -> str:
    middle, least, greatest = (float(report[name + suffix]) / unit for suffix in ("", "_min", "_max"))
    return f"{middle:,.{digits}f} [{least:,.{digits}f} - {greatest:,.{digits}f}]"


def stream_of(count: int, file: Path | None, instruments: int | None) -> tuple[MboArray, str]:
    """Return the stream and what to call it. Raises SourceError and ValueError."""
    if file is None:
        symbols = ["CLX5"] if instruments in (None, 1) else [f"I{number}" for number in range(instruments or 1)]
        return simulator.simulate(count, symbols, SEED), "simulated"
    recorded = open_recording(file).records
    if instruments is None:
        return tiled(recorded, count), file.name
    return interleaved(recorded, count, instruments, SEED), file.name


def _require(option: str, found: int, most: int) -> None:
    if not 1 <= found <= most:
        raise CommandError(f"{option}: expected 1 to {most:,}, found {found:,}.")
