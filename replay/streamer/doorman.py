"""Who is let in at the live port: keys, failed attempts, and keys that are taken back. Floor 1.

Where keys are kept is its owner's business. They are asked for on a thread, one at a time: the market clock does not
wait for a database, and guessing is slow.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from replay.feed.cram import bucket_of, verify
from replay.feed.live_messages import AuthRequest
from replay.feed.live_server import AUTHENTICATION_FAILED
from replay.streamer.attempts import Attempts

logger = logging.getLogger(__name__)

RECHECK_S: Final = 20.0
"""How often the keys of open connections are looked up again: a revoked one is out within a minute."""

TOO_MANY_FAILURES: Final = "Too many failed attempts from this address. Try again in a minute."
KEYS_UNREACHABLE: Final = "Keys cannot be looked up at the moment. Try again."

T = TypeVar("T")


class TurnedAway(Exception):
    """A client is not let in; the text is for it."""


def _no_secrets(bucket_id: str) -> Sequence[str]:
    return ()


def _always(secret: str) -> bool:
    return True


def _unnoted(secret: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Keys:
    """Where keys come from. The functions are called on one thread, and may raise: then nobody knows."""

    find_secrets: Callable[[str], Sequence[str]] = _no_secrets
    """Return the usable keys whose last five characters are these."""
    is_usable: Callable[[str], bool] = _always
    """Say whether a key that was let in would be let in again."""
    note_login: Callable[[str], None] = _unnoted
    """Take note that a key was used."""
    own: str = ""
    """Our own engine's key: it needs no look-up, and nobody else's failures from where it was seen shut it out."""


class Doorman:
    """Checks answers to challenges."""

    def __init__(self, keys: Keys, attempts: Attempts | None = None) -> None:
        self._keys = keys
        self._attempts = attempts or Attempts()
        self._engines = {"127.0.0.1", "::1"}  # bounded by the machines that know our own key
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keys")

    def turns_away(self, address: str) -> bool:
        """Say whether nobody at an address need be heard: too many failed there, and our own engine never came."""
        return address not in self._engines and self._attempts.is_refused(address, time.monotonic_ns())

    def is_ours(self, secret: str) -> bool:
        """Say whether a key is our own engine's."""
        return bool(secret) and secret == self._keys.own

    async def let_in(self, request: AuthRequest, challenge: str, address: str) -> str:
        """Return the key that an answer was made with. Raises TurnedAway."""
        if self._keys.own and verify(challenge, self._keys.own, request.auth):
            self._engines.add(address)
            return self._keys.own
        if self._attempts.is_refused(address, time.monotonic_ns()):
            raise TurnedAway(TOO_MANY_FAILURES)
        try:
            secrets = await self._on_thread(self._keys.find_secrets, request.auth.bucket_id)
        except Exception as error:
            logger.warning("keys cannot be looked up: %s: %s", type(error).__name__, str(error).strip())
            raise TurnedAway(KEYS_UNREACHABLE) from error
        for secret in secrets:
            if verify(challenge, secret, request.auth):
                self._attempts.succeeded(address)
                self._thread.submit(self._note, secret)
                return secret
        self._attempts.failed(address, time.monotonic_ns())
        raise TurnedAway(AUTHENTICATION_FAILED)

    async def still_good(self, secret: str) -> bool:
        """Say whether a key that was let in is usable; True as long as nobody can say."""
        if self.is_ours(secret):
            return True
        try:
            return await self._on_thread(self._keys.is_usable, secret)
        except Exception as error:
            logger.warning("the key that ends with %s cannot be looked up: %s", bucket_of(secret), error)
            return True

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, function: Callable[[str], T], text: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, text)

    def _note(self, secret: str) -> None:
        try:
            self._keys.note_login(secret)
        except Exception as error:
            logger.warning("the use of the key that ends with %s was not noted: %s", bucket_of(secret), error)
