"""A streamer with its command server, on a thread of the test process."""

import asyncio
import threading
from typing import Any

from replay.feed.sources import Recording
from replay.streamer.commands import CommandServer
from replay.streamer.messages import StreamerStatus
from replay.streamer.server import Streamer
from replay.tests.recordings import recording


class Daemon:
    """A streamer and its command server on a loop of their own thread."""

    def __init__(self, redis_url: str, feed: str = "main", made: Recording | None = None, lease: int = 0) -> None:
        self.handled: list[str] = []
        self.hold_s = 0.0
        self.let_go = threading.Event()  # not set: a command waits
        self.let_go.set()
        self._lease = lease
        self._url, self._feed = redis_url, feed
        self._made = made or recording()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Daemon":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(10)

    def status(self) -> StreamerStatus:
        return self.streamer.status()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.streamer = Streamer(lambda path: self._made, "csv", "127.0.0.1", 0)
        await self.streamer.listen()
        commands = CommandServer(self._url, self._handle, self.streamer.status, self._feed, self._lease)
        self._serving = asyncio.ensure_future(commands.run())
        self._ready.set()
        try:
            await self._serving
        except asyncio.CancelledError:
            pass
        finally:
            await self.streamer.close()

    async def _handle(self, verb: str, args: dict[str, Any]) -> StreamerStatus:
        self.handled.append(verb)
        await asyncio.sleep(self.hold_s)
        while not self.let_go.is_set():
            await asyncio.sleep(0.01)
        if verb == "crash":
            raise RuntimeError("a fault of the program")
        return await self.streamer.handle(verb, args)
