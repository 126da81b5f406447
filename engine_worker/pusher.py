"""What the web sees, and when: the newest picture of each changed book, every PUSH_MS. Floor 3.

Independent of what is stored. A book is shown at event ends only; one that is in mid-event waits for the next look.
"""

from typing import Final

from engine_worker.run import Run
from engine_worker.sinks.base import Sink
from engine_worker.sinks.broadcast import LiveBook
from orderbook.book.snapshot import BookSnapshot
from orderbook.live import LIVE_DEPTH

COMPLETE_EVERY_NS: Final = 10**9
NEVER: Final = 2**63 - 1


class Pusher:
    """Hands pictures to the live sink. Times are ns of the caller's clock."""

    def __init__(self, live: Sink[LiveBook], push_ms: int) -> None:
        self.pushes = 0
        self.newest: dict[str, BookSnapshot] = {}
        """The last pushed picture of each book of the run; replaced, never emptied, so that others may read it."""
        self._live = live
        self._push_ns = push_ms * 10**6
        self._run_id = ""

    def push(self, run: Run, now: int, *, everything: bool = False) -> None:
        """Push the changed books that are due, or all of them; none in mid-event."""
        if run.run_id != self._run_id and run.tracks:
            self._run_id, self.newest = run.run_id, {}
        for track in tuple(run.unpushed):
            if not track.book.at_event_end or (track.push_at > now and not everything):
                continue
            picture = track.pushed_picture(run.run_id, LIVE_DEPTH)
            self.newest[track.symbol] = picture
            self._live.offer(LiveBook(picture, complete=False))
            self.pushes += 1
            track.push_at = now + self._push_ns
            run.unpushed.discard(track)
        for track in tuple(run.incomplete):
            if not track.book.at_event_end or (track.complete_at > now and not everything):
                continue
            self._live.offer(LiveBook(track.pushed_picture(run.run_id, None), complete=True))
            track.complete_at = now + COMPLETE_EVERY_NS
            run.incomplete.discard(track)

    def due(self, run: Run) -> int:
        """Return when the next push is due; NEVER when no book waits for one."""
        return min((track.push_at for track in run.unpushed if track.book.at_event_end), default=NEVER)
