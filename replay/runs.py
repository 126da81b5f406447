"""The row of a replay: opened, claimed, and told what the streamer says. Floor 3.

Every write carries the generation that its writer knows; an older one changes nothing. So a streamer that was
replaced, or a task that was late, cannot overwrite what came after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypedDict, cast

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from replay.lease import Lease
from replay.models import Replay
from replay.streamer.messages import ACTIVE_STATES, FixedPlace, Pace, ReplayState, StartCommand, StreamerStatus

FEED: Final = "main"
STARTING_FOR_AT_MOST: Final = timedelta(seconds=6)
"""A row that is STARTING for longer was left behind by a worker that died: none waits so long for the streamer."""
_THERE_IS_ONE: Final = ("one_active_replay_per_feed", "one_replay_per_request")


class RunRequest(TypedDict):
    """What is asked of a replay."""

    dataset_id: int
    pace: Pace
    skip_idle_s: float | None
    loop: bool
    max_msgs: int
    window_from: FixedPlace | None
    window_to: FixedPlace | None
    user_id: int | None
    request_id: str | None  # names the request: asked twice, made once


def open_run(request: RunRequest) -> Replay | None:
    """Insert a row in state STARTING; None when the feed has an active one already, or this request made one."""
    asked = cast(dict[str, Any], request.copy())
    asked["requested_by_id"] = asked.pop("user_id")
    try:
        with transaction.atomic():
            return Replay.objects.create(feed=FEED, state=ReplayState.STARTING, **asked)
    except IntegrityError as error:
        if _violated(error) in _THERE_IS_ONE:
            return None
        raise  # a dataset or a user that is gone


def run_of(request_id: str) -> Replay | None:
    """Return the row that this request made."""
    return Replay.objects.filter(request_id=request_id).select_related("dataset").first()


def active_run() -> Replay | None:
    """Return the active row of the feed; at most one exists."""
    return Replay.objects.filter(feed=FEED, state__in=ACTIVE_STATES).select_related("dataset").first()


def is_left_behind(run: Replay) -> bool:
    return run.state == ReplayState.STARTING and run.created_at < timezone.now() - STARTING_FOR_AT_MOST


def is_fresh(run: Replay) -> bool:
    """Say whether a streamer said something of this run, or claimed it, a moment ago."""
    return run.heartbeat_at is not None and run.heartbeat_at > timezone.now() - STARTING_FOR_AT_MOST


def close_run(run: Replay, state: ReplayState, error: str, *, again: bool = False) -> bool:
    """End a row that no streamer runs, and fence off whoever still does. False when somebody was faster.

    ``again``: the request that made it may make another.
    """
    changed = _active(run).update(
        state=state,
        error=error,
        generation=F("generation") + 1,
        ended_at=timezone.now(),
        request_id=None if again else run.request_id,
    )
    return bool(changed)


def fail_run(replay_id: int, generation: int, error: str) -> None:
    """End a claimed row that could not be resumed."""
    Replay.objects.filter(pk=replay_id, generation=generation, state__in=ACTIVE_STATES).update(
        state=ReplayState.FAILED, error=error, ended_at=timezone.now()
    )


@dataclass(frozen=True, slots=True)
class Desire:
    """What was written for a run, and what was wanted of it before."""

    run: Replay
    state: Replay.Desired

    def take_back(self) -> None:
        """Want again what was wanted before, unless somebody wants something else by now."""
        _active(self.run).filter(desired_state=self.state).update(desired_state=self.run.desired_state)


def desire(state: Replay.Desired) -> Desire | None:
    """Write what is wanted of the active replay, and return how to take it back; None when none is active."""
    run = active_run()
    return None if run is None else desire_of(run, state)


def desire_of(run: Replay, state: Replay.Desired) -> Desire | None:
    """Write what is wanted of a replay, and return how to take it back; None when it has ended."""
    changed = _active(run).update(desired_state=state)
    return Desire(run, state) if changed else None


def desired_state(replay_id: int, generation: int) -> str | None:
    """Return what is wanted of a run; None when its row has ended or belongs to another generation."""
    row = Replay.objects.filter(pk=replay_id, generation=generation, state__in=ACTIVE_STATES)
    return row.values_list("desired_state", flat=True).first()


def claim_run(is_ours: Callable[[int], bool]) -> StartCommand | None:
    """Take over the replay that a dead streamer left behind; None when there is none.

    ``is_ours`` is asked after the row was read: a replay of our own is known here before its row says REPLAYING.
    The next generation begins: the dead one's writes, should it not be dead, change nothing from now on. A replay
    that was to be stopped is ended here.
    """
    run = active_run()
    if run is None or run.state == ReplayState.STARTING or is_ours(run.pk):
        return None
    if run.desired_state == Replay.Desired.STOPPED:
        close_run(run, ReplayState.STOPPED, "Stopped while no streamer was running it.")
        return None
    claimed = _active(run).update(generation=F("generation") + 1, heartbeat_at=timezone.now())
    if not claimed:
        return None
    run.generation += 1
    return start_command(run)


def start_command(run: Replay) -> StartCommand:
    """Return what the streamer must know to publish this row from where it stands."""
    return {
        "replay_id": run.pk,
        "generation": run.generation,
        "dataset": run.dataset.name,
        "path": run.dataset.path,
        "pace": run.pace,
        "skip_idle_s": run.skip_idle_s,
        "loop": run.loop,
        "max_msgs": run.max_msgs,
        "window_from": run.window_from,
        "window_to": run.window_to,
        "start_record": run.position,
        "published": run.published,
        "loops": run.loops,
        "paused": run.desired_state == Replay.Desired.PAUSED,
    }


def record_status(status: StreamerStatus, lease: Lease | None = None) -> bool:
    """Write what the streamer says into its row. False when the row belongs to another generation, or is gone.

    An ended row stays ended: a late heartbeat does not bring it back. With a lease, nothing is written when that
    was lost.
    """
    if status["replay_id"] is None:
        return False
    row = Replay.objects.filter(pk=status["replay_id"], generation=status["generation"])
    if lease is not None:
        row = row.filter(lease.held())
    ended = status["state"] not in ACTIVE_STATES
    now = timezone.now()
    changed = row.filter(state__in=ACTIVE_STATES).update(
        state=status["state"],
        pace=status["pace"],
        skip_idle_s=status["skip_idle_s"],
        position=status["position"],
        position_ts_event=defined_ts(status["ts_event"]),
        published=status["published"],
        loops=status["loops"],
        error=status["error"],
        heartbeat_at=now,
        ended_at=now if ended else None,
    )
    return bool(changed) or (ended and row.filter(state=status["state"]).exists())


def defined_ts(ts_ns: str) -> int | None:
    """Return a time that the streamer tells; None for none, and for an undefined one, which is 2^64 - 1."""
    ts = int(ts_ns)
    return ts if 0 < ts < 2**63 else None


def _active(run: Replay) -> "QuerySet[Replay]":
    """Return the row, as long as it is active and of the generation that was read."""
    return Replay.objects.filter(pk=run.pk, generation=run.generation, state__in=ACTIVE_STATES)


def _violated(error: IntegrityError) -> str | None:
    """Return the name of the constraint that PostgreSQL says was broken."""
    diagnostics = getattr(error.__cause__, "diag", None)
    return getattr(diagnostics, "constraint_name", None)
