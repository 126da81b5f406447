"""The feed thread: records in, books kept, snapshots out. Floor 3.

``run`` is a loop of named steps that take values; tests call the steps without a socket or a thread. What arrives is
applied in one compiled pass, which writes the snapshots that fall due: no step costs Python time by record. Nothing
here waits for a file, a database or Redis: snapshots are handed over to sinks.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final

from engine_worker.batch import SnapshotBatch
from engine_worker.config import EngineConfig
from engine_worker.connection import Connection, FeedInterrupted
from engine_worker.feed_client import FeedClient
from engine_worker.metrics import ApplySampler, EngineCounters
from engine_worker.naming import Names
from engine_worker.pusher import Pusher
from engine_worker.results import write_results
from engine_worker.run import Run, first_plain, maybe_streamers_clears
from engine_worker.sinks.base import Sink
from engine_worker.sinks.broadcast import LiveBook
from engine_worker.tracks import SymbolOf
from orderbook.book.market import make_market
from orderbook.book.mbo import MboArray

QUIET_NS: Final = 10**9
IDLE_S: Final = 0.2
# Where snapshots are dense, a pass is cut so that those of one pass stay in the processor's cache on their way out.
PASS_BYTES: Final = 1 << 20
LEAST_PASS: Final = 256
_LEVEL_BYTES: Final = 2 * 24

log = logging.getLogger(__name__)


class Engine:
    """The books of one feed. ``stores`` get the snapshots to keep, ``live`` those to show."""

    def __init__(
        self,
        config: EngineConfig,
        stores: Sequence[Sink[SnapshotBatch]],
        live: Sink[LiveBook],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.config = config
        self.counters = EngineCounters()
        self.fault = ""
        """Why the results of the last replay could not be written; empty when they could."""
        self._stores = stores
        self.pusher = Pusher(live, config.push_ms)
        self._clock_ns = clock_ns
        self._sampler = ApplySampler()
        self._names = Names(config.symbol, config.registered)
        least = max(PASS_BYTES // (config.depth * _LEVEL_BYTES), LEAST_PASS)
        self._pass_records = least * max(config.snapshot_every, 1)
        self._heard_at = 0
        self._last: Run | None = None
        self.begin(lambda instrument_id: None)
        self.state = "connecting"

    def run(self, feed: FeedClient, stop: Event) -> None:
        """Follow one connection after the other until ``stop`` is set."""
        self.state = "connecting"
        while (connection := feed.connect(stop)) is not None:
            self.counters.connections += 1
            self.begin(connection.symbol)
            try:
                self.follow(connection, stop)
            except FeedInterrupted as error:
                self.counters.interruptions += 1
                log.warning("feed interrupted after %d records: %s", self.shown.records, error)
            finally:
                connection.close()
            self.state = "connecting"
        self.state = "stopping"

    def follow(self, connection: Connection, stop: Event) -> None:
        """Take what one connection brings, to its end. Raises FeedInterrupted."""
        while not stop.is_set():
            try:
                records = connection.receive(self.wait_s())
            finally:
                self.counters.heard(connection.rejected, connection.notices)
            if records is None:
                self.end()
                return
            self.step(records, connection.decode_ns)

    @property
    def shown(self) -> Run:
        """The run to report: the last replay, while the connection brought no more than a picture."""
        return self._last if self._run.is_picture and self._last is not None else self._run

    def begin(self, symbol_of: SymbolOf) -> None:
        """Start with empty books: a connection brings its own beginning."""
        self.state = "waiting"
        self._market = make_market(self.config.book)
        self._run = Run(self.config, self._market, self._names, symbol_of)
        if self._last is not None and self._last.is_full:
            self._run.stopped = self._last

    def step(self, records: MboArray, decode_ns: int = 0) -> None:
        """Take what arrived, perhaps nothing, and push what is due."""
        now = self._clock_ns()
        if len(records):
            self.state, self._heard_at = "streaming", now
            self._sampler.decode_ns = decode_ns // len(records)
            self._take(records)
        elif now - self._heard_at > QUIET_NS:
            self.state = "waiting"
        self.pusher.push(self._run, now)

    def end(self) -> None:
        """Close the replay that the connection carried, if it carried one, and push what is left."""
        if not self._run.is_picture and not self._run.finished:
            self._finish()
        if self._last is not None:
            self._last.over = True
        self.pusher.push(self._run, self._clock_ns(), everything=True)

    def wait_s(self) -> float:
        """Return how long to wait for records: until the next push is due, or a little."""
        return min((self.pusher.due(self._run) - self._clock_ns()) / 1e9, IDLE_S)

    def _take(self, records: MboArray) -> None:
        """Apply records, finding out on the way where the replay begins."""
        self.counters.received += len(records)
        self._run.first_ns = self._run.first_ns or time.perf_counter_ns()
        if self._run.is_picture:
            plain = first_plain(records)
            self._apply_cleared(records[:plain])
            records = records[plain:]
            if not len(records):
                return
            self._run = self._run.replay_of(records[0])
            if self._run.is_picture:
                self._run.is_picture = False
                self._last = self._run
                self.counters.runs += 1
                log.info("replay run %s begins", self._run.run_id)
        self._apply_cleared(records)

    def _apply_cleared(self, records: MboArray) -> None:
        """Apply records, the clears among them that the streamer put in uncounted."""
        done = 0
        for index in maybe_streamers_clears(records):
            self._apply(records[done:index])
            done = index
            if self._run.may_clear(records[index]):
                done += 1
                self._run.clear(records[index:done], self._heard_at)
                self.counters.applied += 1
        self._apply(records[done:])

    def _apply(self, records: MboArray) -> None:
        """Apply records up to MAX_MSGS, and end the replay there."""
        if not len(records):
            return
        run, room = self._run, self._run.room(len(records))
        self.counters.applied += room
        self.counters.ignored += len(records) - room
        for begin in range(0, room, self._pass_records):
            self._pass(run, records[begin : min(begin + self._pass_records, room)])
        if run.is_picture:
            run.books.introduce(records[room:])
        if room:
            run.count(room)
        if run.is_full and not run.is_picture and not run.finished:
            self._finish()

    def _pass(self, run: Run, records: MboArray) -> None:
        """Apply records in one go, and hand over the snapshots that fell due."""
        self._sampler.apply(self._market, records, run.tape, run.apply_ns)
        run.books.took(records, self._heard_at)
        self._store(run)

    def _store(self, run: Run) -> None:
        """Hand over what the pass has written; a picture is nothing to keep."""
        taken = run.tape.take()
        run.trades.add(taken.trades)
        if run.is_picture or not len(taken.rows):
            return
        begun = time.perf_counter_ns()
        for batch in run.books.batches(run.run_id, taken):
            for sink in self._stores:
                sink.offer(batch)
        count = len(taken.rows)
        run.snap_ns.add(time.perf_counter_ns() - begun + self._sampler.snap_ns, count)
        run.snapshots += count
        self.counters.snapshots += count

    def _finish(self) -> None:
        """End the replay: last snapshots, final books, benchmark line."""
        run = self._run
        run.finished = True
        self._market.snap_rest(run.tape)
        self._store(run)
        self.pusher.push(run, self._clock_ns(), everything=True)
        self.fault = write_results(run, self.config)
