"""Fixtures for every test of the project: real Redis, real processes, a real browser, a data folder of its own."""

import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from playwright.sync_api import expect
from pytest_django import Settings

from batonic_site.services.process import Program, kill_group, stop
from batonic_site.services.process import free_port as find_free_port
from batonic_site.services.valkey import Valkey

CHROMIUM_PATHS = (
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
)
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
]
MANAGE = Path(__file__).parents[2] / "manage.py"


class Spawn(Protocol):
    """Starts a management command as a process of its own and returns when ``until()`` holds."""

    def __call__(
        self,
        *words: str,
        env: dict[str, str] | None = None,
        until: Callable[[], object] | None = None,
        timeout_s: float = 60.0,
    ) -> "subprocess.Popen[bytes]": ...


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files in an order that each worker of a distributed run can keep, because it is given whole files.

    1. Files whose tests roll the database back, or have none: they find what the migrations wrote.
    2. Files with tests that empty the tables behind them.
    3. Files with browser tests, and these last in their file: playwright keeps an event loop on the main thread,
       beside which no other can start. So none of these files has a test that needs one.
    """
    emptying = {item.path for item in items if _empties_tables(item)}
    with_browser = {item.path for item in items if _uses_browser(item)}
    for item in items:
        if item.path in with_browser and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            raise pytest.UsageError(f"expected {item.path} to have browser tests or async ones, found {item.name} too")
    items.sort(key=lambda item: (item.path in with_browser, item.path in emptying, _uses_browser(item)))


def _empties_tables(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("django_db")
    return "transactional_db" in _fixtures(item) or bool(marker and marker.kwargs.get("transaction"))


def _uses_browser(item: pytest.Item) -> bool:
    return "browser" in _fixtures(item)


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that finds a TCP port on which nobody listens."""
    return find_free_port


@pytest.fixture
def redis_client() -> Iterator[redis.Redis]:
    """Return a client of the test Redis, which is empty before and after."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Valkey]:
    """Return a Redis of this test alone, started: it may be stopped and started again."""
    server = Valkey(tmp_path / "own")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def data_folder(tmp_path: Path, settings: Settings) -> Path:
    """Point everything that a run writes, and the folder of datasets, into this test's own folder."""
    settings.DATA_FOLDER = tmp_path
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    settings.CSV_PATH = ""
    settings.FEED_PATH = tmp_path / "snapshots_feed.jsonl"
    settings.BENCH_LOG_PATH = tmp_path / "benchmarks.jsonl"
    settings.FINAL_BOOK_FOLDER = tmp_path / "final_books"
    settings.RECORDINGS_FOLDER = tmp_path / "recordings"
    return tmp_path


@pytest.fixture
def process_env(data_folder: Path, transactional_db: None, redis_client: redis.Redis) -> dict[str, str]:
    """Return the environment of a child process that lives as long as the test."""
    return child_environment(data_folder)


def child_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a child process: the TEST database, the test Redis, this folder, free ports."""
    parameters = connection.get_connection_params()
    conninfo = {
        name: parameters[name] for name in ("dbname", "user", "password", "host", "port") if parameters.get(name)
    }
    raw_port, gateway_port, web_port = (str(find_free_port()) for _ in range(3))
    kept = {name: value for name, value in os.environ.items() if name not in _OVERRIDING}
    return kept | {
        "PG_CONNINFO": " ".join(f"{name}='{value}'" for name, value in conninfo.items()),
        "REDIS_URL": django_settings.REDIS_URL,
        "DATA_FOLDER": str(folder),
        "DATA_DIR": str(folder / "data"),
        "SECRET_KEY": django_settings.SECRET_KEY,
        "STREAMER_TCP_PORT": raw_port,
        "GATEWAY_PORT": gateway_port,
        "WEB_PORT": web_port,
        "METRICS_PORT": "0",
        "DJANGO_SETTINGS_MODULE": "batonic_site.settings",
        "PYTHONUNBUFFERED": "1",
    }


_OVERRIDING = {
    "DATABASE_URL", "CSV_PATH", "FEED_PATH", "BENCH_LOG_PATH", "API_PORT", "WS_PORT", "FRONTEND_PORT",
    "GATEWAY_HOST", "FEED_PROTOCOL", "FEED_HOST", "FEED_PORT", "FEED_KEY", "FEED_KEY_FILE", "FEED_DATASET",
    "FEED_SYMBOLS", "ENGINE_NAME", "METRICS_HOST", "OTEL_TRACES", "DJANGO_ALLOW_ASYNC_UNSAFE",
}  # fmt: skip


@pytest.fixture
def spawn(process_env: dict[str, str], tmp_path: Path) -> Iterator[Spawn]:
    """Return `Spawn`: what it starts is killed at the end of the test, and its output is shown when the wait fails."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *words: str,
        env: dict[str, str] | None = None,
        until: Callable[[], object] | None = None,
        timeout_s: float = 60.0,  # on a clean clone the first engine compiles its kernels
    ) -> "subprocess.Popen[bytes]":
        program = Program(
            name=words[0],
            command=[sys.executable, str(MANAGE), *words],
            log_path=tmp_path / "log" / f"spawned-{words[0]}.log",
            environment=process_env if env is None else env,
        )
        process = program.start()
        started.append(process)
        if until is not None:
            program.wait_until(lambda: bool(until()), process, timeout_s)
        return process

    yield start
    for process in reversed(started):
        stop(process, signal.SIGTERM, timeout_s=5)
        kill_group(process)


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Return a function that polls ``condition()`` until it holds and returns its value."""

    def wait(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "the condition") -> Any:
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"{what} did not hold within {timeout_s} s"
            time.sleep(0.02)
        return value

    return wait


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    return next((path for path in (os.environ.get("CHROMIUM"), *CHROMIUM_PATHS) if path and Path(path).exists()), None)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Let pytest-playwright use the installed browser, and let a page take its time on a busy machine."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no browser: install chromium (Debian: apt-get install chromium), or set CHROMIUM to its path")
    expect.set_options(timeout=20_000)
    return {**browser_type_launch_args, "executable_path": chromium, "args": CHROMIUM_ARGS}


@pytest.fixture
def page_errors(page: Any) -> list[str]:
    """Collect console errors (CSP violations are among them) and uncaught exceptions of the page."""
    errors: list[str] = []
    page.on("console", lambda message: errors.extend([message.text] if message.type == "error" else []))
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """Return the folder with the real recording and its verified book."""
    folder = os.environ.get("REAL_DATA_DIR")
    if not folder:
        pytest.skip("no real recording: set REAL_DATA_DIR to the folder of CLX5_mbo.dbn")
    return Path(folder).resolve()
