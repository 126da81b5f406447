"""A gateway for the engine's tests: behaviours of a FeedServer that speak the live protocol, word by word.

Not the product's gateway (replay.streamer), whose clock and pictures are tried in test_end_to_end: here a test says
what is sent and how it ends.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine_worker.tests.builders import KEY, START_NS, SYMBOLS, Behaviour
from orderbook.book.mbo import MboArray
from replay.feed import live_records
from replay.feed.cram import CHALLENGE_BYTES, make_challenge, verify
from replay.feed.live_encoding import LiveEncoder
from replay.feed.live_messages import SubscriptionRequest
from replay.feed.live_server import Authenticate, Event, LiveServer, Refused, Send, SessionStarted, Subscribed
from replay.feed.live_symbology import resolve


class Session:
    """One client that was let in and has started its session; what it was sent is counted by nobody."""

    def __init__(
        self, peer: socket.socket, key: str = KEY, *, replay_id: int | None = 1, greeting: bytes | None = None
    ) -> None:
        """Let a client in, and name the replay if it asks for that. Raises OSError when it is refused or goes."""
        self.peer = peer
        self.subscriptions: list[SubscriptionRequest] = []
        self._key = key
        self._started = False
        self._machine = LiveServer(make_challenge(os.urandom(CHALLENGE_BYTES)), time.monotonic_ns())
        opening = self._machine.opening()
        peer.sendall(opening if greeting is None else greeting + opening[opening.index(b"\n") :])
        while not self._started:
            data = peer.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the client left")
            self._carry_out(self._machine.receive(data, time.monotonic_ns()))
        assert self._machine.request is not None
        self.request = self._machine.request
        self._encoder = LiveEncoder(self.request)
        peer.sendall(self._encoder.opening(self.request.dataset, START_NS))
        for request in self.subscriptions:
            self.say(live_records.subscription_ack(START_NS, request))
            found = resolve(request, SYMBOLS).found
            self.say(*(live_records.symbol_mapping(START_NS, one, request.stype_in) for one in found))
        if replay_id is not None and any(request.replay is not None for request in self.subscriptions):
            self.follows(replay_id)

    def _carry_out(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Send(data):
                    self.peer.sendall(data)
                case Refused(line):
                    self.peer.sendall(line)
                    raise ConnectionResetError("refused")
                case Authenticate(request, challenge):
                    known = verify(challenge, self._key, request.auth)
                    self._carry_out(self._machine.accept(17, 0) if known else self._machine.refuse())
                case Subscribed(request):
                    self.subscriptions.append(request)
                case SessionStarted():
                    self._started = True

    def send(self, records: MboArray) -> None:
        self.peer.sendall(self._encoder.records(records, "mbo", START_NS))

    def say(self, *messages: bytes) -> None:
        self.peer.sendall(self._encoder.messages(messages, START_NS))

    def follows(self, replay_id: int) -> None:
        """Say which replay comes."""
        self.say(live_records.replay_follows(START_NS, replay_id))

    def complete(self) -> None:
        """Say that the replay is over."""
        self.say(live_records.replay_completed(START_NS, "mbo"))


def live(
    *records: MboArray, key: str = KEY, then: Callable[[Session], object] = lambda session: None, **how: Any
) -> Behaviour:
    """Let a client in, send records, do what the test says, and close; ``how`` is for the session."""

    def behave(peer: socket.socket) -> None:
        session = Session(peer, key, **how)
        for part in records:
            session.send(part)
        then(session)
        peer.close()

    return behave


def complete(session: Session) -> None:
    session.complete()
