"""Records into the books of a run, and the snapshots that fall due to the stores. Floor 3.

Not the engine's loop (engine.py), which knows connections and where a replay begins and ends.
"""

from collections.abc import Sequence

from engine_worker.config import EngineConfig
from engine_worker.histogram import ApplySampler, LatencyHistogram
from engine_worker.metrics import EngineCounters
from engine_worker.run import Run
from engine_worker.sinks.store import Store
from engine_worker.snapshot_log import SnapshotLog
from engine_worker.stream_kinds import emptying_clears
from orderbook.book.mbo import MboArray


class Intake:
    """Applies records pass by pass. Belongs to the feed thread.

    A pass ends where the records do, or behind a snapshot that the market could not hand over by itself.
    """

    def __init__(self, config: EngineConfig, stores: Sequence[Store], counters: EngineCounters) -> None:
        self.sampler = ApplySampler()
        self.snap_ns = LatencyHistogram()
        """Of every snapshot of every run; the sampler has the same of ``apply``."""
        self._stores = stores
        self._counters = counters
        self._log = SnapshotLog()
        for store in stores:
            store.follow(self._log)

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

    def _apply(self, run: Run, records: MboArray, now_ns: int) -> None:
        if not len(records):
            return
        room = run.room(len(records))
        self._counters.applied += room
        self._counters.ignored += len(records) - room
        begin = 0
        while begin < room:
            begin += self._pass(run, records[begin:room])
        run.books.took(now_ns)
        if run.is_picture:
            run.books.introduce(records[room:])
        if room:
            run.count(room)

    def _pass(self, run: Run, records: MboArray) -> int:
        """Apply records in one go, all or the first ones. Returns how many."""
        run.tape.hands_over = run.is_kept
        if run.is_kept:
            run.books.follow_by(self._log, run.run_id)
        done = self.sampler.apply(run.market, records, run.tape)
        run.books.admit(records[:done])
        self._store(run)
        self.sampler.note(run.apply_ns)
        return done

    def _store(self, run: Run) -> None:
        """Hand over what the market has not, and have the stores take it in."""
        if run.is_kept:
            run.books.hand_over(self._log, run.run_id)
        else:
            run.tape.discard()
        taken = run.tape.take()
        self._counters.events += taken.events
        if not run.is_kept:
            return
        run.trades.add(taken.trades)
        count = len(taken.rows)
        if count:
            for store in self._stores:
                store.draw()
            waited_ns = taken.waited_ns + sum(store.encode_ns for store in self._stores)
            run.snap_ns.add_many(waited_ns)
            self.snap_ns.add_many(waited_ns)
            run.snapshots += count
            self._counters.snapshots += count
