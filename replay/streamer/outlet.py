"""The one place that writes to a client's socket: views as they are, one after the other, without a queue. Floor 1.

What waits for a client is at most the buffer that is being sent, and what the kernel holds of it. A client that takes
nothing is judged by patience.py; what it is told goes between two records of the buffer, as soon as it takes any.
"""

import array
import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from replay.feed.raw_protocol import Buffer
from replay.streamer.patience import Patience, Verdict

if sys.platform == "linux":
    import fcntl
    import termios

MAX_BUFFER_BYTES: Final = 1 << 20
"""What a caller may hand over at once."""

KERNEL_BYTES: Final = 1 << 20
"""Asked of the kernel for each socket; Linux takes twice as much, bookkeeping included."""

VANISHED_AFTER_S: Final = 30
"""A client that is silently gone is given up after so long; one that takes nothing, but is there, before."""

_LIVELINESS: Final = {
    "TCP_KEEPIDLE": 10,  # an idle client answers probes after 10, 15, 20 and 25 s, or is gone at 30 s
    "TCP_KEEPALIVE": 10,  # what macOS calls it
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": VANISHED_AFTER_S * 1000,  # ms; while data is on its way, there are no probes
}
_LINGER_S: Final = 5.0

Boundary = Callable[[memoryview, int], int]
"""The first place at or behind an offset of a buffer where something else may go in between."""


class SlowReader(OSError):
    """The client took nothing for too long; it was told, as far as its protocol can."""


def whole(data: memoryview, offset: int) -> int:
    """Return the end: nothing goes into this buffer."""
    return len(data)


class Outlet:
    """One socket; its owner sends from one task."""

    def __init__(self, sock: socket.socket, patience: Patience | None = None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _LIVELINESS.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.sent = 0
        """Bytes handed to the kernel."""
        self.waiting = 0
        """Bytes of the buffer that is being sent which the kernel has not got."""
        self.warning: Callable[[], Buffer] = bytes
        """Makes what a slow client is warned with; nothing, unless the owner sets it."""
        self.farewell: Callable[[], Buffer] = bytes
        """Makes what it gets when it is given up."""
        self._sock = sock
        self._patience = patience or Patience()
        self._asides: list[Buffer] = []  # to go out at the next boundary

    async def send(self, data: Buffer, boundary: Boundary = whole) -> None:
        """Send a buffer to its end, as fast as the client takes it. Raises OSError when the client is gone.

        Raises SlowReader when it took nothing for too long: the rest of the buffer, from the next boundary on, is left
        out and the farewell sent in its place.
        """
        view = memoryview(data).cast("B")
        offset = self._push(view, 0)
        if offset == len(view):
            return
        self._patience.begin(self._taken(), time.monotonic_ns())
        while offset < len(view):
            if await self._judge() is Verdict.GIVE_UP:
                await self._say_farewell(view[offset : boundary(view, offset)])
            if self._asides:
                end = boundary(view, offset)
                offset = self._push(view[:end], offset)
                if offset < end:
                    continue
                await self._interject()
            offset = self._push(view, offset)

    def waiting_bytes(self) -> int:
        """Return how much is on its way to the client: of the buffer, and in the kernel."""
        return self.waiting + _untaken(self._sock)

    async def hang_up(self, peer_is_done: asyncio.Event) -> None:
        """Say that nothing more comes; then give the client 5 s to take the rest and to close.

        Closing at once would reset the connection, and destroy what is still on its way, if the client had spoken.
        """
        self._sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(peer_is_done.wait(), _LINGER_S)

    def close(self) -> None:
        self._sock.close()

    def _push(self, view: memoryview, offset: int) -> int:
        """Hand over what the kernel takes at once; return the offset behind it."""
        while offset < len(view):
            try:
                taken = self._sock.send(view[offset:])
            except (BlockingIOError, InterruptedError):
                break
            offset += taken
            self.sent += taken
        self.waiting = len(view) - offset
        return offset

    async def _judge(self) -> Verdict:
        """Wait until the kernel takes more, or something is to be done about the client; act on a warning."""
        while True:
            writable = await self._writable()
            verdict = self._patience.look(self._taken(), time.monotonic_ns())
            if verdict is Verdict.CLOSE:
                raise SlowReader("it took nothing for too long, nor what it was told of that")
            if verdict is Verdict.WARN:
                self._asides.append(self.warning())
            if writable or verdict is Verdict.GIVE_UP:
                return verdict

    async def _interject(self) -> None:
        asides, self._asides = self._asides, []
        for aside in asides:
            await self.send(aside)

    async def _say_farewell(self, rest_of_record: memoryview) -> None:
        """Complete the record that was begun, and say that the client is given up; raises SlowReader in any case."""
        for part in (rest_of_record, *self._asides, memoryview(self.farewell())):
            offset = self._push(memoryview(part), 0)
            while offset < len(part):
                await self._judge()
                offset = self._push(memoryview(part), offset)
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        raise SlowReader("it took nothing for too long")

    async def _writable(self) -> bool:
        """Wait until the kernel takes more, or it is time to look at the client again."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(self._patience.look_again_s, _resolve, done, False)
        loop.add_writer(self._sock, _resolve, done, True)
        try:
            return await done
        finally:
            loop.remove_writer(self._sock)
            timer.cancel()

    def _taken(self) -> int:
        """Return how many bytes the client's machine has acknowledged: the kernel alone would hide a slow reader."""
        return self.sent - _untaken(self._sock)


def _resolve(done: asyncio.Future[bool], result: bool) -> None:
    if not done.done():
        done.set_result(result)


def _untaken(sock: socket.socket) -> int:
    """Return the bytes that the kernel holds and the peer has not acknowledged; 0 where that cannot be asked."""
    if sys.platform != "linux":
        return 0
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]
