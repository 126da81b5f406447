"""Stands between the streamer and its rows, on a thread of its own. Floor 3.

It keeps the lease, resumes what a dead streamer left behind, writes what the streamer says, and brings a replay to what
its row wants when whoever wanted it died before the streamer heard of it. The streamer never waits for the database: it
offers its status, and the newest of each replay is written. While PostgreSQL is away the newest waits here and the
replay goes on; nothing else is lost, because a status is a complete state.
"""

import logging
import threading
from concurrent.futures import Future
from typing import Final, Protocol

from django.db import InterfaceError, OperationalError, connection

from replay import runs
from replay.lease import Lease
from replay.streamer.messages import ReplayState, StartCommand, StreamerStatus

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
_LAST_BACK_OFF_S = 1.0
# A third of the lease's time: short faults of the database lose nothing. After an outage that was longer than the lease
# it is whoever asks first that has the feed: nobody waits to take it, because a streamer without a database ends.

_RUNNING: Final = (ReplayState.REPLAYING, ReplayState.PAUSED)

Run = tuple[int, int]
"""Replay id and generation."""


class Owner(Protocol):
    """Who runs the replays; called on the reporter's thread, and does not wait."""

    def resume(self, command: StartCommand) -> "Future[StreamerStatus]":
        """Start a replay that was left behind; the future raises StreamerRefused, or what went wrong."""

    def bring(self, run: Run, state: str) -> None:
        """Bring this run to REPLAYING, PAUSED or STOPPED, should it be running."""

    def give_up(self, run: Run) -> None:
        """Abandon this run, should it be running: its row belongs to somebody else now."""

    def lose(self) -> None:
        """End: another streamer has the feed."""


class RowReporter:
    """The thread between the streamer and its rows."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._lock = threading.Lock()
        self._newest: dict[Run, StreamerStatus] = {}  # bounded: a new replay needs the database to start
        self._current: StreamerStatus | None = None
        self._offered: set[int] = set()
        self._claimed = False
        self._resuming: tuple[StartCommand, Future[StreamerStatus]] | None = None
        self._unmet: tuple[Run, str] | None = None  # what a row wants and did not get at the last look
        self._lost = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, status: StreamerStatus) -> None:
        """Take a status to write; never waits."""
        if status["replay_id"] is None:
            return
        with self._lock:
            self._offered.add(status["replay_id"])
            self._newest[_run_of(status)] = status
            self._current = status

    def start(self, owner: Owner) -> None:
        """Claim what was left behind, then write for as long as it takes."""
        self._thread = threading.Thread(target=self._work, args=(owner,), name="reporter", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what is left, release the lease and end; after the timeout the rest is given up."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._newest:
            logger.warning("the last state of %d replays was not written", len(self._newest))

    def step(self, owner: Owner) -> bool:
        """Renew the lease, claim once, write the newest status of each replay, and see that rows get what they want.

        Returns whether there was a status to write. Without the lease nothing is done any more.
        """
        if self._lost or not self._keep_lease(owner):
            return False
        if not self._claimed:
            self._claim(owner)
            self._claimed = True
        self._look_at_resumption()
        wrote = self._write(owner)
        self._meet(owner)
        return wrote

    def _keep_lease(self, owner: Owner) -> bool:
        if self._lease.renew():
            return True
        logger.error("another streamer has taken the feed %s", self._lease.feed)
        self._lost = True
        with self._lock:
            self._newest.clear()
        owner.lose()
        return False

    def _write(self, owner: Owner) -> bool:
        with self._lock:
            work = dict(self._newest)
        for run, status in work.items():
            if not runs.record_status(status, self._lease):
                owner.give_up(run)
            with self._lock:
                if self._newest[run] is status:
                    del self._newest[run]
        return bool(work)

    def _meet(self, owner: Owner) -> None:
        """Bring a replay to what its row wants, when it was not there at two looks: the first may be on its way."""
        status, unmet, self._unmet = self._current, self._unmet, None
        if status is None or status["state"] not in _RUNNING:
            return
        run = _run_of(status)
        wanted = runs.desired_state(*run)
        if wanted is None or wanted == status["state"]:
            return
        if unmet == (run, wanted):
            logger.warning("replay %d is %s and is to be %s", run[0], status["state"], wanted)
            owner.bring(run, wanted)
        else:
            self._unmet = (run, wanted)

    def _claim(self, owner: Owner) -> None:
        command = runs.claim_run(lambda replay_id: replay_id in self._offered)
        if command is None:
            return
        logger.info("replay %d resumes at record %s", command["replay_id"], command["start_record"])
        self._resuming = (command, owner.resume(command))

    def _look_at_resumption(self) -> None:
        """Fail the row of a replay that cannot be resumed. When we end meanwhile it is left to the next streamer."""
        if self._resuming is None or not self._resuming[1].done():
            return
        command, resumption = self._resuming
        error = None if resumption.cancelled() else resumption.exception()
        if error is not None:
            logger.error("replay %d cannot be resumed: %s", command["replay_id"], error)
            runs.fail_run(command["replay_id"], command["generation"], str(error))
        self._resuming = None

    def _work(self, owner: Owner) -> None:
        back_off_s = 0.0
        while not self._lost:
            last = self._stopping.is_set()
            try:
                self.step(owner)
                if last:
                    self._lease.release()
                if back_off_s:
                    logger.info("the reporter works again")
                back_off_s = 0.0
            except (OperationalError, InterfaceError) as error:
                if not back_off_s:
                    logger.warning("PostgreSQL is away: %s; the replay goes on", error)
                back_off_s = _longer(back_off_s)
                connection.close()
            except Exception:  # a fault of the program: this thread is the only one that tells what the replay does
                logger.exception("the state of a replay could not be reported; the reporter tries again")
                back_off_s = _longer(back_off_s)
            if last:
                break
            self._stopping.wait(back_off_s or WRITE_EVERY_S)
        connection.close()


def _run_of(status: StreamerStatus) -> Run:
    assert status["replay_id"] is not None
    return status["replay_id"], status["generation"]


def _longer(back_off_s: float) -> float:
    return min(max(back_off_s * 2, WRITE_EVERY_S), _LAST_BACK_OFF_S)
