"""A way to a real server that can be taken away and given back."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class TcpProxy:
    """A way to a server that can be taken away and given back: while it is down, connections are refused."""

    def __init__(self, host: str, port: int, own_port: int) -> None:
        self.port = own_port
        self.lost: bytes | None = None
        """An answer of the server with these bytes in it gets lost."""
        self._target = (host, port)
        self._server: socket.socket | None = None
        self._open: list[socket.socket] = []

    def up(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
        for peer in self._open:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            threading.Thread(target=_pump, args=(near, far, lambda data: False), daemon=True).start()
            threading.Thread(target=_pump, args=(far, near, self._is_lost), daemon=True).start()

    def _is_lost(self, data: bytes) -> bool:
        return self.lost is not None and self.lost in data


def _pump(source: socket.socket, target: socket.socket, is_lost: Callable[[bytes], bool]) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            if not is_lost(data):
                target.sendall(data)
    for peer in (source, target):
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
        peer.close()
