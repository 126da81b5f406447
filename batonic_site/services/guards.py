"""What must hold before anything is started on a machine: the data folder and the ports are free. Floor 5."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis

from batonic_site.services.process import ServiceError, is_listening
from batonic_site.services.secrets import private_folder
from batonic_site.services.valkey import connect


@contextmanager
def only_one(data_folder: Path) -> Iterator[None]:
    """Hold the data folder for this process; the kernel gives it back however we end."""
    with (private_folder(data_folder) / "up.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"Batonic already runs on {data_folder}; a second one needs its own DATA_FOLDER."
            ) from None
        yield


def check_named_postgres(conninfo: str) -> None:
    """Raise where the PostgreSQL that the environment names does not let us in."""
    try:
        psycopg.connect(conninfo, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        raise ServiceError(f"The PostgreSQL named by the environment does not answer: {error}") from error


def check_named_redis(url: str) -> None:
    """Raise where the Redis that the environment names does not let us in."""
    try:
        with connect(url) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise ServiceError(f"REDIS_URL: the Redis named there does not answer: {error}") from error


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise where another program already listens; ``ports`` is by the name of the setting."""
    names: dict[int, str] = {}
    for name, port in ports.items():
        if port in names:
            raise ServiceError(f"{names[port]} and {name} are both {port}: each needs a port of its own.")
        names[port] = name
        if is_listening(port):
            raise ServiceError(f"{name}: port {port} is in use by another program. Choose another: {name}={port + 1}")
