"""A recording from file to table: real streamer, engine, worker, web and browser processes, over real sockets.

What must come out is computed here by the reference book, record by record, and by nothing that the processes use.
"""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.management import call_command

from batonic_site.tests.fixtures import Spawn
from history.models import Snapshot
from orderbook.book.mbo import Action, Flags, MboArray, Side
from orderbook.book.reference import ReferenceBook
from replay import driving
from replay.datasets import register
from replay.feed.sources import open_recording
from replay.models import Replay
from replay.streamer.messages import Pace, StreamerStatus
from replay.streamer.remote import StreamerRemote
from replay.tests.requests import run_request

SNAPSHOT_EVERY = 1000
FEEDS = {
    "live": {"FEED_PROTOCOL": "live"},
    "raw csv": {"FEED_PROTOCOL": "raw", "FEED_FRAMING": "csv"},
    "raw dbn": {"FEED_PROTOCOL": "raw", "FEED_FRAMING": "dbn"},
}
"""How the engine is fed."""
CRAWL: Pace = {"records_per_s": 10}
PACES: tuple[Pace, ...] = ({"records_per_s": 10_000}, "max")


class Expected(NamedTuple):
    """What a whole replay of one instrument must leave behind."""

    rows: list[tuple[Any, ...]]
    final_book: dict[str, Any]


def expected_of(records: MboArray, symbol: str) -> Expected:
    """Replay a recording in the plainest way: one record at a time into the reference book."""
    book, rows, since = ReferenceBook(), [], 0
    for i in range(len(records)):
        record = records[i : i + 1]
        book.apply(record)
        since += not record["flags"][0] & Flags.SNAPSHOT and record["action"][0] != Action.CLEAR
        closes = bool(record["flags"][0] & Flags.LAST)
        if closes and (since >= SNAPSHOT_EVERY or i == len(records) - 1):
            bid, ask = (best or (None, 0, 0) for best in book.bbo())
            rows.append((symbol, book.ts_event, book.sequence, *bid, *ask))
            since = 0
    sides = {
        name: [{"px": px, "sz": sz, "ct": ct} for px, sz, ct in book.levels(side).tolist()]
        for name, side in (("bids", Side.BID), ("asks", Side.ASK))
    }
    return Expected(rows, {"symbol": symbol, **sides})


def possible_rows(records: MboArray, symbol: str) -> set[tuple[Any, ...]]:
    """Return the rows of every event end: what a history may hold, wherever a replay was sent to."""
    book, rows = ReferenceBook(), set()
    for i in range(len(records)):
        book.apply(records[i : i + 1])
        if book.at_event_end:
            bid, ask = (best or (None, 0, 0) for best in book.bbo())
            rows.add((symbol, book.ts_event, book.sequence, *bid, *ask))
    return rows


def stored_rows() -> list[tuple[Any, ...]]:
    """Return the history in time order, as ``expected_of`` makes it."""
    columns = ("best_bid_px", "best_bid_sz", "best_bid_ct", "best_ask_px", "best_ask_sz", "best_ask_ct")
    return list(
        Snapshot.objects.order_by("ts_event", "sequence").values_list("symbol", "ts_event", "sequence", *columns)
    )


def final_book(folder: Path, symbol: str) -> dict[str, Any]:
    """Return the final book without the readable prices, which must agree with the exact ones."""
    book = json.loads((folder / "final_books" / f"{symbol}.json").read_text())
    for side in ("bids", "asks"):
        for level in book[side]:
            assert round(level.pop("px_f") * 10**9) == level["px"]
    return dict(book)


class Pipeline:
    """A streamer and an engine on one data folder, and the ways to drive them."""

    def __init__(self, spawn: Spawn, env: dict[str, str], folder: Path, wait_for: Callable[..., Any]) -> None:
        self.spawn, self.env, self.folder, self.wait_for = spawn, env, folder, wait_for
        self.remote = StreamerRemote(env["REDIS_URL"])
        self.connections_used = 0

    def start(self) -> None:
        self.spawn("runstreamer", env=self.env, until=self.remote.status)
        self.start_engine()

    def start_engine(self) -> None:
        before = self.connections()
        self.engine = self.spawn("runengine", env=self.env, until=lambda: self.connections() > before)

    def connections(self) -> int:
        """Return how often an engine has been connected to the feed, and let in."""
        log = self.folder / "log" / "spawned-runengine.log"
        return len(re.findall(rb"feed \S+ connected", log.read_bytes())) if log.exists() else 0

    def status(self) -> StreamerStatus:
        status = self.remote.status()
        assert status is not None, "the streamer has no status"
        return status

    def replay(self, path: Path, pace: Pace) -> None:
        """Start a replay the way the worker does, once the engine has a connection for it."""
        self.wait_for(lambda: self.connections() > self.connections_used, what="the engine's connection")
        self.connections_used = self.connections()
        dataset = register(path)
        assert not dataset.error, dataset.error
        assert driving.start(run_request(dataset, pace), self.remote)["state"] == "REPLAYING"

    def benchmark_lines(self, count: int = 1) -> list[dict[str, Any]]:
        path = self.folder / "benchmarks.jsonl"
        self.wait_for(lambda: path.exists() and path.read_text().count("\n") >= count, 60, "the end of the replay")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def stop_engine(self) -> None:
        """End the engine and wait, so that everything it holds is stored."""
        self.engine.send_signal(signal.SIGTERM)
        assert self.engine.wait(10) == 0


@pytest.fixture
def pipeline(
    request: pytest.FixtureRequest,
    spawn: Spawn,
    process_env: dict[str, str],
    data_folder: Path,
    wait_for: Callable[..., Any],
) -> Pipeline:
    env = process_env | FEEDS[getattr(request, "param", "live")] | {"SNAPSHOT_EVERY": str(SNAPSHOT_EVERY)}
    made = Pipeline(spawn, env, data_folder, wait_for)
    made.start()
    return made


@pytest.fixture(scope="session")
def session_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated session of one instrument."""
    path = tmp_path_factory.mktemp("session") / "session.dbn.zst"
    call_command("makedataset", str(path), records=30_000, symbols="CLX5", seed=11, verbosity=0)
    return path


@pytest.fixture(scope="session")
def session(session_file: Path) -> Expected:
    return expected_of(open_recording(session_file).records, "CLX5")


@pytest.mark.parametrize("pipeline", ["live", "raw csv"], indirect=True)
def test_a_simulated_session_is_rebuilt_exactly_at_every_pace_and_stored_once(
    pipeline, session_file, session, data_folder
):
    for run, pace in enumerate(PACES, start=1):
        pipeline.replay(session_file, pace)
        line = pipeline.benchmark_lines(run)[-1]
        assert line["processed"] == 30_000
        assert final_book(data_folder, "CLX5") == session.final_book
        (data_folder / "final_books" / "CLX5.json").unlink()
    pipeline.stop_engine()
    assert stored_rows() == session.rows, "two replays of a file leave each snapshot once"
    feed = [json.loads(line) for line in (data_folder / "snapshots_feed.jsonl").read_text().splitlines()]
    assert len(feed) == 2 * len(session.rows)
    assert [line["ts_ns"] for line in feed[: len(session.rows)]] == [str(row[1]) for row in session.rows]


@pytest.mark.parametrize("pipeline", ["live", "raw dbn"], indirect=True)
def test_the_real_recording_ends_in_the_verified_book(pipeline, real_data_dir, data_folder):
    golden = json.loads((real_data_dir / "CLX5_mbo.golden.json").read_text())
    verified = {
        "symbol": "CLX5",
        **{
            side: [dict(zip(("px", "sz", "ct"), level, strict=True)) for level in golden["final"][side]]
            for side in ("bids", "asks")
        },
    }
    path = real_data_dir / "CLX5_mbo.dbn"
    rows = expected_of(open_recording(path).records, "CLX5").rows
    for run, pace in enumerate(PACES, start=1):
        pipeline.replay(path, pace)
        assert pipeline.benchmark_lines(run)[-1]["processed"] == golden["records"]
        assert final_book(data_folder, "CLX5") == verified
        (data_folder / "final_books" / "CLX5.json").unlink()
    pipeline.stop_engine()
    assert stored_rows() == rows


def test_a_killed_engine_goes_on_where_it_was(pipeline, session_file, session, data_folder, wait_for):
    pipeline.replay(session_file, {"records_per_s": 10_000})
    wait_for(lambda: pipeline.status()["position"] > 8_000, 20, "the middle of the replay")
    pipeline.remote.call("pace", {"pace": CRAWL})  # however long the new engine takes to start
    os.kill(pipeline.engine.pid, signal.SIGKILL)
    pipeline.engine.wait()
    wait_for(lambda: pipeline.status()["clients"] == 0, 10, "the streamer to notice")
    pipeline.start_engine()
    pipeline.remote.call("pace", {"pace": "max"})
    line = pipeline.benchmark_lines()[-1]
    assert line["processed"] == 30_000 and line["resumed_at"] > 0, "the new engine went on behind what was stored"
    assert final_book(data_folder, "CLX5") == session.final_book
    pipeline.stop_engine()
    assert stored_rows() == session.rows


def test_a_killed_streamer_ends_no_replay_and_goes_on_where_it_was(
    pipeline, session_file, session, data_folder, wait_for
):
    pipeline.replay(session_file, {"records_per_s": 10_000})
    wait_for(lambda: pipeline.status()["position"] > 8_000, 20, "the middle of the replay")
    pipeline.remote.call("pace", {"pace": CRAWL})
    before = pipeline.status()
    wait_for(lambda: Replay.objects.get().pace == CRAWL, 10, "the row")
    os.kill(before["pid"], signal.SIGKILL)
    pipeline.spawn(
        "runstreamer", env=pipeline.env, until=lambda: (pipeline.remote.status() or before)["pid"] != before["pid"]
    )
    wait_for(lambda: pipeline.connections() == 2, 20, "the engine to be back")
    assert not (data_folder / "benchmarks.jsonl").exists() and not (data_folder / "final_books").exists()
    pipeline.remote.call("pace", {"pace": "max"})
    [line] = pipeline.benchmark_lines()
    assert line["processed"] == 30_000, "the engine went on where it was"
    assert pipeline.status()["replay_id"] == before["replay_id"]
    assert final_book(data_folder, "CLX5") == session.final_book
    pipeline.stop_engine()
    assert stored_rows() == session.rows


def test_a_replay_that_is_paused_and_sent_to_other_places_ends_in_the_right_book(
    pipeline, session_file, session, data_folder, wait_for
):
    records = open_recording(session_file).records
    pipeline.replay(session_file, {"records_per_s": 10_000})
    wait_for(lambda: pipeline.status()["position"] > 5_000, 20, "the first part")
    driving.pause(pipeline.remote)
    for place in ({"record": 20_000}, {"fraction": 0.0}, {"record": 12_345}):
        assert pipeline.remote.call("seek", {"to": place})["state"] == "PAUSED"
    driving.resume(pipeline.remote)
    wait_for(lambda: pipeline.status()["position"] > 15_000, 20, "the second part")
    pipeline.remote.call("seek", {"to": {"record": 9_000}})
    pipeline.remote.call("seek", {"to": {"record": 25_000}})
    pipeline.remote.call("pace", {"pace": "max"})
    assert len(pipeline.benchmark_lines()) == 1
    assert final_book(data_folder, "CLX5") == session.final_book
    pipeline.stop_engine()
    rows = stored_rows()
    assert rows[-1] == session.rows[-1]
    assert set(rows) <= possible_rows(records, "CLX5") and len(set(rows)) == len(rows)
    early = [row for row in session.rows if row[1] < records["ts_event"][5_000]]
    assert rows[: len(early)] == early, "what was replayed before the first jump is kept as it was"
