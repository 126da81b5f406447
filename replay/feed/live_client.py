"""The client's side of one live connection, sans-I/O: from the greeting to the end of the stream. Floor 1.

To its owner it is a decoder (``StreamDecoder``) that also has something to say: what ``to_send`` returns goes out
behind every ``received``. Plain DBN only, so that records are views of the receive buffer. It speaks to our server
and to the vendor's: keys that it does not know are no fault. It never connects, waits or looks at a clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import numpy as np

from orderbook.book.mbo import MBO, MboArray
from replay.feed import live_records
from replay.feed.cram import BUCKET_LENGTH, parse_response, respond
from replay.feed.dbn_codec import DbnStreamDecoder, Notice
from replay.feed.live_messages import (
    HEARTBEAT_INTERVAL_S,
    AuthRequest,
    AuthResponse,
    Challenge,
    Greeting,
    SessionStart,
    SubscriptionRequest,
)
from replay.feed.stream import BUFFER_BYTES, FeedError, shown

HANDSHAKE_TIMEOUT_S: Final = 30
SILENCE_MARGIN_S: Final = 10
"""A gateway is gone when it says nothing for a heartbeat interval and this much more."""
MAX_ANSWER_BYTES: Final = 4096
"""No line of a gateway is longer."""

_EVENTS_KEPT: Final = 200
_SECOND_NS: Final = 10**9


class GatewayRefused(FeedError):
    """The gateway does not let us in; the same key will be refused again."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The gateway let us in."""

    session_id: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """The gateway says something: an acknowledgement, a warning; ``code`` is one of live_records."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplayFollows:
    """Said once to whoever asked with ``replay``: this replay comes, and in this connection no other."""

    replay_id: int


@dataclass(frozen=True, slots=True)
class ReplayCompleted:
    """What was asked for from a start on has caught up with the present."""

    text: str


@dataclass(frozen=True, slots=True)
class GatewayError:
    """The gateway reports an error; behind a fatal one it closes."""

    code: int
    text: str
    fatal: bool


Event = LoggedIn | Told | ReplayFollows | ReplayCompleted | GatewayError


class _Phase(Enum):
    GREETING = auto()
    CHALLENGE = auto()
    VERDICT = auto()
    STREAM = auto()


class LiveClient:
    """One connection to a gateway; a new one needs a new client."""

    def __init__(
        self,
        key: str,
        dataset: str,
        subscriptions: Sequence[SubscriptionRequest],
        now_ns: int,
        *,
        heartbeat_interval_s: int = HEARTBEAT_INTERVAL_S,
        of_ours: Sequence[SubscriptionRequest] | None = None,
        client: str = "Batonic",
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """Prepare a connection made at ``now_ns`` of a monotonic clock. Raises ValueError for a key that is none.

        ``of_ours`` is what a gateway of ours is asked for instead, which understands more.
        """
        if len(key) < BUCKET_LENGTH or not (key.isascii() and key.isprintable()) or "|" in key:
            raise ValueError(f"expected a key of at least {BUCKET_LENGTH} printable characters, found {len(key)}")
        self._key, self._dataset, self._subscriptions = key, dataset, subscriptions
        self._of_ours = of_ours
        self.is_ours = False
        """Whether the gateway is one of ours; known behind its greeting."""
        self._heartbeat_interval_s, self._client = heartbeat_interval_s, client
        self._phase = _Phase.GREETING
        self._lines = bytearray(MAX_ANSWER_BYTES)
        self._end = 0  # of what has arrived of the lines
        self._out = bytearray()
        self._decoder = DbnStreamDecoder(buffer_bytes)
        self._notices_seen = 0
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._fatal: GatewayError | None = None
        self._heard = False
        self._deadline_ns = now_ns + HANDSHAKE_TIMEOUT_S * _SECOND_NS

    def __repr__(self) -> str:
        return f"<LiveClient {self._phase.name} {self._dataset}, {len(self._subscriptions)} subscriptions>"

    @property
    def symbols(self) -> dict[int, str]:
        """instrument_id -> raw symbol, as far as the gateway has told."""
        return self._decoder.symbols

    @property
    def rejected(self) -> dict[str, int]:
        """Records that were no MBO, by kind."""
        return self._decoder.rejected

    @property
    def _streaming(self) -> bool:
        return self._phase is _Phase.STREAM

    @property
    def left(self) -> int:
        """Bytes of a line of the handshake, or of a record, that has not ended."""
        return self._decoder.left if self._streaming else self._end

    def space(self) -> memoryview:
        """Return where to receive into."""
        if self._streaming:
            return self._decoder.space()
        return memoryview(self._lines)[self._end :]

    def received(self, n: int) -> MboArray:
        """Return the records that ``n`` more bytes complete, valid until ``space()``.

        Raises FeedError when the connection is of no more use, GatewayRefused when no other one would be.
        """
        self._heard = self._heard or n > 0
        if self._streaming:
            try:
                return self._decoder.received(n)
            finally:
                self._take_notices()
        self._end += n
        self._take_lines()
        return np.empty(0, MBO)

    def finish(self) -> None:
        """Say that the gateway has closed. Raises FeedError unless it closed between two records, without an error."""
        if not self._streaming:
            raise FeedError("handshake", f"the {self._phase.name.lower()}", "the end of the stream")
        self._decoder.received(0)  # raises what is wrong behind the last records
        if self._fatal is not None:
            raise FeedError("stream", "records", f"error {self._fatal.code} and the end: {self._fatal.text}")
        self._decoder.finish()

    def to_send(self) -> bytes:
        """Return what goes out now, once."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def events(self) -> list[Event]:
        """Return what the gateway has said since the last call; the oldest are lost beyond 200."""
        events = list(self._events)
        self._events.clear()
        return events

    def watch(self, now_ns: int) -> int:
        """Return at what time the gateway counts as gone, unless it is heard. Raises FeedError when it is gone.

        To be called again at that time, and behind ``received``: all that has arrived is taken as heard now.
        """
        if self._heard and self._streaming:
            self._deadline_ns = now_ns + (self._heartbeat_interval_s + SILENCE_MARGIN_S) * _SECOND_NS
        self._heard = False
        if now_ns >= self._deadline_ns:
            expected = "records or a heartbeat" if self._streaming else f"the {self._phase.name.lower()}"
            raise FeedError("gateway", expected, "silence")
        return self._deadline_ns

    def _take_lines(self) -> None:
        """Consume the complete lines of the handshake."""
        while (end := self._lines.find(b"\n", 0, self._end)) >= 0:
            line, left = bytes(self._lines[:end]), self._end - end - 1
            self._lines[:left] = self._lines[end + 1 : self._end]
            self._end = left
            self._answer(line)
            if self._streaming and left:
                raise FeedError("handshake", "nothing before start_session", shown(bytes(self._lines[:left])))
        if self._end == MAX_ANSWER_BYTES:
            raise FeedError("handshake", f"a line end within {MAX_ANSWER_BYTES} bytes", shown(bytes(self._lines)))

    def _answer(self, line: bytes) -> None:
        """Take a line of the handshake, and prepare what we say to it."""
        if self._phase is _Phase.GREETING:
            self.is_ours = Greeting.parse(line).is_ours
            if self.is_ours and self._of_ours is not None:
                self._subscriptions = self._of_ours
            self._phase = _Phase.CHALLENGE
        elif self._phase is _Phase.CHALLENGE:
            response = parse_response(respond(Challenge.parse(line).cram, self._key))
            request = AuthRequest(
                response, self._dataset, heartbeat_interval_s=self._heartbeat_interval_s, client=self._client
            )
            self._out += request.encode()
            self._phase = _Phase.VERDICT
        else:
            self._take_verdict(AuthResponse.parse(line))

    def _take_verdict(self, verdict: AuthResponse) -> None:
        if not verdict.success:
            raise GatewayRefused("authentication", "to be let in", verdict.error or "no reason given")
        self._events.append(LoggedIn(verdict.session_id))
        for subscription in self._subscriptions:
            self._out += subscription.encode()
        self._out += SessionStart().encode()
        self._phase = _Phase.STREAM

    def _take_notices(self) -> None:
        """Turn what the decoder has noted into events."""
        count = self._decoder.notice_count - self._notices_seen
        self._notices_seen += count
        notices = self._decoder.notices
        for index in range(max(len(notices) - count, 0), len(notices)):
            event = _event(notices[index])
            if event is not None:
                self._events.append(event)
            if isinstance(event, GatewayError) and event.fatal:
                self._fatal = event


def _event(notice: Notice) -> Event | None:
    if notice.is_error:
        return GatewayError(notice.code, notice.text, notice.code in live_records.FATAL_CODES)
    if notice.code == live_records.HEARTBEAT or notice.text == "Heartbeat":  # old gateways send no codes
        return None
    if notice.code == live_records.REPLAY_COMPLETED:
        return ReplayCompleted(notice.text)
    replay_id = live_records.replay_told(notice.code, notice.text)
    if replay_id is not None:
        return ReplayFollows(replay_id)
    return Told(notice.code, notice.text)
