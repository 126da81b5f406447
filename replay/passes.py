"""Who may open a WebSocket, and whether he may still stay: by a login, a key, or PUBLIC_READ. Floor 3."""

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from replay.feed.cram import is_key
from replay.keys import find_key, usable_keys

KEY_TRUST_S: Final = 5.0

_trusted: dict[bytes, tuple[float, "Pass"]] = {}  # by the digest of a key: until when, and what it lets in
_asked: dict[bytes, "asyncio.Future[Pass | None]"] = {}  # looks that are under way


class Pass(NamedTuple):
    """What let somebody in who stays: a login or a key, either of which may end meanwhile, or PUBLIC_READ."""

    user_id: int | None = None
    """Who logged in, or whose key it is."""
    session_key: str | None = None
    key_id: int | None = None


async def websocket_pass(scope: dict[str, Any]) -> Pass | None:
    """Return what lets in who opens a WebSocket (scope behind AuthMiddlewareStack, or without cookies); None: nothing.

    A key comes in the Authorization header only: query strings end up in logs. Beside a key a login counts for nothing.
    """
    scheme, token = _key_in_header(dict(scope["headers"]).get(b"authorization", b""))
    user: User | AnonymousUser = scope.get("user", AnonymousUser())
    if scheme == b"bearer" or is_key(token):  # the password of a proxy in front comes as Basic, and is no key
        known = await _pass_of_key(token)
        if known is not None:
            return known
    elif user.is_authenticated:
        return Pass(user.pk, session_key=getattr(scope.get("session"), "session_key", None))
    return Pass() if settings.PUBLIC_READ else None


def ended_passes(passes: Collection[Pass]) -> set[Pass]:
    """Return those that would let nobody in any more. Cost: at most three queries, whatever their number."""
    keys = usable_keys({given.key_id for given in passes if given.key_id is not None}, "read")
    users = session_users({given.session_key for given in passes if given.session_key is not None})
    return {
        given
        for given in passes
        if (given.key_id is not None and given.key_id not in keys)
        or (given.session_key is not None and users.get(given.session_key) != given.user_id)
    }


def session_users(session_keys: Collection[str]) -> dict[str, int]:
    """Return who is logged in by each of these sessions: not expired, the user active, the password still the same."""
    rows = Session.objects.filter(session_key__in=session_keys, expire_date__gt=timezone.now())
    logins = {row.session_key: row.get_decoded() for row in rows} if session_keys else {}
    ids = {str(login[SESSION_KEY]) for login in logins.values() if SESSION_KEY in login}
    users = {str(user.pk): user for user in User.objects.filter(pk__in=ids, is_active=True)} if ids else {}
    return {
        session_key: user.pk
        for session_key, login in logins.items()
        if (user := users.get(login.get(SESSION_KEY, ""))) is not None
        and _is_login_of(user, login.get(HASH_SESSION_KEY, ""))
    }


def _is_login_of(user: User, proof: str) -> bool:
    """Say whether a login proves the user's password, under this SECRET_KEY or an older one."""
    proofs = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(proof, valid) for valid in proofs)


async def _pass_of_key(token: str) -> Pass | None:
    """Return what a key lets in. One that has just let somebody in is not looked up again for some seconds.

    A look takes a connection to PostgreSQL of its own: a hundred bots that come back in one second would wait for it.
    """
    digest, now = hashlib.sha256(token.encode()).digest(), time.monotonic()
    for old in [key for key, (until, _) in _trusted.items() if until <= now]:
        del _trusted[old]
    if digest in _trusted:
        return _trusted[digest][1]
    asked = _asked.get(digest)
    if asked is None or asked.get_loop() is not asyncio.get_running_loop():
        asked = _asked[digest] = asyncio.ensure_future(database_sync_to_async(_reading_key)(token))
        asked.add_done_callback(lambda _: _asked.pop(digest, None))
    known: Pass | None = await asyncio.shield(
        asked
    )  # others wait for the answer, whether or not this client still does
    if known is not None:
        _trusted[digest] = (now + KEY_TRUST_S, known)
    return known


def _reading_key(token: str) -> Pass | None:
    key = find_key(token)
    return Pass(key.owner_id, key_id=key.pk) if key is not None and "read" in key.scopes else None


def _key_in_header(value: bytes) -> tuple[bytes, str]:
    """Return the scheme of a header, in small letters, and the key in it: empty unless it is Bearer or Basic."""
    scheme, _, credentials = value.partition(b" ")
    scheme = scheme.lower()
    if scheme == b"basic":
        try:
            credentials = base64.b64decode(credentials.strip(), validate=True).partition(b":")[0]
        except binascii.Error:
            return scheme, ""
    elif scheme != b"bearer":
        return scheme, ""
    return scheme, credentials.strip().decode("latin-1")
