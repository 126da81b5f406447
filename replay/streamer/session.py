"""One connection, whatever it speaks: a socket, and a cursor into the replay that it follows. Floor 1.

A session is two tasks. One hears the client; the other is the only one that sends, and looks anew at what there is to
say whenever it is woken.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from abc import ABC, abstractmethod
from typing import Protocol

from replay.streamer.derived_feed import DerivedFeed
from replay.streamer.outlet import Outlet, SlowReader
from replay.streamer.patience import Patience
from replay.streamer.publication import Publication
from replay.streamer.stretch import Cursor

logger = logging.getLogger(__name__)


class Stage(Protocol):
    """What sessions see of the streamer."""

    @property
    def publication(self) -> Publication | None:
        """The newest replay, running or ended."""

    def derived(self, publication: Publication) -> DerivedFeed:
        """Return what computes the schemas beside mbo, once for all who follow a replay."""

    def taken(self) -> None:
        """Say that a client has come or taken records."""

    def left(self) -> None:
        """Say that a client has gone."""


class Session(ABC):
    """One client, from connect to close. ``cursor`` is None while it follows no replay."""

    def __init__(self, sock: socket.socket, peer: str, stage: Stage, patience: Patience | None = None) -> None:
        self.peer = peer
        self.publication: Publication | None = None
        self.cursor: Cursor | None = None
        self.holds_up = True
        """Whether a replay at ``max`` waits for it, once it follows: who still catches up holds nobody up."""
        self.was_slow = False
        """Whether it was closed because it took nothing."""
        self.outlet = Outlet(sock, patience)
        self._sock = sock
        self._stage = stage
        self._stirred = asyncio.Event()
        self._peer_is_done = asyncio.Event()

    @abstractmethod
    def attend(self, publication: Publication) -> None:
        """Take note that a replay begins just now: who waits for one follows it from its first record."""

    @abstractmethod
    async def _hear(self) -> None:
        """Hear what the client says, to its end; set ``_peer_is_done`` when it says no more."""

    @abstractmethod
    async def _speak(self) -> None:
        """Send everything that there is to send, to the end of the replay."""

    def _is_served_silently(self) -> bool:
        """Say whether a client that has closed its own side still gets the rest."""
        return False

    def wake(self) -> None:
        """Say that there may be something to send."""
        self._stirred.set()

    async def serve(self) -> None:
        """Serve to the end, whichever side ends it; one bad client never stops the others."""
        hearing = asyncio.create_task(self._hear())
        speaking = asyncio.create_task(self._speak())
        try:
            await asyncio.wait({hearing, speaking}, return_when=asyncio.FIRST_COMPLETED)
            if not speaking.done() and hearing.exception() is None and self._is_served_silently():
                await speaking
            for task in (hearing, speaking):
                if task.done():
                    task.result()
        except SlowReader as error:
            self.was_slow = True
            logger.warning("client %s was closed: %s", self.peer, error)
        except OSError as error:
            logger.info("client %s went away: %s", self.peer, error)
        except Exception:
            logger.exception("client %s was dropped", self.peer)
        finally:
            self.cursor = None
            hearing.cancel()
            speaking.cancel()
            try:
                await asyncio.gather(hearing, speaking, return_exceptions=True)
            finally:
                if self._is_cut_off:
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close()

    def close(self) -> None:
        self.outlet.close()

    def _follow(self, publication: Publication, cursor: Cursor) -> None:
        """Take a place in a replay, before anything is sent: from then on it waits for this client at ``max``."""
        self.publication, self.cursor = publication, cursor
        self._stage.taken()

    def _moved_to(self, position: int) -> None:
        """Note that everything before a position was sent."""
        assert self.cursor is not None
        self.cursor.position = position
        self._stage.taken()

    @property
    def _is_cut_off(self) -> bool:
        """Whether the connection ends with a reset: an orderly end would be that of the replay, which has not ended."""
        return self.publication is not None and self.publication.goes_on_elsewhere

    async def _hang_up(self) -> None:
        """Say that nothing more comes, so that the client has a complete stream."""
        self.cursor = None
        self._stage.taken()
        if self._is_cut_off:
            return
        with contextlib.suppress(OSError):  # it was faster
            await self.outlet.hang_up(self._peer_is_done)
