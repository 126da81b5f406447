"""manage.py loadws: how live books reach many clients of /ws. Floor 5.

Without --url the servers are its own, made in a folder that goes with it: a Redis, a PostgreSQL, web processes as
`manage.py up` runs them, and a publisher in the engine's place. With --url it loads a site that runs.
"""

import contextlib
import json
import os
import socket
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from batonic_site import env
from batonic_site.services.listeners import web_pids
from batonic_site.services.process import ServiceError
from batonic_site.services.scratch import scratch_database, scratch_site
from batonic_site.services.valkey import Valkey
from engine_worker.benchmark import publisher_process
from engine_worker.benchmark.publisher_process import Publication
from orderbook.benchmark.socket_client import Target
from orderbook.benchmark.socket_load import Plan, Report, crowds, measure_churn, measure_round
from replay.benchmark.processes import BenchmarkError, process, take

MAX_CLIENTS: Final = 20_000
KEY_NAME: Final = "LOADWS_KEY"
LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class Command(BaseCommand):
    help = f"Load /ws with clients and tell what they got. The key for --url comes from {KEY_NAME} or {KEY_NAME}_FILE."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--clients", default="10,50,100,1000", help="of each round (default: 10,50,100,1000)")
        parser.add_argument("--seconds", type=float, default=15.0, help="that a round counts (default: 15)")
        parser.add_argument("--push-ms", type=int, default=50, help="time between two books (default: 50)")
        parser.add_argument("--depth", type=int, default=100, help="levels a side; 100 are 3-4 KB (default: 100)")
        parser.add_argument("--symbol", default="", help="default: the server's own")
        parser.add_argument("--url", help="of a site that runs, such as ws://127.0.0.1:8000/ws (default: start one)")
        parser.add_argument(
            "--web-processes",
            type=int,
            default=settings.WEB_PROCESSES,
            help=f"of the site that is started (default: WEB_PROCESSES, {settings.WEB_PROCESSES})",
        )
        parser.add_argument("--generators", type=int, default=1, help="processes that clients are spread over")
        parser.add_argument("--ramp", type=float, default=100.0, help="clients that connect a second (default: 100)")
        parser.add_argument("--stalled", type=int, default=0, help="each round again, beside so many that do not read")
        parser.add_argument("--churn", type=int, default=0, help="at the end so many that are cut off at once")
        parser.add_argument("--json", action="store_true", help="print one JSON object a round")

    def handle(self, *args: Any, **options: Any) -> None:
        clients = _numbers("--clients", options["clients"], 1, MAX_CLIENTS)
        _require("--seconds", options["seconds"], 0.5, 3600)
        _require("--push-ms", options["push_ms"], 10, 5000)
        _require("--depth", options["depth"], 1, 200)
        _require("--web-processes", options["web_processes"], 1, 64)
        _require("--ramp", options["ramp"], 1, MAX_CLIENTS)
        _require("--generators", options["generators"], 1, 64)
        for name in ("stalled", "churn"):
            _require(f"--{name}", options[name], 0, MAX_CLIENTS)
        try:
            with site(options) as plan, crowds(plan.target, options["generators"]) as pipes:
                for count in clients:
                    for stalled in (0, options["stalled"]) if options["stalled"] else (0,):
                        self.tell(measure_round(pipes, plan, count, stalled), plan, options)
                if options["churn"]:
                    self.tell(measure_churn(pipes, plan, options["churn"]), plan, options)
        except (BenchmarkError, ServiceError) as error:
            raise CommandError(str(error)) from error

    def tell(self, report: Report, plan: Plan, options: dict[str, Any]) -> None:
        report |= {
            "seconds": options["seconds"],
            "push_ms": options["push_ms"],
            "depth": options["depth"],
            "web_processes": len(plan.server_pids) or None,
            "cpu_count": os.cpu_count(),
            "load_1m": round(os.getloadavg()[0], 2),
        }
        self.stdout.write(json.dumps(report) if options["json"] else shown(report))
        self.stdout.flush()


@contextlib.contextmanager
def site(options: dict[str, Any]) -> Iterator[Plan]:
    """Yield what is loaded: a site that runs, or one that is started here with its publisher."""
    wish = options["symbol"], options["depth"], options["push_ms"]
    measured = options["seconds"], options["ramp"]
    if options["url"]:
        url = socket_url(options["url"])
        try:
            socket.getaddrinfo(urlsplit(url).hostname, None)
        except OSError as error:
            raise CommandError(f"--url: {urlsplit(url).hostname} is no host that is known here: {error}") from error
        pids = web_pids(urlsplit(url).port or 0) if urlsplit(url).hostname in LOCAL_HOSTS else ()
        yield Plan(Target(url, env.secret(KEY_NAME), *wish), *measured, pids)
        return
    most = str(2 * MAX_CLIENTS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batonic-load-")))
        valkey = Valkey(folder)
        stack.callback(valkey.stop)
        valkey.start()
        named = {
            "REDIS_URL": valkey.url,
            "PG_CONNINFO": stack.enter_context(scratch_database(folder, fsync=False)),
            "PUSH_MS": str(options["push_ms"]),
            **dict.fromkeys(("WS_MAX_CLIENTS", "WS_MAX_PER_USER", "WS_MAX_PER_ADDRESS"), most),
        }
        started = stack.enter_context(scratch_site(folder, options["web_processes"], named))
        publication = Publication(options["symbol"] or settings.SYMBOL, options["push_ms"], valkey.url)
        _, publisher = stack.enter_context(process(publisher_process.run, publication))

        def published() -> int:
            publisher.send(None)
            count: int = take(publisher)
            return count

        target = Target(f"ws://127.0.0.1:{started.port}/ws", started.key, *wish)
        yield Plan(target, *measured, started.pids, published)


def socket_url(url: str) -> str:
    """Return the address of /ws: of what is given as such, or of a site. Raises CommandError.

    >>> socket_url("http://127.0.0.1:8000"), socket_url("wss://books.example/ws")
    ('ws://127.0.0.1:8000/ws', 'wss://books.example/ws')
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise CommandError(f"--url: expected ws://host:port/ws, wss://, http:// or https://, found {url!r}.")
    if parts.username or parts.query:
        raise CommandError(f"--url holds a secret or a query; the key goes into {KEY_NAME}, where nobody can read it.")
    return parts._replace(scheme=_SCHEMES[parts.scheme], path=parts.path.rstrip("/") or "/ws").geturl()


def shown(report: Report) -> str:
    """Return a report to read."""
    return "\n".join(f"  {name:22} {value}" for name, value in report.items()) + "\n"


def _numbers(option: str, text: str, least: int, most: int) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        raise CommandError(f"{option}: expected numbers with commas between them, found {text!r}.") from None
    for number in numbers:
        _require(option, number, least, most)
    return numbers


def _require(option: str, found: float, least: float, most: float) -> None:
    if not least <= found <= most:
        raise CommandError(f"{option}: expected {least:,} to {most:,}, found {found:,}.")
