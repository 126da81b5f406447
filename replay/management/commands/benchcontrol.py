"""manage.py benchcontrol: how long a command takes, from the request until its effect is in place and told. Floor 4."""

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any, Final, TypedDict

import numpy as np
from django.core.management.base import BaseCommand, CommandError

from replay import control
from replay.streamer.messages import ReplayState

MAX_ROUNDS: Final = 100_000
_MILLISECOND_NS: Final = 1_000_000


class Report(TypedDict):
    """What was measured, in milliseconds; of each round two commands."""

    rounds: int
    p50_ms: float
    p95_ms: float
    max_ms: float


class Command(BaseCommand):
    help = "Pause and resume the running replay through the worker again and again, and tell how long each took."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=100, help="each pauses and resumes (default: 100)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        rounds = options["rounds"]
        if not 1 <= rounds <= MAX_ROUNDS:
            raise CommandError(f"Expected --rounds from 1 to {MAX_ROUNDS}, found {rounds}.")
        try:
            report = _measure(rounds)
        except (control.ControlError, control.ControlUnreachable) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            self.stdout.write(
                f"{rounds} rounds of pause and resume: {report['p50_ms']} ms (p50), {report['p95_ms']} ms (p95),"
                f" {report['max_ms']} ms (max)"
            )


def _measure(rounds: int) -> Report:
    """Leave the replay as it was found, running or paused. Raises ControlError, ControlUnreachable."""
    first, second = _verbs()
    took_ns = []
    for _ in range(rounds):
        took_ns.append(_timed(first))
        took_ns.append(_timed(second))
    p50, p95, most = (_ms(np.percentile(took_ns, part, method="higher")) for part in (50, 95, 100))
    return {"rounds": rounds, "p50_ms": p50, "p95_ms": p95, "max_ms": most}


def _verbs() -> tuple[Callable[[], control.VerbAnswer], Callable[[], control.VerbAnswer]]:
    state = control.status()["state"]
    if state == ReplayState.REPLAYING:
        return control.pause, control.resume
    if state == ReplayState.PAUSED:
        return control.resume, control.pause
    raise CommandError(f"No replay is running: the streamer is {state}. Start one first (manage.py startreplay).")


def _timed(verb: Callable[[], control.VerbAnswer]) -> int:
    asked_ns = time.perf_counter_ns()
    verb()
    return time.perf_counter_ns() - asked_ns


def _ms(took_ns: Any) -> float:
    return round(int(took_ns) / _MILLISECOND_NS, 3)
