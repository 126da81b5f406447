"""Requests that are carried out once, however often they are sent: the Idempotency-Key of the REST interface. Floor 3.

The first request with a key makes the row, and its answer is written there; the same request again gets that answer.
Two at the same instant: the database lets one make the row, the other waits for the answer. When the one that made it
died, or could not tell what came of it, the next one carries it out again under the same name, and whoever did it
before (the streamer, the table of replays) knows that name and does nothing twice.
"""

import hashlib
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from django.db.models import Q
from django.db.models.functions import Now

from replay.models import IdempotentRequest, NamedRequest

KEPT_FOR: Final = timedelta(hours=24)
MAX_KEY: Final[int] = IdempotentRequest._meta.get_field("key").max_length or 0
ABANDONED_AFTER: Final = timedelta(seconds=8)
"""Longer than anybody carries out a request: who holds one for longer has died."""

_WAIT_S: Final = ABANDONED_AFTER.total_seconds() + 1
_LOOK_EVERY_S: Final = 0.05

Answer = tuple[int, Any]
"""HTTP status, and what the JSON says."""


class OtherRequest(Exception):
    """This key was used for something else."""


class UnderWay(Exception):
    """The first request with this key is being carried out, and takes too long."""


def is_key(text: str) -> bool:
    """Say whether a text may be a key: 1 to 200 printable characters."""
    return 1 <= len(text) <= MAX_KEY and text.isprintable()


def digest_of(verb: str, body: object) -> str:
    """Return what tells two requests apart: the verb, and the body whatever the order of its fields."""
    return hashlib.sha256(json.dumps([verb, body], sort_keys=True).encode()).hexdigest()


def once(caller: str, key: str, digest: str, carry_out: Callable[[str], Answer]) -> Answer:
    """Carry a request out, or return what was answered to it before.

    ``carry_out`` gets the name under which nothing is done twice; when it raises, nothing is stored and the next
    request with the key tries again. Raises OtherRequest, UnderWay.
    """
    row = _turn(caller, key, digest)
    if row.status is not None:
        return row.status, row.answer
    mine = IdempotentRequest.objects.filter(pk=row.pk)
    try:
        status, answer = carry_out(f"key:{row.pk}")
    except BaseException:
        mine.update(claimed_at=None)
        raise
    mine.update(status=status, answer=answer)
    return status, answer


def forget_old() -> int:
    """Delete what is older than KEPT_FOR; return how many answers."""
    NamedRequest.objects.filter(created_at__lt=Now() - KEPT_FOR).delete()
    return IdempotentRequest.objects.filter(created_at__lt=Now() - KEPT_FOR).delete()[0]


def _turn(caller: str, key: str, digest: str) -> IdempotentRequest:
    """Return the row of a request as soon as it is answered, or is ours to carry out."""
    give_up_at = time.monotonic() + _WAIT_S
    while True:
        row, made = IdempotentRequest.objects.get_or_create(
            caller=caller, key=key, defaults={"digest": digest, "claimed_at": Now()}
        )
        if row.digest != digest:
            raise OtherRequest
        if made or row.status is not None or _take(row):
            return row
        if time.monotonic() > give_up_at:
            raise UnderWay
        time.sleep(_LOOK_EVERY_S)


def _take(row: IdempotentRequest) -> bool:
    """Take over a request that nobody carries out any more."""
    nobody = Q(claimed_at=None) | Q(claimed_at__lt=Now() - ABANDONED_AFTER)
    return bool(IdempotentRequest.objects.filter(nobody, pk=row.pk, status=None).update(claimed_at=Now()))
