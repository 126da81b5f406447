"""The right to publish a feed: one streamer holds it at a time, and says again and again that it lives. Floor 3.

All times are those of the database, so that no two machines have to agree on the clock. A holder that stops renewing
loses the lease after TTL; whoever takes it then has the next generation, and what the old one writes is refused.
"""

import os
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Exists, F, QuerySet
from django.db.models.functions import Now

from replay.models import FeedLease

TTL: Final = timedelta(seconds=3)
_LOOK_EVERY_S: Final = 0.1
_MARGIN_S: Final = 1.0


class LeaseHeld(Exception):
    """Another streamer publishes this feed."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What this process holds, or held."""

    feed: str
    owner: str
    generation: int

    def held(self) -> Exists:
        """Return the condition that the lease is still ours, for a write that must not happen otherwise."""
        return Exists(self._row())

    def renew(self) -> bool:
        """Hold it for TTL from now; False when it was lost to another."""
        return bool(self._row().update(expires_at=Now() + TTL))

    def release(self) -> None:
        """Let the next one take it at once; harmless when it was lost."""
        self._row().update(expires_at=Now())

    def _row(self) -> "QuerySet[FeedLease]":
        return FeedLease.objects.filter(feed=self.feed, owner=self.owner, generation=self.generation)


def owner_name() -> str:
    """Return a name for this process that no other process has: host, process id, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"


def take(feed: str, owner: str) -> Lease | None:
    """Take a lease that is free or has expired; None while another holds it."""
    FeedLease.objects.bulk_create(
        [FeedLease(feed=feed, owner="", taken_at=Now(), expires_at=Now())], ignore_conflicts=True
    )
    taken = FeedLease.objects.filter(feed=feed, expires_at__lte=Now()).update(
        owner=owner, generation=F("generation") + 1, taken_at=Now(), expires_at=Now() + TTL
    )
    if not taken:
        return None
    row = FeedLease.objects.filter(feed=feed, owner=owner).first()  # none: we slept so long that it was taken again
    return None if row is None else Lease(feed, owner, row.generation)


def is_lost(feed: str, generation: int) -> bool:
    """Say whether a lease of this generation was lost: somebody has taken a newer one."""
    return FeedLease.objects.filter(feed=feed, generation__gt=generation).exists()


def acquire(feed: str, owner: str) -> Lease:
    """Take the lease, or wait until a dead holder's runs out: at most TTL and a second.

    Raises LeaseHeld, as soon as the holder shows that it lives.
    """
    give_up_at = time.monotonic() + TTL.total_seconds() + _MARGIN_S
    seen: tuple[str, datetime] | None = None
    while (lease := take(feed, owner)) is None:
        holder = FeedLease.objects.get(feed=feed)
        current = (holder.owner, holder.expires_at)
        if (seen is not None and current != seen) or time.monotonic() > give_up_at:
            host, _, rest = holder.owner.partition(":")
            raise LeaseHeld(
                f"Another streamer publishes the feed {feed}: process {rest.partition(':')[0]} on {host}, "
                f"since {holder.taken_at:%Y-%m-%d %H:%M:%S} UTC."
            )
        seen = current
        time.sleep(_LOOK_EVERY_S)
    return lease
