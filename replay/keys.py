"""API keys for programs: made, found again, and refused. Floor 3.

A key is kept encrypted and not hashed, because challenge-response on the feed needs the secret itself. The
encryption key is derived from SECRET_KEY; keys written under a SECRET_KEY_FALLBACKS entry can still be read.
"""

import base64
import hmac
import secrets
import string
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, TypeVar

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from replay.feed.cram import KEY_LENGTH, PREFIX, bucket_of, is_key
from replay.models import ApiKey

SCOPES: Final = ("read", "feed", "control")
LAST_USED_STEP: Final = timedelta(minutes=1)

_Found = TypeVar("_Found")
_ALPHABET: Final = string.ascii_letters + string.digits


MAX_NAME: Final[int] = ApiKey._meta.get_field("name").max_length or 0


class KeyFormError(ValueError):
    """A key was asked for with something that a key cannot have."""


def create_key(owner: User, name: str, scopes: Iterable[str], expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Make a key and return its row and its text; the text is not shown again.

    Raises KeyFormError when a scope is unknown or none is given, or the name does not fit.
    """
    if not 1 <= len(name.strip()) <= MAX_NAME or not name.isprintable():
        raise KeyFormError(f"Expected a name of 1 to {MAX_NAME} printable characters, found {name[:MAX_NAME]!r}.")
    asked = set(scopes)
    if not asked or not asked <= set(SCOPES):
        raise KeyFormError(f"Expected scopes out of {', '.join(SCOPES)}, found: {', '.join(sorted(asked)) or 'none'}.")
    text = _new_text()
    while bucket_of(text) == bucket_of(feed_key()):  # that one is looked up without the database
        text = _new_text()
    row = ApiKey.objects.create(
        owner=owner,
        name=name,
        bucket_id=bucket_of(text),
        secret=_cipher().encrypt(text.encode()),
        scopes=[scope for scope in SCOPES if scope in asked],
        expires_at=expires_at,
    )
    return row, text


def find_key(text: str) -> ApiKey | None:
    """Return the usable key with this text; None when it is unknown, expired, revoked or its owner is inactive.

    Notes the use, at most once a minute. Cost: one indexed query, one decryption for each key of the bucket.
    """
    if not is_key(text):
        return None
    now = timezone.now()
    for key in _usable(bucket_of(text), now):
        if hmac.compare_digest(secret_of(key), text):
            _note_use(key, now)
            return key
    return None


def secrets_of(bucket_id: str, scope: str = "feed") -> list[str]:
    """Return the texts of the usable keys with these last characters and this scope, for challenge-response.

    Our own engine's comes from no database. Raises OperationalError or InterfaceError where PostgreSQL is away, as the
    two below do: what that means is for whoever asked to say.
    """
    ours = feed_key()
    if bucket_of(ours) == bucket_id and scope == "feed":
        return [ours]  # no other has its bucket: see create_key
    return _asked(lambda: _secrets(bucket_id, scope))


def is_usable(text: str, scope: str = "feed") -> bool:
    """Say whether a key that has opened something still may: not revoked, not expired, its owner still active."""
    if hmac.compare_digest(text.encode(), feed_key().encode()):
        return True
    return _asked(lambda: text in _secrets(bucket_of(text), scope))


def usable_keys(ids: Collection[int], scope: str) -> set[int]:
    """Return which of these rows still open what a scope opens. Cost: one query."""
    if not ids:
        return set()
    rows = _usable_at(timezone.now()).filter(pk__in=ids)
    return {key.pk for key in rows if scope in key.scopes}


def note_login(text: str) -> None:
    """Note that a key has opened something, at most once a minute."""
    if text != feed_key():
        _asked(lambda: find_key(text))


def _secrets(bucket_id: str, scope: str) -> list[str]:
    keys = (key for key in _usable(bucket_id, timezone.now()) if scope in key.scopes)
    return [secret for key in keys if (secret := secret_of(key))]


def _usable(bucket_id: str, now: datetime) -> "QuerySet[ApiKey]":
    return _usable_at(now).filter(bucket_id=bucket_id).select_related("owner")


def _usable_at(now: datetime) -> "QuerySet[ApiKey]":
    return ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None, owner__is_active=True)


def _asked(ask: Callable[[], _Found]) -> _Found:
    """Ask PostgreSQL on a thread that does other things as well: it keeps no connection, which would grow old."""
    try:
        return ask()
    finally:
        if not connection.in_atomic_block:
            connection.close()


def secret_of(key: ApiKey) -> str:
    """Return the text of a key, for challenge-response; empty when no current SECRET_KEY can read it."""
    try:
        return _cipher().decrypt(bytes(key.secret)).decode()
    except InvalidToken:  # written under a SECRET_KEY that is gone: such a key opens nothing
        return ""


def feed_key() -> str:
    """Return the key of our own engine, which every process with this SECRET_KEY knows; it is kept nowhere."""
    number = int.from_bytes(_derive(settings.SECRET_KEY, b"batonic feed key"), "big")
    characters = []
    for _ in range(KEY_LENGTH - len(PREFIX)):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return PREFIX + "".join(characters)


def _new_text() -> str:
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH - len(PREFIX)))


def _note_use(key: ApiKey, now: datetime) -> None:
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_STEP)
    if key.last_used_at is None or key.last_used_at < now - LAST_USED_STEP:
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


def _cipher() -> MultiFernet:
    return _cipher_of((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=8)
def _cipher_of(site_secrets: tuple[str, ...]) -> MultiFernet:
    """Encrypt with the first site secret, decrypt with any."""
    return MultiFernet(
        [Fernet(base64.urlsafe_b64encode(_derive(secret, b"batonic api keys"))) for secret in site_secrets]
    )


def _derive(site_secret: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(site_secret.encode())
