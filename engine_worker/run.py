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
from orderbook.book.market import Market
from orderbook.book.mbo import Action, BookKey, Flags, MboArray, Side
from orderbook.book.price import infer_tick
from orderbook.book.protocol import OrderBook
from orderbook.book.snapshot import BookSnapshot

SymbolOf = Callable[[int], str | None]
"""instrument_id -> symbol, None where the feed has told none."""


class Track:
    """One book in a run: its name, its grid, and what of it went out."""

    def __init__(self, key: BookKey, symbol: str, book: OrderBook, tick: int | None, every: int) -> None:
        self.key = key
        self.symbol = symbol
        self.book = book
        self.cadence = Cadence(every)
        self.records = 0
        self.stored_records = 0  # ``records`` at the last stored picture
        self.push_at = 0  # ns of the engine's clock
        self.complete_at = 0
        self._tick = tick
        self._inferred = tick is None
        self._stored = 0
        self._pushed = 0

    def stored_picture(self, run_id: str, depth: int) -> BookSnapshot:
        """Return the next picture for the stores; they have a ``seq`` of their own, the same at every pace."""
        self._stored += 1
        self.stored_records = self.records
        return self._picture(run_id, self._stored, depth)

    def pushed_picture(self, run_id: str, depth: int | None) -> BookSnapshot:
        """Return the next picture for the web: ``depth`` levels a side, all without it."""
        self._pushed += 1
        return self._picture(run_id, self._pushed, depth)

    def _picture(self, run_id: str, seq: int, depth: int | None) -> BookSnapshot:
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
            tick=self._tick or 1,
            bids=bids,
            asks=asks,
            key=self.key,
        )

    def _infer(self, prices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Take the widest grid on which every price seen so far lies."""
        if self._tick is None:  # the first look goes over the whole book, whatever the depth of the picture
            levels = [self.book.levels(side)[:, 0] for side in (Side.BID, Side.ASK)]
            prices = np.concatenate(levels)
        if len(prices):
            self._tick = int(np.gcd(self._tick or 0, infer_tick(prices)))


class Run:
    """What belongs to one replay, from its first record to its benchmark line.

    A run is only a picture until a record without Flags.SNAPSHOT comes: a connection to a gateway where nothing
    runs brings the book of the last replay, and that is no replay.
    """

    def __init__(self, config: EngineConfig, market: Market, symbol_of: SymbolOf) -> None:
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
        self.resets: set[BookKey] = set()
        """Books that the streamer may still clear before the replay's own first record."""
        self._config = config
        self._market = market
        self._symbol_of = symbol_of

    def continued_by(self, first: np.void) -> bool:
        """Say whether the first record behind a picture goes on with it.

        A streamer that begins another replay first clears what it pictured; anything else belongs to the same one.
        """
        return _key_of(first) not in self.tracks or first["action"] != Action.CLEAR

    def leading_resets(self, records: MboArray) -> int:
        """Count the clears at the front that the streamer put there, one for each book it pictured before."""
        count = 0
        while self.resets and count < len(records):
            record = records[count]
            key = _key_of(record)
            if record["action"] != Action.CLEAR or record["flags"] & Flags.SNAPSHOT or key not in self.resets:
                self.resets.clear()
                break
            self.resets.remove(key)
            count += 1
        return count

    def admit(self, keys: list[BookKey], records: MboArray) -> None:
        """Make a track for each new book, in the order in which the stream names them."""
        new = [key for key in keys if key not in self.tracks]
        if len(new) > 1:
            new.sort(key=lambda key: _first_of(key, records))
        for key in new:
            symbol = self._name(key)
            tick = self._config.tick_sizes.get(symbol)
            book = self._market.book(key)
            self.tracks[key] = Track(key, symbol, book, tick, self._config.snapshot_every)

    def count(self, records: int) -> None:
        """Count records that were applied just now."""
        self.last_ns = time.perf_counter_ns()
        self.records += records

    @property
    def symbols(self) -> list[str]:
        return sorted(track.symbol for track in self.tracks.values() if track.records)

    def _name(self, key: BookKey) -> str:
        """Return a symbol that no other book of the run has: as mapped, the default, or told apart by numbers."""
        used = {track.symbol for track in self.tracks.values()}
        symbol = self._symbol_of(key.instrument_id)
        if not symbol:
            symbol = str(key.instrument_id) if self._config.symbol in used else self._config.symbol
        if symbol in used:
            symbol = f"{symbol}.{key.publisher_id}"
        return f"{symbol}.{key.instrument_id}" if symbol in used else symbol


def first_plain(records: MboArray) -> int:
    """Return the index of the first record without Flags.SNAPSHOT; the length when there is none."""
    plain = (records["flags"] & int(Flags.SNAPSHOT)) == 0
    return int(plain.argmax()) if plain.any() else len(records)


def _key_of(record: np.void) -> BookKey:
    return BookKey(int(record["publisher_id"]), int(record["instrument_id"]))


def _first_of(key: BookKey, records: MboArray) -> int:
    is_its = (records["publisher_id"] == key.publisher_id) & (records["instrument_id"] == key.instrument_id)
    return int(is_its.argmax())
