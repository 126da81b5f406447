"""Who may read and who may control: a login session, an API key, or anyone where PUBLIC_READ is on. Floor 3.

READ_AUTH and CONTROL_AUTH go into ninja's ``auth=``. The first door that knows the caller decides; one that
knows him but must refuse raises 403; when none does, ninja answers 401. A session is checked for CSRF on
unsafe methods, a key is not: no browser sends it by itself.
"""

from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBasicAuth, HttpBearer, SessionAuth

from replay.keys import find_key
from replay.models import ApiKey

CONTROL_PERMISSION: Final = "replay.control_replay"


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
