"""Who may read and who may control: a login session, an API key, or anyone where PUBLIC_READ is on. Floor 3.

READ_AUTH and CONTROL_AUTH go into ninja's ``auth=``. The first door that knows the caller decides; one that
knows him but must refuse raises 403; when none does, ninja answers 401. A session is checked for CSRF on
unsafe methods, a key is not: no browser sends it by itself.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBasicAuth, HttpBearer, SessionAuth

from replay.keys import find_key
from replay.models import ApiKey

CONTROL_PERMISSION: Final = "replay.control_replay"

Reader = User | AnonymousUser | ApiKey
"""Who reads: an AnonymousUser only where PUBLIC_READ is on."""


class BearerKey(HttpBearer):
    """``Authorization: Bearer db-…``."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, token: str) -> ApiKey | None:
        return _key_with_scope(token, self.scope)


class BasicKey(HttpBasicAuth):
    """HTTP basic with the key as user name and no password, as the vendor's own API takes it."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, username: str, password: str) -> ApiKey | None:
        return _key_with_scope(username, self.scope)


class LoginSession(SessionAuth):
    """A login; only then is CSRF checked, so that a stranger hears 401 and not of CSRF."""

    def __call__(self, request: HttpRequest) -> User | None:
        return super().__call__(request) if request.user.is_authenticated else None


class OperatorSession(LoginSession):
    """A login whose user may control replays."""

    def authenticate(self, request: HttpRequest, key: str | None) -> User | None:
        user: User | None = super().authenticate(request, key)
        if user is not None and not user.has_perm(CONTROL_PERMISSION):
            raise HttpError(403, f"Your account lacks the permission {CONTROL_PERMISSION}.")
        return user


def public_read(request: HttpRequest) -> AnonymousUser | None:
    """Let anyone read where the site says so."""
    return AnonymousUser() if settings.PUBLIC_READ else None


Door = Callable[[HttpRequest], Any]
READ_AUTH: Final[list[Door]] = [BearerKey("read"), BasicKey("read"), LoginSession(), public_read]
CONTROL_AUTH: Final[list[Door]] = [BearerKey("control"), BasicKey("control"), OperatorSession()]


async def websocket_reader(scope: dict[str, Any]) -> Reader | None:
    """Return who opens a WebSocket (scope behind AuthMiddlewareStack); None means refuse it.

    A key comes in the Authorization header only: query strings end up in logs.
    """
    token = _key_in_header(dict(scope["headers"]).get(b"authorization", b""))
    if token:
        key = await sync_to_async(find_key)(token)
        if key is not None and "read" in key.scopes:
            return key
    user: User | AnonymousUser = scope.get("user", AnonymousUser())
    return user if user.is_authenticated or settings.PUBLIC_READ else None


def _key_with_scope(text: str, scope: str) -> ApiKey | None:
    """Return the usable key with this text; a key never may what its owner may not. Raises HttpError (403)."""
    key = find_key(text)
    if key is None:
        return None
    if scope not in key.scopes:
        raise HttpError(403, f"This key lacks the scope {scope}.")
    if scope == "control" and not key.owner.has_perm(CONTROL_PERMISSION):
        raise HttpError(403, f"The owner of this key lacks the permission {CONTROL_PERMISSION}.")
    return key


def _key_in_header(value: bytes) -> str:
    """Return the key in a Bearer or Basic header; empty when there is none."""
    scheme, _, credentials = value.partition(b" ")
    if scheme.lower() == b"basic":
        try:
            credentials = base64.b64decode(credentials.strip(), validate=True).partition(b":")[0]
        except binascii.Error:
            return ""
    elif scheme.lower() != b"bearer":
        return ""
    return credentials.strip().decode("latin-1")
