"""One client of `/ws` as a load generator runs a thousand of them: it reads what it must, and counts. Floor 1.

The protocol is that of the ``websockets`` package, without its input and output: a frame costs 3 us there. A book is
looked at as bytes and never decoded, so that a thousand clients take less than the servers they measure.
"""

import asyncio
import json
import re
import socket
import struct
import time
from array import array
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

PUBLISHED: Final = re.compile(rb'"published_ns":"(\d+)"')
SEQ: Final = re.compile(rb'"run_id":"([^"]*)","seq":(\d+)')
_BOOK: Final = b'{"type":"book"'
_HEAD_BYTES: Final = 1000
"""Where in a book its numbers stand, at most."""
_NO_GOODBYE: Final = struct.pack("ii", 1, 0)
_BUFFER: Final = memoryview(bytearray(1 << 18))  # one for all: what is read is taken at once


class Target(NamedTuple):
    """What every client asks for, and where."""

    url: str
    """``ws://host:port/ws``."""
    key: str
    """Empty: none is sent."""
    symbol: str
    """Empty: the server's default."""
    depth: int
    push_ms: int


@dataclass
class Tally:
    """What all clients of one process have received within a window, on the wall clock, which both ends share."""

    begin_ns: int = 0
    end_ns: int = 0
    staleness_us: "array[int]" = field(default_factory=lambda: array("q"))
    """Of each book, in the order of their coming; nothing of one that does not say when it was published."""
    nbytes: int = 0
    disorder: int = 0
    """Books that were not newer than the one before, at the same client."""

    def open(self, begin_ns: int, end_ns: int) -> None:
        """Begin a new window."""
        self.begin_ns, self.end_ns = begin_ns, end_ns
        self.staleness_us, self.nbytes, self.disorder = array("q"), 0, 0


class SocketClient(asyncio.BufferedProtocol):
    """One connection: shakes hands, subscribes, and counts the books that come."""

    def __init__(self, target: Target, tally: Tally) -> None:
        loop = asyncio.get_running_loop()
        self.books = 0
        """Within the window of the tally."""
        self.fault = ""
        """Why the server, or the way to it, ended the connection; empty while it stands."""
        self.code: int | None = None
        """The code with which the server closed."""
        self.shaken: asyncio.Future[None] = loop.create_future()
        """Done when the handshake is, with an OSError when there was none."""
        self.shown: asyncio.Future[None] = loop.create_future()
        """Done when the first book is there, with an OSError when the connection has ended before."""
        self.gone: asyncio.Future[None] = loop.create_future()
        self._target = target
        self._tally = tally
        self._protocol = ClientProtocol(parse_uri(target.url), max_size=None)
        self._transport: asyncio.Transport | None = None
        self._run_id, self._seq = b"", -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        request = self._protocol.connect()
        if self._target.key:
            request.headers["Authorization"] = f"Bearer {self._target.key}"
        self._protocol.send_request(request)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.receive_data(bytes(_BUFFER[:nbytes]))
        self._take()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._take()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(self.fault or str(error or "the server has closed the connection"))
        self.gone.set_result(None)

    def stall(self) -> None:
        """Read nothing from now on."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read what has come meanwhile."""
        assert self._transport is not None
        self._transport.resume_reading()

    def close(self) -> None:
        """End in good order."""
        if self._transport is not None and self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._flush()

    def abort(self) -> None:
        """End without a word, as a machine that loses its power: the server gets a reset."""
        if self._transport is not None and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_GOODBYE)
            self._transport.abort()

    def _take(self) -> None:
        now_ns = time.time_ns()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event, now_ns)
            elif isinstance(event, Response):
                self._answered(event)
        self._flush()

    def _answered(self, response: Response) -> None:
        error = self._protocol.handshake_exc
        if error is not None:
            self._fail(f"expected a handshake, found {response.status_code}: {error}")
            return
        self.shaken.set_result(None)
        if self._protocol.state is not State.OPEN:  # the server's close came with its handshake
            return
        wish = {"type": "subscribe", "depth": self._target.depth, "push_ms": self._target.push_ms}
        if self._target.symbol:
            wish["symbol"] = self._target.symbol
        self._protocol.send_text(json.dumps(wish).encode())

    def _take_frame(self, frame: Frame, now_ns: int) -> None:
        if frame.opcode is Opcode.TEXT and frame.data[: len(_BOOK)] == _BOOK:
            self._take_book(bytes(frame.data), now_ns)
        elif frame.opcode is Opcode.TEXT and b'"error"' in frame.data[:20]:
            self.fault = bytes(frame.data).decode()
        elif frame.opcode is Opcode.CLOSE and self._protocol.close_rcvd is not None:
            self.code = self._protocol.close_rcvd.code
            self.fault = f"closed with {self.code}: {self._protocol.close_rcvd.reason}"

    def _take_book(self, book: bytes, now_ns: int) -> None:
        if not self.shown.done():
            self.shown.set_result(None)
        tally = self._tally
        if not tally.begin_ns <= now_ns < tally.end_ns:
            return
        self.books += 1
        tally.nbytes += len(book)
        if (published := PUBLISHED.search(book, 0, _HEAD_BYTES)) is not None:
            tally.staleness_us.append((now_ns - int(published[1])) // 1000)
        if (newest := SEQ.search(book, 0, _HEAD_BYTES)) is not None:
            run_id, seq = newest[1], int(newest[2])
            tally.disorder += run_id == self._run_id and seq <= self._seq
            self._run_id, self._seq = run_id, seq

    def _fail(self, fault: str) -> None:
        """Tell whoever waits; nobody may."""
        self.fault = fault
        for waiting in (self.shaken, self.shown):
            if not waiting.done():
                waiting.set_exception(ConnectionError(fault))
                waiting.exception()  # seen: asyncio has nothing to say of it

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
