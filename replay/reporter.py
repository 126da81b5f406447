"""Writes what the streamer says into the Replay row, from a thread of its own; resumes what a dead one left. Floor 3.

The streamer never waits for the database: it offers its status, and the newest of each replay is written. While
PostgreSQL is away the newest waits here; nothing else is lost with it, because a status is a complete state.
"""

import logging
import threading
from typing import Protocol

from django.db import InterfaceError, OperationalError, connection

from replay import runs
from replay.streamer.messages import StartCommand, StreamerRefused, StreamerStatus

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 0.5
_LAST_BACK_OFF_S = 5.0

Run = tuple[int, int]
"""Replay id and generation."""


class Owner(Protocol):
    """Who runs the replays; called on the reporter's thread."""

    def resume(self, command: StartCommand) -> None:
        """Start a replay that was left behind. Raises StreamerRefused."""

    def give_up(self, run: Run) -> None:
        """Stop this run, should it be running: its row belongs to somebody else now."""


class RowReporter:
    """The thread between the streamer and its rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[Run, StreamerStatus] = {}  # bounded: a new replay needs the database to start
        self._offered: set[int] = set()
        self._claimed = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, status: StreamerStatus) -> None:
        """Take a status to write; never waits."""
        if status["replay_id"] is None:
            return
        run = (status["replay_id"], status["generation"])
        with self._lock:
            self._offered.add(status["replay_id"])
            self._newest[run] = status

    def start(self, owner: Owner) -> None:
        """Claim what was left behind, then write for as long as it takes."""
        self._thread = threading.Thread(target=self._work, args=(owner,), name="reporter", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what is left and end; after the timeout the rest is given up, and the next start tells the truth."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._newest:
            logger.warning("the last state of %d replays was not written", len(self._newest))

    def step(self, owner: Owner) -> bool:
        """Claim once, then write the newest status of each replay. Returns whether there was anything to do."""
        if not self._claimed:
            self._claim(owner)
            self._claimed = True
        with self._lock:
            work = dict(self._newest)
        for run, status in work.items():
            if not runs.record_status(status):
                owner.give_up(run)
            with self._lock:
                if self._newest[run] is status:
                    del self._newest[run]
        return bool(work)

    def _claim(self, owner: Owner) -> None:
        command = runs.claim_run(lambda replay_id: replay_id in self._offered)
        if command is None:
            return
        logger.info("replay %d resumes at record %d", command["replay_id"], command["start_record"])
        try:
            owner.resume(command)
        except StreamerRefused as error:
            logger.error("replay %d cannot be resumed: %s", command["replay_id"], error)
            runs.fail_run(command["replay_id"], command["generation"], str(error))

    def _work(self, owner: Owner) -> None:
        back_off_s = 0.0
        while True:
            last = self._stopping.is_set()
            try:
                self.step(owner)
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


def _longer(back_off_s: float) -> float:
    return min(max(back_off_s * 2, WRITE_EVERY_S), _LAST_BACK_OFF_S)
