"""The examples of docs/websocket.md against a real web process."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Page

from batonic_site.services.process import Program, stop
from batonic_site.tests.fixtures import Spawn
from orderbook.tests.books import keep, snapshot
from orderbook.tests.pages import FakeControl, sign_in
from orderbook.tests.web import listens
from orderbook.tests.websocket_page import blocks
from replay.keys import create_key


@pytest.fixture
def key(reader: Any) -> str:
    return create_key(reader, "bot", ["read"])[1]


@pytest.fixture
def example(tmp_path: Path, process_env: dict[str, str], key: str) -> Iterator[Path]:
    """Run the Python of the page against the port of the test's own web process; yields what it prints."""
    script = tmp_path / "example.py"
    script.write_text(blocks("python")[0])
    address = f"ws://127.0.0.1:{process_env['WEB_PORT']}/ws"
    environment = {**os.environ, "BATONIC_WS": address, "BATONIC_KEY": key}
    program = Program("example", [sys.executable, str(script)], tmp_path / "example.log", environment=environment)
    process = program.start()
    yield tmp_path / "example.log"
    stop(process, timeout_s=2)


@pytest.mark.django_db(transaction=True)
def test_the_python_example_gets_books_and_comes_back_to_a_server_that_was_killed(
    spawn: Spawn,
    process_env: dict[str, str],
    example: Path,
    redis_client: redis.Redis,
    wait_for: Callable[..., Any],
) -> None:
    keep(redis_client, snapshot(1))
    web = spawn("runweb", until=lambda: listens(process_env))
    wait_for(lambda: "run-1 1 2025-09-24T19:30:00" in example.read_text(), 20, "the first book")
    web.kill()
    web.wait()
    keep(redis_client, snapshot(2, bid=6400))
    spawn("runweb", until=lambda: listens(process_env))
    wait_for(lambda: "run-1 2 2025-09-24T19:30:00" in example.read_text(), 20, "the next book")
    assert "Traceback" not in example.read_text()


@pytest.mark.django_db(transaction=True)
def test_the_javascript_example_runs_in_a_page_of_the_site(
    web: str,
    page: Page,
    page_errors: list[str],
    reader: Any,
    redis_client: redis.Redis,
    control: FakeControl,
) -> None:
    keep(redis_client, snapshot(7))
    sign_in(page, web, reader, "/history/")
    with page.expect_console_message(lambda told: told.args[0].json_value()["type"] == "book") as told:
        page.evaluate(f"() => {{ {blocks('js')[0]} }}")
    book = told.value.args[0].json_value()
    assert (book["seq"], len(book["bids"])) == (7, 10)
    assert page_errors == []
