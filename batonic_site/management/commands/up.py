"""Everything on one machine, in one terminal: servers, processes, a first replay, and a line a second. Floor 5.

This process only starts, watches and stops others; it opens no database connection of its own.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from batonic_site import health
from batonic_site.services.endpoints import Endpoints, endpoints_path, write_endpoints
from batonic_site.services.guards import check_named_postgres, check_named_redis, check_ports, only_one
from batonic_site.services.postgres import Postgres
from batonic_site.services.process import Program, ServiceError, stop
from batonic_site.services.supervisor import Supervisor, read_procfile
from batonic_site.services.valkey import Valkey, connect
from batonic_site.services.web import listening_socket, web_programs
from batonic_site.terminal import Screen, opening_block, status_line
from orderbook.live import EngineStatus
from replay.streamer.messages import StreamerStatus
from replay.streamer.remote import StreamerRemote, StreamerUnreachable

HEALTHY_WITHIN_S: Final = 120.0  # the very first start compiles the book's kernel
STEP_S: Final = 0.1
IMPATIENT_AFTER_S: Final = 0.5  # a terminal, make and a service manager may each tell us the same end
LOCAL_HOSTS: Final = ("127.0.0.1", *health.ANY_HOST)
PORTS: Final = ("WEB_PORT", "STREAMER_TCP_PORT", "GATEWAY_PORT", "METRICS_PORT")
MANAGE: Final = [sys.executable, str(settings.BASE_DIR / "manage.py")]


class Stopped(Exception):
    """The user, or the system, asked for the end."""


class Command(BaseCommand):
    help = "Start everything here, replay a session, and show what happens, until Ctrl-C."
    requires_system_checks = []  # each process that is started makes them

    def handle(self, *args: Any, **options: Any) -> None:
        self.stops, self.stopped_at = 0, 0.0
        self.screen = Screen(sys.stdout)
        self.supervisor = Supervisor(self.screen.say, hasten=lambda: self.stops > 1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.on_signal)
        try:
            with only_one(settings.DATA_FOLDER):
                check_ports({name: port for name in PORTS if (port := getattr(settings, name))})
                try:
                    self.run()
                finally:
                    self.end()
        except Stopped:
            pass
        except ServiceError as error:
            raise CommandError(str(error)) from error

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self.stopped_at > IMPATIENT_AFTER_S:
            self.stops, self.stopped_at = self.stops + 1, now

    def run(self) -> None:
        password_path = settings.DATA_FOLDER / "admin_password"
        first_run = not password_path.exists()
        self.start_servers()
        with self.command("prepare") as preparing:
            while preparing.poll() is None:
                self.pause(STEP_S)
        if preparing.returncode:
            raise ServiceError("`manage.py prepare` failed; its message is above.")
        self.start_clients()
        self.screen.say("waiting until everything answers (the very first start compiles the book)")
        self.wait(self.feed_is_connected)
        with self.command("startreplay") as starting:  # it may fail: its message is shown, and the site is there
            self.wait(lambda: starting.poll() is not None and not health.failure(health.check_web))
        self.screen.say(self.block(password_path, first_run))
        while True:
            self.screen.status(status_line(self.streamer_status(), self.engine_status(), settings.SYMBOL))
            self.pause(1.0)

    def start_servers(self) -> None:
        """Start what the environment does not name, and tell other terminals and our children where it is."""
        endpoints = Endpoints()
        if settings.PG_NAMED:
            check_named_postgres(settings.PG_CONNINFO)
        else:
            postgres = Postgres(settings.DATA_FOLDER)
            postgres.prepare()
            postgres.wait_until_ready(self.supervisor.start_server(postgres.program), self.pause)
            endpoints["pg_conninfo"] = postgres.conninfo()
        if settings.REDIS_NAMED:
            check_named_redis(settings.REDIS_URL)
        else:
            valkey = Valkey(settings.DATA_FOLDER)
            valkey.prepare()
            valkey.wait_until_ready(self.supervisor.start_server(valkey.program), self.pause)
            endpoints["redis_url"] = valkey.url
        if endpoints:
            write_endpoints(settings.DATA_FOLDER, endpoints)
        self.redis_url = endpoints.get("redis_url", settings.REDIS_URL)
        self.redis = connect(self.redis_url)
        self.streamer = StreamerRemote(self.redis_url)

    def start_clients(self) -> None:
        """Start the programs of the Procfile; of web as many as WEB_PROCESSES, on one socket that stays ours."""
        self.listener = listening_socket(settings.WEB_HOST, settings.WEB_PORT)
        for program in read_procfile(settings.BASE_DIR / "Procfile", settings.DATA_FOLDER / "log", self.environment):
            several = program.name == "web"
            for one in web_programs(program, settings.WEB_PROCESSES, self.listener) if several else [program]:
                self.supervisor.start_client(one)

    @property
    def environment(self) -> dict[str, str]:
        """Return what the children get: our environment, and what a Procfile line may name."""
        return os.environ | {"LOG_LEVEL": settings.LOG_LEVEL, "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def command(self, name: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a management command on our terminal; it ends with the block at the latest."""
        process = Program(name, [*MANAGE, name], None, environment=self.environment).start()
        try:
            yield process
        finally:
            stop(process, timeout_s=3)

    def wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while not ready():
            if time.monotonic() > deadline:
                logs = settings.DATA_FOLDER / "log"
                tails = [f"{program.name}:\n{program.log_tail()}" for program in self.supervisor.failing()]
                raise ServiceError("\n".join([f"Not healthy after {HEALTHY_WITHIN_S:.0f} s; logs: {logs}", *tails]))
            self.pause(STEP_S)

    def pause(self, seconds: float) -> None:
        """Let time pass, and tend the children; raise when the end is asked for."""
        deadline = time.monotonic() + seconds
        while True:
            if self.stops:
                raise Stopped
            self.supervisor.tend()
            rest = deadline - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(rest, STEP_S))

    def feed_is_connected(self) -> bool:
        engine = self.engine_status()
        return engine is not None and engine["state"] != "connecting" and self.streamer_status() is not None

    def streamer_status(self) -> StreamerStatus | None:
        try:
            return self.streamer.status()
        except StreamerUnreachable:
            return None

    def engine_status(self) -> EngineStatus | None:
        try:
            return health.engine_status(self.redis)
        except redis.RedisError:
            return None

    @property
    def url(self) -> str:
        host = "localhost" if settings.WEB_HOST in LOCAL_HOSTS else settings.WEB_HOST
        return f"http://{host}:{settings.WEB_PORT}"

    def block(self, password_path: Path, first_run: bool) -> str:
        shown = f"in {password_path}"
        if settings.ADMIN_PASSWORD:
            shown = "that of ADMIN_PASSWORD"
        elif first_run:
            shown = f"{password_path.read_text()}   (kept in {password_path})"
        lines = {
            "login": settings.ADMIN_USER,
            "password": shown,
            "live gateway": f"{settings.GATEWAY_HOST}:{settings.GATEWAY_PORT} (manage.py createapikey makes a key)",
            "raw feed": f"{settings.STREAMER_TCP_HOST}:{settings.STREAMER_TCP_PORT} ({settings.FEED_FRAMING})",
            "data folder": f"{settings.DATA_FOLDER}   (logs in log/)",
            "stop": "Ctrl-C",
        }
        warnings = ["PUBLIC_READ=1: anyone who reaches this address can read books and history."]
        return opening_block(self.url, lines, warnings if settings.PUBLIC_READ else [])

    def end(self) -> None:
        """Stop everything, clients first, and take the endpoints away."""
        self.screen.say("stopping")
        killed = self.supervisor.stop()
        endpoints_path(settings.DATA_FOLDER).unlink(missing_ok=True)
        self.screen.say(f"stopped; killed because they took too long: {', '.join(killed)}" if killed else "stopped")
