"""manage.py makedataset: write a simulated market session, ready to be replayed."""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from orderbook.book.timestamp import format_ns, parse_ns


class Command(BaseCommand):
    help = "Simulate a market session and write it as DBN (.dbn, or .dbn.zst compressed). The seed decides everything."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("out", type=Path, help="file to write, ending with .dbn or .dbn.zst")
        parser.add_argument("--records", type=int, default=200_000, help="records in all (default: 200000)")
        parser.add_argument("--symbols", default="CLX5,ESZ5", help="comma-separated (default: CLX5,ESZ5)")
        parser.add_argument("--seed", type=int, default=1, help="same seed, same file (default: 1)")
        parser.add_argument("--start", help="first instant, such as 2025-10-01T13:25:00Z")
        parser.add_argument("--force", action="store_true", help="replace an existing file")

    def handle(self, *args: Any, **options: Any) -> None:
        # Loads numba, which no other command of this process needs.
        from replay import simulator

        out: Path = options["out"]
        if not out.name.endswith((".dbn", ".dbn.zst")):
            raise CommandError(f"{out}: expected a name that ends with .dbn or .dbn.zst.")
        if out.exists() and not options["force"]:
            raise CommandError(f"{out} exists; --force replaces it.")
        symbols = [symbol.strip() for symbol in options["symbols"].split(",") if symbol.strip()]
        began = time.perf_counter()
        try:
            start_ns = parse_ns(options["start"]) if options["start"] else simulator.DEFAULT_START_NS
            with tqdm(total=options["records"], unit="rec", unit_scale=True, file=self.stderr, disable=None) as bar:
                records = simulator.simulate(options["records"], symbols, options["seed"], start_ns, bar.update)
            out.parent.mkdir(parents=True, exist_ok=True)
            simulator.write_session(out, records, simulator.instrument_ids(symbols))
        except ValueError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{out} cannot be written: {error.strerror or error}") from error
        span = f"{format_ns(int(records[0]['ts_recv']))[:19]} to {format_ns(int(records[-1]['ts_recv']))[:19]}"
        took = time.perf_counter() - began
        self.stdout.write(f"{out}: {len(records):,} records of {', '.join(symbols)}, {span}, in {took:.1f} s.")
