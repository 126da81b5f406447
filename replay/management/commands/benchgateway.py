"""manage.py benchgateway: how fast the live port serves on this machine, and how punctually."""

import json
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from orderbook.benchmark.spread import spread
from replay.benchmark.gateway import Lateness, Throughput, lateness, throughput, write_recording, write_slice
from replay.benchmark.processes import BenchmarkError
from replay.streamer.listener import MAX_CLIENTS
from replay.streamer.messages import MAX_MARKET_TIME, MIN_MARKET_TIME

MAX_RECORDS: Final = 1_000_000_000
_MEGABYTE: Final = 1_000_000
_MILLISECOND_NS: Final = 1_000_000

Report = dict[str, Any]


class Command(BaseCommand):
    help = "Measure a streamer that serves a made file to local clients of the live protocol, each a process."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--records", type=int, default=20_000_000, help="records of the file (default: 20000000)")
        parser.add_argument("--clients", type=int, default=1, help="readers at the same time (default: 1)")
        parser.add_argument(
            "--market-time",
            metavar="1,10,1000",
            help="measure instead how punctual records are at these paces, in times as recorded",
        )
        parser.add_argument("--seconds", type=float, default=5.0, help="how long each of these paces runs (default: 5)")
        parser.add_argument("--rounds", type=int, default=1, help="medians are told (default: 1)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        _require("--records", options["records"], 1, MAX_RECORDS)
        _require("--clients", options["clients"], 1, MAX_CLIENTS)
        _require("--seconds", options["seconds"], 0.1, 3600)
        _require("--rounds", options["rounds"], 1, 1000)
        paces = _paces(options["market_time"])
        with tempfile.TemporaryDirectory(prefix="batonic-bench-") as folder:
            try:
                if paces:
                    report = _punctuality(Path(folder), paces, options["seconds"], options["rounds"])
                else:
                    report = _speed(Path(folder), options["records"], options["clients"], options["rounds"])
            except BenchmarkError as error:
                raise CommandError(str(error)) from error
            except OSError as error:
                raise CommandError(f"The made file cannot be written to {folder}: {error}") from error
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            for line in _lines(report):
                self.stdout.write(line)


def _speed(folder: Path, records: int, clients: int, rounds: int) -> Report:
    path = folder / "made.dbn"
    write_recording(path, records)
    return spread([_told(throughput(path, records, clients), records, clients) for _ in range(rounds)])


def _told(found: Throughput, records: int, clients: int) -> Report:
    return {
        "records": records,
        "clients": clients,
        "records_per_s_per_client": found.records_per_s,
        "streamer_cpu_s": round(found.streamer_cpu_s, 3),
        "streamer_peak_mb": round(found.streamer_peak_bytes / _MEGABYTE, 1),
    }


def _punctuality(folder: Path, paces: list[float], seconds: float, rounds: int) -> Report:
    found = {}
    for pace in paces:
        path = folder / f"made-{pace:g}.dbn"
        records = write_slice(path, seconds * pace)
        found[f"{pace:g}"] = spread([_in_ms(lateness(path, records, pace)) for _ in range(rounds)])
    return {"market_time": found}


def _in_ms(late: Lateness) -> Report:
    p50, p99, most = (round(value / _MILLISECOND_NS, 3) for value in (late.p50, late.p99, late.most))
    return {"records": late.records, "late_ms_p50": p50, "late_ms_p99": p99, "late_ms_max": most}


def _lines(report: Report) -> list[str]:
    if "market_time" in report:
        return [
            f"{pace}x: {late['records']} records, late by {late['late_ms_p50']} ms (p50), {late['late_ms_p99']} ms"
            f" (p99), {late['late_ms_max']} ms (max)"
            for pace, late in report["market_time"].items()
        ]
    return [
        f"{report['records']} records to {report['clients']} clients:"
        f" {report['records_per_s_per_client'] / 1e6:.1f} million records/s to each",
        f"streamer: {report['streamer_cpu_s']} s of processor time, at most {report['streamer_peak_mb']} MB of its own",
    ]


def _paces(text: str | None) -> list[float]:
    try:
        paces = [float(each) for each in text.split(",")] if text else []
    except ValueError as error:
        raise CommandError(f"Expected --market-time like 1,10,1000, found {text!r}.") from error
    for pace in paces:
        _require("--market-time", pace, MIN_MARKET_TIME, MAX_MARKET_TIME)
    return paces


def _require(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise CommandError(f"Expected {name} from {least:g} to {most:g}, found {value:g}.")
