"""What the engine's tests share: the test servers as addresses, and ways to them that can be taken away."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection
from psycopg.conninfo import make_conninfo

from engine_worker.tests.proxy import TcpProxy


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """Return a folder in memory where there is one: for tests that end thousands of replays, each with a sync."""
    memory = Path("/dev/shm")  # noqa: S108 (a name of its own is made there)
    with TemporaryDirectory(prefix="batonic-test-", dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture
def pg_conninfo(process_env: dict[str, str]) -> str:
    """Return the connection string of the test database, whose tables are empty."""
    return process_env["PG_CONNINFO"]


@pytest.fixture
def pg_proxy(pg_conninfo: str, free_port: Callable[[], int]) -> Iterator[TcpProxy]:
    """Return a way to the test PostgreSQL that is down at first."""
    server = connection.get_connection_params()
    proxy = TcpProxy(server["host"], int(server["port"]), free_port())
    yield proxy
    proxy.down()


@pytest.fixture
def pg_proxied(pg_conninfo: str, pg_proxy: TcpProxy) -> str:
    """Return the connection string that leads through ``pg_proxy``."""
    return make_conninfo(pg_conninfo, host="127.0.0.1", port=pg_proxy.port)


@pytest.fixture
def redis_proxy(redis_client: object, free_port: Callable[[], int]) -> Iterator[TcpProxy]:
    """Return a way to the test Redis that is down at first."""
    server = urlsplit(settings.REDIS_URL)
    proxy = TcpProxy(server.hostname or "127.0.0.1", server.port or 6379, free_port())
    yield proxy
    proxy.down()


@pytest.fixture
def redis_proxied(redis_proxy: TcpProxy) -> str:
    """Return the URL that leads through ``redis_proxy``."""
    server = urlsplit(settings.REDIS_URL)
    login = f":{server.password}@" if server.password else ""
    return f"redis://{login}127.0.0.1:{redis_proxy.port}{server.path}"
