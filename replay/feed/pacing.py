"""The schedule that realises a pace: how many records may be out at a given moment. Floor 1.

Pure: the time comes in, nothing waits here. A record goes out when its moment has come, so records are spread
evenly. Late (the machine stalled), the schedule is caught up at no more than twice the pace and in steps of at
most 10 ms worth of it: the mean is kept and there is no burst.
"""

from typing import Final

SECOND_NS: Final = 1_000_000_000
STEPS_PER_S: Final = 100  # a step hands out at most 1/100 s worth of the pace
CATCH_UP: Final = 2
TICK_NS: Final = 2_000_000
"""Least time between two steps: a schedule finer than this would cost more than it gives."""

NO_LIMIT: Final = 2**63 - 1


class Pacer:
    """Counts records out against the clock that its caller reads (ns, monotonic)."""

    def __init__(self, records_per_s: int | None, now_ns: int, count: int = 0) -> None:
        """Start with ``count`` records out already; None is as fast as they are taken."""
        self.change(records_per_s, now_ns, count)

    def change(self, records_per_s: int | None, now_ns: int, count: int) -> None:
        """Go on at another pace from here: what was owed at the old one is forgiven, nothing is given twice."""
        self._rate = records_per_s
        # Two limits hold at once. The schedule: nothing before its moment. The tap: each record out moves
        # _paid_ns on by its time at the fastest allowed rate, and _paid_ns may lag by one step at most.
        self._anchor_ns = self._paid_ns = now_ns
        self._anchor = self._out = count

    def due(self, now_ns: int) -> int:
        """Return how many records may be out now; NO_LIMIT without a rate. Never less than before."""
        if self._rate is None:
            return NO_LIMIT
        owed = self._anchor + (now_ns - self._anchor_ns) * self._rate // SECOND_NS - self._out
        fastest, largest = self._rate * CATCH_UP, max(self._rate // STEPS_PER_S, 1)
        self._paid_ns = max(self._paid_ns, now_ns + -largest * SECOND_NS // fastest)
        step = min(owed, largest, (now_ns - self._paid_ns) * fastest // SECOND_NS)
        if step > 0:
            self._out += step
            self._paid_ns += step * SECOND_NS // fastest
        return self._out

    def wait_ns(self, now_ns: int) -> int:
        """Return how long to wait before the next step is worth asking for; at least one tick, 0 without a rate."""
        if self._rate is None:
            return 0
        ahead = self._out + 1 - self._anchor
        next_ns = self._anchor_ns - (-ahead * SECOND_NS // self._rate)  # rounded up: never a moment too early
        return max(next_ns - now_ns, TICK_NS)
