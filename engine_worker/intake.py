"""Records into the books of a run, and the snapshots that fall due to the stores. Floor 3.

Not the engine's loop (engine.py), which knows connections and where a replay begins and ends.
"""

import time
from collections.abc import Sequence
from typing import Final

from engine_worker.batch import SnapshotBatch
from engine_worker.config import EngineConfig
from engine_worker.histogram import ApplySampler, LatencyHistogram
from engine_worker.metrics import EngineCounters
from engine_worker.run import Run
from engine_worker.sinks.base import Sink
from engine_worker.stream_kinds import emptying_clears
from engine_worker.waits import Waits
from orderbook.book.mbo import MboArray
from orderbook.book.snapshot_tape import SnapshotRule

LINGER: Final = 1024
"""Records, some 50 us, that a pass goes on behind its first snapshot where others may follow: a hand-over costs half as
much as that, however many snapshots it is of."""


def linger(rule: SnapshotRule) -> int:
    """Return how many records a pass goes on behind its first snapshot: none where no other of its book comes so soon.

    >>> linger(SnapshotRule(1000, 0, 50)), linger(SnapshotRule(10, 0, 50)), linger(SnapshotRule(1000, 10**6, 50))
    (0, 1024, 1024)
    """
    return 0 if 2 * rule.every > LINGER and not rule.every_ns else LINGER


class Intake:
    """Applies records pass by pass. Belongs to the feed thread.

    A pass ends behind a snapshot, so that the stores have it at once, or where the records do.
    """

    def __init__(self, config: EngineConfig, stores: Sequence[Sink[SnapshotBatch]], counters: EngineCounters) -> None:
        self.sampler = ApplySampler()
        self.snap_ns = LatencyHistogram()
        """Of every snapshot of every run; the sampler has the same of ``apply``."""
        self._stores = stores
        self._counters = counters
        self._linger = linger(config.rule)
        self._waits = Waits()

    def take(self, run: Run, records: MboArray, now_ns: int) -> None:
        """Apply records up to MAX_MSGS, the clears among them that the streamer put in uncounted."""
        done = 0
        for index in emptying_clears(records):
            self._apply(run, records[done:index], now_ns)
            done = index
            if run.may_clear(records[index]):
                done += 1
                run.clear(records[index:done], now_ns)
                self._counters.applied += 1
        self._apply(run, records[done:], now_ns)

    def finish(self, run: Run) -> None:
        """Hand over the last snapshot of each book that took records since it had one."""
        run.market.snap_rest(run.tape)
        self._store(run)
        self._waits.note(run.snap_ns, self.snap_ns)

    def _apply(self, run: Run, records: MboArray, now_ns: int) -> None:
        if not len(records):
            return
        room = run.room(len(records))
        self._counters.applied += room
        self._counters.ignored += len(records) - room
        begin = 0
        while begin < room:
            begin += self._pass(run, records[begin:room])
        self._waits.note(run.snap_ns, self.snap_ns)
        run.books.took(now_ns)
        if run.is_picture:
            run.books.introduce(records[room:])
        if room:
            run.count(room)

    def _pass(self, run: Run, records: MboArray) -> int:
        """Apply records in one go, all or the first ones, and hand over what they have written. Returns how many."""
        done = self.sampler.apply(run.market, records, run.tape, self._linger)
        run.books.admit(records[:done])
        self._store(run)
        self.sampler.note(run.apply_ns)
        return done

    def _store(self, run: Run) -> None:
        """Hand over what the pass has written; a picture, and what was had before, is nothing to keep.

        Nor is what comes behind the end of a run.
        """
        taken = run.tape.take()
        self._counters.events += taken.events
        if run.is_picture or run.finished:
            return
        run.trades.add(taken.trades)
        count = len(taken.rows)
        if not count:
            return
        for batch in run.books.batches(run.run_id, taken):
            for sink in self._stores:
                sink.offer(batch)
        handed_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)  # the clock of the kernel, wherever it runs
        self._waits.add(taken.ended_ns, handed_ns, sum(sink.encode_ns for sink in self._stores))
        run.snapshots += count
        self._counters.snapshots += count
