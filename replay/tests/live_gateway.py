"""A small gateway for tests: sockets and the records of a file around the server's state machine, and nothing else.

It runs on a thread of its own, because the vendor's client blocks. Not the product's gateway: no clock of a market,
no pace, no limits.
"""

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from orderbook.book.mbo import MboArray
from replay.feed import live_records
from replay.feed.cram import CHALLENGE_BYTES, bucket_of, make_challenge, verify
from replay.feed.live_encoding import LiveEncoder
from replay.feed.live_messages import SubscriptionRequest
from replay.feed.live_server import (
    Authenticate,
    Event,
    Failed,
    HeartbeatDue,
    LiveServer,
    Refused,
    Send,
    SessionStarted,
    Subscribed,
)
from replay.feed.live_symbology import resolve
from replay.feed.sources import Recording

KEY = "db-0123456789abcdefghijklmnopqrs"
BLOCK_RECORDS = 700

Ending = Literal["close", "reset", "stay", "error"]


class Line(NamedTuple):
    """Something that was said on a connection."""

    by: str
    data: bytes


class Gateway:
    """Serves one recording to everybody who has the key."""

    def __init__(self, recording: Recording, ending: Ending = "close") -> None:
        """``ending`` is what happens behind the last record; only a first connection is ever reset."""
        self.recording, self.ending = recording, ending
        self.port = 0
        self.clock_speed = 1
        """A faster clock makes heartbeats come sooner, and patience end."""
        self.go = threading.Event()
        """Sessions start when this is set, as it is unless a test clears it."""
        self.go.set()
        self.all_read = threading.Event()
        """Set by a test when its client has read all: before that, a reset would destroy what is on its way."""
        self.sessions: list[list[Line]] = []
        """What was said, connection by connection."""
        self.requests: list[list[SubscriptionRequest]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def clock(self) -> int:
        return time.monotonic_ns() * self.clock_speed

    @contextlib.contextmanager
    def running(self) -> Iterator["Gateway"]:
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(server), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    async def _stop(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await _Session(self, reader, writer, len(self.sessions)).serve()
        except ConnectionError:  # clients are torn down at the end of a test
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


class _Session:
    def __init__(
        self, gateway: Gateway, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.gateway, self.reader, self.writer, self.number = gateway, reader, writer, number
        self.machine = LiveServer(make_challenge(os.urandom(CHALLENGE_BYTES)), gateway.clock())
        self.encoder: LiveEncoder | None = None
        self.subscriptions: list[SubscriptionRequest] = []
        self.said: list[Line] = []
        gateway.sessions.append(self.said)
        gateway.requests.append(self.subscriptions)

    async def serve(self) -> None:
        await self.send(self.machine.opening())
        open_ = True
        while open_:
            deadline = self.machine.deadline_ns
            wait_s = (
                None if deadline is None else max(deadline - self.gateway.clock(), 0) / 1e9 / self.gateway.clock_speed
            )
            try:
                data = await asyncio.wait_for(self.reader.read(1 << 16), wait_s)
            except TimeoutError:
                events = self.machine.tell_time(self.gateway.clock())
            else:
                if not data:
                    return
                self.said.append(Line("C", data))
                events = self.machine.receive(data, self.gateway.clock())
            for event in events:
                open_ = open_ and await self.carry_out(event)

    async def carry_out(self, event: Event) -> bool:
        """Do what the machine says; False when that ends the connection."""
        match event:
            case Send(data):
                await self.send(data)
            case Authenticate(request, challenge):
                known = request.auth.bucket_id == bucket_of(KEY) and verify(challenge, KEY, request.auth)
                machine, now = self.machine, self.gateway.clock()
                for following in machine.accept(1_700_000_000 + self.number, now) if known else machine.refuse():
                    if not await self.carry_out(following):
                        return False
            case Subscribed(request):
                self.subscriptions.append(request)
                if self.encoder is not None:
                    await self.introduce(request)
            case SessionStarted():
                await asyncio.to_thread(self.gateway.go.wait, 10)
                await self.open_stream()
                for request in self.subscriptions:
                    await self.introduce(request)
                return await self.replay()
            case HeartbeatDue():
                await self.messages(live_records.heartbeat(time.time_ns()))
            case Refused(line):
                await self.send(line)
                return False
            case Failed(code, text):
                if self.encoder is None:
                    await self.open_stream()
                await self.messages(live_records.error_message(time.time_ns(), code, text))
                await self.hang_up()
                return False
        return True

    async def open_stream(self) -> None:
        assert self.machine.request is not None
        self.encoder = LiveEncoder(self.machine.request)
        starts = [request.start_ns for request in self.subscriptions if request.start_ns]
        start_ns = min(starts, default=int(self.gateway.recording.records[0]["ts_event"]))
        await self.send(self.encoder.opening(self.gateway.recording.venue_dataset, start_ns))

    async def introduce(self, request: SubscriptionRequest) -> None:
        now = time.time_ns()
        found, missing = resolve(request, self.gateway.recording.symbols)
        await self.messages(
            live_records.subscription_ack(now, request),
            *(live_records.error_message(now, live_records.RESOLUTION_FAILED, symbol.text) for symbol in missing),
            *(live_records.symbol_mapping(now, instrument, request.stype_in) for instrument in found),
        )

    async def replay(self) -> bool:
        assert self.encoder is not None
        for request in self.subscriptions:
            records = wanted(self.gateway.recording, request)
            for begin in range(0, len(records), BLOCK_RECORDS):
                block = records[begin : begin + BLOCK_RECORDS]
                await self.send(self.encoder.records(block, "mbo", time.time_ns()))
            if request.start_ns is not None:
                await self.messages(live_records.replay_completed(time.time_ns(), request.schema))
        if self.gateway.ending == "stay":
            return True
        if self.gateway.ending == "reset" and self.number == 0:
            await self.reset()
        elif self.gateway.ending == "error":
            text = "Something is broken here"
            await self.messages(live_records.error_message(time.time_ns(), live_records.INTERNAL_ERROR, text))
        await self.hang_up()
        return False

    async def hang_up(self) -> None:
        assert self.encoder is not None
        await self.send(self.encoder.closing())

    async def reset(self) -> None:
        """Close with a RST, as a host does that is gone."""
        await asyncio.to_thread(self.gateway.all_read.wait, 10)
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def messages(self, *messages: bytes) -> None:
        assert self.encoder is not None
        await self.send(self.encoder.messages(messages, time.time_ns()))

    async def send(self, data: bytes | memoryview) -> None:
        if not data:
            return
        self.said.append(Line("S", bytes(data)))
        self.writer.write(data)
        await self.writer.drain()
        self.machine.sent(self.gateway.clock())


def wanted(recording: Recording, request: SubscriptionRequest) -> MboArray:
    """Return the records that a subscription means."""
    ids = [instrument.instrument_id for instrument in resolve(request, recording.symbols).found]
    records = recording.records[np.isin(recording.records["instrument_id"], ids)]
    return records[records["ts_event"] >= (request.start_ns or 0)]
