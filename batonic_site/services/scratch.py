"""Servers for a measurement, made in a folder that goes with it. Nothing of a running system is touched. Floor 5."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from django.conf import settings

from batonic_site.services.postgres import Postgres
from batonic_site.services.process import Program, ServiceError, free_port, stop
from batonic_site.services.web import ACCEPTING, listening_socket, web_programs

MANAGE: Final = [sys.executable, str(settings.BASE_DIR / "manage.py")]
_MAKE_KEY: Final = """\
from django.contrib.auth.models import User
from django.core.management import call_command
User.objects.create_user("measurement")
call_command("createapikey", "measurement", "measurement")
"""
_WEB_WITHIN_S: Final = 60.0


class Site(NamedTuple):
    """Web processes, and a key that opens their reading doors."""

    port: int
    key: str
    pids: tuple[int, ...]


@contextlib.contextmanager
def scratch_database(folder: Path, *, fsync: bool = True) -> Iterator[str]:
    """Start a PostgreSQL with our tables, empty; yields its connection string.

    Without ``fsync`` where writing is not measured.
    """
    server = Postgres(folder, fsync=fsync)
    try:
        server.start()
        _manage("migrate", "--verbosity", "0", environment=_environment({"PG_CONNINFO": server.conninfo()}))
        yield server.conninfo()
    finally:
        server.stop()


@contextlib.contextmanager
def scratch_site(folder: Path, processes: int, named: Mapping[str, str]) -> Iterator[Site]:
    """Start so many web processes on one socket, as `manage.py up` does; yields when each accepts.

    ``named`` is what the environment of theirs differs in from ours; PG_CONNINFO and REDIS_URL are among it.
    """
    host, port = "127.0.0.1", free_port()
    environment = _environment(
        {
            "DATA_FOLDER": str(folder / "web"),
            "WEB_HOST": host,
            "WEB_PORT": str(port),
            "ALLOWED_HOSTS": host,
            "HTTPS": "0",
            "BEHIND_PROXY": "0",
            "LOG_LEVEL": "INFO",
            **named,
        }
    )
    key = _manage("shell", "--verbosity", "0", "--command", _MAKE_KEY, environment=environment).strip()
    with contextlib.closing(listening_socket(host, port)) as listener, contextlib.ExitStack() as stack:
        web = Program("web", [*MANAGE, "runweb"], folder / "log" / "web.log", environment=environment)
        programs = web_programs(web, processes, listener)
        started = [program.start() for program in programs]
        for process in started:
            stack.callback(stop, process, timeout_s=5)
        for program, process in zip(programs, started, strict=True):
            program.wait_until(partial(_accepts, program), process, _WEB_WITHIN_S)
        yield Site(port, key, tuple(process.pid for process in started))


def _accepts(web: Program) -> bool:
    return ACCEPTING in web.log_tail()


def _environment(named: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with what is named; a database named otherwise must not win."""
    inherited = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return inherited | dict(named)


def _manage(*words: str, environment: Mapping[str, str]) -> str:
    """Run a management command to its end and return what it prints. Raises ServiceError."""
    done = subprocess.run([*MANAGE, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ServiceError(f"`manage.py {words[0]}` failed in the measurement's own database: {done.stderr}")
    return done.stdout
