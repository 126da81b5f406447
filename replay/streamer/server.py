"""The streamer: listens, keeps the market clock, and lets any number of clients follow one replay. Floor 1.

Everything here runs on one event loop. No Django: what it says of itself goes to the ``report`` that its owner
gives, and the files come through ``open_recording``.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final, cast

from replay.feed.raw_protocol import make_framing
from replay.feed.stream import FramingName
from replay.streamer.derived_feed import DerivedFeed
from replay.streamer.gateway import Gateway, GatewayConfig
from replay.streamer.listener import MAX_CLIENTS, Address, Listener, StreamerError
from replay.streamer.messages import PublicationStatus, ReplayState, StreamerStatus
from replay.streamer.painter import PAINTER
from replay.streamer.patience import Patience
from replay.streamer.publication import Publication
from replay.streamer.raw_session import RawSession
from replay.streamer.session import Session
from replay.streamer.stretch import Cursor
from replay.streamer.timekeeper import IndexOpener, Opener, Timekeeper

__all__ = ["Streamer", "StreamerError"]

Report = Callable[[StreamerStatus], None]

_NO_REPLAY: Final[PublicationStatus] = {
    "state": ReplayState.IDLE,
    "replay_id": None,
    "generation": 0,
    "dataset": "",
    "pace": None,
    "skip_idle_s": None,
    "achieved_records_per_s": 0,
    "position": 0,
    "records": 0,
    "published": 0,
    "event": None,
    "ts_event": "0",
    "ts_recv": "0",
    "loops": 0,
    "window_from": 0,
    "window_to": 0,
    "error": "",
}


class Streamer(Timekeeper):
    """The daemon behind ports 9000 and 13000: what Timekeeper does, for those who are connected."""

    def __init__(
        self,
        open_recording: Opener,
        framing: FramingName,
        host: str,
        port: int,
        report: Report = lambda status: None,
        open_index: IndexOpener = lambda recording: None,
        gateway: GatewayConfig | None = None,
        make_patience: Callable[[], Patience] = Patience,
    ) -> None:
        """Listen nowhere yet; without ``gateway`` there is no live port."""
        super().__init__(open_recording, open_index)
        self._framing = framing
        self._report = report
        self._raw = Listener(host, port, self._admit, self.left)
        self._gateway = None if gateway is None else Gateway(gateway, self, make_patience)
        self._make_patience = make_patience
        self._feeds: dict[Publication, DerivedFeed] = {}

    async def listen(self) -> None:
        """Open the ports; 0 takes a free one. Raises StreamerError."""
        self._raw.open()
        if self._gateway is not None:
            try:
                self._gateway.open()
            except StreamerError:
                self._raw.shut()
                raise

    async def close(self, grace_s: float = 3.0) -> None:
        """Stop the replay, flush what is due to every client as long as the grace lasts, and close the ports."""
        self.stop()
        for listener in self._listeners():
            listener.shut()
        following = [
            task for listener in self._listeners() for session, task in listener.sessions.items() if session.cursor
        ]
        if following:
            await asyncio.wait(following, timeout=grace_s)
        await self._raw.drop()
        if self._gateway is not None:
            await self._gateway.close()
        await self._end_clocks()

    @property
    def port(self) -> int:
        """The raw port."""
        return self._raw.port

    @property
    def host(self) -> str:
        return self._raw.host

    @property
    def gateway_port(self) -> int:
        """The live port; 0 without one."""
        return 0 if self._gateway is None else self._gateway.listener.port

    @property
    def slow_readers(self) -> int:
        """Clients that were closed because they took nothing."""
        return sum(listener.slow_readers for listener in self._listeners())

    def derived(self, publication: Publication) -> DerivedFeed:
        """Return what computes the schemas beside mbo, once for all who follow a replay."""
        if publication not in self._feeds:
            self._feeds[publication] = DerivedFeed(
                publication.recording.records, publication.picture, publication.arrival, PAINTER
            )
        return self._feeds[publication]

    def left(self) -> None:
        """Say that a client has gone; what was derived for nobody but it goes too."""
        followed = {session.publication for session in self._sessions()}
        self._feeds = {each: feed for each, feed in self._feeds.items() if each in followed}
        self.taken()

    def status(self) -> StreamerStatus:
        publication = self.publication
        replay, lag_records = _NO_REPLAY, 0
        if publication is not None:
            replay = publication.status(time.monotonic_ns())
            lags = (publication.published - cursor.published for cursor in self._following(publication))
            lag_records = max(lags, default=0)
        live = {
            "pid": os.getpid(),
            "clients": sum(1 for _ in self._sessions()),
            "lag_records": lag_records,
            "raw_port": self.port,
            "gateway_port": self.gateway_port,
        }
        return cast(StreamerStatus, {**replay, **live})

    def _following(self, publication: Publication) -> list[Cursor]:
        return [
            session.cursor
            for session in self._sessions()
            if session.publication is publication and session.cursor is not None and session.holds_up
        ]

    def _begins(self, publication: Publication) -> None:
        for session in self._sessions():
            session.attend(publication)

    def _wake(self) -> None:
        for session in self._sessions():
            session.wake()

    def _tell(self, status: StreamerStatus) -> None:
        self._report(status)

    def _listeners(self) -> list[Listener]:
        return [self._raw] if self._gateway is None else [self._raw, self._gateway.listener]

    def _sessions(self) -> Iterator[Session]:
        for listener in self._listeners():
            yield from listener.sessions

    def _admit(self, sock: socket.socket, address: Address) -> RawSession | None:
        """Let a client of the raw port in."""
        if len(self._raw.sessions) >= MAX_CLIENTS:
            return None
        return RawSession(sock, f"{address[0]}:{address[1]}", self, make_framing(self._framing), self._make_patience())
