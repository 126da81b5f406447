"""A way to a real server that can be taken away and given back, broken off, garbled, or made to lead nowhere."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress


class TcpProxy:
    """A way to a server that can be taken away and given back: while it is down, connections are refused."""

    def __init__(self, host: str, port: int, own_port: int) -> None:
        self.port = own_port
        self.lost: bytes | None = None
        """An answer of the server with these bytes in it gets lost."""
        self.cut_at: int | None = None
        """So many bytes of the server's pass in each connection that is made from now on; then it is closed."""
        self.is_frozen = False
        self.connections = 0
        self._target = (host, port)
        self._server: socket.socket | None = None
        self._links: list[_Link] = []

    def up(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def down(self) -> None:
        """Close every connection, and take no more."""
        if self._server is not None:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
        for link in self._links:
            link.close()
        self._links.clear()

    def close(self) -> None:
        """Close every connection; the next one passes."""
        for link in self._links:
            link.close()

    def reset(self) -> None:
        """Break every connection off, as a machine does that knows nothing of it; the next one passes."""
        for link in self._links:
            link.reset()

    def hold(self) -> None:
        """Let nothing more pass in any connection, and tell nobody; the next one passes."""
        for link in self._links:
            link.held = True

    def freeze(self) -> None:
        """Let nothing more pass, in connections that are made from now on neither."""
        self.is_frozen = True
        self.hold()

    def garble(self, garbage: bytes) -> None:
        """Put bytes in front of what the server says next."""
        for link in self._links:
            link.garbage = garbage

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self.connections += 1
            self._links.append(_Link(self, near, far))


class _Link:
    """One connection from end to end, and its two threads."""

    def __init__(self, proxy: TcpProxy, near: socket.socket, far: socket.socket) -> None:
        self.held = proxy.is_frozen
        self.garbage = b""
        self._proxy, self._left = proxy, proxy.cut_at
        self._near, self._far = near, far
        self._is_reset = False
        self._let_go = threading.Event()
        self._running = 2
        self._lock = threading.Lock()
        for pump in (self._ask, self._answer):
            threading.Thread(target=self._run, args=(pump,), daemon=True).start()

    def close(self) -> None:
        self._let_go.set()
        self._shut(socket.SHUT_RDWR)

    def reset(self) -> None:
        self._is_reset = True
        self._let_go.set()
        for peer in (self._near, self._far):
            with suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._shut(socket.SHUT_RD)  # wakes both threads, and tells the peers nothing before the sockets are closed

    def _ask(self) -> None:
        while data := self._near.recv(65536):
            if not self.held:
                self._far.sendall(data)

    def _answer(self) -> None:
        while self._left != 0 and (data := self._far.recv(65536)):
            if self.held or (self._proxy.lost is not None and self._proxy.lost in data):
                continue
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            garbage, self.garbage = self.garbage, b""
            self._near.sendall(garbage + data)

    def _run(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):
            pump()
        if self.held:
            self._let_go.wait()  # nor is an end told
        if not self._is_reset:
            self.close()
        with self._lock:
            self._running -= 1
            if self._running:
                return
        for peer in (self._near, self._far):
            peer.close()

    def _shut(self, how: int) -> None:
        for peer in (self._near, self._far):
            with suppress(OSError):
                peer.shutdown(how)
