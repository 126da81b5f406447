"""The schedules that realise a pace: how many records go out at a given moment. Floor 1.

Pure: the time comes in (ns, monotonic), nothing waits here. A record goes out when its moment has come. Late (the
machine stalled), a schedule is caught up at no more than twice the pace and in steps of at most 10 ms worth of it: the
mean is kept and there is no burst. All paces have one face, ``Pacer``.
"""

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MboArray
from replay.feed.marks import latest

SECOND_NS: Final = 1_000_000_000
STEPS_PER_S: Final = 100  # a step hands out at most 1/100 s worth of the pace
CATCH_UP: Final = 2
TICK_NS: Final = 2_000_000
"""Least time between two steps: a schedule finer than this would cost more than it gives."""

MILLION: Final = 1_000_000

_STEP_NS: Final = SECOND_NS // STEPS_PER_S
_CHUNK: Final = 1 << 14
"""Records whose moments are computed at once: some 100 us."""

_FAR: Final = np.uint64(2**62)
"""A moment that never comes: sums with it still fit into 64 bits."""


class Pacer(Protocol):
    """Hands records out in their order."""

    def due(self, now_ns: int, most: int) -> int:
        """Return how many more records go out now, at most so many; they count as gone."""

    def wait_ns(self, now_ns: int) -> int:
        """Return how long to wait before the next step is worth asking for; at least one tick, 0 without a pace."""

    def begin_round(self, position: int, now_ns: int) -> None:
        """Go on at a position, because the round before has ended."""

    def rest(self, now_ns: int) -> None:
        """Stop the clock."""

    def go_on(self, now_ns: int) -> None:
        """Let the clock run from where it stopped: the time between has not passed, and nothing is owed for it."""


class MaxPacer:
    """As fast as records are taken."""

    def due(self, now_ns: int, most: int) -> int:
        return most

    def wait_ns(self, now_ns: int) -> int:
        return 0

    def begin_round(self, position: int, now_ns: int) -> None:
        pass

    def rest(self, now_ns: int) -> None:
        pass

    def go_on(self, now_ns: int) -> None:
        pass


class RatePacer:
    """A constant number of records each second, spread evenly."""

    def __init__(self, records_per_s: int, now_ns: int) -> None:
        self._rate = records_per_s
        # Two limits hold at once. The schedule: nothing before its moment. The tap: each record out moves
        # _paid_ns on by its time at the fastest allowed rate, and _paid_ns may lag by one step at most.
        self._anchor_ns = self._paid_ns = now_ns
        self._out = 0

    def due(self, now_ns: int, most: int) -> int:
        owed = (now_ns - self._anchor_ns) * self._rate // SECOND_NS - self._out
        fastest, largest = self._rate * CATCH_UP, max(self._rate // STEPS_PER_S, 1)
        self._paid_ns = max(self._paid_ns, now_ns + -largest * SECOND_NS // fastest)
        step = max(min(owed, largest, (now_ns - self._paid_ns) * fastest // SECOND_NS, most), 0)
        self._out += step
        self._paid_ns += step * SECOND_NS // fastest
        return step

    def wait_ns(self, now_ns: int) -> int:
        next_ns = self._anchor_ns - (-(self._out + 1) * SECOND_NS // self._rate)  # rounded up: never a moment too early
        return max(next_ns - now_ns, TICK_NS)

    def begin_round(self, position: int, now_ns: int) -> None:
        pass

    def rest(self, now_ns: int) -> None:
        pass

    def go_on(self, now_ns: int) -> None:
        self._anchor_ns = self._paid_ns = now_ns
        self._out = 0


class MarketPacer:
    """As recorded, so many times as fast: by capture time (ts_recv); where that steps back the latest so far counts.

    The market clock counts ns of market time. A gap between two records that is longer than ``skip_idle_ns`` takes
    none of it. A record without a time goes out with the one before it.
    """

    def __init__(
        self,
        records: MboArray,
        position: int,
        millionths: int,
        skip_idle_ns: int | None,
        now_ns: int,
        *,
        newest: int = 0,
        passed_ns: int = 0,
    ) -> None:
        """Begin now before a record, which goes out at once: nobody knows what was to be waited for.

        Unless ``newest`` is given, the capture time of the record before it, since which so much market time passed.
        """
        self._records = records
        self._millionths = millionths
        self._skip_ns = skip_idle_ns
        self._anchor_ns = self._paid_ns = now_ns
        self._start(position, newest, passed_ns)
        self._anchor, self._behind, self._rests = self._reached, False, False

    def changed(self, millionths: int, skip_idle_ns: int | None, now_ns: int) -> "MarketPacer":
        """Return the same clock at another pace from now on: what was owed is forgiven, nothing is given twice."""
        self.rest(now_ns)
        out = self._position - self._begin
        newest = int(self._times[out - 1]) if out else self._newest
        passed_ns = self._reached - (int(self._moments[out - 1]) if out else self._base)
        return MarketPacer(
            self._records,
            self._position,
            millionths,
            skip_idle_ns,
            now_ns,
            newest=newest,
            passed_ns=passed_ns if newest else 0,
        )

    def due(self, now_ns: int, most: int) -> int:
        goal, moment = self._market_ns(now_ns), self._next()
        if moment is None or moment > goal:
            self._reached, self._behind = goal, False
            return 0
        # As with a rate: nothing before its moment, and a tap that gives at most 10 ms worth at once. Time in which
        # nothing was due is passed freely, so that only lateness is caught up.
        begin = self._reached if self._behind else max(self._reached, moment)
        self._paid_ns = max(self._paid_ns, now_ns - _STEP_NS // CATCH_UP)
        fastest = self._millionths * CATCH_UP
        until = min(goal, begin + max(now_ns - self._paid_ns, 0) * fastest // MILLION)
        self._paid_ns += -(-(until - begin) * MILLION // fastest)
        self._reached, self._behind = until, until < goal
        return self._take(until, most)

    def wait_ns(self, now_ns: int) -> int:
        moment = self._next()
        if moment is None or self._behind:
            return TICK_NS
        moment_ns = self._anchor_ns - ((self._anchor - moment) * MILLION // self._millionths)
        return max(moment_ns - now_ns, TICK_NS)

    def begin_round(self, position: int, now_ns: int) -> None:
        self._start(position, 0, 0)
        self.go_on(now_ns)

    def rest(self, now_ns: int) -> None:
        if not self._behind and not self._rests:
            goal, moment = self._market_ns(now_ns), self._next()
            self._reached = max(self._reached, goal if moment is None else min(goal, moment))
        self._rests = True

    def go_on(self, now_ns: int) -> None:
        self._anchor_ns = self._paid_ns = now_ns
        self._anchor, self._behind, self._rests = self._reached, False, False

    def _start(self, position: int, newest: int, passed_ns: int) -> None:
        self._position = self._begin = position
        self._newest = newest  # capture time before the chunk, 0 while none is known
        self._base = 0  # moment of that record on the market clock
        self._compute()
        self._reached = min(passed_ns, int(self._moments[0])) if len(self._moments) else 0  # the gap may be skipped now

    def _market_ns(self, now_ns: int) -> int:
        return self._anchor + (now_ns - self._anchor_ns) * self._millionths // MILLION

    def _next(self) -> int | None:
        """Return the moment of the next record on the market clock; None behind the last one."""
        if self._position == self._begin + len(self._moments) and not self._load():
            return None
        return int(self._moments[self._position - self._begin])

    def _take(self, until: int, most: int) -> int:
        before = self._position
        while self._position - before < most and self._next() is not None:
            stop = self._begin + int(np.searchsorted(self._moments, until, side="right"))
            self._position = max(self._position, min(stop, before + most))
            if stop < self._begin + len(self._moments):
                break
        return self._position - before

    def _load(self) -> bool:
        """Go to the next chunk; False when there is none."""
        if self._position == len(self._records):
            return False
        if len(self._moments):
            self._newest, self._base = int(self._times[-1]), int(self._moments[-1])
        self._begin = self._position
        self._compute()
        return True

    def _compute(self) -> None:
        """Compute the capture times of a chunk and its moments: the sum of the gaps that are waited for."""
        self._times = latest(self._records[self._begin : self._begin + _CHUNK], self._newest)
        gaps = np.diff(self._times, prepend=np.uint64(self._newest))
        if not self._newest:
            gaps[np.flatnonzero(gaps)[:1]] = 0  # the first time that is known: nothing to wait for
        if self._skip_ns is not None:
            gaps[gaps > np.uint64(self._skip_ns)] = 0
        moments = np.minimum(np.uint64(self._base) + np.minimum(np.cumsum(gaps), _FAR), _FAR)
        self._moments: npt.NDArray[np.int64] = moments.astype(np.int64)
