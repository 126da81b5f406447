"""A replay that runs, for a measurement of the control plane: servers, a streamer and a worker of its own. Floor 5."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from django.conf import settings

from batonic_site.services.process import ServiceError, free_port, stop
from batonic_site.services.scratch import scratch_database
from batonic_site.services.supervisor import read_procfile
from batonic_site.services.valkey import Valkey

MANAGE: Final = [sys.executable, str(settings.BASE_DIR / "manage.py")]
_WITHIN_S: Final = 60.0
_AGAIN_S: Final = 0.5


@contextlib.contextmanager
def replaying(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run a replay that loops; yields the environment in which its control plane is found. Raises ServiceError."""
    with contextlib.ExitStack() as stack:
        valkey = Valkey(folder)
        stack.callback(valkey.stop)
        valkey.start()
        conninfo = stack.enter_context(scratch_database(folder))
        environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {
            "PG_CONNINFO": conninfo,
            "REDIS_URL": valkey.url,
            "DATA_FOLDER": str(folder / "control"),
            "DATA_DIR": str(folder / "control" / "data"),
            "CSV_PATH": "",
            "LOG_LEVEL": "INFO",
            "STREAMER_TCP_PORT": str(free_port()),
            "GATEWAY_PORT": str(free_port()),
        }
        _run("prepare", environment=environment)
        for program in read_procfile(settings.BASE_DIR / "Procfile", folder / "log", environment):
            if program.name in ("streamer", "worker"):
                stack.callback(stop, program.start(), timeout_s=5)
        _start(environment)
        yield environment


def _start(environment: Mapping[str, str]) -> None:
    """Start the replay, as soon as streamer and worker answer."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            return _run("startreplay", "--pace", "1000", "--loop", environment=environment)
        except ServiceError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_AGAIN_S)


def _run(*words: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run([*MANAGE, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ServiceError(f"`manage.py {words[0]}` failed for the measurement: {done.stderr}")
