"""The row of a replay: opened, claimed, and told what the streamer says. Floor 3.

Every write carries the generation that its writer knows; an older one changes nothing. So a streamer that was
replaced, or a task that was late, cannot overwrite what came after it.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from replay.models import Replay
from replay.streamer.messages import ACTIVE_STATES, ReplayState, StartCommand, StreamerStatus

FEED: Final = "main"
ONE_ACTIVE: Final = "one_active_replay_per_feed"
STARTING_FOR_AT_MOST: Final = timedelta(seconds=15)
"""A row that is STARTING for longer was left behind by a worker that died."""


def open_run(dataset_id: int, pace: object, loop: bool, max_msgs: int, user_id: int | None) -> Replay | None:
    """Insert a row in state STARTING; None when the feed has an active one already."""
    try:
        with transaction.atomic():
            return Replay.objects.create(
                feed=FEED,
                dataset_id=dataset_id,
                requested_by_id=user_id,
                state=ReplayState.STARTING,
                pace=pace,
                loop=loop,
                max_msgs=max_msgs,
            )
    except IntegrityError as error:
        if _violated(error) == ONE_ACTIVE:
            return None
        raise  # a dataset or a user that is gone


def active_run() -> Replay | None:
    """Return the active row of the feed; at most one exists."""
    return Replay.objects.filter(feed=FEED, state__in=ACTIVE_STATES).select_related("dataset").first()


def is_left_behind(run: Replay) -> bool:
    return run.state == ReplayState.STARTING and run.created_at < timezone.now() - STARTING_FOR_AT_MOST


def close_run(run: Replay, state: ReplayState, error: str) -> bool:
    """End a row that no streamer runs, and fence off whoever still does. False when somebody was faster."""
    changed = Replay.objects.filter(pk=run.pk, generation=run.generation, state__in=ACTIVE_STATES).update(
        state=state, error=error, generation=F("generation") + 1, ended_at=timezone.now()
    )
    return bool(changed)


def fail_run(replay_id: int, generation: int, error: str) -> None:
    """End a claimed row that could not be resumed."""
    Replay.objects.filter(pk=replay_id, generation=generation, state__in=ACTIVE_STATES).update(
        state=ReplayState.FAILED, error=error, ended_at=timezone.now()
    )


def claim_run(is_ours: Callable[[int], bool]) -> StartCommand | None:
    """Take over the replay that a dead streamer left behind; None when there is none.

    ``is_ours`` is asked after the row was read: a replay of our own is known here before its row says REPLAYING.
    The next generation begins: the dead one's writes, should it not be dead, change nothing from now on.
    """
    run = active_run()
    if run is None or run.state == ReplayState.STARTING or is_ours(run.pk):
        return None
    claimed = Replay.objects.filter(pk=run.pk, generation=run.generation, state__in=ACTIVE_STATES).update(
        generation=F("generation") + 1, heartbeat_at=timezone.now()
    )
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
        "loop": run.loop,
        "max_msgs": run.max_msgs,
        "start_record": run.position,
    }


def record_status(status: StreamerStatus) -> bool:
    """Write what the streamer says into its row. False when the row belongs to another generation, or is gone.

    An ended row stays ended: a late heartbeat does not bring it back.
    """
    if status["replay_id"] is None:
        return False
    row = Replay.objects.filter(pk=status["replay_id"], generation=status["generation"])
    ended = status["state"] not in ACTIVE_STATES
    now = timezone.now()
    ts_event = int(status["ts_event"])
    changed = row.filter(state__in=ACTIVE_STATES).update(
        state=status["state"],
        pace=status["pace"],
        position=status["loops"] * status["records"] + status["position"],
        position_ts_event=ts_event if 0 < ts_event < 2**63 else None,  # an undefined one is 2^64 - 1
        error=status["error"],
        heartbeat_at=now,
        ended_at=now if ended else None,
    )
    return bool(changed) or (ended and row.filter(state=status["state"]).exists())


def _violated(error: IntegrityError) -> str | None:
    """Return the name of the constraint that PostgreSQL says was broken."""
    diagnostics = getattr(error.__cause__, "diag", None)
    return getattr(diagnostics, "constraint_name", None)
