"""Records into the books of a run, and the snapshots that fall due to the stores. Floor 3.

Not the engine's loop (engine.py), which knows connections and where a replay begins and ends.
"""

import time
from collections.abc import Sequence
from typing import Final

from engine_worker.batch import SnapshotBatch
from engine_worker.config import EngineConfig
from engine_worker.metrics import ApplySampler, EngineCounters, LatencyHistogram
from engine_worker.pass_times import PassTimes
from engine_worker.run import Run, events_in
from engine_worker.sinks.base import Sink
from engine_worker.stream_kinds import emptying_clears
from orderbook.book.mbo import MboArray

# Snapshots are handed over behind the pass that wrote them, so a pass is short: some 0.15 ms. Each costs some 25 us;
# with half as many records a snapshot waits 65 us instead of 90 (median), and the engine takes 11 instead of 14 M
# records/s (`benchpipeline --snapshot-every 1000`, in turns, 2 shared cores).
PASS_RECORDS: Final = 4096
PASS_SNAPSHOTS: Final = 512


class Intake:
    """Applies records pass by pass. Belongs to the feed thread."""

    def __init__(self, config: EngineConfig, stores: Sequence[Sink[SnapshotBatch]], counters: EngineCounters) -> None:
        self.sampler = ApplySampler()
        self.snap_ns = LatencyHistogram()
        """Of every snapshot of every run; the sampler has the same of ``apply``."""
        self._stores = stores
        self._counters = counters
        self._pass_records = min(PASS_RECORDS, PASS_SNAPSHOTS * max(config.snapshot_every, 1))

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
        begun_ns = time.perf_counter_ns()
        run.market.snap_rest(run.tape)
        self._store(run, PassTimes(run.tape.records - 1, 1, begun_ns, time.perf_counter_ns()))

    def _apply(self, run: Run, records: MboArray, now_ns: int) -> None:
        if not len(records):
            return
        room = run.room(len(records))
        self._counters.applied += room
        self._counters.ignored += len(records) - room
        for begin in range(0, room, self._pass_records):
            self._pass(run, records[begin : min(begin + self._pass_records, room)])
        run.books.took(now_ns)
        if run.is_picture:
            run.books.introduce(records[room:])
        if room:
            run.count(room)

    def _pass(self, run: Run, records: MboArray) -> None:
        """Apply records in one go, and hand over the snapshots that fell due."""
        first, begun_ns = run.tape.records, time.perf_counter_ns()
        self.sampler.apply(run.market, records, run.tape)
        times = PassTimes(first, len(records), begun_ns, time.perf_counter_ns())
        run.books.admit(records)
        self._store(run, times)
        self.sampler.note(run.apply_ns)
        self._counters.events += events_in(records)

    def _store(self, run: Run, times: PassTimes) -> None:
        """Hand over what the pass has written; a picture, and what was had before, is nothing to keep.

        Nor is what comes behind the end of a run.
        """
        taken = run.tape.take()
        if run.is_picture or run.finished:
            return
        run.trades.add(taken.trades)
        if not len(taken.rows):
            return
        for batch in run.books.batches(run.run_id, taken):
            for sink in self._stores:
                sink.offer(batch)
        count = len(taken.rows)
        encode_ns = sum(sink.encode_ns for sink in self._stores)
        run.snap_ns.add_many(times.waited(taken.rows["record"], time.perf_counter_ns()) + encode_ns, self.snap_ns)
        run.snapshots += count
        self._counters.snapshots += count
