"""Start a replay from the command line, as the page and REST do. Floor 4."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from replay import control
from replay.streamer.messages import Pace


class Command(BaseCommand):
    help = "Start a replay, or say which one runs already."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dataset", help="its name or id; default: that of CSV_PATH, else of SYMBOL")
        parser.add_argument("--pace", help='records a second, or "max"; default: STREAMER_RATE')

    def handle(self, *args: Any, dataset: str | None, pace: str | None, **options: Any) -> None:
        try:
            answer = control.start(dataset, _pace(pace), requested_by=None)
        except (control.ControlError, control.ControlUnreachable) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{answer['dataset']}: {answer.get('note') or answer['state']}")


def _pace(text: str | None) -> Pace | None:
    if text is None:
        return None
    if text == "max":
        return "max"
    if not text.isdecimal() or int(text) < 1:
        raise CommandError(f'--pace {text!r}: expected a whole number of records a second, or "max".')
    return {"records_per_s": int(text)}
