"""The engine's way to its feed: one connection after the other, made again for ever. Floor 3.

What a connection carries, and whether one has to log in, is that of raw_feed.py and live_feed.py.
"""

import logging
import socket
from collections.abc import Callable
from threading import Event
from typing import Final

from engine_worker.backoff import backoff
from engine_worker.connection import Connection, FeedInterrupted, FeedRefused
from engine_worker.lag import NO_LAG, Lag

FIRST_RETRY_S: Final = 0.05
RETRY_CAP_S: Final = 2.0
REFUSED_RETRY_S: Final = 10.0
"""Not to be taken for somebody who guesses keys: a gateway of ours locks out who fails ten times in a minute."""
CONNECT_TIMEOUT_S: Final = 2.0
# A peer that vanished without a word is noticed after 10 + 3 * 5 s; one that is only silent stays connected.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

Enter = Callable[[socket.socket, Event], Connection]
"""Makes a connection of a socket, however long the handshake takes. Raises FeedRefused, and FeedInterrupted when it
fails or the event is set."""

log = logging.getLogger(__name__)


class FeedClient:
    """Makes connections to one address, waiting longer from try to try until one brings records."""

    def __init__(self, host: str, port: int, enter: Enter, refused_retry_s: float = REFUSED_RETRY_S) -> None:
        self.address = (host, port)
        self.fault = ""
        """Why there is no connection, for other threads to show; empty while there is one."""
        self._enter = enter
        self._refused_retry_s = refused_retry_s
        self._last: Connection | None = None
        self._waits = backoff(FIRST_RETRY_S, RETRY_CAP_S)

    def connect(self, stop: Event) -> Connection | None:
        """Return a new connection, however long that takes; None once ``stop`` is set."""
        wait_s = 0.0
        if self._last is not None:
            if self._last.fruitful:
                self._waits = backoff(FIRST_RETRY_S, RETRY_CAP_S)
            wait_s = next(self._waits)
        while not stop.wait(wait_s):
            try:
                self._last = self._open(stop)
            except FeedRefused as error:
                self._failed("refuses us", error)
                wait_s = self._refused_retry_s
            except (OSError, FeedInterrupted) as error:
                if not stop.is_set():
                    self._failed("cannot be reached", error)
                wait_s = next(self._waits)
            else:
                self.fault = ""
                log.info("feed %s:%d connected", *self.address)
                return self._last
        return None

    def lag(self) -> Lag:
        """Return how far behind what has arrived here the engine is: none without a connection."""
        return NO_LAG if self.fault or self._last is None else self._last.lag()

    def _open(self, stop: Event) -> Connection:
        peer = _dial(self.address)
        try:
            return self._enter(peer, stop)
        except BaseException:
            peer.close()
            raise

    def _failed(self, what: str, error: Exception) -> None:
        """Say why there is no connection; once, however often it is tried."""
        host, port = self.address
        fault = f"{host}:{port} {what} ({error})"
        if fault != self.fault:
            log.warning("feed %s; trying for ever", fault)
            self.fault = fault


def _dial(address: tuple[str, int]) -> socket.socket:
    """Connect, and let the kernel ask a silent peer whether it lives. Raises OSError."""
    peer = socket.create_connection(address, CONNECT_TIMEOUT_S)
    try:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            option = getattr(socket, name, None)  # macOS spells some of them differently
            if option is not None:
                peer.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        peer.close()
        raise
    return peer
