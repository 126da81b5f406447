"""Where the engine is in its replay, and the way back there in the next connection. Floor 3.

One mechanism for a connection that breaks and for a process that is killed: a mark says how far the stream was had,
the gateway is asked for what comes from there on, and what was had before is applied and not counted. The mark of a
broken connection is in memory and exact; that of another process is the newest that was durable.
"""

import logging
from threading import Event
from typing import Final, NamedTuple

from engine_worker.catch_up import Astray, CatchUp
from engine_worker.ledger import Ledger
from engine_worker.mark import Mark
from engine_worker.metrics import EngineCounters
from engine_worker.run import Run
from engine_worker.trail import Trail
from orderbook.book.mbo import MboArray

MARK_EVERY_NS: Final = 250 * 10**6
_PER_BOOK_NS: Final = 100_000  # a mark of 20,000 books has 2 MB

log = logging.getLogger(__name__)


class Known(NamedTuple):
    """What a gateway is told of where we are, and of what we want."""

    replay_id: int
    """0: no replay is known."""
    start_ns: int | None
    """From when on that one is wanted, 0 its beginning; None: from now on. Another one is wanted from its beginning."""


class Resumption:
    """Belongs to the feed thread."""

    def __init__(self, ledger: Ledger | None) -> None:
        """Without a ledger nothing is durable: a process begins with what a gateway has now."""
        self._ledger = ledger
        self._mark: Mark | None = None
        self.replay_id = 0
        """What this connection brings; 0 before it says so."""
        self._catch_up: CatchUp | None = None
        self._trail = Trail()
        self._due_ns = 0
        self._marked = 0
        self._is_warned = False

    def load(self, stop: Event) -> None:
        """Find out where a process before us was, before the first connection. Takes some seconds at most."""
        if self._ledger is not None:
            self._mark = self._ledger.load(stop)

    def meets(self, is_ours: bool) -> None:
        """Say once that a gateway of another make has no replays to go on with, where that was expected of it."""
        if self._ledger is not None and not is_ours and not self._is_warned:
            self._is_warned = True
            log.warning("this gateway is none of ours: an engine that is killed will not go on where it was")

    def known(self) -> Known:
        """Return what to tell the gateway in a new connection."""
        mark = self._mark
        if mark is None or not mark.replay_id:
            return Known(0, None if self._ledger is None else 0)
        return Known(mark.replay_id, None if mark.spot is None else mark.spot.ts_event)

    def connected(self) -> None:
        """Begin a connection, which has not said what it brings."""
        self.replay_id, self._catch_up, self._trail = 0, None, Trail()

    def follows(self, replay_id: int) -> Mark | None:
        """Take it that this replay comes; return the mark to catch up with, None when there is none to be found."""
        self.replay_id, self._catch_up, mark = replay_id, None, self._mark
        if mark is None or mark.replay_id != replay_id:
            self._trail = Trail(is_whole=mark is not None or self._ledger is not None)
            if mark is not None and self._ledger is not None:
                self._ledger.resumed(mark)
            self._mark = None
            return None
        if mark.spot is None:
            return None
        self._catch_up = CatchUp(mark.spot)
        return mark

    @property
    def had_all(self) -> Mark | None:
        """The mark of the replay that comes, if nothing more of it is wanted."""
        mark = self._mark
        if mark is None or not self.replay_id or mark.replay_id != self.replay_id:
            return None
        return mark if mark.is_over else None

    @property
    def is_catching_up(self) -> bool:
        return self._catch_up is not None

    def had(self, records: MboArray, counters: EngineCounters) -> tuple[int, Mark | None]:
        """Return how many of these records, the next, were had before, and the mark once it is reached.

        Raises Astray where the stream does not lead there; the records are then counted as ignored.
        """
        if self._catch_up is None:
            return 0, None
        try:
            had = self._catch_up.had(records)
        except Astray:
            self._mark = None
            counters.ignored += len(records)
            raise
        if not self._catch_up.is_there:
            return had, None
        mark, self._catch_up = self._mark, None
        assert mark is not None
        self._trail = Trail(spot=mark.spot)
        if self._ledger is not None:
            self._ledger.resumed(mark)
        return had, mark

    def took(self, records: MboArray) -> None:
        """Note records that are new. Cost: that of ``Trail.took``."""
        if self.replay_id:
            self._trail.took(records)

    def note(self, run: Run, now_ns: int) -> None:
        """Make a mark for those who come after us, when it is time and anything has come since the last one."""
        if self._ledger is None or now_ns < self._due_ns or self.is_catching_up or run.records == self._marked:
            return
        mark = self._mark_of(run)
        if mark is not None:
            self._ledger.offer(mark)
            self._marked = run.records
            self._due_ns = now_ns + MARK_EVERY_NS + _PER_BOOK_NS * len(mark.names)

    def interrupted(self, run: Run) -> None:
        """Keep where we are, for the next connection; on the way to a mark that is the mark."""
        if self.replay_id and not self.is_catching_up and self.had_all is None:
            self._mark = self._mark_of(run)

    def over(self, run: Run) -> None:
        """Take it that nothing more of the replay is wanted."""
        if not self.replay_id or self.had_all is not None:
            return
        self._mark = run.mark(self.replay_id, None)
        if self._ledger is not None:
            self._ledger.offer(self._mark)

    def ends(self) -> None:
        """Take it that the replay has ended. Raises Astray when that was before the place that we were at."""
        if self.is_catching_up:
            self._mark = None
            raise Astray("the replay ended before the place where we were came")

    def _mark_of(self, run: Run) -> Mark | None:
        spot = self._trail.spot
        if not self.replay_id or run.is_picture or run.finished or spot is None:
            return None
        return run.mark(self.replay_id, spot)
