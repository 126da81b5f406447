"""Who is connected to this web process, how many may be, and until when: one register for each event loop. Floor 4.

A login or key is looked at when a client comes, and again once a minute: all of them with one thread hop and a query
of each kind, however many clients there are. Who signs out is out at once, in every process: orderbook.signing_out.
His login is kept in mind for a while, because it is told before the session has gone from the database.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
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
SIGNED_OUT_S: Final = 60.0
"""So long nobody is let in with a login that was signed out."""
IPV6_HOST_BITS: Final = 64
"""The part of an IPv6 address that its owner chooses freely."""

Refusal = tuple[Close, str]

Key = TypeVar("Key")

_registers: dict[asyncio.AbstractEventLoop, "Visitors"] = {}


class Visitor(NamedTuple):
    """Whose connection it is. With an id, because one login may have many connections."""

    number: int
    pass_: Pass
    place: str
    """Its address, as far as it counts."""


class Visitors:
    """The clients that were let in and are not gone."""

    def __init__(self) -> None:
        self._viewers: dict[Visitor, Viewer] = {}
        self._of_user: Counter[int | None] = Counter()
        self._at_place: Counter[str] = Counter()
        self._turned_away = 0
        self._signed_out: dict[str, float] = {}  # by the digest of a session, until when; oldest first
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._recheck())
        current_hub().listen(SIGNED_OUT, lambda message: self._sign_out(message["session"]))

    @property
    def is_full(self) -> bool:
        """Say whether a tenth more than may be are here: no room even to tell a client that it is one too many."""
        most: int = settings.WS_MAX_CLIENTS
        return len(self._viewers) + self._turned_away > most + most // 10

    def refusal(self, pass_: Pass, address: str) -> Refusal | None:
        """Return why one of these is not let in: signed out, or one too many; None when it is let in."""
        if pass_.session_key and self._signed_out.get(digest_of(pass_.session_key), 0.0) > self._loop.time():
            return Close.SIGNED_OUT, "signed out"
        for what, present, most in (
            ("of this process", len(self._viewers), settings.WS_MAX_CLIENTS),
            ("of this address", self._at_place[place_of(address)], settings.WS_MAX_PER_ADDRESS),
            ("of this user", self._of_user[pass_.user_id] if pass_.user_id else 0, settings.WS_MAX_PER_USER),
        ):
            if present >= most:
                return Close.TOO_MANY_CLIENTS, f"too many clients {what}: {most} are connected"
        return None

    @contextmanager
    def turning_away(self) -> Iterator[None]:
        """Count a client that was refused, until it has gone."""
        self._turned_away += 1
        try:
            yield
        finally:
            self._turned_away -= 1

    def enter(self, pass_: Pass, address: str, viewer: Viewer) -> Visitor:
        """Note that a client has come."""
        self._number += 1
        visitor = Visitor(self._number, pass_, place_of(address))
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
        _add(self._at_place, visitor.place, by)

    def _sign_out(self, session: str) -> None:
        now = self._loop.time()
        self._signed_out = {digest: until for digest, until in self._signed_out.items() if until > now}
        self._signed_out[session] = now + SIGNED_OUT_S
        for visitor, viewer in self._viewers.items():
            if visitor.pass_.session_key and digest_of(visitor.pass_.session_key) == session:
                viewer.close(Close.SIGNED_OUT, "signed out")

    async def _recheck(self) -> None:
        """Close the clients whose login or key has ended, once a minute, for ever."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                await self._look_again()
            except (DatabaseError, InterfaceError) as error:  # who was let in stays until it can be asked
                log.warning("logins of live clients: PostgreSQL does not answer (%s); trying again in a minute", error)
            except Exception:  # nor may any other fault end the looking
                log.exception("logins of live clients: the look failed; trying again in a minute")

    async def _look_again(self) -> None:
        ended = await database_sync_to_async(ended_passes)({visitor.pass_ for visitor in self._viewers})
        for visitor, viewer in self._viewers.items():
            if visitor.pass_ in ended:
                viewer.close(Close.SIGNED_OUT, "the login or key has ended")


def place_of(address: str) -> str:
    """Return what of an address is counted: of IPv6 the /64, which is one customer's; whatever else it is, all of it.

    >>> place_of("2001:db8::17"), place_of("::ffff:192.0.2.7"), place_of("192.0.2.7")
    ('2001:db8::/64', '192.0.2.7', '192.0.2.7')
    """
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> IPV6_HOST_BITS << IPV6_HOST_BITS)}/{128 - IPV6_HOST_BITS}"


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
