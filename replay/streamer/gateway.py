"""The live port: who is admitted to it, and whose key is taken back. Floor 1."""

import asyncio
import itertools
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from replay.feed.cram import CHALLENGE_BYTES, make_challenge
from replay.feed.live_messages import AuthRequest
from replay.feed.live_server import CONNECTION_LIMIT_REACHED, LiveServer
from replay.streamer.doorman import RECHECK_S, Doorman, Keys, TurnedAway
from replay.streamer.listener import MAX_CLIENTS, Address, Listener
from replay.streamer.live_session import LiveSession
from replay.streamer.patience import Patience
from replay.streamer.session import Stage

logger = logging.getLogger(__name__)

MAX_STRANGERS: Final = 64
"""Connections that have shown no key yet. They take no place of those that have, and are never a reason to refuse."""

REVOKED_GRACE_S: Final = 5.0
"""A client whose key was taken back is told so; one that has not read that by then is closed all the same."""


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
        self.listener = Listener(config.host, config.port, self._admit, stage.left)
        self._config = config
        self._stage = stage
        self._make_patience = make_patience
        self._doorman = Doorman(config.keys)
        self._session_ids = itertools.count(int(time.time()))
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
        if self._doorman.turns_away(address[0]):
            return None
        self._make_room()
        return LiveSession(
            sock,
            address,
            self._stage,
            LiveServer(make_challenge(os.urandom(CHALLENGE_BYTES)), time.monotonic_ns()),
            self._let_in,
            next(self._session_ids),
            self._make_patience(),
        )

    def _make_room(self) -> None:
        """Let one of too many strangers go: of the address that has most, who has been silent for longest."""
        strangers = [session for session in self._open_sessions() if not session.secret]
        if len(strangers) < MAX_STRANGERS:
            return
        (most, _), *_ = Counter(session.address for session in strangers).most_common(1)
        theirs = [session for session in strangers if session.address == most]
        leaving = next((session for session in theirs if session.is_silent), theirs[0])
        logger.warning("client %s is closed: too many have shown no key", leaving.peer)
        self.listener.sessions[leaving].cancel()

    async def _let_in(self, request: AuthRequest, challenge: str, address: str) -> str:
        """Return the key that an answer was made with, if there is a place for it. Raises TurnedAway."""
        secret = await self._doorman.let_in(request, challenge, address)
        guests = (each for each in self._open_sessions() if each.secret and not self._doorman.is_ours(each.secret))
        if not self._doorman.is_ours(secret) and sum(1 for _ in guests) >= MAX_CLIENTS:
            raise TurnedAway(CONNECTION_LIMIT_REACHED)
        return secret

    def _open_sessions(self) -> list[LiveSession]:
        """Return who is connected and stays so, in the order in which they came."""
        sessions = self.listener.sessions.items()
        return [each for each, task in sessions if isinstance(each, LiveSession) and not task.cancelling()]

    async def _keep_checking(self) -> None:
        """Close the connections of keys that are no longer usable."""
        while True:
            await asyncio.sleep(self._config.recheck_s)
            for secret in {session.secret for session in self._open_sessions() if session.secret}:
                if not await self._doorman.still_good(secret):
                    for session in self._open_sessions():
                        if session.secret == secret and session.deactivate():
                            task = self.listener.sessions[session]
                            asyncio.get_running_loop().call_later(REVOKED_GRACE_S, task.cancel)
