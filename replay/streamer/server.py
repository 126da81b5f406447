"""The streamer: listens, keeps the market clock, and lets any number of clients follow one replay. Floor 1.

Everything here runs on one event loop. No Django: what it says of itself goes to the ``report`` that its owner
gives, and the files come through ``open_recording``.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from orderbook.book.mbo import BookKey
from replay.feed.index import Index
from replay.feed.pacing import SECOND_NS
from replay.feed.raw_protocol import make_framing
from replay.feed.sources import Recording, SourceError
from replay.feed.stream import FramingName
from replay.streamer.client import Client
from replay.streamer.messages import MAX_RECORDS_PER_S, Pace, ReplayState, StartCommand, StreamerRefused, StreamerStatus
from replay.streamer.publication import Publication, book_keys
from replay.streamer.signal_point import SignalPoint

logger = logging.getLogger(__name__)

MAX_CLIENTS: Final = 64
_CLOCK_SLEEP_S: Final = 0.05  # at most, so that a changed pace takes effect at once
_ACCEPT_AGAIN_S: Final = 0.5

Opener = Callable[[Path], Recording]
IndexOpener = Callable[[Recording], Index | None]
Report = Callable[[StreamerStatus], None]


class StreamerError(Exception):
    """The streamer cannot run."""


class Streamer:
    """The daemon behind port 9000. One replay at a time; it outlives each of them."""

    def __init__(
        self,
        open_recording: Opener,
        framing: FramingName,
        host: str,
        port: int,
        report: Report = lambda status: None,
        open_index: IndexOpener = lambda recording: None,
    ) -> None:
        self.host, self.port = host, port
        self._open_recording = open_recording
        self._open_index = open_index
        self._framing = framing
        self._report = report
        self._publication: Publication | None = None
        self._clients: dict[Client, asyncio.Task[None]] = {}
        self._starting = asyncio.Lock()
        self._moved = SignalPoint()  # records were released, or a replay began or ended
        self._taken = SignalPoint()  # a client came, went or took records
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
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

    async def close(self, grace_s: float = 3.0) -> None:
        """Stop the replay, flush what is due to every client as long as the grace lasts, and close the port."""
        self.stop()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        following = [task for client, task in self._clients.items() if client.cursor is not None]
        if following:
            await asyncio.wait(following, timeout=grace_s)
        for task in (*self._clients.values(), *self._tasks):
            task.cancel()
        await asyncio.gather(*self._clients.values(), *self._tasks, return_exceptions=True)
        for client in self._clients:  # those whose task was cancelled before its first step
            client.close()

    async def handle(self, verb: str, args: dict[str, Any]) -> StreamerStatus:
        """Carry out a command; raises StreamerRefused."""
        match verb:
            case "start":
                return await self.start(cast(StartCommand, args))
            case "stop":
                return self.stop()
            case "pace":
                return self.change_pace(args["pace"])
            case "status":
                return self.status()
        raise StreamerRefused(f"Unknown command {verb!r}: expected start, stop, pace or status.")

    async def start(self, command: StartCommand) -> StreamerStatus:
        """Begin a replay; while one runs nothing happens and the status says so. Raises StreamerRefused."""
        _check_pace(command["pace"])
        async with self._starting:
            if self._publication is not None and self._publication.running:
                return {**self.status(), "note": "already running"}
            try:
                recording, books, index = await asyncio.to_thread(self._open, command)
            except SourceError as error:
                raise StreamerRefused(f"Cannot open {command['dataset']}: {error}") from error
            publication = self._publication = Publication(command, recording, books, time.monotonic_ns(), index)
        logger.info("replay %d of %s starts at record %d", command["replay_id"], command["dataset"], publication.start)
        self._moved.notify()
        self._spawn(self._keep_time(publication))
        self._report(self.status())
        return self.status()

    def stop(self) -> StreamerStatus:
        """End the replay where it is; harmless when none runs."""
        if self._publication is not None and self._publication.running:
            self._publication.finish(ReplayState.STOPPED)
            self._ended(self._publication)
        return self.status()

    def stop_run(self, replay_id: int, generation: int) -> None:
        """End this run, if it is the one that runs: its row belongs to somebody else now."""
        if self._publication is None or not self._publication.running:
            return
        command = self._publication.command
        if (command["replay_id"], command["generation"]) == (replay_id, generation):
            logger.warning("replay %d, generation %d, is no longer ours", replay_id, generation)
            self.stop()

    def change_pace(self, pace: Pace) -> StreamerStatus:
        """Change the pace in flight. Raises StreamerRefused when no replay runs."""
        _check_pace(pace)
        if self._publication is None or not self._publication.running:
            raise StreamerRefused("No replay is running.")
        self._publication.change_pace(pace, time.monotonic_ns())
        self._taken.notify()
        self._report(self.status())
        return self.status()

    def status(self) -> StreamerStatus:
        """Return the true state of things."""
        status: StreamerStatus = {
            "state": ReplayState.IDLE,
            "replay_id": None,
            "generation": 0,
            "dataset": "",
            "pid": os.getpid(),
            "pace": None,
            "achieved_records_per_s": 0,
            "position": 0,
            "records": 0,
            "ts_event": "0",
            "loops": 0,
            "clients": len(self._clients),
            "raw_port": self.port,
            "error": "",
        }
        publication = self._publication
        if publication is None:
            return status
        loops, position = publication.place(publication.released)
        records = publication.recording.records
        command = publication.command
        return {
            **status,
            "state": publication.state,
            "replay_id": command["replay_id"],
            "generation": command["generation"],
            "dataset": command["dataset"],
            "pace": publication.pace,
            "achieved_records_per_s": publication.achieved_per_s(time.monotonic_ns()),
            "position": position,
            "records": publication.round_records,
            "ts_event": str(records[position - 1]["ts_event"]) if position else "0",
            "loops": loops,
            "error": publication.error,
        }

    def _open(self, command: StartCommand) -> tuple[Recording, list[BookKey], Index | None]:
        """Do what takes long, on a thread: open the file and its index, and find the books that a loop clears."""
        recording = self._open_recording(Path(command["path"]))
        return recording, book_keys(recording.records) if command["loop"] else [], self._open_index(recording)

    async def _keep_time(self, publication: Publication) -> None:
        """Release records as they come due, until the run ends; a fault of the program ends it as FAILED."""
        wait_s = 0.0
        while publication.running:
            try:
                wait_s = self._release_due(publication)
            except Exception as error:
                logger.exception("the clock of replay %d failed", publication.command["replay_id"])
                publication.finish(ReplayState.FAILED, f"{type(error).__name__}: {error}")
            if not publication.running:
                self._ended(publication)
                return
            await (asyncio.sleep(min(wait_s, _CLOCK_SLEEP_S)) if wait_s else self._taken.wait())

    def _release_due(self, publication: Publication) -> float:
        """Release what is due, and return how many seconds the clock may sleep; 0 when it waits for clients."""
        following = [
            client.cursor for client in self._clients if client.publication is publication and client.cursor is not None
        ]
        if publication.advance(time.monotonic_ns(), min(following, default=None)):
            self._moved.notify()
        return publication.wait_ns(time.monotonic_ns()) / SECOND_NS

    def _ended(self, publication: Publication) -> None:
        logger.info(
            "replay %d is %s at record %d", publication.command["replay_id"], publication.state, publication.released
        )
        self._moved.notify()
        self._taken.notify()
        self._report(self.status())

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
        self._admit(sock, f"{address[0]}:{address[1]}")

    def _admit(self, sock: socket.socket, peer: str) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            logger.warning("client %s refused: %d are connected", peer, MAX_CLIENTS)
            sock.close()
            return
        client = Client(sock, peer, make_framing(self._framing))
        self._clients[client] = asyncio.create_task(self._serve(client))

    async def _serve(self, client: Client) -> None:
        """Serve one connection to its end, whichever side ends it; one bad client never stops the others."""
        logger.info("client %s connected", client.peer)
        listening = asyncio.create_task(client.discard_input())
        sending = asyncio.create_task(self._send_replay(client))
        try:
            await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            if client.cursor is not None and not sending.done() and listening.exception() is None:
                await sending  # the client says no more, but it still reads
            for task in (listening, sending):
                if task.done():
                    task.result()
        except OSError as error:
            logger.info("client %s went away: %s", client.peer, error)
        except Exception:
            logger.exception("client %s was dropped", client.peer)
        finally:
            listening.cancel()
            sending.cancel()
            try:
                await asyncio.gather(listening, sending, return_exceptions=True)
            finally:
                client.close()
                del self._clients[client]
                self._taken.notify()
                logger.info("client %s closed", client.peer)

    async def _send_replay(self, client: Client) -> None:
        """Send one replay: the one that runs, or else the next one. Then hang up."""
        await client.greet()
        publication = self._publication
        if publication is not None and publication.running:
            await client.follow(publication, publication.released)
        else:
            if publication is not None:
                await client.look_at(publication)
            publication = await self._next_publication(publication)
            await client.follow(publication, publication.start)
        self._taken.notify()
        while True:
            if await client.send_due():
                self._taken.notify()
            elif publication.running:
                await self._moved.wait()
            else:
                break
        await client.hang_up()

    async def _next_publication(self, seen: Publication | None) -> Publication:
        while self._publication is None or self._publication is seen:
            await self._moved.wait()
        return self._publication

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_pace(pace: object) -> None:
    match pace:
        case "max":
            return
        case {"records_per_s": int(rate)} if 1 <= rate <= MAX_RECORDS_PER_S and not isinstance(rate, bool):
            return
    raise StreamerRefused(f'Expected a pace "max" or {{"records_per_s": 1 to {MAX_RECORDS_PER_S}}}, found {pace!r}.')
