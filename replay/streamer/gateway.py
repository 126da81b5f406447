"""The live port: who is admitted to it, and whose key is taken back. Floor 1."""

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from replay.feed.cram import CHALLENGE_BYTES, make_challenge
from replay.feed.live_server import LiveServer
from replay.streamer.doorman import RECHECK_S, Doorman, Keys
from replay.streamer.listener import MAX_CLIENTS, Address, Listener
from replay.streamer.live_session import LiveSession
from replay.streamer.patience import Patience
from replay.streamer.session import Stage

MAX_TURNED_AWAY: Final = 16
"""Connections beyond the limit that are told so at a time, which takes a log-in; any more are just closed."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the live port is, and who is let in."""

    host: str = "127.0.0.1"
    port: int = 13000
    keys: Keys = field(default_factory=Keys)
    recheck_s: float = RECHECK_S


class Gateway:
    """The live port of a streamer."""

    def __init__(self, config: GatewayConfig, stage: Stage, make_patience: Callable[[], Patience] = Patience) -> None:
        self.listener = Listener(config.host, config.port, self._admit, stage.taken)
        self._config = config
        self._stage = stage
        self._make_patience = make_patience
        self._doorman = Doorman(config.keys)
        self._session_ids = itertools.count(int(time.time()))
        self._turned_away: set[LiveSession] = set()
        self._checking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Open the port. Raises StreamerError."""
        self.listener.open()
        self._checking = asyncio.create_task(self._keep_checking())

    async def close(self) -> None:
        """Close every connection, and forget the keys."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self.listener.drop()
        self._doorman.close()

    def _admit(self, sock: socket.socket, address: Address) -> LiveSession | None:
        self._turned_away &= self.listener.sessions.keys()
        admitted = len(self.listener.sessions) - len(self._turned_away)
        if len(self._turned_away) >= MAX_TURNED_AWAY:
            return None
        session = LiveSession(
            sock,
            address,
            self._stage,
            LiveServer(make_challenge(os.urandom(CHALLENGE_BYTES)), time.monotonic_ns()),
            self._doorman,
            next(self._session_ids),
            is_one_too_many=admitted >= MAX_CLIENTS,
            patience=self._make_patience(),
        )
        if admitted >= MAX_CLIENTS:
            self._turned_away.add(session)
        return session

    async def _keep_checking(self) -> None:
        """Close the connections of keys that are no longer usable."""
        while True:
            await asyncio.sleep(self._config.recheck_s)
            sessions = [each for each in self.listener.sessions if isinstance(each, LiveSession) and each.secret]
            for secret in {session.secret for session in sessions}:
                if not await self._doorman.still_good(secret):
                    for session in sessions:
                        if session.secret == secret:
                            session.deactivate()
