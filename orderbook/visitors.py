"""Who is connected to this web process, how many may be, and until when: one register for each event loop. Floor 4.

A login or key is looked at when a client comes, and again once a minute: all of them with one thread hop and a query
of each kind, however many clients there are. Who signs out is out at once, in every process: orderbook.signing_out.
"""

import asyncio
import logging
from collections import Counter
from typing import Final, NamedTuple, TypeVar

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from orderbook.hub import current_hub
from orderbook.signing_out import SIGNED_OUT, digest_of
from orderbook.socket_counts import COUNTS
from orderbook.socket_protocol import Close
from orderbook.viewer import Viewer
from replay.passes import Pass, ended_passes

log = logging.getLogger(__name__)

RECHECK_S: Final = 60.0

Key = TypeVar("Key")

_registers: dict[asyncio.AbstractEventLoop, "Visitors"] = {}


class Visitor(NamedTuple):
    """Whose connection it is. With an id, because one login may have many connections."""

    number: int
    pass_: Pass
    address: str


class Visitors:
    """The clients that were let in and are not gone."""

    def __init__(self) -> None:
        self._viewers: dict[Visitor, Viewer] = {}
        self._of_user: Counter[int | None] = Counter()
        self._at_address: Counter[str] = Counter()
        self._number = 0
        self._task = asyncio.get_running_loop().create_task(self._recheck())
        current_hub().listen(SIGNED_OUT, lambda message: self._sign_out(message["session"]))

    def refusal(self, pass_: Pass, address: str) -> str:
        """Return why one more of these is too many; empty when it is not."""
        for what, present, most in (
            ("of this process", len(self._viewers), settings.WS_MAX_CLIENTS),
            ("of this address", self._at_address[address], settings.WS_MAX_PER_ADDRESS),
            ("of this user", self._of_user[pass_.user_id] if pass_.user_id else 0, settings.WS_MAX_PER_USER),
        ):
            if present >= most:
                return f"too many clients {what}: {most} are connected"
        return ""

    def enter(self, pass_: Pass, address: str, viewer: Viewer) -> Visitor:
        """Note that a client has come."""
        self._number += 1
        visitor = Visitor(self._number, pass_, address)
        self._viewers[visitor] = viewer
        self._count(visitor, 1)
        COUNTS.admitted += 1
        return visitor

    def leave(self, visitor: Visitor) -> None:
        """Note that it has gone."""
        del self._viewers[visitor]
        self._count(visitor, -1)

    def _count(self, visitor: Visitor, by: int) -> None:
        COUNTS.clients += by
        _add(self._of_user, visitor.pass_.user_id, by)
        _add(self._at_address, visitor.address, by)

    def _sign_out(self, session: str) -> None:
        for visitor, viewer in self._viewers.items():
            if visitor.pass_.session_key and digest_of(visitor.pass_.session_key) == session:
                viewer.close(Close.SIGNED_OUT, "signed out")

    async def _recheck(self) -> None:
        """Close the clients whose login or key has ended, once a minute, for ever."""
        while True:
            await asyncio.sleep(RECHECK_S)
            passes = {visitor.pass_ for visitor in self._viewers}
            try:
                ended = await database_sync_to_async(ended_passes)(passes)
            except (DatabaseError, InterfaceError) as error:  # who was let in stays until it can be asked
                log.warning("logins of live clients: PostgreSQL does not answer (%s); trying again in a minute", error)
                continue
            for visitor, viewer in self._viewers.items():
                if visitor.pass_ in ended:
                    viewer.close(Close.SIGNED_OUT, "the login or key has ended")


def _add(counter: Counter[Key], key: Key, by: int) -> None:
    counter[key] += by
    if not counter[key]:
        del counter[key]


def current_visitors() -> Visitors:
    """Return the register of the running event loop, making it on first use."""
    loop = asyncio.get_running_loop()
    visitors = _registers.get(loop)
    if visitors is None:
        for closed in [other for other in _registers if other.is_closed()]:
            del _registers[closed]
        visitors = _registers[loop] = Visitors()
    return visitors
