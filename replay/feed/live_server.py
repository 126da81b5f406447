"""The server's side of one live connection, sans-I/O: what the client sends becomes events, in any pieces. Floor 1.

A state machine. Its owner sends what it says, looks keys up, and answers ``Authenticate`` with ``accept`` or
``refuse``. Times are the owner's monotonic clock, in ns. What is wrong with a subscription is told when the session
starts: before that, clients take nothing but lines. Memory: at most ``MAX_PIPELINED_BYTES`` and one receive of the
owner. Not the stream of records (live_encoding.py), and not the resolution of symbols (live_symbology.py).
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from replay.feed.live_line import MAX_LINE_BYTES
from replay.feed.live_messages import (
    AuthRequest,
    AuthResponse,
    Challenge,
    Greeting,
    SubscriptionRequest,
    parse_request,
)
from replay.feed.live_records import INVALID_SUBSCRIPTION
from replay.feed.stream import FeedError, shown

AUTH_TIMEOUT_S: Final = 5
MAX_PIPELINED_BYTES: Final = 1 << 18
"""What a client may send while its key is looked up."""
MAX_SUBSCRIPTIONS: Final = 256
MAX_SYMBOLS: Final = 20_000
"""Of one connection, all subscriptions together; ALL_SYMBOLS counts as one."""

AUTHENTICATION_FAILED: Final = "Authentication failed."
CONNECTION_LIMIT_REACHED: Final = "User has reached their open connection limit"
_SECOND_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes as they are."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Look the key up by ``request.auth.bucket_id``, verify the answer, and call ``accept`` or ``refuse``."""

    request: AuthRequest
    challenge: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A complete subscription. Before the session starts it is not acknowledged yet."""

    request: SubscriptionRequest


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """Send the metadata, an acknowledgement and the mappings of each subscription, then records."""


@dataclass(frozen=True, slots=True)
class HeartbeatDue:
    """Nothing was sent for the interval that the client wished: send a heartbeat."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Send this line and close: the client was not let in."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Send an error record with this code and text in the stream, behind the metadata if that is not out, and close."""

    code: int
    text: str


Event = Send | Authenticate | Subscribed | SessionStarted | HeartbeatDue | Refused | Failed


class Phase(Enum):
    """What the machine waits for."""

    AUTHENTICATION = auto()  # the client's answer
    VERDICT = auto()  # the owner's
    SUBSCRIPTION = auto()  # subscriptions and the start
    STREAM = auto()  # further subscriptions
    CLOSED = auto()  # nothing


class LiveServer:
    """One client, from connect to close."""

    def __init__(self, challenge: str, now_ns: int) -> None:
        """Begin a connection with a challenge that was never used before."""
        self.phase = Phase.AUTHENTICATION
        self.request: AuthRequest | None = None
        """How the client wants the stream, once it has said so."""
        self._challenge = challenge
        self._deadline_ns: int | None = now_ns + AUTH_TIMEOUT_S * _SECOND_NS
        self._buffer = bytearray()
        self._scanned = 0  # bytes at its front that hold no line end
        self._partial: SubscriptionRequest | None = None  # the first line of a subscription that is not complete
        self._partial_symbols: list[str] = []
        self._fault: str | None = None  # what is wrong with a subscription, to be told when the session starts
        self._subscriptions = self._symbols = 0

    def __repr__(self) -> str:
        dataset = self.request.dataset if self.request else "no dataset"
        return f"<LiveServer {self.phase.name} {dataset}, {self._subscriptions} subscriptions>"

    @property
    def deadline_ns(self) -> int | None:
        """When to call ``tell_time`` even if nothing arrives; None: never."""
        return self._deadline_ns

    def opening(self) -> bytes:
        """Return what goes out on connect."""
        return Greeting().encode() + Challenge(self._challenge).encode()

    def receive(self, data: bytes | memoryview, now_ns: int) -> list[Event]:
        """Return what the client has said with these bytes. Cost: O(bytes)."""
        if self.phase is Phase.CLOSED:
            return []
        if self.phase is Phase.VERDICT and len(self._buffer) + len(data) > MAX_PIPELINED_BYTES:
            return self.refuse(f"Expected at most {MAX_PIPELINED_BYTES} bytes before authentication is answered.")
        self._buffer += data
        return self._take_lines(now_ns)

    def accept(self, session_id: int, now_ns: int) -> list[Event]:
        """Let the client in; what it has said meanwhile follows. Nothing, when it was given up meanwhile."""
        if self.phase is Phase.CLOSED:
            return []
        assert self.phase is Phase.VERDICT, self
        self.phase = Phase.SUBSCRIPTION
        self._deadline_ns = None
        return [Send(AuthResponse(True, session_id).encode()), *self._take_lines(now_ns)]

    def refuse(self, text: str = AUTHENTICATION_FAILED) -> list[Event]:
        """Turn the client away."""
        self._close()
        return [Refused(AuthResponse(False, error=text).encode())]

    def tell_time(self, now_ns: int) -> list[Event]:
        """Return what is due at this time: the end of patience with a silent client, or a heartbeat."""
        if self._deadline_ns is None or now_ns < self._deadline_ns:
            return []
        if self.phase is Phase.STREAM:
            self.sent(now_ns)
            return [HeartbeatDue()]
        return self.refuse(f"Expected authentication within {AUTH_TIMEOUT_S} s.")

    def sent(self, now_ns: int) -> None:
        """Say that records went out: the next heartbeat is due when nothing does for an interval from now on."""
        if self.phase is Phase.STREAM and self.request is not None:
            self._deadline_ns = now_ns + self.request.heartbeat_interval_s * _SECOND_NS

    def _take_lines(self, now_ns: int) -> list[Event]:
        """Consume the complete lines of the buffer, as far as the phase allows."""
        events: list[Event] = []
        begin = 0
        while self.phase not in (Phase.VERDICT, Phase.CLOSED):
            end = self._buffer.find(b"\n", begin + self._scanned)
            size = (len(self._buffer) if end < 0 else end) - begin
            if size > MAX_LINE_BYTES:
                found = shown(bytes(self._buffer[begin : begin + MAX_LINE_BYTES]))
                error = FeedError("control line", f"a line end within {MAX_LINE_BYTES} bytes", found)
                events += self._fail(str(error))
            elif end < 0:
                self._scanned = size
                break
            else:
                line, begin, self._scanned = bytes(self._buffer[begin:end]), end + 1, 0
                events += self._take_line(line, now_ns)
        del self._buffer[:begin]
        return events

    def _take_line(self, line: bytes, now_ns: int) -> list[Event]:
        try:
            if self.phase is Phase.AUTHENTICATION:
                self.request = AuthRequest.parse(line)
                self.phase = Phase.VERDICT
                return [Authenticate(self.request, self._challenge)]
            request = parse_request(line)
            return self._subscribe(request) if isinstance(request, SubscriptionRequest) else self._start(now_ns)
        except FeedError as error:
            if self.phase is not Phase.SUBSCRIPTION:
                return self._fail(str(error))
            self._fault = self._fault or str(error)
            return []

    def _subscribe(self, request: SubscriptionRequest) -> list[Event]:
        if self._fault is not None:
            return []
        if self.phase is Phase.STREAM and request.start_ns is not None:
            raise FeedError("subscription, start", "none in a session that has started", str(request.start_ns))
        if self.phase is Phase.STREAM and request.replay is not None:
            raise FeedError("subscription, replay", "none in a session that has started", str(request.replay))
        if self._partial is not None and replace(request, symbols=(), is_last=False) != self._partial:
            raise FeedError("subscription", "the rest of the one before (is_last=0)", "another one")
        symbols = self._symbols + len(self._partial_symbols) + len(request.symbols)
        if symbols > MAX_SYMBOLS or self._subscriptions == MAX_SUBSCRIPTIONS:
            most = f"at most {MAX_SUBSCRIPTIONS} of them with {MAX_SYMBOLS} symbols in all"
            raise FeedError("subscription", most, f"number {self._subscriptions + 1} and {symbols} symbols")
        self._partial_symbols += request.symbols
        if not request.is_last:
            self._partial = replace(request, symbols=())
            return []
        complete = replace(request, symbols=tuple(self._partial_symbols))
        self._partial, self._partial_symbols = None, []
        self._symbols = symbols
        self._subscriptions += 1
        return [Subscribed(complete)]

    def _start(self, now_ns: int) -> list[Event]:
        if self.phase is Phase.STREAM:
            raise FeedError("start_session", "one start", "another one")
        if self._partial is not None:
            rest = FeedError("start_session", "the rest of the subscription before it (is_last=0)", "the start")
            self._fault = self._fault or str(rest)
        if self._fault is not None:
            return self._fail(self._fault)
        self.phase = Phase.STREAM
        self.sent(now_ns)
        return [SessionStarted()]

    def _fail(self, text: str) -> list[Event]:
        """Give the client up: with a line while it reads lines, with a record afterwards."""
        if self.phase is Phase.AUTHENTICATION:
            return self.refuse(text)
        self._close()
        return [Failed(INVALID_SUBSCRIPTION, text)]

    def _close(self) -> None:
        self.phase = Phase.CLOSED
        self._deadline_ns = None
        self._buffer = bytearray()
        self._scanned = 0
        self._partial, self._partial_symbols = None, []
