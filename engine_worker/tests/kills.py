"""Killing an engine again and again while a replay runs: real streamer, engine, PostgreSQL and Redis, real SIGKILL.

What must come out is computed here by the reference book, record by record. The suite kills a few times; KILLS=50
(``make kills``) kills as often as the promise says.
"""

import json
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from batonic_site.tests.fixtures import Spawn
from engine_worker.tests.builders import Desk
from history.models import Snapshot
from orderbook.book.mbo import MboArray
from orderbook.book.snapshot import BookSnapshot
from replay import driving
from replay.models import Dataset
from replay.streamer.messages import Pace, StreamerStatus
from replay.streamer.remote import StreamerRemote
from replay.tests.recordings import SYMBOLS, session, write_dbn
from replay.tests.requests import run_request

EVERY: Final = 10
DEPTH: Final = 10
_COLUMNS: Final = (
    "symbol", "ts_event", "sequence", "ts_recv",
    "best_bid_px", "best_bid_sz", "best_bid_ct", "best_ask_px", "best_ask_sz", "best_ask_ct",
)  # fmt: skip

Row = tuple[Any, ...]


def uneven_session(records: int, seed: int = 1) -> MboArray:
    """Return a session of two instruments whose venue times stand still and step back, as those of a venue do."""
    made = session(records, seed)
    rng = np.random.default_rng(seed)
    made["ts_event"] -= made["ts_event"] % np.uint64(4000)
    made["ts_event"] -= np.where(rng.random(records) < 0.05, 9000, 0).astype(np.uint64)
    return made


def undisturbed(folder: Path, records: MboArray) -> list[BookSnapshot]:
    """Return the snapshots of a replay that nothing disturbs."""
    desk = Desk(folder, SYMBOLS, book="reference", snapshot_every=EVERY, depth=DEPTH)
    for begin in range(0, len(records), 1000):
        desk.feed(records[begin : begin + 1000])
    desk.engine.end()
    return desk.snapshots


def row_of(snapshot: BookSnapshot) -> Row:
    bid, ask = (best or (None, 0, 0) for best in snapshot.bbo)
    return (snapshot.symbol, snapshot.ts_event, snapshot.sequence, snapshot.ts_recv, *bid, *ask)


class Stand:
    """A streamer, an engine and a recording, and everything that can happen to them."""

    def __init__(self, spawn: Spawn, env: dict[str, str], folder: Path, wait_for: Callable[..., Any]) -> None:
        self.spawn, self.folder, self.wait_for = spawn, folder, wait_for
        self.env = env | {"SNAPSHOT_EVERY": str(EVERY), "DEPTH": str(DEPTH), "MALLOC_ARENA_MAX": "2"}
        self.remote = StreamerRemote(env["REDIS_URL"])
        self.engine: subprocess.Popen[bytes] | None = None
        self._log = folder / "log" / "spawned-runengine.log"

    def serve(self) -> "subprocess.Popen[bytes]":
        """Start the streamer."""
        return self.spawn("runstreamer", env=self.env, until=self.remote.status)

    def replay(self, records: MboArray, pace: Pace, name: str = "made.dbn") -> None:
        path = write_dbn(self.folder / "data" / name, records)
        dataset, _ = Dataset.objects.get_or_create(
            name=name, defaults={"path": str(path), "state": "ready", "records": len(records)}
        )
        assert driving.start(run_request(dataset, pace), self.remote)["state"] == "REPLAYING"

    def status(self) -> StreamerStatus:
        return self.wait_for(self.remote.status)

    def start_engine(self, *, connected: bool = True) -> None:
        before = self.said(rb"feed \S+ connected")
        until = (lambda: self.said(rb"feed \S+ connected") > before) if connected else None
        self.engine = self.spawn("runengine", env=self.env, until=until)

    def kill_engine(self) -> None:
        assert self.engine is not None
        self.engine.kill()
        self.engine.wait(10)

    def stored(self) -> list[Row]:
        return list(Snapshot.objects.order_by("sequence").values_list(*_COLUMNS))

    def said(self, pattern: bytes) -> int:
        """Return how often the engines have said something."""
        return len(re.findall(pattern, self._log.read_bytes())) if self._log.exists() else 0

    def kill_often(self, kills: int, seed: int = 1) -> None:
        """Kill the engine at any instant, now and then while it still starts, and start it again."""
        rnd = random.Random(seed)
        for _ in range(kills):
            in_start = rnd.random() < 0.15
            self.start_engine(connected=not in_start)
            time.sleep(rnd.uniform(0, 1.5))  # the instant is the test, nothing is waited for
            self.kill_engine()

    def finish(self, lines: int = 1) -> list[dict[str, Any]]:
        """Let the replay run to its end, and return the benchmark lines once everything is stored."""
        if self.status()["state"] == "REPLAYING":
            self.remote.call("pace", {"pace": "max"})
        path = self.folder / "benchmarks.jsonl"
        self.wait_for(lambda: path.exists() and path.read_text().count("\n") >= lines, 60, "the end of the replay")
        self.stop_engine()
        return [json.loads(line) for line in path.read_text().splitlines()]

    def stop_engine(self) -> None:
        assert self.engine is not None
        self.engine.terminate()
        assert self.engine.wait(10) == 0

    def feed_keys(self) -> Counter[Row]:
        """Return what the lines of the feed file are of."""
        books = map(json.loads, (self.folder / "snapshots_feed.jsonl").read_text().splitlines())
        return Counter((book["symbol"], int(book["ts_ns"]), int(book["sequence"])) for book in books)

    def assert_whole(self, records: MboArray) -> None:
        """Require the table and the feed file of a replay that nothing disturbed: nothing lost and nothing twice."""
        expected = undisturbed(self.folder / "expected", records)
        rows = sorted(map(row_of, expected), key=lambda row: int(row[2]))
        assert len(rows) > len(records) // (2 * EVERY)
        assert self.stored() == rows
        assert self.feed_keys() == Counter(row[:3] for row in rows)
