"""manage.py bench: every benchmark, one after the other, and the page of what they showed. Floor 5."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from batonic_site.benchmarks.page import facts_of, page
from batonic_site.benchmarks.plan import PLAN, Measurement
from batonic_site.benchmarks.replaying import replaying
from batonic_site.benchmarks.targets import Found
from batonic_site.services.process import ServiceError
from orderbook.benchmark.machine import cpu_name, memory_bytes

MANAGE: Final = [sys.executable, str(settings.BASE_DIR / "manage.py")]
PACKAGES: Final = ("numpy", "numba", "django", "psycopg", "daphne", "websockets")


class Command(BaseCommand):
    help = "Run all benchmarks, each in processes and on servers of its own, and write the page of their figures."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        names = [each.name for each in PLAN]
        parser.add_argument("--write", type=Path, metavar="PAGE", help="file to write (default: to the terminal)")
        parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}")
        parser.add_argument("--results", type=Path, help="JSON of what was found, kept and added to from run to run")
        parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works; no measurement")
        parser.add_argument("--note", default="", help="what a reader must know of this run")

    def handle(self, *args: Any, **options: Any) -> None:
        load_before = os.getloadavg()[0]
        kept: Path | None = options["results"]
        results: dict[str, Found] = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
        for each in PLAN:
            if not options["only"] or each.name in options["only"]:
                results[each.name] = self.run(each, options["quick"])
                if kept is not None:
                    kept.write_text(json.dumps(results))
        packages = {name: version(name) for name in PACKAGES}
        facts = facts_of(
            cpu_name(), os.cpu_count() or 0, memory_bytes(), {"Python": platform.python_version(), **packages}
        ) | {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "batonic": settings.VERSION,
            "load_before": f"{load_before:.1f}",
            "load_after": f"{os.getloadavg()[0]:.1f}",
        }
        text = page(results, facts, options["note"] or ("A quick run: no measurement." if options["quick"] else ""))
        if options["write"]:
            options["write"].write_text(text)
        else:
            self.stdout.write(text)

    def run(self, each: Measurement, quick: bool) -> Found:
        """Run one command. Raises CommandError."""
        words = (*each.words, *(each.quick if quick else ()))
        begun = time.monotonic()
        try:
            with ExitStack() as stack:
                environment = None
                if each.with_replay:
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batonic-bench-"))
                    environment = stack.enter_context(replaying(Path(folder)))
                done = subprocess.run([*MANAGE, *words, "--json"], env=environment, stdout=subprocess.PIPE, text=True)
        except ServiceError as error:
            raise CommandError(f"{each.name}: {error}") from error
        if done.returncode:
            raise CommandError(f"{each.name}: `manage.py {' '.join(words)}` failed; its message is above.")
        self.stderr.write(f"{each.name}: {time.monotonic() - begun:.0f} s")
        reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return Found(words=words, reports=reports)
