"""The little server of metrics and probes, over real sockets."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus

import pytest

from engine_worker import metrics_server
from engine_worker.metrics_server import MAX_REQUESTS, MetricsServer, Page, Pages
from engine_worker.probes import livez, readyz
from engine_worker.tests.scrape import page

WaitFor = Callable[..., object]
TEXT = Page(HTTPStatus.OK, "text/plain", b"here\n")


@contextmanager
def serving(port: int, pages: Pages) -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1", port, pages)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    return free_port()


def answers(port: int) -> bool:
    try:
        return page(port, "/here")[0] == 200
    except OSError:
        return False


def test_a_page_is_served_to_get_and_its_head_to_head(port: int, wait_for: WaitFor) -> None:
    with serving(port, {"/here": lambda: TEXT}):
        wait_for(lambda: answers(port))
        status, body, headers = page(port, "/here?why=not")
        assert (status, body, headers["Cache-Control"], headers["Server"]) == (200, b"here\n", "no-store", "batonic ")
        status, body, headers = page(port, "/here", "HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", "5")


def test_everything_else_is_refused(port: int, wait_for: WaitFor) -> None:
    with serving(port, {"/here": lambda: TEXT}):
        wait_for(lambda: answers(port))
        assert page(port, "/elsewhere")[0] == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            status, _, headers = page(port, "/here", method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert page(port, "/here", "BREW")[0] == 501


def test_a_page_that_cannot_be_made_is_told_without_a_trace(
    port: int, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Page:
        raise RuntimeError("why it is so")

    with serving(port, {"/here": lambda: TEXT, "/bad": fail}):
        wait_for(lambda: answers(port))
        status, body, _ = page(port, "/bad")
    assert status == 500 and b"why" not in body.replace(b"says why", b"")
    assert "why it is so" in caplog.text


def test_a_port_that_is_taken_is_told_and_served_once_it_is_free(port: int, wait_for: WaitFor) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_server, "RETRY_S", 0.05)
        taken = socket.create_server(("127.0.0.1", port))
        with serving(port, {"/here": lambda: TEXT}) as server:
            wait_for(lambda: server.fault)
            assert server.fault.startswith(f"METRICS_PORT: 127.0.0.1:{port} cannot be listened on")
            taken.close()
            wait_for(lambda: answers(port))
            assert server.fault == ""


def test_port_0_serves_nothing() -> None:
    with serving(0, {}) as server:
        assert not server._thread.is_alive() and server.fault == ""


def test_callers_beyond_the_limit_are_turned_away(
    port: int, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(port, {"/here": lambda: TEXT}):
        wait_for(lambda: answers(port))
        wait_for(lambda: not requests())
        with ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(MAX_REQUESTS + 3)
            ]
            assert [caller.recv(100) for caller in silent[MAX_REQUESTS:]] == [b""] * 3
            assert caplog.text.count("was turned away") == 3
        wait_for(lambda: answers(port))
    wait_for(lambda: not requests())


def test_a_silent_caller_is_cut_off(port: int, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server._Handler, "timeout", 0.2)
    with serving(port, {"/here": lambda: TEXT}):
        wait_for(lambda: answers(port))
        with socket.create_connection(("127.0.0.1", port)) as silent:
            assert silent.recv(100) == b""


def test_callers_that_dribble_keep_nobody_out(port: int, wait_for: WaitFor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_CALLER_S", 0.3)
    with serving(port, {"/here": lambda: TEXT}):
        wait_for(lambda: answers(port))
        wait_for(lambda: not requests())
        with ExitStack() as stack:
            callers = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(MAX_REQUESTS)]

            def is_answered_beside_them() -> bool:
                for caller in callers:
                    with suppress(OSError):
                        caller.send(b"G")
                return answers(port)

            wait_for(is_answered_beside_them, timeout_s=10)
    wait_for(lambda: not requests())


def requests() -> list[threading.Thread]:
    """Return the threads of the requests that are being answered."""
    return [thread for thread in threading.enumerate() if "process_request" in thread.name]


def test_the_probes_say_what_is_wrong() -> None:
    assert livez([]).status == readyz("streaming", {}).status == readyz("waiting", {}).status == 200
    dead = livez(["jsonl"])
    assert (dead.status, json.loads(dead.body)) == (503, {"ok": False, "reasons": {"jsonl": "its thread has ended"}})
    assert json.loads(readyz("connecting", {}).body)["reasons"] == {"feed": "not connected"}
    assert json.loads(readyz("connecting", {"feed": "wrong key"}).body)["reasons"] == {"feed": "wrong key"}
    away = readyz("streaming", {"database": "away"})
    assert (away.status, json.loads(away.body)["reasons"]) == (503, {"database": "away"})
    assert json.loads(readyz("stopping", {}).body)["reasons"] == {"engine": "stopping"}
