"""Replays that start at a time: kept as rows, started by a tick of the clock each second. Floor 3.

The tick comes from Celery beat and is carried out by any worker. A row is claimed before it is started; when the worker
dies in between, another claims it later and starts it under the same name, so that it is started once.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

import redis
from django.conf import settings
from django.db.models import Case, F, Q, QuerySet, TextField, Value, When
from django.db.models.functions import Concat, Now

from replay import driving, runs
from replay.models import ScheduledReplay
from replay.runs import RunRequest
from replay.streamer.messages import StreamerRefused
from replay.streamer.remote import StreamerRemote, StreamerUnreachable

LATE: Final = timedelta(seconds=60)
"""What could not be started for so long is not started any more: its moment is over."""
_ABANDONED_AFTER: Final = timedelta(seconds=10)  # a start is given up after 4 s: who holds one for longer has died

TICK_KEY: Final = "batonic:beat"
TICK_TTL_S: Final = 5
"""Redis: there while the clock ticks and a worker hears it."""


def add(request: RunRequest, start_at: datetime) -> ScheduledReplay:
    """Keep a start for its time; a request that was kept before is not kept twice."""
    asked = cast(dict[str, Any], request.copy())
    asked["requested_by_id"] = asked.pop("user_id")
    request_id = asked.pop("request_id")
    if request_id is None:
        return ScheduledReplay.objects.create(start_at=start_at, **asked)
    return ScheduledReplay.objects.get_or_create(request_id=request_id, defaults={"start_at": start_at, **asked})[0]


def made_by(request_id: str) -> ScheduledReplay | None:
    """Return what this request has made."""
    return ScheduledReplay.objects.filter(request_id=request_id).first()


def cancel(scheduled: "QuerySet[ScheduledReplay]") -> int:
    """Cancel those that wait; return how many. What is being started at this moment is started."""
    return _waiting(scheduled).update(state=ScheduledReplay.State.CANCELLED)


def start_due(remote: StreamerRemote) -> int:
    """Start what is due, the oldest first, and give up what is too late; return how many were started.

    What could not be started because nobody answered waits for the next tick, until it is too late.
    """
    waiting = _waiting(ScheduledReplay.objects.all())
    waiting.filter(start_at__lt=Now() - LATE).update(
        state=ScheduledReplay.State.FAILED,
        error=Concat(
            Value(f"Nobody could start it within {LATE.seconds} s of its time: ", TextField()),
            Case(When(error="", then=Value("no worker, no clock or no streamer.", TextField())), default=F("error")),
            output_field=TextField(),
        ),
    )
    if not waiting.filter(start_at__lte=Now()).exists() or remote.status() is None:
        return 0
    due = waiting.filter(start_at__lte=Now()).order_by("start_at", "pk")
    return sum(
        _start(row, remote)
        for row in due
        if _waiting(ScheduledReplay.objects.filter(pk=row.pk)).update(claimed_at=Now())
    )


def tick() -> None:
    """Say that the clock is heard. Raises RedisError."""
    _redis().set(TICK_KEY, 1, ex=TICK_TTL_S)


def _waiting(rows: "QuerySet[ScheduledReplay]") -> "QuerySet[ScheduledReplay]":
    """Return those that wait and are not being started."""
    nobody = Q(claimed_at=None) | Q(claimed_at__lt=Now() - _ABANDONED_AFTER)
    return rows.filter(nobody, state=ScheduledReplay.State.WAITING)


def _start(row: ScheduledReplay, remote: StreamerRemote) -> bool:
    request_id = f"schedule:{row.pk}"
    request: RunRequest = {
        "dataset_id": row.dataset_id,
        "pace": row.pace,
        "skip_idle_s": row.skip_idle_s,
        "loop": row.loop,
        "max_msgs": row.max_msgs,
        "window_from": row.window_from,
        "window_to": row.window_to,
        "user_id": row.requested_by_id,
        "request_id": request_id,
    }
    mine, error = ScheduledReplay.objects.filter(pk=row.pk), ""
    try:
        status = driving.start(request, remote)
        run = runs.run_of(request_id)
        is_ours = run is not None and status["replay_id"] == run.pk
        if not is_ours and status.get("note") != driving.STARTED_BEFORE:
            error = f"Replay #{status['replay_id']} of {status['dataset']} was running."
    except StreamerUnreachable as reason:
        mine.update(claimed_at=None, error=str(reason))
        return False
    except StreamerRefused as reason:
        run, error = runs.run_of(request_id), str(reason)
    state = ScheduledReplay.State.FAILED if error else ScheduledReplay.State.STARTED
    mine.update(state=state, replay=run, error=error)
    return not error


@lru_cache(maxsize=1)
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
