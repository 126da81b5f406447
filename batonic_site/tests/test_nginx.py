"""The proxy of the containers, run for real in front of web processes that tell what reached them."""

import http.client
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from batonic_site.services.process import Program, is_listening, stop

CONFIG = Path(__file__).resolve().parents[1] / "services" / "nginx.conf"
NGINX = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx: Debian has it, apt-get install nginx-light")


class Upstream:
    """A web process that answers every request with its own number and the headers that it got."""

    def __init__(self) -> None:
        self.sockets = 0
        self.server: Server = serve(self.converse, "127.0.0.1", 0, process_request=self.answer, max_size=None)
        self.port: int = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/ws"):
            return None
        body = json.dumps({"port": self.port} | {name.lower(): value for name, value in request.headers.raw_items()})
        headers = Headers({"Content-Type": "application/json", "X-Frame-Options": "DENY", "Connection": "close"})
        headers["Content-Length"] = str(len(body))
        return Response(HTTPStatus.OK, "OK", headers, body.encode())

    def converse(self, connection: ServerConnection) -> None:
        self.sockets += 1
        assert connection.request is not None
        connection.send(json.dumps(dict(connection.request.headers.raw_items())))
        for message in connection:
            connection.send(message)

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()


@pytest.fixture
def upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    with ExitStack() as stack:
        both = Upstream(), Upstream()
        for upstream in both:
            stack.callback(upstream.stop)
        yield both


def written(folder: Path, port: int, upstreams: tuple[Upstream, ...], trusted: str = "") -> Path:
    """Write the committed configuration with the ports, the servers and the folder of this test."""
    servers = "".join(f"server 127.0.0.1:{upstream.port} max_fails=1 fail_timeout=2s;" for upstream in upstreams)
    changes = {
        r"resolver .*;": "",
        r"server web:8000 .*;": servers,
        r"listen 8080;": f"listen 127.0.0.1:{port};",
        r"/tmp/": f"{folder}/",  # noqa: S108  (replaced, not written to)
        r"default 0;": f"default 0; {trusted}",
        r"worker_processes auto;": "worker_processes 1;",
    }
    text = CONFIG.read_text()
    for pattern, replacement in changes.items():
        text, found = re.subn(pattern, replacement, text)
        assert found, f"{CONFIG} lacks {pattern}"
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@pytest.fixture
def proxy(
    tmp_path: Path, upstreams: tuple[Upstream, ...], free_port: Callable[[], int]
) -> Iterator[Callable[[str], int]]:
    started = []

    def start(trusted: str = "") -> int:
        port = free_port()
        command = [str(NGINX), "-e", "stderr", "-c", str(written(tmp_path, port, upstreams, trusted))]
        program = Program("nginx", [*command, "-g", "daemon off;"], tmp_path / "log" / "nginx.log")
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0 and "warn" not in checked.stderr, checked.stderr
        started.append(program.start())
        program.wait_until(lambda: is_listening(port), started[-1], 10)
        return port

    yield start
    for process in started:
        stop(process)


def get(port: int, path: str = "/", **headers: str) -> tuple[http.client.HTTPResponse, dict[str, str]]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return response, json.loads(body) if body else {}


def test_what_a_client_says_of_its_address_and_scheme_counts_for_nothing(proxy) -> None:
    port = proxy()
    told = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Port": "1", "X-Forwarded-Proto": "https"}
    response, got = get(port, **told)
    assert (got["x-forwarded-for"], got["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert got["x-forwarded-port"] != "1"
    assert got["host"] == f"127.0.0.1:{port}", "with its port: Django compares it with the origin of a form"
    assert response.headers.get_all("X-Frame-Options") == ["DENY"]
    assert response.headers["Server"] == "nginx"


def test_a_proxy_in_front_is_believed_about_the_scheme_when_it_is_named(proxy) -> None:
    _, got = get(proxy("127.0.0.1 1;"), **{"X-Forwarded-Proto": "https"})
    assert got["x-forwarded-proto"] == "https"


def test_sockets_go_through_in_both_directions_and_to_all_web_processes(proxy, upstreams) -> None:
    url, book = f"ws://127.0.0.1:{proxy()}/ws", "x" * 200_000
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(connect(url, additional_headers={"Authorization": "Bearer db-1"}))
            got = {name.lower(): value for name, value in json.loads(client.recv(timeout=5)).items()}
            assert (got["authorization"], got["x-forwarded-for"]) == ("Bearer db-1", "127.0.0.1")
            client.send(book)
            assert client.recv(timeout=5) == book
        assert [upstream.sockets for upstream in upstreams] == [4, 4]


def test_a_web_process_that_has_died_is_passed_over(proxy, upstreams) -> None:
    port = proxy()
    upstreams[0].stop()
    assert {get(port)[1]["port"] for _ in range(10)} == {upstreams[1].port}


def test_a_body_that_is_too_large_is_refused_at_the_door(proxy) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy(), timeout=5)) as connection:
        connection.putrequest("POST", "/api/control/replay/start")
        connection.putheader("Content-Length", str(10 * 1024 * 1024))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_the_health_of_the_proxy_is_told_to_its_own_machine(proxy) -> None:
    assert get(proxy(), "/proxy-health")[0].status == 204
