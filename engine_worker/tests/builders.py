"""Builders of the engine's tests: sessions of records, configurations, sinks that remember, feeds on a real socket."""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine_worker.config import EngineConfig
from engine_worker.engine import Engine
from engine_worker.histogram import LatencyHistogram
from engine_worker.metrics import SinkCounters
from engine_worker.resumption import Resumption
from engine_worker.sinks.broadcast import LiveBook
from engine_worker.snapshot_log import SnapshotLog
from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, UNDEF_PRICE, Action, Flags, MboArray, Side
from orderbook.book.price import SCALE
from orderbook.book.reference import ReferenceBook
from orderbook.book.snapshot import BookSnapshot
from replay.feed.dbn_metadata import encode_metadata

TICK = SCALE // 100
KEY = "db-0123456789abcdefghijklmnopqrs"
START_NS = 1_758_742_200_000_000_000
SYMBOLS = {7: "CLX5", 8: "ESZ5"}


def session(records: int, *, seed: int = 1, instrument_id: int = 7, publisher_id: int = 1) -> MboArray:
    """Return a market of one instrument in events of one to three records, the last of which ends its event."""
    rnd = random.Random(seed)
    resting: dict[int, tuple[Side, int, int]] = {}
    rows: list[tuple[Action, Side, int, int, int]] = []
    ends: list[int] = []
    order_id = instrument_id * 10**9
    while len(rows) < records:
        for _ in range(min(rnd.choice((1, 1, 1, 2, 3)), records - len(rows))):
            chance = rnd.random()
            if len(resting) < 20 or chance < 0.5:
                order_id += 1
                side = rnd.choice((Side.BID, Side.ASK))
                distance = rnd.randint(1, 30) * TICK
                price = 65 * SCALE + (-distance if side is Side.BID else distance)
                resting[order_id] = (side, price, rnd.randint(1, 9))
                rows.append((Action.ADD, side, order_id, price, resting[order_id][2]))
                continue
            chosen = rnd.choice(list(resting))
            side, price, size = resting[chosen]
            if chance < 0.85:
                del resting[chosen]
                rows.append((Action.CANCEL, side, chosen, price, size))
            elif chance < 0.95:
                resting[chosen] = (side, price, size + 1)
                rows.append((Action.MODIFY, side, chosen, price, size + 1))
            else:
                rows.append((Action.TRADE, side, 0, price, 1))
        ends.append(len(rows) - 1)
    found = blank(len(rows), instrument_id, publisher_id)
    for name, values in zip(("action", "side", "order_id", "price", "size"), zip(*rows, strict=True), strict=True):
        found[name] = values
    found["flags"][ends] = Flags.LAST
    found["ts_event"] = START_NS + np.arange(len(rows), dtype=np.uint64) * 1000
    found["ts_recv"] = found["ts_event"] + 500
    found["sequence"] = np.arange(1, len(rows) + 1)
    return found


def blank(count: int, instrument_id: int = 7, publisher_id: int = 1) -> MboArray:
    """Return records that say nothing yet."""
    records = np.zeros(count, MBO)
    records["length"], records["rtype"] = MBO_LENGTH, MBO_RTYPE
    records["publisher_id"], records["instrument_id"] = publisher_id, instrument_id
    records["action"], records["side"], records["price"] = Action.NONE, Side.NONE, UNDEF_PRICE
    return records


def clear(flags: int = Flags.LAST, instrument_id: int = 7, publisher_id: int = 1, sequence: int = 0) -> MboArray:
    """Return one clear; without a sequence it is what a streamer puts in."""
    record = blank(1, instrument_id, publisher_id)
    record["action"], record["flags"], record["sequence"] = Action.CLEAR, flags, sequence
    return record


def picture_of(records: MboArray) -> MboArray:
    """Return what a streamer sends a late client in place of ``records``, of one book that is at an event end."""
    book = reference_book(records)
    orders = book.orders()
    picture = blank(len(orders) + 1, int(records["instrument_id"][0]), int(records["publisher_id"][0]))
    picture["flags"] = Flags.SNAPSHOT
    picture["flags"][-1] = Flags.SNAPSHOT | Flags.LAST
    picture["action"] = [Action.CLEAR] + [Action.ADD] * len(orders)
    for name in ("order_id", "price", "size", "side"):
        picture[name][1:] = orders[name]
    for name in ("ts_event", "ts_recv", "sequence"):
        picture[name] = records[name][-1]
    return picture


def interleaved(*parts: MboArray) -> MboArray:
    """Return sessions of several books as one stream, in the order of time."""
    records = np.concatenate(parts)
    return records[np.argsort(records["ts_event"], kind="stable")]


def reference_book(records: MboArray) -> ReferenceBook:
    book = ReferenceBook()
    book.apply(records)
    return book


def pieces(records: MboArray, seed: int) -> Iterable[MboArray]:
    """Cut records as a network would: anywhere."""
    rnd = random.Random(seed)
    done = 0
    while done < len(records):
        size = rnd.choice((1, 2, 7, 100, 1000))
        yield records[done : done + size].copy()
        done += size


def config(folder: Path, **changes: Any) -> EngineConfig:
    values: dict[str, Any] = {
        "host": "127.0.0.1", "port": 1, "protocol": "raw", "framing": "dbn", "key": KEY, "dataset": "BATONIC.REPLAY",
        "symbols": ("ALL_SYMBOLS",), "symbol": "CLX5", "book": "kernel", "depth": 10,
        "snapshot_every": 100, "snapshot_ms": 0, "max_msgs": -1, "push_ms": 20, "feed_enabled": True,
        "feed_path": folder / "snapshots_feed.jsonl", "bench_log_path": folder / "benchmarks.jsonl",
        "final_book_folder": folder / "final_books", "registered": {}, "pg_conninfo": "",
        "queue_bytes": 64 << 20, "spill_bytes": 1 << 30, "spill_folder": folder / "spill", "redis_url": "",
        "name": "engine", "metrics_host": "127.0.0.1", "metrics_port": 0, "traces": False, "version": "0",
    }  # fmt: skip
    return EngineConfig(**(values | changes))


class Remembering:
    """A sink that keeps everything in a list."""

    name, degraded, alive, failures, encode_ns = "remembering", "", True, 0, 0
    watched: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.write_ns = LatencyHistogram()
        self.items: list[Any] = []

    def offer(self, item: Any) -> None:
        self.items.append(item)

    def follow(self, log: SnapshotLog) -> None:
        self.source = log.reader(lambda batch: batch)

    def draw(self) -> None:
        while (batch := self.source.peek()) is not None:
            self.source.move(len(batch))
            self.items.append(batch)

    def flush(self, timeout_s: float) -> bool:
        return True

    def finish(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    @property
    def counters(self) -> SinkCounters:
        count = len(self.items)
        return SinkCounters(count, count, 0, 0, 0, 0)


class Desk:
    """An engine whose sinks remember and whose clock stands until it is moved."""

    def __init__(
        self,
        folder: Path,
        symbols: dict[int, str] | None = None,
        *,
        resumption: Resumption | None = None,
        **changes: Any,
    ) -> None:
        self.now = 10**12
        self.stored, self.pushed = Remembering(), Remembering()
        self.engine = Engine(config(folder, **changes), [self.stored], self.pushed, lambda: self.now, resumption)
        self.connect(symbols)

    def connect(self, symbols: dict[int, str] | None = None) -> None:
        self.engine.begin((SYMBOLS if symbols is None else symbols).get)

    def feed(self, *batches: MboArray, wait_ms: int = 0) -> None:
        for batch in batches:
            self.now += wait_ms * 10**6
            self.engine.step(batch)

    @property
    def snapshots(self) -> list[BookSnapshot]:
        return [batch.snapshot(index) for batch in self.stored.items for index in range(len(batch))]

    @property
    def books(self) -> list[BookSnapshot]:
        """The pushed snapshots, the complete ones left out."""
        return [book.snapshot for book in self.live if not book.complete]

    @property
    def live(self) -> list[LiveBook]:
        return self.pushed.items


def rows(snapshots: Sequence[BookSnapshot]) -> list[tuple[Any, ...]]:
    """Return what is the same in every replay of a market."""
    return [
        (s.symbol, s.seq, s.records, s.ts_event, s.sequence, s.tick, s.bids.tolist(), s.asks.tolist())
        for s in snapshots
    ]


def dbn_bytes(records: MboArray, symbols: dict[int, str] | None = None) -> bytes:
    return encode_metadata("GLBX.MDP3", START_NS, SYMBOLS if symbols is None else symbols) + records.tobytes()


def csv_bytes(records: MboArray, symbols: dict[int, str] | None = None) -> bytes:
    from replay.feed.csv_codec import HEADER, encode_csv

    return HEADER + encode_csv(records, SYMBOLS if symbols is None else symbols)


Behaviour = Callable[[socket.socket], None]


class FeedServer:
    """A feed on a real socket: the n-th connection gets the n-th behaviour, later ones none: they are held open."""

    def __init__(self, *behaviours: Behaviour, port: int = 0) -> None:
        self.connections = 0
        self._behaviours = behaviours
        self._held: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> "FeedServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._server.close()
        for peer in self._held:
            peer.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            self._held.append(peer)
            if number < len(self._behaviours):
                try:
                    self._behaviours[number](peer)
                except OSError:
                    peer.close()


def send_and_end(data: bytes) -> Behaviour:
    """Send and close: a whole replay."""

    def behave(peer: socket.socket) -> None:
        peer.sendall(data)
        peer.close()

    return behave


def send_and_stay(data: bytes) -> Behaviour:
    """Send and keep the connection open."""
    return lambda peer: peer.sendall(data)


def send_and_reset(data: bytes, wait: Callable[[], object]) -> Behaviour:
    """Send, wait until that was taken, and break the connection off."""

    def behave(peer: socket.socket) -> None:
        peer.sendall(data)
        wait()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()

    return behave
