"""The feed thread: records in, books kept, snapshots out. Floor 3.

``run`` is a loop of named steps that take values; tests call the steps without a socket or a thread. What arrives is
applied in compiled passes, which write the snapshots that fall due: no step costs Python time by record. Nothing
here waits for a file, a database or Redis: snapshots are handed over to sinks.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final

from engine_worker.anomalies import Anomalies
from engine_worker.catch_up import Astray
from engine_worker.config import EngineConfig
from engine_worker.connection import Connection, FeedInterrupted
from engine_worker.feed_client import FeedClient
from engine_worker.heap import return_free_pages
from engine_worker.intake import Intake
from engine_worker.metrics import EngineCounters
from engine_worker.naming import Names
from engine_worker.pusher import Pusher
from engine_worker.results import write_results
from engine_worker.resumption import Resumption
from engine_worker.run import Run
from engine_worker.sinks.broadcast import LiveSink
from engine_worker.sinks.store import Store
from engine_worker.stream_kinds import first_plain
from engine_worker.tracks import SymbolOf
from orderbook.book.market import make_market
from orderbook.book.mbo import MboArray

QUIET_NS: Final = 10**9
IDLE_S: Final = 0.2

log = logging.getLogger(__name__)


class Engine:
    """The books of one feed. ``stores`` get the snapshots to keep, ``live`` those to show."""

    def __init__(
        self,
        config: EngineConfig,
        stores: Sequence[Store],
        live: LiveSink,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        resumption: Resumption | None = None,
    ) -> None:
        self.config = config
        self.resumption = resumption or Resumption(None)
        """Where it is in its replay; one with a ledger outlives the process."""
        self.counters = EngineCounters()
        self.anomalies = Anomalies()
        self.fault = ""
        """Why the results of the last replay could not be written; empty when they could."""
        self._intake = Intake(config, stores, self.counters)
        self.sampler, self.snap_ns = self._intake.sampler, self._intake.snap_ns
        self.pusher = Pusher(live, config.push_ms)
        self._clock_ns, self._heard_at = clock_ns, 0
        self._names = Names(config.symbol, config.registered)
        self._last: Run | None = None
        self.begin(lambda instrument_id: None)
        self.state = "connecting"

    def run(self, feed: FeedClient, stop: Event) -> None:
        """Follow one connection after the other until ``stop`` is set."""
        self.state = "connecting"
        self.resumption.load(stop)  # before a gateway is kept waiting for us
        while (connection := feed.connect(stop)) is not None:
            self.counters.connections += 1
            self.resumption.meets(connection.is_ours)
            self.begin(connection.symbol)
            try:
                self.follow(connection, stop)
            except (FeedInterrupted, Astray) as error:
                self.counters.interrupted(connection.left)
                self.resumption.interrupted(self._run)
                about = {"run_id": self.shown.run_id}
                log.warning("feed interrupted after %d records: %s", self.shown.records, error, extra=about)
            finally:
                connection.close()
                self.counters.settle()
                return_free_pages()  # while nothing is kept waiting
            self.state = "connecting"
        self.state = "stopping"

    def follow(self, connection: Connection, stop: Event) -> None:
        """Take what one connection brings, to its end. Raises FeedInterrupted, Astray."""
        while not stop.is_set():
            try:
                records = connection.receive(self.wait_s())
            finally:
                self.counters.heard(connection.rejected, connection.notices)
            if connection.replay_id != self.resumption.replay_id:
                self.follows(connection.replay_id)
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
        self.state, self._symbol_of = "waiting", symbol_of
        self.resumption.connected()
        self._begin_books()

    def follows(self, replay_id: int) -> None:
        """Take it that this replay comes now: all of it, or from a place before the one where we were."""
        mark = self.resumption.follows(replay_id)
        if mark is not None:
            self._begin_books()
            self._run.stand_by(mark)

    def _begin_books(self) -> None:
        self._market = make_market(self.config.book)
        self.anomalies.watch(self._market)
        self._run = Run(self.config, self._market, self._names, self._symbol_of)
        if self._last is not None and self._last.is_full:
            self._run.stopped = self._last

    def step(self, records: MboArray, decode_ns: int = 0) -> None:
        """Take what arrived, perhaps nothing, and push what is due."""
        now = self._clock_ns()
        if len(records):
            self.state, self._heard_at = "streaming", now
            self.sampler.decode_ns = decode_ns // len(records)
            self._take(records)
        elif now - self._heard_at > QUIET_NS:
            self.state = "waiting"
        self.pusher.push(self._run, now)
        self.resumption.note(self._run, now)
        self.anomalies.look(now)
        self.counters.settle()

    def end(self) -> None:
        """Close the replay that the connection carried, if it carried one, and push what is left. Raises Astray."""
        self.resumption.ends()
        if not self._run.is_picture and not self._run.finished:
            self._finish()
        if self._last is not None:
            self._last.over = True
        self.resumption.over(self._run)
        self.pusher.push(self._run, self._clock_ns(), everything=True)

    def wait_s(self) -> float:
        """Return how long to wait for records: until the next push is due, or a little."""
        return min((self.pusher.due(self._run) - self._clock_ns()) / 1e9, IDLE_S)

    def _take(self, records: MboArray) -> None:
        """Apply records, finding out on the way where the replay begins."""
        self.counters.received += len(records)
        self._run.first_ns = self._run.first_ns or time.perf_counter_ns()
        if self.resumption.is_catching_up:
            records = self._catch_up(records)
        self.resumption.took(records)
        if self._run.is_picture:
            plain = first_plain(records)
            self._apply(records[:plain])
            records = records[plain:]
            if not len(records):
                return
            self._run = self._run.replay_of(records[0])
            if self._run.is_picture:
                self._runs("begins", is_new=True)
                if (mark := self.resumption.had_all) is not None:
                    self._run.had_all(mark)
        self._apply(records)

    def _catch_up(self, records: MboArray) -> MboArray:
        """Apply what was had before, as a picture; return the rest. Raises Astray."""
        had, mark = self.resumption.had(records, self.counters)
        self._apply(records[:had])
        if mark is not None:
            self._run.go_on(mark)
            self._runs(f"goes on behind {mark.records} records", is_new=self._last is None or self._last.finished)
        return records[had:]

    def _runs(self, how: str, *, is_new: bool) -> None:
        """Take it that the run is no picture any more, but a replay."""
        self._run.is_picture, self._last = False, self._run
        self._run.replay_id = self.resumption.replay_id
        self.counters.runs += is_new
        log.info("replay run %s %s", self._run.run_id, how, extra={"run_id": self._run.run_id})

    def _apply(self, records: MboArray) -> None:
        """Apply records, and end the replay where MAX_MSGS ends it."""
        run = self._run
        self._intake.take(run, records, self._heard_at)
        if run.is_full and not run.is_picture and not run.finished:
            self._finish()

    def _finish(self) -> None:
        """End the replay: last snapshots, final books, benchmark line."""
        run = self._run
        self._intake.finish(run)
        run.finished = True
        self.pusher.push(run, self._clock_ns(), everything=True)
        self.fault = write_results(run, self.config)
        self.resumption.over(run)
