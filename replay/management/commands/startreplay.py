"""Start a replay from the command line, as the page and REST do. Floor 4."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import ValidationError

from replay import control
from replay.bodies import StartBody, pace_of_text


class Command(BaseCommand):
    help = "Start a replay, or say which one runs already."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dataset", help="its name or id; default: that of CSV_PATH, else of SYMBOL")
        parser.add_argument("--pace", help='records a second, "max", or "10x" as recorded; default: STREAMER_RATE')
        parser.add_argument("--from", dest="window_from", help="where to begin: a record, a fraction (0.5) or a time")
        parser.add_argument("--to", dest="window_to", help="where to end, likewise")
        parser.add_argument("--loop", action="store_true", default=None, help="start again at the end")
        parser.add_argument("--skip-idle", type=float, metavar="S", help="pass over S seconds without records")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            pace = pace_of_text(options["pace"])
        except ValueError as error:
            raise CommandError(f"--pace: {error}") from error
        body = {
            "dataset": options["dataset"],
            "pace": pace,
            "loop": options["loop"],
            "skip_idle_s": options["skip_idle"],
            "from": _place(options["window_from"]),
            "to": _place(options["window_to"]),
        }
        try:
            answer = control.start(StartBody.model_validate(body).asked(), requested_by=None)
        except ValidationError as error:
            fault = error.errors()[0]
            raise CommandError(f"--{fault['loc'][0]}: {fault['msg']}") from error
        except (control.ControlError, control.ControlUnreachable) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{answer['dataset']}: {answer.get('note') or answer['state']}")


def _place(text: str | None) -> object:
    if text is None:
        return None
    if text.isdecimal():
        return {"record": int(text)}
    try:
        return {"fraction": json.loads(text)}
    except ValueError:
        return {"ts": text}
