"""manage.py verify: rebuild the books of a recording, check them, and say what the recording is worth."""

import json
import os
import sys
import textwrap
import time
from argparse import ArgumentParser, ArgumentTypeError
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from orderbook.book.timestamp import NS_PER_S
from orderbook.quality.expectation import differences, parse_expectation
from orderbook.quality.report import Report, shortened
from orderbook.quality.tables import WIDTH, as_text, headline, tables
from orderbook.quality.verification import KINDS, CheckOptions
from replay.feed.sources import SourceError
from replay.quality import check_file

INSTRUMENTS_SHOWN: Final = 20
INTERRUPTED: Final = 130  # what a shell reports for a program that Ctrl-C ended
_MOST_IDLE_S: Final = 10**9


class Command(BaseCommand):
    help = "Rebuild the books of a recording, check their invariants, and report what the recording is worth."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help=".dbn, .dbn.zst, .csv or .csv.zst")
        parser.add_argument(
            "--book", choices=KINDS, default="kernel", help="both: side by side, the first difference is named"
        )
        parser.add_argument(
            "--every",
            type=_every,
            default=1,
            metavar="N",
            help="check at each Nth event end (default: 1); auto: as often as takes ten seconds",
        )
        parser.add_argument(
            "--idle-s", type=_idle_ns, default="60", metavar="S", help="report gaps longer than this (default: 60)"
        )
        parser.add_argument(
            "--instruments",
            type=_positive,
            metavar="N",
            help=f"report the N with the most records (default: {INSTRUMENTS_SHOWN} in tables, all of them in JSON)",
        )
        parser.add_argument("--sha256", metavar="HEX", help="refuse a file with another digest")
        parser.add_argument("--expect", metavar="JSON", help="a file, or JSON itself: any part of what --json prints")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--parent", type=int, metavar="PID", help="stop when this parent process has ended")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.verify(options)
        except KeyboardInterrupt:
            raise CommandError("Stopped before the end; nothing is known.", returncode=INTERRUPTED) from None

    def verify(self, options: dict[str, Any]) -> None:
        """Check the file, print the report. Raises CommandError when it is not as it must be, or as expected."""
        expected = _expectation(options["expect"])
        began = time.perf_counter()
        checks = CheckOptions(options["book"], options["every"], options["idle_s"])
        bars = ProgressBars(disable=True if options["json"] else None, parent=options["parent"])
        try:
            report = check_file(options["file"], checks, options["sha256"], bars)
        except SourceError as error:
            raise CommandError(str(error)) from error
        finally:
            bars.close()
        if options["instruments"]:
            report = shortened(report, options["instruments"])
        if options["json"]:
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self.stdout.write(_text(report, options["instruments"] or INSTRUMENTS_SHOWN))
            self.stdout.write(f"\nin {time.perf_counter() - began:.1f} s")
        found = list(differences(expected, report))
        if found:
            raise CommandError("\n  ".join(["The report is not what was expected.", *found]))
        if not report["ok"]:
            raise CommandError(f"{report['file']} does not hold.")


class ProgressBars:
    """A progress bar for each stage of the work, on a terminal only; ``disable`` is tqdm's.

    Not on the command's own stderr: Django ends whatever is written there with a new line. Raises CommandError when
    the parent has ended: nobody wants to know any more.
    """

    def __init__(self, disable: bool | None, parent: int | None = None) -> None:
        self._disable = disable
        self._parent = parent
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, n: int, total: int) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            raise CommandError(f"Process {self._parent}, for which this was, has ended.")
        if stage != self._stage:
            self.close()
            self._stage = stage
            unit = "B" if stage == "sha256" else "rec"
            self._bar = tqdm(
                total=total, desc=stage, unit=unit, unit_scale=True, leave=False, file=sys.stderr, disable=self._disable
            )
        self._bar.update(n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _text(report: Report, instruments: int) -> str:
    first = textwrap.fill(f"{'OK' if report['ok'] else 'FAILED'}  {headline(report)}", WIDTH, subsequent_indent="  ")
    parts = [first, *(as_text(table) for table in tables(report, instruments))]
    return "\n\n".join(parts)


def _expectation(given: str | None) -> dict[str, object]:
    """Return what is expected, nothing without the option. Raises CommandError."""
    if given is None:
        return {}
    is_text = given.lstrip().startswith("{")
    try:
        return parse_expectation(given if is_text else Path(given).read_text())
    except OSError as error:
        raise CommandError(f"--expect {given}: expected a readable file, found {error.strerror or error}.") from error
    except ValueError as error:  # also what is no UTF-8
        raise CommandError(f"--expect{'' if is_text else f' {given}'}: {error}.") from error


def _every(text: str) -> int | None:
    return None if text == "auto" else _positive(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentTypeError(f"expected a whole number of 1 or more, found {text!r}")
    return int(text)


def _idle_ns(text: str) -> int:
    """Return decimal seconds as nanoseconds."""
    try:
        seconds = Decimal(text)
        is_known = 0 <= seconds <= _MOST_IDLE_S  # raises for a NaN
    except InvalidOperation:
        is_known = False
    if not is_known:
        raise ArgumentTypeError(f"expected 0 to {_MOST_IDLE_S:,} seconds, found {text!r}")
    return int(seconds * NS_PER_S)
