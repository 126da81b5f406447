"""The verbs of a replay, as workers carry them out: the row is told, the streamer asked, the row told again. Floor 3.

What is wanted is written first. A worker may die after each line here: the streamer's reporter then brings the replay
to what the row wants, and whoever asks again with the same name gets what came of it. A verb that fails wants nothing.
``once`` and ``request_id`` name what is asked; None where nobody will ask again. Each raises what the remote raises,
and StreamerUnreachable where the answer is of a streamer that has lost the feed.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from replay import asking, lease, runs
from replay.models import Replay
from replay.runs import RunRequest
from replay.streamer.messages import (
    ACTIVE_STATES,
    PaceArgs,
    Place,
    ReplayState,
    StepUnit,
    StreamerRefused,
    StreamerStatus,
)
from replay.streamer.remote import StreamerRemote, StreamerUnreachable

ALREADY_RUNNING: Final = "already running"
STARTED_BEFORE: Final = "started before"
ENDED_BEFORE: Final = "its replay has ended before"
OVERTAKEN: Final = "carried out before, and something else was asked for since"
_START_WITHIN_S: Final = 3.5  # the streamer opens the file before it answers
_STATUS_WITHIN_S: Final = 2.0
_MOVE_WITHIN_S: Final = 3.5  # it looks for the place and paints the books there
_OTHER_START_WITHIN_S: Final = 4.0
_OTHER_START_POLL_S: Final = 0.05


def start(request: RunRequest, remote: StreamerRemote) -> StreamerStatus:
    """Open a row and have the streamer run it, or report what runs; of many at once the database lets one through."""
    give_up_at = time.monotonic() + _OTHER_START_WITHIN_S
    while time.monotonic() < give_up_at:
        run = runs.open_run(request)
        if run is not None:
            return _start_run(run, remote)
        before = runs.run_of(request["request_id"]) if request["request_id"] else None
        if before is not None:
            return _start_again(before, remote)
        running = _join_active_run(remote)
        if running is not None:
            return running
        time.sleep(_OTHER_START_POLL_S)
    raise StreamerUnreachable("another start is under way and did not finish")


def pause(remote: StreamerRemote, once: str | None = None) -> StreamerStatus:
    """Hold the replay where it is."""
    return _drive("pause", {}, remote, once, Replay.Desired.PAUSED)


def resume(remote: StreamerRemote, once: str | None = None) -> StreamerStatus:
    """Go on from where it was paused."""
    return _drive("resume", {}, remote, once, Replay.Desired.REPLAYING)


def stop(remote: StreamerRemote, once: str | None = None) -> StreamerStatus:
    """Stop the streamer and end the row, also one that no streamer runs; harmless when nothing runs."""
    status = _drive("stop", {}, remote, once, Replay.Desired.STOPPED)
    run = runs.active_run()
    if run is not None and run.state != ReplayState.STARTING and run.desired_state == Replay.Desired.STOPPED:
        runs.close_run(run, ReplayState.STOPPED, "Stopped; the streamer was not running it any more.")
    return status


def change_pace(args: PaceArgs, remote: StreamerRemote, once: str | None = None) -> StreamerStatus:
    """Change the pace in flight."""
    return _drive("pace", args, remote, once)


def seek(to: Place, remote: StreamerRemote, once: str | None = None) -> StreamerStatus:
    """Go to a place; what ran runs on from there, what was paused stays so."""
    return _drive("seek", {"to": to}, remote, once)


def step(unit: StepUnit, by: int, remote: StreamerRemote, once: str | None = None) -> StreamerStatus:
    """Go so many units on, or back, and hold there."""
    return _drive("step", {"unit": unit, "by": by}, remote, once, Replay.Desired.PAUSED)


def _drive(
    verb: str,
    args: Mapping[str, Any],
    remote: StreamerRemote,
    once: str | None,
    wanted: Replay.Desired | None = None,
) -> StreamerStatus:
    """Write what is wanted, and have the streamer do it: once under one name, to the replay that was meant first."""
    asked = asking.ask(once, wanted)
    if asked.answer is not None:
        return asked.answer
    if asked.is_over and verb != "stop":
        raise StreamerRefused("The replay that this request meant has ended.")
    if asked.is_over or asked.is_overtaken:
        return {**_call(remote, "status"), "note": ENDED_BEFORE if asked.is_over else OVERTAKEN}
    try:
        status = _call(remote, verb, args, _MOVE_WITHIN_S, once)
    except (StreamerUnreachable, StreamerRefused):
        asked.failed()
        raise
    runs.record_status(status)
    asked.answered(status)
    return status


def _call(
    remote: StreamerRemote,
    verb: str,
    args: Mapping[str, Any] | None = None,
    timeout_s: float = _STATUS_WITHIN_S,
    once: str | None = None,
) -> StreamerStatus:
    """Ask the streamer. What one answers that has lost the feed is worth nothing, whatever it did."""
    try:
        status = remote.call(verb, args, timeout_s=timeout_s, once=once)
    except StreamerRefused as refusal:
        _check_lease(refusal.lease)
        raise
    _check_lease(status.get("lease", 0))
    return status


def _check_lease(generation: int) -> None:
    if lease.is_lost(runs.FEED, generation):
        raise StreamerUnreachable("a streamer answered that another one has replaced")


def _start_run(run: Replay, remote: StreamerRemote) -> StreamerStatus:
    try:
        status = _call(remote, "start", runs.start_command(run), _START_WITHIN_S, once=f"replay:{run.pk}")
    except StreamerUnreachable as error:
        runs.close_run(run, ReplayState.FAILED, str(error), again=True)  # the streamer leaves it, or is fenced off
        raise
    except StreamerRefused as error:
        runs.close_run(run, ReplayState.FAILED, str(error))
        raise
    if status["replay_id"] == run.pk:
        runs.record_status(status)
    else:
        runs.close_run(run, ReplayState.FAILED, f"The streamer was already running replay #{status['replay_id']}.")
    return status


def _start_again(run: Replay, remote: StreamerRemote) -> StreamerStatus:
    """Answer a request that has made a row before: finish what its worker left behind, else say how things are."""
    if run.state == ReplayState.STARTING:
        return _start_run(run, remote)
    if run.state == ReplayState.FAILED:
        raise StreamerRefused(run.error)
    return {**_call(remote, "status"), "note": STARTED_BEFORE}


def _join_active_run(remote: StreamerRemote) -> StreamerStatus | None:
    """Return the status of the replay that runs; None when the caller should try again.

    1. Another start is under way: its worker will answer, or has died and left the row behind.
    2. The streamer runs it: that is the answer.
    3. The streamer does not, though it did a moment ago: it takes it up again after a crash.
    4. The streamer does not: it has ended, or was lost, and the row is closed.
    """
    run = runs.active_run()
    if run is None:
        return None
    if run.state == ReplayState.STARTING:
        if runs.is_left_behind(run):
            runs.close_run(run, ReplayState.FAILED, "The start was never finished: its worker died.")
        return None
    status = _call(remote, "status")
    if status["replay_id"] != run.pk:
        if runs.is_fresh(run):
            return None
        runs.close_run(run, ReplayState.FAILED, "The streamer lost this replay.")
        return None
    if status["state"] not in ACTIVE_STATES:
        if not runs.record_status(status):
            runs.close_run(run, ReplayState(status["state"]), status["error"])
        return None
    return {**status, "note": ALREADY_RUNNING}
