"""The live protocol as the engine speaks it: logged in, subscribed, and watched for silence. Floor 3.

The machine that knows the protocol is replay.feed.live_client; here is the socket around it. A gateway of ours and
the vendor's are the same to it. The end of a replay is said (REPLAY_COMPLETED) and then shown by closing: a gateway
that only closes has died, or been told to, and the replay may go on in the next connection.
"""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final

from engine_worker.connection import Connection, FeedInterrupted, fault_of, log_said
from engine_worker.resumption import Known
from engine_worker.stream_kinds import first_plain
from orderbook.book.mbo import MboArray
from replay.feed.live_client import GatewayError, LiveClient, LoggedIn, ReplayCompleted, ReplayFollows, Told
from replay.feed.live_messages import SubscriptionRequest
from replay.feed.live_records import REPLAY_COMPLETED
from replay.feed.stream import FeedError

HEARTBEAT_INTERVAL_S: Final = 10
"""A gateway that says nothing for 20 s, the margin of the machine included, is gone."""

_LOOK_S: Final = 0.2
_SEND_WITHIN_S: Final = 5.0

Clock = Callable[[], int]
"""Monotonic, ns."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Login:
    """What a gateway is asked for: all MBO of these symbols, beginning with their books as they are."""

    key: str = field(repr=False)
    dataset: str
    symbols: tuple[str, ...]


def live_feed(
    login: Login, clock_ns: Clock = time.monotonic_ns, known: Callable[[], Known] | None = None
) -> Callable[[socket.socket, Event], "LiveConnection"]:
    """Return what makes a connection of a socket, by logging in on it.

    ``known`` says what a gateway of ours is told of the replay that we know; any other one is asked for the present.
    """
    return lambda peer, stop: log_in(peer, login, stop, clock_ns, known and known())


def log_in(
    peer: socket.socket, login: Login, stop: Event, clock_ns: Clock, known: Known | None = None
) -> "LiveConnection":
    """Return the connection once the gateway has let us in and knows what we want.

    Raises FeedRefused when it does not let us in, FeedInterrupted when it breaks off, is silent, or ``stop`` is set.
    """
    wanted = SubscriptionRequest("mbo", login.symbols, snapshot=True, id=1)
    machine = LiveClient(
        login.key,
        login.dataset,
        [wanted],
        clock_ns(),
        heartbeat_interval_s=HEARTBEAT_INTERVAL_S,
        of_ours=known and [replace(wanted, replay=known.replay_id, start_ns=known.start_ns)],
    )
    connection = LiveConnection(peer, machine, clock_ns, asks_name=known is not None)
    while not connection.is_let_in:
        if stop.is_set():
            raise FeedInterrupted("stopped before the gateway let us in")
        connection.receive(_LOOK_S)  # brings no records before that
    connection.is_ours = machine.is_ours
    return connection


class LiveConnection(Connection):
    """One connection to a gateway; at most one replay."""

    def __init__(self, peer: socket.socket, machine: LiveClient, clock_ns: Clock, *, asks_name: bool = False) -> None:
        super().__init__(peer, machine)
        self.is_let_in = False
        self._asks_name, self._is_named = asks_name, False
        self._machine, self._clock_ns = machine, clock_ns
        self._completed = False

    def receive(self, timeout_s: float) -> MboArray | None:
        """As ``Connection.receive``; None only when the gateway has said that the replay is over."""
        records = super().receive(timeout_s)
        if records is None:
            if not self._completed:
                raise FeedInterrupted("the gateway closed the connection before the replay was over")
            return None
        if self._asks_name and self.is_ours and not self._is_named and first_plain(records) < len(records):
            raise FeedInterrupted("expected the name of the replay before its first record, found none")
        self._answer()
        try:
            self._machine.watch(self._clock_ns())
        except FeedError as error:
            raise fault_of(error) from error
        return records

    def _answer(self) -> None:
        """Send what the machine has to say."""
        out = self._machine.to_send()
        if not out:
            return
        self._peer.settimeout(_SEND_WITHIN_S)
        try:
            self._peer.sendall(out)
        except OSError as error:
            raise FeedInterrupted(str(error)) from error

    def _name(self, replay_id: int) -> None:
        """Take it that this replay comes. Raises FeedInterrupted where another one was named before."""
        if not self._is_named:
            self.replay_id, self._is_named = replay_id, True
            log.info("the gateway brings replay %d", replay_id)
        elif replay_id != self.replay_id:
            raise FeedInterrupted(f"expected replay {self.replay_id} in this connection, found replay {replay_id}")

    def _take_notices(self) -> None:
        for event in self._machine.events():
            match event:
                case LoggedIn(session_id):
                    self.is_let_in = True
                    log.info("the gateway let us in, session %s", session_id)
                    continue
                case ReplayFollows(replay_id):
                    self._name(replay_id)
                case ReplayCompleted(text):
                    self._completed = True
                    log_said(False, REPLAY_COMPLETED, text)
                case Told(code, text):
                    log_said(False, code, text)
                case GatewayError(code, text):
                    log_said(True, code, text)
            self.notices += 1
