"""Is this machine's web, streamer, engine, worker or beat process at work; for containers' health checks. Floor 5."""

import socket
from collections.abc import Callable
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from batonic_site.celery import app
from batonic_site.health import check_beat, check_engine, check_streamer, check_web, failure


class Command(BaseCommand):
    help = "Exit with status 0 when the process works, else with 1 and the reason."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("process", choices=sorted(_CHECKS))

    def handle(self, *args: Any, process: str, **options: Any) -> None:
        if why := _CHECKS[process]():
            raise CommandError(f"{process}: {why}")
        self.stdout.write(f"{process}: ok")


def _worker() -> str:
    name = f"celery@{socket.gethostname()}"
    return "" if app.control.ping(destination=[name], timeout=3) else f"{name} does not answer"


_CHECKS: Final[dict[str, Callable[[], str]]] = {
    "web": lambda: failure(check_web),
    "streamer": lambda: failure(check_streamer),
    "engine": lambda: failure(check_engine),
    "worker": _worker,
    "beat": lambda: failure(check_beat),
}
