"""A small HTTP server of some pages, for Prometheus and supervisors. Floor 3.

Not a web server: GET and HEAD, no connection is kept, at most MAX_REQUESTS at once, and a request that is not asked
and answered within some seconds is cut off. It knows nothing of what the pages tell.
"""

import logging
import socket
import socketserver
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Event, Lock, Thread
from typing import Any, Final, NamedTuple

MAX_REQUESTS: Final = 8
RETRY_S: Final = 2.0
_LOOK_S: Final = 0.1
_CALLER_S: Final = 5.0
"""That a caller may take for all of a request: one that sends a byte now and then keeps its place no longer."""

log = logging.getLogger(__name__)


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]
"""By path."""


class MetricsServer:
    """Serves pages on an address from a thread of its own; one that is taken is tried again for ever."""

    name = "metrics"

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Serve nothing where the port is 0."""
        self.fault = ""
        """Why nothing can be served; empty while it can."""
        self._address, self._pages = (host, port), pages
        self._stop = Event()
        self._thread = Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        if self._address[1]:
            self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                server = _Server(self._address, self._pages)
            except OSError as error:
                self._failed(error)
                self._stop.wait(RETRY_S)
                continue
            self.fault = ""
            log.info("metrics and probes are served on %s:%d", *self._address)
            with server:
                while not self._stop.is_set():
                    server.handle_request()
                    server.cut_late()

    def _failed(self, error: OSError) -> None:
        """Say why there is no server; once, however often it is tried."""
        host, port = self._address
        fault = f"METRICS_PORT: {host}:{port} cannot be listened on ({error.strerror or error})"
        if fault != self.fault:
            log.error("%s; trying for ever. Each engine of a machine needs a METRICS_PORT of its own; 0 is none", fault)
            self.fault = fault


class _Server(socketserver.ThreadingTCPServer):
    """Each request has a thread, as long as there are not too many."""

    allow_reuse_address = daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_REQUESTS
    timeout = _LOOK_S

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages = pages
        self._cut_at: dict[Any, float] = {}
        """Until when each request that is let in must be answered, on the monotonic clock."""
        self._lock = Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            has_room = len(self._cut_at) < MAX_REQUESTS
            if has_room:
                self._cut_at[request] = time.monotonic() + _CALLER_S
        if has_room:
            super().process_request(request, client_address)
        else:
            log.warning("metrics: %d requests at once, one more was turned away", MAX_REQUESTS)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """End a request, however it went; its place is free."""
        with self._lock:  # once it is closed its number may be another's socket, which must not be cut
            self._cut_at.pop(request, None)
        super().shutdown_request(request)

    def cut_late(self) -> None:
        """End the connections of requests whose time is over; their threads find that out at once."""
        now = time.monotonic()
        with self._lock:
            for request in [request for request, until in self._cut_at.items() if until <= now]:
                with suppress(OSError):  # the caller was quicker
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: a request was not answered", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    timeout = _CALLER_S
    server_version, sys_version = "batonic", ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._answer(Page(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n"))
            return
        try:
            answer = page()
        except Exception:  # told to the caller and in the log; the next one may find it better
            log.exception("metrics: %s could not be made", self.path.partition("?")[0])
            answer = Page(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"failed; the engine's log says why\n")
        self._answer(answer)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._answer(Page(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET or HEAD only\n"))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: somebody asks every few seconds."""
