"""Servers of a test's own, to be killed, frozen and started again."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from batonic_site.services.postgres import Postgres
from batonic_site.services.process import kill_group
from batonic_site.services.valkey import Valkey


class PostgresServer:
    """A PostgreSQL without tables."""

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres(folder, fsync=False)
        self.postgres.start()
        self.conninfo = self.postgres.conninfo()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill it, and start it again at the end of the block."""
        _kill(self.postgres._process)
        try:
            yield
        finally:
            self.postgres.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server and the process of each connection, which have sessions of their own, for the block."""
        assert self.postgres._process is not None
        pid = self.postgres._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        processes = [pid, *map(int, children)]
        for each in processes:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in reversed(processes):  # the server last: it would at once forget a process that has ended
                os.kill(each, signal.SIGCONT)

    def stop(self) -> None:
        self.postgres.stop()

    def sequences(self, order: str = "ts_event") -> list[int]:
        with psycopg.connect(self.conninfo) as connection:
            found = connection.execute(f"SELECT sequence FROM history_snapshot ORDER BY {order}").fetchall()
        return [sequence for (sequence,) in found]


class RedisServer:
    """A Redis-compatible server that keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.valkey = Valkey(folder)
        self.valkey.start()
        self.url = self.valkey.url

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill it, and start it again, empty, at the end of the block."""
        _kill(self.valkey._process)
        try:
            yield
        finally:
            self.valkey.start()

    def stop(self) -> None:
        self.valkey.stop()


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    assert process is not None
    kill_group(process)
    process.wait()


@contextmanager
def default_database(conninfo: str) -> Iterator[None]:
    """Let Django's models of this thread live on another server."""
    theirs, parts = connections["default"], conninfo_to_dict(conninfo)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    ours = type(theirs)(theirs.settings_dict | {name: parts[part] for name, part in names.items()}, "default")
    connections["default"] = ours
    try:
        yield
    finally:
        ours.close()
        connections["default"] = theirs
