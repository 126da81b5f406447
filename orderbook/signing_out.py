"""Who signs out, told to every web process: their live clients of that login are closed. Floor 4.

Over the channel layer, and the session by its digest: its key opens the site.
"""

import asyncio
import hashlib
import logging
from typing import Any, Final

import redis.exceptions
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpRequest

log = logging.getLogger(__name__)

SIGNED_OUT: Final = "batonic.signed_out"
"""The group, and the type of its messages."""

WITHIN_S: Final = 2.0


def digest_of(session_key: str) -> str:
    """Return what names a session without opening it."""
    return hashlib.sha256(session_key.encode()).hexdigest()


def tell_signed_out(sender: Any, request: HttpRequest | None, **_: Any) -> None:
    """Receive Django's user_logged_out. Without Redis the clients stay until their login is looked at again."""
    session_key = getattr(getattr(request, "session", None), "session_key", None)
    if session_key is None:
        return
    try:
        async_to_sync(_tell)(digest_of(session_key))
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        log.warning("signing out: live clients are not told yet, Redis does not answer (%s)", error)


async def _tell(session: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        await get_channel_layer().group_send(SIGNED_OUT, {"type": SIGNED_OUT, "session": session})
