"""Clients of `/ws` in a process of their own, driven over a pipe: opened at a ramp, counted, and closed. Floor 1.

What comes over the pipe is one of the orders below, and each is answered when it is done.
"""

import asyncio
import gc
import socket
import time
from array import array
from collections import Counter
from collections.abc import Awaitable
from multiprocessing.connection import Connection
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from orderbook.benchmark.socket_client import SocketClient, Tally, Target

WITHIN_S: Final = 15.0
"""What a client may take for its handshake and its first book."""
_STALLED_BUFFER: Final = 4096
_DRAIN_S: Final = 5.0


class Open(NamedTuple):
    """Open so many clients, one every ``every_s`` from ``at`` (wall clock, s) on."""

    clients: int
    at: float
    every_s: float
    stalled: bool = False
    """They subscribe, take one book, and read nothing more."""


class Opened(NamedTuple):
    """Who came in."""

    connect_s: list[float]
    """From the first packet to the end of the handshake."""
    faults: Counter[str]


class Count(NamedTuple):
    """Count what all clients receive within the window, wall clock."""

    begin_ns: int
    end_ns: int


class Counted(NamedTuple):
    """What was received in a window."""

    books: list[int]
    """Of each client that reads."""
    staleness_us: "array[int]"
    nbytes: int
    disorder: int
    standing: int
    """Clients that read and are connected at the end."""
    faults: Counter[str]
    cpu_s: float
    """Of this process."""


class Churn(NamedTuple):
    """Open as many clients, and cut each off without a word behind its first book."""

    clients: int
    at: float
    every_s: float


class Close(NamedTuple):
    """Close every client; those that were stalled read first what had been sent to them."""


class Closed(NamedTuple):
    """How the stalled ones had ended before: by the code of the server's close; 0: it had cut them off without one."""

    stalled: Counter[int]


def run(target: Target, control: Connection) -> None:
    """Follow orders until the pipe is closed."""
    asyncio.run(_follow(Crowd(target), control))


async def _follow(crowd: "Crowd", control: Connection) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            order = await loop.run_in_executor(None, control.recv)
        except EOFError:
            return
        control.send(await crowd.follow(order))


class Crowd:
    """The clients of this process."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.url)
        self._target = target
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "wss"
        # Looked up once: a client's time to connect is the server's, and not that of a name server.
        name = self._host, parts.port or (443 if self._secure else 80)
        found = socket.getaddrinfo(*name, type=socket.SOCK_STREAM)[0]
        self._family, self._address = found[0], found[4]
        self._tally = Tally()
        self._clients: list[SocketClient] = []
        self._stalled: list[SocketClient] = []

    def follow(self, order: Open | Count | Churn | Close) -> Awaitable[object]:
        """Do what an order says."""
        match order:
            case Open():
                return self._open(order)
            case Count():
                return self._count(order)
            case Churn():
                return self._churn(order)
            case Close():
                return self._close()

    async def _open(self, order: Open) -> Opened:
        opened = Opened([], Counter())

        async def one(number: int) -> None:
            await asyncio.sleep(order.at + number * order.every_s - time.time())
            client = await self._connect(opened, order.stalled)
            if client is not None and order.stalled:
                client.stall()
                self._stalled.append(client)
            elif client is not None:
                self._clients.append(client)

        await asyncio.gather(*(one(number) for number in range(order.clients)))
        gc.collect()
        gc.freeze()  # a thousand protocols need no second look in the midst of a window
        return opened

    async def _churn(self, order: Churn) -> Opened:
        opened = Opened([], Counter())

        async def one(number: int) -> None:
            await asyncio.sleep(order.at + number * order.every_s - time.time())
            client = await self._connect(opened, stalled=False)
            if client is not None:
                client.abort()
                await client.gone

        await asyncio.gather(*(one(number) for number in range(order.clients)))
        return opened

    async def _connect(self, opened: Opened, stalled: bool) -> SocketClient | None:
        """Return a client that has its first book; None when it had to be given up, and why is noted."""
        loop, client = asyncio.get_running_loop(), SocketClient(self._target, self._tally)
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(WITHIN_S):
                host = self._host if self._secure else None
                sock = await self._connected(_STALLED_BUFFER if stalled else None)
                await loop.create_connection(lambda: client, sock=sock, ssl=self._secure or None, server_hostname=host)
                await client.shaken
                opened.connect_s.append(time.perf_counter() - begun)
                await client.shown
        except TimeoutError:
            opened.faults[client.fault or f"no first book within {WITHIN_S:g} s"] += 1
        except OSError as error:
            opened.faults[str(error)] += 1
        else:
            return client
        client.abort()
        return None

    async def _connected(self, buffer_bytes: int | None) -> socket.socket:
        """Return a socket to the server; with a small buffer, one that does not read is full at once."""
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if buffer_bytes is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _count(self, order: Count) -> Counted:
        for client in self._clients:
            client.books = 0
        self._tally.open(order.begin_ns, order.end_ns)
        await asyncio.sleep(order.begin_ns / 1e9 - time.time())
        cpu_s = time.process_time()
        await asyncio.sleep(order.end_ns / 1e9 - time.time())
        cpu_s = time.process_time() - cpu_s
        faults = Counter(client.fault for client in self._clients if client.fault)
        return Counted(
            [client.books for client in self._clients],
            self._tally.staleness_us,
            self._tally.nbytes,
            self._tally.disorder,
            len(self._clients) - faults.total(),
            faults,
            cpu_s,
        )

    async def _close(self) -> Closed:
        for client in self._stalled:
            client.resume()
        if self._stalled:
            await asyncio.wait([client.gone for client in self._stalled], timeout=_DRAIN_S)
        ended = Counter(client.code or 0 for client in self._stalled if client.gone.done())
        everybody = [*self._clients, *self._stalled]
        for client in everybody:
            client.close()
        if everybody:
            await asyncio.wait([client.gone for client in everybody], timeout=_DRAIN_S)
        for client in everybody:
            client.abort()
        self._clients, self._stalled = [], []
        gc.unfreeze()
        return Closed(ended)
