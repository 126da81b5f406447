"""One client of the raw feed: it is shown everything, and has nothing to say. Floor 1."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

import numpy as np

from orderbook.book.mbo import Action, BookKey, MboArray
from replay.feed.raw_protocol import Framing, Symbols
from replay.streamer.arrivals import book_keys
from replay.streamer.outlet import MAX_BUFFER_BYTES
from replay.streamer.painter import paint
from replay.streamer.patience import Patience
from replay.streamer.publication import Publication
from replay.streamer.session import Session, Stage
from replay.streamer.stretch import Jump, Over, Send, Wait

MAX_INPUT_BYTES: Final = 1 << 16
"""The feed listens to nobody; a client that keeps talking is cut off."""

_INPUT_CHUNK: Final = 4096
_PIECE_RECORDS: Final = MAX_BUFFER_BYTES // 256
"""Pictures and clears go out in pieces: as lines of text, none is larger than 1 MiB."""


class RawSession(Session):
    """Sends one replay: the one that runs, or else the next one. Then it hangs up."""

    def __init__(
        self, sock: socket.socket, peer: str, stage: Stage, framing: Framing, patience: Patience | None = None
    ) -> None:
        super().__init__(sock, peer, stage, patience)
        self._framing = framing
        self._has_followed = False
        shown = stage.publication
        if shown is not None and shown.active:
            self.attend(shown)

    def attend(self, publication: Publication) -> None:
        if not self._has_followed:
            self._has_followed = True
            self._follow(publication, publication.join())
            self.wake()

    def _is_served_silently(self) -> bool:
        return self.cursor is not None

    async def _hear(self) -> None:
        """Read and forget what the client says; return when it says no more. Raises OSError when it says too much."""
        loop = asyncio.get_running_loop()
        heard = 0
        while heard <= MAX_INPUT_BYTES:
            data = await loop.sock_recv(self._sock, _INPUT_CHUNK)
            if not data:
                self._peer_is_done.set()
                return
            heard += len(data)
        raise ConnectionAbortedError(f"the client sent more than {MAX_INPUT_BYTES} bytes to a feed that takes none")

    async def _speak(self) -> None:
        await self.outlet.send(self._framing.opening())
        shown = None if self._has_followed else self._stage.publication
        pictured = [] if shown is None else await self._look_at(shown)
        while not self._has_followed:
            self._stirred.clear()
            await self._stirred.wait()
        await self._come_in(shown, pictured)
        while await self._moves():
            pass
        await self._hang_up()

    async def _come_in(self, shown: Publication | None, pictured: Sequence[BookKey]) -> None:
        """Show where the replay is; take back first what was pictured of one that had ended."""
        assert self.publication is not None and self.cursor is not None
        publication, position = self.publication, self.cursor.position
        picture = await paint(publication.picture, position) if position else None
        if shown is not None:
            await self._send(publication.clears(pictured), shown.recording.symbols)
        await self._introduce(publication)
        if picture is not None:
            await self._send(picture, publication.recording.symbols)

    async def _moves(self) -> bool:
        """Make the next move; False when the replay is over."""
        assert self.publication is not None and self.cursor is not None
        publication, cursor = self.publication, self.cursor
        self._stirred.clear()
        match publication.next_move(cursor, self._framing.block_records):
            case Send(begin, stop):
                await self.outlet.send(publication.encoded(begin, stop, self._framing))
                self._moved_to(stop)
                await asyncio.sleep(0)  # who takes everything at once must not keep the others waiting
            case Jump() as jump:
                cursor.jump(jump)
                self._stage.taken()
                await self._send(await paint(publication.arrival, jump.position), publication.recording.symbols)
            case Wait():
                await self._stirred.wait()
            case Over():
                return False
        return True

    async def _look_at(self, publication: Publication) -> Sequence[BookKey]:
        """Show the books where a replay has ended; return which they are."""
        picture = await paint(publication.picture, publication.released)
        await self._introduce(publication)
        await self._send(picture, publication.recording.symbols)
        return book_keys(picture[picture["action"] == np.uint8(Action.CLEAR)])

    async def _introduce(self, publication: Publication) -> None:
        """Make the instruments of a replay known."""
        recording = publication.recording
        start_ns = int(recording.records[0]["ts_event"]) if len(recording.records) else 0
        await self.outlet.send(self._framing.introduction(recording.venue_dataset, start_ns, recording.symbols))

    async def _send(self, records: MboArray, symbols: Symbols) -> None:
        for begin in range(0, len(records), _PIECE_RECORDS):
            await self.outlet.send(self._framing.encode(records[begin : begin + _PIECE_RECORDS], symbols))
