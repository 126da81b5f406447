"""One replay as the engine sees it: its id, its books by name, its counts. Floor 3.

Not the books' owner (a connection's Market keeps them from run to run) and not the loop (engine.py).
"""

import time
import uuid
from collections.abc import Callable

import numpy as np

from engine_worker.cadence import Cadence
from engine_worker.config import EngineConfig
from engine_worker.metrics import LatencyHistogram
from engine_worker.naming import Names
from orderbook.book.mbo import UNDEF_CHANNEL, Action, BookKey, Flags, MboArray, Side
from orderbook.book.price import infer_tick
from orderbook.book.protocol import Market, OrderBook
from orderbook.book.snapshot import BookSnapshot

SymbolOf = Callable[[int], str | None]
"""instrument_id -> symbol, None where the feed has told none."""


class Track:
    """One book in a run: its name, its grid, and what of it went out."""

    def __init__(self, key: BookKey, symbol: str, book: OrderBook, tick: int, every: int) -> None:
        self.key = key
        self.symbol = symbol
        self.book = book
        self.cadence = Cadence(every)
        self.records = 0
        self.stored_records = 0  # ``records`` at the last stored snapshot
        self.push_at = 0  # ns of the engine's clock
        self.complete_at = 0
        self._tick = tick  # 0: not known, and no price has told any
        self._inferred = not tick
        self._stored = 0
        self._pushed = 0

    def stored_snapshot(self, run_id: str, depth: int) -> BookSnapshot:
        """Return the next snapshot for the stores; they have a ``seq`` of their own, the same at every pace."""
        self._stored += 1
        self.stored_records = self.records
        return self._snapshot(run_id, self._stored, depth)

    def pushed_snapshot(self, run_id: str, depth: int | None) -> BookSnapshot:
        """Return the next snapshot for the web: ``depth`` levels a side, all without it."""
        self._pushed += 1
        return self._snapshot(run_id, self._pushed, depth)

    def _snapshot(self, run_id: str, seq: int, depth: int | None) -> BookSnapshot:
        book = self.book
        bids, asks = book.levels(Side.BID, depth), book.levels(Side.ASK, depth)
        if self._inferred:
            self._infer(np.concatenate((bids[:, 0], asks[:, 0])))
        return BookSnapshot(
            symbol=self.symbol,
            run_id=run_id,
            seq=seq,
            records=self.records,
            ts_event=book.ts_event,
            ts_recv=book.ts_recv,
            sequence=book.sequence,
            tick=self._tick,
            bids=bids,
            asks=asks,
            key=self.key,
        )

    def _infer(self, prices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Take the widest grid on which every price seen so far lies."""
        if not self._tick:  # the first look goes over the whole book, whatever the depth of the snapshot
            levels = [self.book.levels(side)[:, 0] for side in (Side.BID, Side.ASK)]
            prices = np.concatenate(levels)
        self._tick = int(np.gcd(self._tick, infer_tick(prices)))


class Run:
    """What belongs to one replay, from its first record to its benchmark line.

    A run is only a picture until a record without Flags.SNAPSHOT comes: a connection to a gateway where nothing
    runs brings the book of the last replay, and that is no replay.
    """

    def __init__(self, config: EngineConfig, market: Market, names: Names, symbol_of: SymbolOf) -> None:
        self.run_id = uuid.uuid4().hex
        self.is_picture = True
        self.finished = False
        self.tracks: dict[BookKey, Track] = {}
        self.records = 0
        self.first_ns = 0
        self.last_ns = 0
        self.apply_ns = LatencyHistogram()
        self.snap_ns = LatencyHistogram()
        self.unpushed: set[Track] = set()
        self.incomplete: set[Track] = set()
        """Books whose full form in Redis is old."""
        self.standing: set[BookKey] = set()
        """Books that took something since the streamer last cleared them: those that it may clear."""
        self.over = False
        """Whether its connection came to an end; a replay whose connection only broke may go on in the next one."""
        self.stopped: Run | None = None
        """The run before, if it stopped at MAX_MSGS: its books stay in sight while this one is only a picture."""
        self._config = config
        self._market = market
        self._names = names
        self._symbol_of = symbol_of

    def continued_by(self, first: np.void) -> bool:
        """Say whether the first record behind a picture goes on with it.

        A streamer that begins another replay first clears what it pictured; anything else belongs to the same one.
        """
        return key_of(first) not in self.tracks or first["action"] != Action.CLEAR

    @property
    def is_hidden(self) -> bool:
        """Whether its books are not to be shown."""
        return self.stopped is not None

    @property
    def is_full(self) -> bool:
        """Whether it has all the records that MAX_MSGS allows."""
        return self.records == self._config.max_msgs

    def room(self, records: int) -> int:
        """Return how many of so many records MAX_MSGS still allows."""
        limit = self._config.max_msgs
        return records if limit < 0 else min(limit - self.records, records)

    def replay_of(self, first: np.void) -> "Run":
        """Return the replay that the first record behind this picture belongs to: another one, or the pictured."""
        if not self.continued_by(first):
            run = Run(self._config, self._market, self._names, self._symbol_of)
            run.standing = set(self.tracks)
            run.first_ns = time.perf_counter_ns()
            return run
        stopped, self.stopped = self.stopped, None
        if stopped is not None and self.tracks and not stopped.over:
            return stopped  # its connection broke off beyond MAX_MSGS, and this is the rest
        return self

    def may_clear(self, record: np.void) -> bool:
        """Say whether a clear that looks like the streamer's is, and MAX_MSGS is not reached.

        Its clears belong to no channel; without that mark (not every feed has channels) it is one where a book stands.
        """
        is_streamers = record["channel_id"] == UNDEF_CHANNEL or key_of(record) in self.standing
        return is_streamers and not self.is_full

    def changed(self, track: Track) -> None:
        """Note that a book took records."""
        self.standing.add(track.key)
        self.unpushed.add(track)
        self.incomplete.add(track)

    def clear(self, record: MboArray) -> None:
        """Apply the one record with which the streamer empties a book: to be shown, but nothing to keep."""
        self._market.apply(record)
        key = key_of(record[0])
        if track := self.tracks.get(key):
            self.changed(track)
            track.stored_records = track.records
        self.standing.discard(key)

    def admit(self, keys: list[BookKey], records: MboArray) -> None:
        """Make a track for each new book, in the order in which the stream names them."""
        new = [key for key in keys if key not in self.tracks]
        if len(new) > 1:
            new.sort(key=lambda key: _first_of(key, records))
        for key in new:
            symbol = self._name(key)
            known = self._config.registered.get(symbol)
            book = self._market.book(key)
            self.tracks[key] = Track(key, symbol, book, known.tick if known else 0, self._config.snapshot_every)

    def count(self, records: int) -> None:
        """Count records that were applied just now."""
        self.last_ns = time.perf_counter_ns()
        self.records += records

    @property
    def symbols(self) -> list[str]:
        return sorted(track.symbol for track in self.tracks.values() if track.records)

    def _name(self, key: BookKey) -> str:
        """Return a symbol that no other book of the run has, also where the feed calls two instruments the same."""
        symbol = self._names.name(key, self._symbol_of(key.instrument_id))
        used = any(track.symbol == symbol for track in self.tracks.values())
        return f"{symbol}.{key.instrument_id}" if used else symbol


def first_plain(records: MboArray) -> int:
    """Return the index of the first record without Flags.SNAPSHOT; the length when there is none."""
    plain = (records["flags"] & int(Flags.SNAPSHOT)) == 0
    return int(plain.argmax()) if plain.any() else len(records)


def maybe_streamers_clears(records: MboArray) -> list[int]:
    """Return the indices of the clears that look like those of a streamer, which empty a book for good.

    Plain ones come before a replay and a round of a loop; after a jump, ones flagged SNAPSHOT and nothing else are the
    picture of a book that does not exist there yet. A recording may hold the like. Cost: O(n) in numpy.
    """
    clears = np.flatnonzero(records["action"] == int(Action.CLEAR))
    found = records[clears]
    plain_end = (found["flags"] & int(Flags.SNAPSHOT | Flags.LAST)) == int(Flags.LAST)
    nothing_yet = found["flags"] == int(Flags.SNAPSHOT | Flags.LAST)
    return [int(index) for index in clears[(plain_end | nothing_yet) & (found["sequence"] == 0)]]


def key_of(record: np.void) -> BookKey:
    """Return which book a record belongs to."""
    return BookKey(int(record["publisher_id"]), int(record["instrument_id"]))


def _first_of(key: BookKey, records: MboArray) -> int:
    is_its = (records["publisher_id"] == key.publisher_id) & (records["instrument_id"] == key.instrument_id)
    return int(is_its.argmax())
