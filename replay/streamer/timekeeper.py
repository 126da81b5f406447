"""The verbs of a replay and its clock, on one event loop; who listens is known above. Floor 1."""

import asyncio
import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from replay.feed.index import Index
from replay.feed.pacing import SECOND_NS
from replay.feed.sources import Recording, SourceError
from replay.streamer import places
from replay.streamer.checks import check_pace, check_skip, check_step
from replay.streamer.messages import Pace, ReplayState, StartCommand, StepUnit, StreamerRefused, StreamerStatus
from replay.streamer.places import Ground
from replay.streamer.publication import Publication, Window
from replay.streamer.signal_point import SignalPoint
from replay.streamer.stretch import Cursor

logger = logging.getLogger(__name__)

VERBS: Final = ("start", "pause", "resume", "stop", "pace", "seek", "step", "status")

Opener = Callable[[Path], Recording]
IndexOpener = Callable[[Recording], Index | None]


class Timekeeper(ABC):
    """One replay at a time; it outlives each of them."""

    def __init__(self, open_recording: Opener, open_index: IndexOpener) -> None:
        self._open_recording = open_recording
        self._open_index = open_index
        self._publication: Publication | None = None
        self._starting = asyncio.Lock()
        self._moving = asyncio.Lock()
        self._held: Publication | None = None  # whose clock stands while a place is sought
        self._commanded = SignalPoint()  # a command was carried out
        self._taken = SignalPoint()  # a client came, went or took records, or a place was found
        self._clocks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def status(self) -> StreamerStatus:
        """Return the true state of things."""

    @abstractmethod
    def _following(self, publication: Publication) -> list[Cursor]:
        """Return the places of those who hold a replay at ``max`` up."""

    @abstractmethod
    def _begins(self, publication: Publication) -> None:
        """Let everybody who waits for a replay take their places in this one."""

    @abstractmethod
    def _wake(self) -> None:
        """Let everybody see that records were released, or that a replay began or ended."""

    @abstractmethod
    def _tell(self, status: StreamerStatus) -> None:
        """Report what has changed."""

    @property
    def publication(self) -> Publication | None:
        """The newest replay, running or ended."""
        return self._publication

    def taken(self) -> None:
        """Say that a client has come or taken records."""
        self._taken.notify()

    async def handle(self, verb: str, args: dict[str, Any]) -> StreamerStatus:
        """Carry out a command, and return once its effect is in place. Raises StreamerRefused.

        What takes long runs on a thread, and other commands are carried out meanwhile. But whoever speaks of a replay
        while one is opened means that one, and seeks and steps are made one after the other.
        """
        if verb == "status":
            return self.status()
        if verb == "start":
            return await self.start(cast(StartCommand, args))
        async with self._starting:
            pass
        match verb:
            case "stop":
                return self.stop()
            case "pause":
                return self.pause()
            case "resume":
                return self.resume()
            case "pace":
                return self.change_pace(args["pace"], **{key: args[key] for key in args if key == "skip_idle_s"})
            case "seek":
                return await self.seek(args["to"])
            case "step":
                return await self.step(args["unit"], args["by"])
        raise StreamerRefused(f"Unknown command {verb!r}: expected {', '.join(VERBS)}.")

    async def start(self, command: StartCommand) -> StreamerStatus:
        """Begin a replay; while one runs nothing happens and the status says so. Raises StreamerRefused."""
        check_pace(command["pace"])
        check_skip(command["skip_idle_s"])
        async with self._starting:
            if self._publication is not None and self._publication.active:
                return {**self.status(), "note": "already running"}
            try:
                recording, index, window = await asyncio.to_thread(self._open, command)
            except SourceError as error:
                raise StreamerRefused(f"Cannot open {command['dataset']}: {error}") from error
            publication = self._publication = Publication(command, recording, time.monotonic_ns(), index, window)
        logger.info(
            "replay %d of %s starts at record %d", command["replay_id"], command["dataset"], publication.released
        )
        self._begins(publication)
        threading.Thread(target=publication.find_books, name="books", daemon=True).start()
        clock = asyncio.create_task(self._keep_time(publication))
        self._clocks.add(clock)
        clock.add_done_callback(self._clocks.discard)
        return self._changed()

    def stop(self) -> StreamerStatus:
        """End the replay where it is; harmless when none runs."""
        if self._publication is not None and self._publication.active:
            self._publication.finish(ReplayState.STOPPED)
            self._ended(self._publication)
        return self.status()

    def pause(self) -> StreamerStatus:
        """Hold the replay between two records; harmless when it is paused. Raises StreamerRefused when none runs."""
        self._running().pause(time.monotonic_ns())
        return self._changed()

    def resume(self) -> StreamerStatus:
        """Go on; harmless when the replay is not paused. Raises StreamerRefused when none runs."""
        self._running().resume(time.monotonic_ns())
        return self._changed()

    def change_pace(self, pace: Pace, **skip: float | None) -> StreamerStatus:
        """Change the pace in flight, and ``skip_idle_s`` if it is given. Raises StreamerRefused when no replay runs."""
        check_pace(pace)
        publication = self._running()
        skip_idle_s = skip.get("skip_idle_s", publication.skip_idle_s)
        check_skip(skip_idle_s)
        publication.change_pace(pace, skip_idle_s, time.monotonic_ns())
        return self._changed()

    async def seek(self, to: object) -> StreamerStatus:
        """Go to a place, running or paused as before. Raises StreamerRefused.

        The clock stands while it is sought: what comes next from here must still be ahead when it is found.
        """
        async with self._moving:
            publication = self._held = self._running()
            try:
                found = await asyncio.to_thread(
                    places.find, self._ground(publication), publication.window, to, publication.released
                )
            finally:
                self._held = None
                self._taken.notify()
            self._check_still_runs(publication)
            publication.seek(found, time.monotonic_ns())
            return self._changed()

    async def step(self, unit: StepUnit, by: int) -> StreamerStatus:
        """Go so many units on or back, and stay there: a replay that runs is paused first. Raises StreamerRefused.

        Then, and when the caller's patience ends before the place is found, a replay that ran runs on.
        """
        check_step(unit, by)
        async with self._moving:
            publication = self._running()
            ran = publication.state == ReplayState.REPLAYING
            self.pause()
            here = publication.released
            try:
                found = await asyncio.to_thread(
                    places.stepped, self._ground(publication), publication.window, unit, by, here
                )
            except BaseException:
                if ran and publication is self._publication and publication.active:
                    self.resume()
                raise
            self._check_still_runs(publication)
            if publication.released != here:
                raise StreamerRefused("The replay was resumed while the step was sought.")
            if found > here:
                publication.step_to(found, time.monotonic_ns())
            else:
                publication.seek(found, time.monotonic_ns())
            return self._changed()

    def abandon(self) -> None:
        """End the replay here, because another streamer goes on with it; harmless when none runs."""
        if self._publication is not None and self._publication.active:
            self._publication.abandon()
            self._ended(self._publication)

    def abandon_run(self, replay_id: int, generation: int) -> None:
        """Abandon this run, if it is the one that runs: its row belongs to somebody else now."""
        if self._publication is None:
            return
        command = self._publication.command
        if (command["replay_id"], command["generation"]) == (replay_id, generation):
            logger.warning("replay %d, generation %d, is no longer ours", replay_id, generation)
            self.abandon()

    async def _end_clocks(self) -> None:
        """Let the clocks of replays that have ended come to their own end."""
        await asyncio.gather(*self._clocks)

    def _open(self, command: StartCommand) -> tuple[Recording, Index | None, Window]:
        """Do what takes long, on a thread: open the file and its index, and find the window."""
        recording = self._open_recording(Path(command["path"]))
        index = self._open_index(recording)
        ground = Ground(command["dataset"], recording.records, lambda: index)
        return recording, index, places.window_of(ground, command["window_from"], command["window_to"])

    def _ground(self, publication: Publication) -> Ground:
        """Return what places are sought in; an index that was not made when the replay began may be there now."""

        def find_index() -> Index | None:
            index = publication.index
            if index is None or index.discarded:
                index = self._open_index(publication.recording)
                if index is not None:
                    publication.use_index(index)
            return index

        return Ground(publication.command["dataset"], publication.recording.records, find_index)

    def _running(self) -> Publication:
        if self._publication is None or not self._publication.active:
            raise StreamerRefused("No replay is running.")
        return self._publication

    def _check_still_runs(self, publication: Publication) -> None:
        if publication is not self._publication or not publication.active:
            raise StreamerRefused("The replay ended while the place was sought.")

    def _changed(self) -> StreamerStatus:
        """Wake everybody, and report."""
        self._commanded.notify()
        self._wake()
        self._taken.notify()
        status = self.status()
        self._tell(status)
        return status

    async def _keep_time(self, publication: Publication) -> None:
        """Release records as they come due, until the run ends; a fault of the program ends it as FAILED."""
        wait_s = 0.0
        while publication.active:
            try:
                wait_s = self._release_due(publication)
            except Exception as error:
                logger.exception("the clock of replay %d failed", publication.command["replay_id"])
                publication.finish(ReplayState.FAILED, f"{type(error).__name__}: {error}")
            if not publication.active:
                self._ended(publication)
                return
            await self._sleep(publication, wait_s)

    def _release_due(self, publication: Publication) -> float:
        """Release what is due, and return how many seconds the clock may sleep; 0 when it waits to be woken."""
        if publication is self._held:
            return 0.0
        following = self._following(publication)
        if publication.advance(time.monotonic_ns(), min((cursor.published for cursor in following), default=None)):
            self._wake()
        return publication.wait_ns(time.monotonic_ns()) / SECOND_NS

    async def _sleep(self, publication: Publication, wait_s: float) -> None:
        """Sleep as long as the clock may; a command wakes it, and at ``max`` a client that took records."""
        if publication.state == ReplayState.PAUSED:
            await self._commanded.wait()
        elif not wait_s:
            await self._taken.wait()
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._commanded.wait()

    def _ended(self, publication: Publication) -> None:
        logger.info(
            "replay %d is %s at record %d", publication.command["replay_id"], publication.state, publication.released
        )
        self._changed()
