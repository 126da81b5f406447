"""One connection to the raw feed: a socket, and a cursor into the publication that it follows. Floor 1."""

import asyncio
import logging
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from orderbook.book.mbo import Action, BookKey, MboArray
from replay.feed.raw_protocol import Buffer, Framing
from replay.streamer.publication import Publication, book_keys

logger = logging.getLogger(__name__)

MAX_INPUT_BYTES: Final = 1 << 16
"""The feed listens to nobody; a client that keeps talking is cut off."""

VANISHED_AFTER_S: Final = 30
"""A client that is silently gone, or takes nothing at all, holds a replay at ``max`` up for so long."""

_LIVELINESS: Final = {
    "TCP_KEEPIDLE": 10,  # an idle client answers probes after 10, 15, 20 and 25 s, or is gone at 30 s
    "TCP_KEEPALIVE": 10,  # what macOS calls it
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": VANISHED_AFTER_S * 1000,  # ms; while data is on its way, there are no probes
}
_PAINTER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shadow")
"""Draws pictures beside the event loop. One thread: a shadow is not shared, and who came first is served first."""

_LINGER_S: Final = 5.0
_INPUT_CHUNK: Final = 4096


class Client:
    """Sends what it is told to; where to send from is ``cursor``, None while no replay is being followed."""

    def __init__(self, sock: socket.socket, peer: str, framing: Framing) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _LIVELINESS.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.peer = peer
        self.framing = framing
        self.publication: Publication | None = None
        self.cursor: int | None = None
        self._sock = sock
        self._peer_is_done = False
        self._pictured: list[BookKey] = []

    async def greet(self) -> None:
        """Send what opens the connection."""
        await self._send([self.framing.opening()])

    async def look_at(self, publication: Publication) -> None:
        """Show the books where a replay has ended; the client waits for the next one."""
        await self._show(publication, [await _picture(publication, publication.released)])

    async def follow(self, publication: Publication, position: int) -> None:
        """Bring the client's books to a position, and let it follow from there.

        The cursor is set before anything is sent: from then on the replay waits for this client at ``max``.
        """
        before, cleared = self.publication, publication.clears(self._pictured)
        self.publication, self.cursor = publication, position
        shown = [await _picture(publication, position)] if position else []
        if before is not None and len(cleared):
            await self._send([self.framing.encode(cleared, before.recording.symbols)])
        await self._show(publication, shown)

    async def send_due(self) -> bool:
        """Send the next block that is due; False when there is none."""
        assert self.publication is not None and self.cursor is not None
        buffers, cursor = self.publication.next_block(self.cursor, self.framing)
        await self._send(buffers)
        self.cursor = cursor
        return bool(buffers)

    async def hang_up(self) -> None:
        """Say that nothing more comes, so that the client has a complete file; then give it 5 s to close.

        Closing at once would reset the connection, and destroy what is still on its way, if the client had spoken.
        """
        self.cursor = None
        self._sock.shutdown(socket.SHUT_WR)
        if not self._peer_is_done:
            await asyncio.sleep(_LINGER_S)

    async def discard_input(self) -> None:
        """Read and forget what the client says; return when it says no more, or too much."""
        loop = asyncio.get_running_loop()
        heard = 0
        while heard <= MAX_INPUT_BYTES:
            data = await loop.sock_recv(self._sock, _INPUT_CHUNK)
            if not data:
                self._peer_is_done = True
                return
            heard += len(data)
        raise ConnectionAbortedError(f"the client sent more than {MAX_INPUT_BYTES} bytes to a feed that takes none")

    def close(self) -> None:
        self._sock.close()

    async def _show(self, publication: Publication, records: Iterable[MboArray]) -> None:
        self.publication = publication
        recording = publication.recording
        start_ns = int(recording.records[0]["ts_event"]) if len(recording.records) else 0
        buffers: list[Buffer] = [self.framing.introduction(recording.venue_dataset, start_ns, recording.symbols)]
        for part in records:
            self._pictured = book_keys(part[part["action"] == np.uint8(Action.CLEAR)])
            buffers.append(self.framing.encode(part, recording.symbols))
        await self._send(buffers)

    async def _send(self, buffers: Iterable[Buffer]) -> None:
        loop = asyncio.get_running_loop()
        for buffer in buffers:
            if len(buffer):
                await loop.sock_sendall(self._sock, buffer)


async def _picture(publication: Publication, position: int) -> MboArray:
    return await asyncio.get_running_loop().run_in_executor(_PAINTER, publication.picture, position)
