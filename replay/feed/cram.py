"""Challenge-response of the live protocol, and the form of the keys that take part. Floor 1.

The key itself never travels: the client hashes it with a challenge that the server makes anew for each connection,
and names it by its last characters. Not a store of keys (replay.keys); randomness comes in as an argument.
"""

import base64
import hashlib
import hmac
import re
from typing import Final, NamedTuple

from replay.feed.stream import FeedError, shown

PREFIX: Final = "db-"
KEY_LENGTH: Final = 32
BUCKET_LENGTH: Final = 5
CHALLENGE_BYTES: Final = 24
"""Randomness that a challenge needs; it is written as 32 characters."""

_KEY: Final = re.compile(f"{PREFIX}[A-Za-z0-9_-]{{{KEY_LENGTH - len(PREFIX)}}}")
_RESPONSE: Final = re.compile(r"([0-9a-f]{64})-([!-{}~]{1,5})")  # printable, without the | that ends a value


class Response(NamedTuple):
    """What a client answers to a challenge."""

    digest: str
    bucket_id: str


def is_key(text: str) -> bool:
    """Say whether a text has the form of a key: 32 characters that start with ``db-``."""
    return _KEY.fullmatch(text) is not None


def bucket_of(key: str) -> str:
    """Return what names a key in public."""
    return key[-BUCKET_LENGTH:]


def make_challenge(randomness: bytes) -> str:
    """Return a challenge. The bytes must be new for every connection, from a source that nobody can foresee."""
    if len(randomness) < CHALLENGE_BYTES:
        raise ValueError(f"expected at least {CHALLENGE_BYTES} random bytes, found {len(randomness)}")
    return base64.urlsafe_b64encode(randomness).rstrip(b"=").decode()


def respond(challenge: str, key: str) -> str:
    """Return what a client with this key answers.

    >>> respond("zS9TxijuCsebyaTxxcrmeJs_MkARdB2L", "db-89abcdefghijklmnopqrstuvwxyz0")[-12:]
    '25ce8f-wxyz0'
    """
    return f"{_digest(challenge, key)}-{bucket_of(key)}"


def parse_response(text: str) -> Response:
    """Split an answer. Raises FeedError."""
    found = _RESPONSE.fullmatch(text)
    if found is None:
        raise FeedError("authentication, auth", "64 hexadecimal digits, - and the end of a key", shown(text.encode()))
    return Response(*found.groups())


def verify(challenge: str, key: str, response: Response) -> bool:
    """Say whether an answer was made with this key, in a time that tells nothing of it."""
    return hmac.compare_digest(_digest(challenge, key), response.digest)


def _digest(challenge: str, key: str) -> str:
    return hashlib.sha256(f"{challenge}|{key}".encode()).hexdigest()
