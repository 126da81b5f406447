"""One port, and the sessions of those who are connected to it. Floor 1."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from replay.streamer.session import Session

logger = logging.getLogger(__name__)

MAX_CLIENTS: Final = 64
"""Of one port."""

_ACCEPT_AGAIN_S: Final = 0.5

Address = tuple[str, int]
Admit = Callable[[socket.socket, Address], Session | None]
"""Makes the session of a new connection; None turns it away."""


class StreamerError(Exception):
    """The streamer cannot run."""


class Listener:
    """Accepts connections, serves each in a task of its own, and forgets it when it is over."""

    def __init__(self, host: str, port: int, admit: Admit, gone: Callable[[], None] = lambda: None) -> None:
        """Listen nowhere yet; ``gone`` is called when a client has left. Whoever cancels a task closes a connection."""
        self.host, self.port = host, port
        self.sessions: dict[Session, asyncio.Task[None]] = {}
        self.slow_readers = 0
        """Clients that were closed because they took nothing."""
        self._admit = admit
        self._gone = gone
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Open the port; 0 takes a free one. Raises StreamerError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(MAX_CLIENTS)
        except OSError as error:
            listener.close()
            reason = (
                "another program listens there, perhaps a second streamer"
                if error.errno == errno.EADDRINUSE
                else error.strerror
            )
            raise StreamerError(f"Cannot listen on {self.host}:{self.port}: {reason}.") from error
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._listen(listener)

    def shut(self) -> None:
        """Accept nobody any more."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def drop(self) -> None:
        """Close every connection."""
        tasks = list(self.sessions.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self, listener: socket.socket) -> None:
        """Accept from now on; a callback and not a task, because a cancelled task could lose a connection."""
        if self._listener is listener:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the peer was gone already
            return
        except OSError as error:  # out of descriptors: wait, do not spin
            logger.warning("cannot accept a connection: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_AGAIN_S, self._listen, listener)
            return
        session = self._admit(sock, address[:2])
        if session is None:
            logger.warning("client %s:%d was not admitted", *address[:2])
            sock.close()
            return
        logger.info("client %s connected", session.peer)
        self.sessions[session] = task = asyncio.create_task(session.serve())
        task.add_done_callback(lambda _: self._forget(session))

    def _forget(self, session: Session) -> None:
        session.close()  # again, unless its task was cancelled before its first step
        del self.sessions[session]
        self.slow_readers += session.was_slow
        self._gone()
        logger.info("client %s closed", session.peer)
