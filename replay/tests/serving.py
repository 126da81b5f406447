"""The product's gateway on a loop of a thread of its own, because the vendor's client blocks; and what it heard."""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from replay.feed.index import Index
from replay.feed.live_server import Event, LiveServer, Subscribed
from replay.feed.sources import Recording
from replay.streamer import gateway as gateway_module
from replay.streamer.doorman import Keys
from replay.streamer.gateway import GatewayConfig
from replay.streamer.live_session import LiveSession
from replay.streamer.messages import StreamerStatus
from replay.streamer.patience import Patience
from replay.streamer.server import Streamer
from replay.tests.recordings import command

KEY = "db-0123456789abcdefghijklmnopqrs"
WAIT_S = 30

T = TypeVar("T")


class Served:
    """A streamer of one recording, and everything that its live clients have said."""

    def __init__(
        self,
        recording: Recording,
        keys: Keys | None = None,
        index: Index | None = None,
        make_patience: Callable[[], Patience] = Patience,
        recheck_s: float = 0.05,
        heartbeat_s: float | None = None,
    ) -> None:
        """Listen when it is entered; ``heartbeat_s`` makes heartbeats come sooner than clients may ask for."""
        self.recording = recording
        self.said: list[bytes] = []
        """What each connection has sent."""
        self.requests: list[list[Any]] = []
        """What each connection has subscribed."""
        self._keys = keys or Keys(lambda bucket_id: [KEY])
        self._index, self._make_patience, self._recheck_s = index, make_patience, recheck_s
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Served":
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.streamer.close(grace_s=0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    @property
    def port(self) -> int:
        return self.streamer.gateway_port

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def do(self, verb: str, **args: Any) -> StreamerStatus:
        """Carry out a command."""
        return self.run(self.streamer.handle(verb, args))

    def replay(self, *args: Any, **more: Any) -> StreamerStatus:
        """Start a replay; see recordings.command."""
        return self.do("start", **command(*args, **more))

    def until(self, condition: Callable[[StreamerStatus], bool]) -> StreamerStatus:
        """Wait until the status is as wished."""
        deadline = time.monotonic() + WAIT_S
        while not condition(status := self.do("status")):
            assert time.monotonic() < deadline, status
            time.sleep(0.005)
        return status

    def following(self, clients: int = 1) -> None:
        """Wait until so many clients have started their sessions and follow, or wait for, a replay."""
        self.until(lambda status: sum(session.is_streaming for session in self.sessions()) == clients)

    def sessions(self) -> Sequence[LiveSession]:
        assert self.streamer._gateway is not None
        return [each for each in self.streamer._gateway.listener.sessions if isinstance(each, LiveSession)]

    def reset(self) -> None:
        """Close every connection with a RST, as a host does that is gone."""

        async def abort() -> None:
            for session in self.sessions():
                session._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert self.streamer._gateway is not None
            await self.streamer._gateway.listener.drop()

        self.run(abort())

    def new_machine(self, challenge: str, now_ns: int) -> LiveServer:
        """Return a machine that keeps what it hears."""
        return _Hearing(self, challenge, now_ns, self._heartbeat_s)

    async def _open(self) -> None:
        config = GatewayConfig(port=0, keys=self._keys, recheck_s=self._recheck_s)
        self.streamer = Streamer(
            lambda path: self.recording,
            "dbn",
            "127.0.0.1",
            0,
            open_index=lambda recording: self._index,
            gateway=config,
            make_patience=self._make_patience,
        )
        await self.streamer.listen()


class _Hearing(LiveServer):
    def __init__(self, served: Served, challenge: str, now_ns: int, heartbeat_s: float | None) -> None:
        super().__init__(challenge, now_ns)
        self._served, self._number, self._heartbeat_s = served, len(served.said), heartbeat_s
        served.said.append(b"")
        served.requests.append([])

    def receive(self, data: bytes | memoryview, now_ns: int) -> list[Event]:
        self._served.said[self._number] += bytes(data)
        return self._kept(super().receive(data, now_ns))

    def accept(self, session_id: int, now_ns: int) -> list[Event]:
        return self._kept(super().accept(session_id, now_ns))

    def sent(self, now_ns: int) -> None:
        super().sent(now_ns)
        if self._heartbeat_s is not None and self._deadline_ns is not None:
            self._deadline_ns = now_ns + int(self._heartbeat_s * 1e9)

    def _kept(self, events: list[Event]) -> list[Event]:
        self._served.requests[self._number] += [each.request for each in events if isinstance(each, Subscribed)]
        return events


@contextlib.contextmanager
def serving(recording: Recording, **options: Any) -> Iterator[Served]:
    """Serve a recording."""
    with pytest.MonkeyPatch.context() as patched, Served(recording, **options) as served:
        patched.setattr(gateway_module, "LiveServer", served.new_machine)
        yield served
