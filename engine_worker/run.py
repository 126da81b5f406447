"""One replay as the engine sees it: its id, where it begins and ends, its counts. Floor 3.

Not the books' owner (a connection's Market keeps them from run to run) and not the loop (engine.py).
"""

import time
import uuid

import numpy as np

from engine_worker.books import RunBooks
from engine_worker.config import EngineConfig
from engine_worker.histogram import LatencyHistogram
from engine_worker.mark import Mark
from engine_worker.naming import Names
from engine_worker.tracks import SymbolOf, Track
from engine_worker.trades import Trades
from engine_worker.trail import Spot
from orderbook.book.mbo import UNDEF_CHANNEL, Action, BookKey, MboArray
from orderbook.book.protocol import Market
from orderbook.book.snapshot_tape import SnapshotTape


class Run:
    """What belongs to one replay, from its first record to its benchmark line.

    A run is only a picture until a record without Flags.SNAPSHOT comes: a connection to a gateway where nothing
    runs brings the book of the last replay, and that is no replay.
    """

    def __init__(self, config: EngineConfig, market: Market, names: Names, symbol_of: SymbolOf) -> None:
        self.run_id = uuid.uuid4().hex
        self.replay_id = 0
        """The gateway's number of it, which other runs may have too; 0: it told none."""
        self.is_picture = True
        self.finished = False
        self.tape = SnapshotTape(config.rule)
        self.books = RunBooks(market, self.tape, names, config.registered, symbol_of)
        self.trades = Trades()
        self.records = 0
        self.snapshots = 0
        self.first_ns = 0
        self.last_ns = 0
        self.apply_ns = LatencyHistogram()
        self.snap_ns = LatencyHistogram()
        self.over = False
        """Whether its connection came to an end; a replay whose connection only broke may go on in the next one."""
        self.stopped: Run | None = None
        """The run before, if it stopped at MAX_MSGS: its books stay in sight while this one is only a picture."""
        self.resumed_at: int | None = None
        """Records that the run had when this part of it began, which goes on with an earlier one; None: it is whole."""
        self._stands_by = False  # what comes was counted before
        self._config = config
        self.market = market
        self._names = names
        self._symbol_of = symbol_of

    @property
    def tracks(self) -> dict[BookKey, Track]:
        return self.books.tracks

    def continued_by(self, first: np.void) -> bool:
        """Say whether the first record behind a picture goes on with it.

        A streamer that begins another replay first clears what it pictured; anything else belongs to the same one.
        """
        return key_of(first) not in self.tracks or first["action"] != Action.CLEAR

    @property
    def is_kept(self) -> bool:
        """Whether its snapshots are for the stores: a picture is nothing to keep, nor is what comes behind its end."""
        return not (self.is_picture or self.finished)

    @property
    def is_hidden(self) -> bool:
        """Whether its books are not to be shown."""
        return self.stopped is not None

    @property
    def is_full(self) -> bool:
        """Whether it has all the records that MAX_MSGS allows."""
        return 0 <= self._config.max_msgs <= self.records and not self._stands_by

    def room(self, records: int) -> int:
        """Return how many of so many records MAX_MSGS still allows."""
        limit = self._config.max_msgs
        return records if limit < 0 or self._stands_by else max(min(limit - self.records, records), 0)

    def replay_of(self, first: np.void) -> "Run":
        """Return the replay that the first record behind this picture belongs to: another one, or the pictured."""
        if not self.continued_by(first):
            run = Run(self._config, self.market, self._names, self._symbol_of)
            run.books.stand_as_in(self.books)
            run.first_ns = time.perf_counter_ns()
            return run
        stopped, self.stopped = self.stopped, None
        if stopped is not None and self.tracks and not stopped.over:
            return stopped  # its connection broke off beyond MAX_MSGS, and this is the rest
        return self

    def mark(self, replay_id: int, spot: Spot | None) -> Mark:
        """Return what another run needs to go on with this one. Cost: a copy of 140 bytes a book."""
        names = self.books.names
        return Mark(replay_id, spot, self.records, names, self.tape.states[: len(names)].copy())

    def stand_by(self, mark: Mark) -> None:
        """Have the books of a mark, as yet empty: same numbers, same names. Before any record."""
        for name in mark.names:
            self.market.book(name.key)
        self.books.admit_named(mark.names)
        self._stands_by = True

    def go_on(self, mark: Mark) -> None:
        """Be where a mark was made: what was applied since ``stand_by`` has been counted before."""
        self.tape.set_back(mark.states)
        self.records = self.resumed_at = mark.records
        self.first_ns = self.last_ns = time.perf_counter_ns()
        self.apply_ns = LatencyHistogram()
        self._stands_by = False

    def had_all(self, mark: Mark) -> None:
        """Be over: an engine before us has had all that it wanted of this replay."""
        self.records, self.finished = mark.records, True

    def may_clear(self, record: np.void) -> bool:
        """Say whether a clear that looks like the streamer's is, and MAX_MSGS is not reached.

        Its clears belong to no channel; without that mark (not every feed has channels) it is one where a book stands.
        """
        if self.is_full:
            return False
        return bool(record["channel_id"] == UNDEF_CHANNEL) or self.books.stands(key_of(record))

    def clear(self, record: MboArray, now_ns: int) -> None:
        """Apply the one record with which the streamer empties a book: to be shown, but nothing to keep."""
        self.market.apply(record)
        self.books.cleared(key_of(record[0]), now_ns)

    def count(self, records: int) -> None:
        """Count records that were applied just now."""
        self.last_ns = time.perf_counter_ns()
        self.records += records

    @property
    def symbols(self) -> list[str]:
        return sorted(track.symbol for track in self.tracks.values() if self.books.records(track))


def key_of(record: np.void) -> BookKey:
    """Return which book a record belongs to."""
    return BookKey(int(record["publisher_id"]), int(record["instrument_id"]))
