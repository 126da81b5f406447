"""An engine that has no feed: books of a made market, published as the engine publishes its own. Floor 3.

Everything from the live sink on is the engine's: encoding, the keys in Redis, the channel layer, the heartbeat. No
record is received or applied: that takes nothing from the processors on which web processes are under load.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import numpy as np

from engine_worker.sinks.broadcast import BroadcastSink, LiveBook
from orderbook.book.snapshot import BookSnapshot, Levels
from orderbook.live import LIVE_DEPTH, EngineStatus, blank_status

TICK: Final = 10_000_000
_BEST: Final = 6483
_SEED: Final = 6
_STOP_S: Final = 2.0


class Publication(NamedTuple):
    """What is published, and how often."""

    symbol: str
    push_ms: int
    redis_url: str


def run(publication: Publication, control: Connection) -> None:
    """Publish at even distances until the pipe is closed; what comes through it is answered with the count so far."""
    sink = BroadcastSink(publication.redis_url, _status)
    sink.start()
    market = made_market(publication.symbol)
    begun = time.monotonic()
    try:
        for number in count(1):
            due_s = begun + number * publication.push_ms / 1000
            while control.poll(max(due_s - time.monotonic(), 0)):
                control.recv()
                control.send(number)
            sink.offer(LiveBook(next(market), complete=False, since_ns=time.monotonic_ns()))
    except EOFError:
        pass
    finally:
        sink.close(_STOP_S)


def made_market(symbol: str) -> Iterator[BookSnapshot]:
    """Yield books for ever: as many levels as travel to the web, sizes drawn anew, the price walking."""
    random = np.random.default_rng(_SEED)
    best = _BEST
    run_id = f"load-{time.time_ns()}"
    for seq in count(1):
        best += int(random.integers(-1, 2))
        ts_ns = time.time_ns()
        yield BookSnapshot(
            symbol=symbol,
            run_id=run_id,
            seq=seq,
            records=seq * 10,
            ts_event=ts_ns,
            ts_recv=ts_ns,
            sequence=seq,
            tick=TICK,
            bids=_side(random, best, -1),
            asks=_side(random, best + 1, 1),
        )


def _side(random: np.random.Generator, best: int, step: int) -> Levels:
    prices = (best + step * np.arange(LIVE_DEPTH)) * TICK
    return np.column_stack([prices, random.integers(1, 500, LIVE_DEPTH), random.integers(1, 30, LIVE_DEPTH)])


def _status() -> EngineStatus:
    return blank_status("engine") | {"state": "streaming", "ts": datetime.now(UTC).isoformat()}
