"""One client of the live port: let in, subscribed, and served one replay. Floor 1.

The machine that knows the protocol is replay.feed.live_server, what goes out is live_stream.py; here is who acts on
both. While nothing is replayed that the client wants, it gets heartbeats and waits.
"""

import asyncio
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from replay.feed import live_records
from replay.feed.live_messages import AuthRequest, SubscriptionRequest
from replay.feed.live_server import (
    Authenticate,
    Event,
    Failed,
    HeartbeatDue,
    LiveServer,
    Phase,
    Refused,
    Send,
    SessionStarted,
    Subscribed,
)
from replay.streamer import stretch
from replay.streamer.doorman import KEYS_UNREACHABLE, TurnedAway
from replay.streamer.live_stream import LiveStream
from replay.streamer.messages import ReplayState
from replay.streamer.patience import Patience
from replay.streamer.publication import Publication
from replay.streamer.session import Session, Stage

ANY_DATASET: Final = "BATONIC.REPLAY"
"""Means whatever is replayed; any other dataset is a venue's, and its client gets no replay of another one."""

LetIn = Callable[[AuthRequest, str, str], Awaitable[str]]
"""Takes a request, the challenge and an address, and returns the key that it was let in with. Raises TurnedAway."""

_INPUT_CHUNK: Final = 1 << 12  # some 2 ms, were it all subscriptions
_SECOND_NS: Final = 10**9


class LiveSession(Session):
    """From the greeting to the end of one replay."""

    def __init__(
        self,
        sock: socket.socket,
        address: tuple[str, int],
        stage: Stage,
        machine: LiveServer,
        let_in: LetIn,
        session_id: int,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(sock, f"{address[0]}:{address[1]}", stage, patience)
        self.secret = ""
        """The key it was let in with; empty before."""
        self.address = address[0]
        self._machine = machine
        self._let_in = let_in
        self._session_id = session_id
        self._inbox: deque[Event] = deque()  # bounded by the machine: so many subscriptions and no more
        self._requests: list[SubscriptionRequest] = []
        self._stream: LiveStream | None = None
        self._is_introduced = False  # to the replay that it follows
        self._is_over = False
        self._is_deactivated = False
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def is_streaming(self) -> bool:
        """Whether the session has started: its client gets the next replay, if it does not get one already."""
        return self._stream is not None

    @property
    def is_silent(self) -> bool:
        """Whether its client has not answered the challenge."""
        return self._machine.phase is Phase.AUTHENTICATION

    def attend(self, publication: Publication) -> None:
        if self._machine.phase is Phase.STREAM and self.publication is None and self._wants(publication):
            self._follow(publication, publication.join())
            self.wake()

    def deactivate(self) -> bool:
        """End the session as soon as its client reads, because its key was taken back; False when that was said."""
        if self._is_deactivated:
            return False
        self._is_deactivated = True
        self._inbox.append(Failed(live_records.KEY_DEACTIVATED, "The key was deactivated."))
        self.wake()
        return True

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._stream is not None:
            self._stream.close()
        super().close()

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._sock, _INPUT_CHUNK):
            self._take_in(self._machine.receive(data, time.monotonic_ns()))
            self.wake()
            await asyncio.sleep(0)  # sock_recv does not wait while there is more
        self._peer_is_done.set()

    async def _speak(self) -> None:
        await self.outlet.send(self._machine.opening())
        while not self._is_over:
            self._stirred.clear()
            self._take_in(self._machine.tell_time(time.monotonic_ns()))
            if self._inbox:
                await self._carry_out(self._inbox.popleft())
            elif self._stream is None or not await self._moves(self._stream):
                self._set_alarm()
                await self._stirred.wait()
        if self.secret:  # nobody waits for what a stranger does about it
            await self._hang_up()

    def _take_in(self, events: list[Event]) -> None:
        """Keep what the machine says for the task that sends; join what runs at the very moment of the start."""
        self._inbox.extend(events)
        if any(isinstance(event, SessionStarted) for event in events):
            shown = self._stage.publication
            if shown is not None and shown.active:
                self.attend(shown)

    async def _carry_out(self, event: Event) -> None:
        """Do what the machine says."""
        match event:
            case Send(data):
                await self.outlet.send(data)
            case Authenticate():
                await self._authenticate(event)
            case Subscribed(request):
                await self._subscribe(request)
            case SessionStarted():
                await self._start()
            case HeartbeatDue():
                if self._stream is not None:
                    await self._stream.tell([live_records.heartbeat(time.time_ns())])
            case Refused(line):
                await self.outlet.send(line)
                self._is_over = True
            case Failed(code, text):
                await self._fail(code, text)

    async def _authenticate(self, event: Authenticate) -> None:
        """Let the client in or turn it away; in time, however long its key is looked up."""
        try:
            async with asyncio.timeout(self._left_s()):
                self.secret = await self._let_in(event.request, event.challenge, self.address)
        except TurnedAway as reason:
            self._take_in(self._machine.refuse(str(reason)))
        except TimeoutError:
            self._take_in(self._machine.refuse(KEYS_UNREACHABLE))
        else:
            self._take_in(self._machine.accept(self._session_id, time.monotonic_ns()))

    async def _subscribe(self, request: SubscriptionRequest) -> None:
        """Keep a subscription until the session starts; after that it counts at once."""
        self._requests.append(request)
        if self._stream is not None:
            await self._stream.acknowledge(request)
            if self._is_introduced and self.publication is not None and self.cursor is not None:
                await self._stream.want(request, self.publication, self.cursor.position)
            elif self.publication is None and request.snapshot:
                shown = self._stage.publication
                if shown is not None and not shown.active and self._wants(shown):
                    await self._stream.look_at(shown, [request])

    async def _start(self) -> None:
        """Open the stream; of a replay that has ended, show what was asked for."""
        shown = self.publication or self._stage.publication
        if shown is not None and not self._wants(shown):
            shown = None
        stream = self._stream = LiveStream(self._auth_request, self.outlet, self._requests)
        await stream.open(shown)
        if self.publication is None and shown is not None and not shown.active:
            if stream.has_starts(shown):
                self._follow(shown, shown.join())
            elif any(request.snapshot for request in self._requests):
                await stream.look_at(shown, self._requests)

    async def _moves(self, stream: LiveStream) -> bool:
        """Send what comes next; False when nothing is due."""
        publication, cursor = self.publication, self.cursor
        if publication is None or cursor is None:
            return False
        if not self._is_introduced:
            self._is_introduced = True
            self.holds_up = not stream.has_starts(publication)  # they are looked for first
            await stream.join(publication, cursor)
            self.holds_up = not stream.catches_up
            self._stage.taken()
            return True
        since = stream.next_since
        if since is not None and since <= cursor.position and not cursor.abandoned:
            await stream.take_up(publication, cursor.position)
            return True
        match publication.next_move(cursor, stream.block_records):
            case stretch.Send(begin, stop):
                stop = stop if since is None else min(stop, since)
                if await stream.block(publication, begin, stop, self._stage.derived(publication)):
                    self._machine.sent(time.monotonic_ns())
                self._moved_to(stop)
            case stretch.Jump() as jump:
                cursor.jump(jump)
                self._stage.taken()
                await stream.arrive(publication, jump.position, self._stage.derived(publication))
            case stretch.Wait():
                if not stream.has_to_complete:
                    return False
                await stream.caught_up()
                self.holds_up = True
                self._stage.taken()
            case stretch.Over():
                self._is_over = True
                if publication.state == ReplayState.FAILED:
                    await stream.fail(live_records.INTERNAL_ERROR, f"The replay failed: {publication.error}")
                elif not publication.goes_on_elsewhere:
                    await stream.finish()
        return True

    async def _fail(self, code: int, text: str) -> None:
        """Tell what is wrong, behind the metadata if that is not out, and end."""
        self._is_over = True
        stream = self._stream
        if stream is None:
            if code == live_records.KEY_DEACTIVATED:
                return  # before the start clients read nothing but lines, and there is none for this
            stream = LiveStream(self._auth_request, self.outlet, [])
            await stream.open(None)
        await stream.fail(code, text)

    @property
    def _auth_request(self) -> AuthRequest:
        assert self._machine.request is not None, "nobody is let in without a request"
        return self._machine.request

    def _wants(self, publication: Publication) -> bool:
        """Say whether a replay is of the dataset that the client asked for."""
        return self._auth_request.dataset in (ANY_DATASET, publication.recording.venue_dataset)

    def _set_alarm(self) -> None:
        """Be woken when the machine has something to say by itself; an alarm that comes too early is set anew."""
        left_s = self._left_s()
        if left_s is None:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + left_s
        if self._alarm is None or when < self._alarm.when():
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(when, self._ring)

    def _left_s(self) -> float | None:
        """Return how long the machine has nothing to say by itself; None when that is for ever."""
        deadline_ns = self._machine.deadline_ns
        return None if deadline_ns is None else max(deadline_ns - time.monotonic_ns(), 0) / _SECOND_NS

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
