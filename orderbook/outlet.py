"""The way out to one WebSocket client: frames that are made once, and what of them still waits here. Floor 4.

The only module that knows daphne from inside. Through ASGI alone nobody learns whether a client takes what is sent:
daphne puts everything into a buffer without end, and the reason of a close is lost. So the protocol object behind
the `send` of a connection is asked. Under another server, or in a test without one, a task a message does the same
by ASGI: as long as it waits, the client is not clear.

`writeSomeData` gives the frame to the kernel in one call; `write` would ask the event loop to call back when the socket
is writable, and then to stop calling. A message takes 16 us of the process's CPU, all included, against 31 by `write`
(`loadws --clients 1000 --push-ms 100 --web-processes 1`, 3.2 KB books, 2 shared cores).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from daphne.ws_protocol import WebSocketProtocol
from twisted.internet.tcp import Connection

from orderbook.socket_protocol import Close

Send = Callable[[dict[str, Any]], Awaitable[None]]

SEND_BUFFER_BYTES: Final = 64 * 1024
"""Asked of the kernel for each client, which doubles it. Left alone it keeps megabytes for one that never reads."""

CLOSE_WITHIN_S: Final = 1
"""What a client may take to answer a close."""

SLOW_CLOSE_WITHIN_S: Final = 10
"""Instead, for one that was too slow: what it has not read lies in front of the close."""

MAX_REASON_BYTES: Final = 123  # RFC 6455: a control frame holds 125 bytes, two of them are the code

_TEXT: Final = 0x81  # the only and last frame of a text message


class Frame:
    """A text message, and how it looks on the wire from server to client (RFC 6455, not masked)."""

    __slots__ = ("text", "wire")

    def __init__(self, text: str) -> None:
        payload = text.encode()
        size = len(payload)
        if size < 126:
            head = bytes((_TEXT, size))
        elif size < 1 << 16:
            head = bytes((_TEXT, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((_TEXT, 127)) + size.to_bytes(8, "big")
        self.text = text
        self.wire = head + payload


class Outlet(Protocol):
    """Sends to one client, without waiting. What is sent to a client that is gone is forgotten."""

    closed_with: int | None
    """The code of our own close; None while there was none."""

    @property
    def unsent(self) -> int:
        """Bytes that wait here because the client does not take them."""

    def send(self, frame: Frame) -> None: ...

    def close(self, code: int, reason: str) -> None: ...

    def pause(self) -> None:
        """Read nothing more from the client, if the server lets us: what it sends meanwhile waits at its end.

        Its pings, its close and its end are not heard either.
        """

    def resume(self) -> None:
        """Read again."""


def outlet_of(send: Send) -> Outlet:
    """Return the way out that belongs to the ASGI `send` of a connection, as the server handed it out."""
    protocol = next((part for part in getattr(send, "args", ()) if isinstance(part, WebSocketProtocol)), None)
    transport = getattr(protocol, "transport", None)
    if isinstance(transport, Connection) and not getattr(transport, "TLS", False):  # nothing goes past encryption
        return DaphneOutlet(protocol)
    return AsgiOutlet(send)


class DaphneOutlet:
    """Past daphne and autobahn straight to the socket, as long as nothing waits in front."""

    def __init__(self, protocol: Any) -> None:
        self.closed_with: int | None = None
        self._protocol = protocol
        self._transport = protocol.transport
        self._transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        _cut_circles(protocol)

    @property
    def unsent(self) -> int:
        transport = self._transport
        waiting: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        return waiting

    def send(self, frame: Frame) -> None:
        if self._protocol.state != WebSocketProtocol.STATE_OPEN:
            return
        wire = frame.wire
        if not self.unsent:
            written = self._transport.writeSomeData(wire)
            if written == len(wire):
                return
            if not isinstance(written, int):  # the connection is lost, and the reactor is about to find out
                return
            wire = wire[written:]
        self._transport.write(wire)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. A client that stands still may still read why, and then is cut off."""
        if self._protocol.state == WebSocketProtocol.STATE_OPEN:
            self.closed_with = int(code)
            self._protocol.closeHandshakeTimeout = SLOW_CLOSE_WITHIN_S if code == Close.TOO_SLOW else CLOSE_WITHIN_S
            # not sendClose: it refuses the codes of the RFC itself, 1009 and 1011 among them
            self._protocol.sendCloseFrame(code=self.closed_with, reasonUtf8=_cut(reason).encode())

    def pause(self) -> None:
        self._transport.pauseProducing()

    def resume(self) -> None:
        self._transport.resumeProducing()


class AsgiOutlet:
    """By plain ASGI, one message after the other."""

    def __init__(self, send: Send) -> None:
        self.closed_with: int | None = None
        self._send = send
        self._waiting: list[dict[str, Any]] = []
        self._sending: asyncio.Task[None] | None = None

    @property
    def unsent(self) -> int:
        return sum(len(message.get("text", "x")) for message in self._waiting)

    def send(self, frame: Frame) -> None:
        self._put({"type": "websocket.send", "text": frame.text})

    def close(self, code: int, reason: str) -> None:
        self.closed_with = int(code)
        self._put({"type": "websocket.close", "code": self.closed_with, "reason": _cut(reason)})

    def pause(self) -> None:
        """Do nothing: ASGI knows no such word."""

    def resume(self) -> None:
        """Do nothing."""

    def _put(self, message: dict[str, Any]) -> None:
        self._waiting.append(message)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        """Send until nothing waits. A message waits until the server took it."""
        with suppress(OSError):  # the client is gone: its disconnect is on the way
            while self._waiting:
                await self._send(self._waiting[0])
                del self._waiting[0]
        self._sending = None


def _cut_circles(protocol: Any) -> None:
    """Have all that is kept of a connection go when it ends, and not with a later collection of garbage.

    A connection is in two circles of references, and fifty objects hang on them. A full collection comes once in some
    thousand connections: until then a process held 16 MB of clients that had gone.
    """
    protocol.is_closed.addCallback(lambda _: None)  # autobahn's: its result is the protocol itself
    # The request that became this connection, and Twisted's channel around it: each holds the other, for nothing.
    getattr(protocol.transport.producer, "requests", []).clear()


def _cut(reason: str) -> str:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
