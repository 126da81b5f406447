"""The engine as a process of its own: real feed, real PostgreSQL, real Redis, real signals."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgpack
import numpy as np
import pytest
import redis

from engine_worker.tests.builders import (
    Desk,
    FeedServer,
    csv_bytes,
    dbn_bytes,
    picture_of,
    reference_book,
    send_and_end,
    send_and_stay,
    session,
)
from engine_worker.tests.gateway import Session, live
from history.models import Instrument, Snapshot
from orderbook.book.mbo import Flags, MboArray, Side
from orderbook.live import BOOK_KEY, ENGINE_STATUS_KEY

WaitFor = Callable[..., object]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
RECORDS = 4000


def environment(process_env: dict[str, str], server: FeedServer, framing: str = "dbn") -> dict[str, str]:
    return process_env | {
        "FEED_PROTOCOL": "raw",
        "FEED_PORT": str(server.port),
        "FEED_FRAMING": framing,
        "SNAPSHOT_EVERY": "50",
        "DEPTH": "10",
    }


def expected_rows(folder: Path, records: MboArray, *, ended: bool = True) -> list[tuple[object, ...]]:
    """Return the rows of a replay; of one that has not ``ended``, those that were due so far."""
    desk = Desk(folder / "expected", snapshot_every=50)
    desk.feed(records)
    if ended:
        desk.engine.end()
    return [(s.symbol, s.ts_event, s.sequence, s.bids[0][0], s.asks[0][0]) for s in desk.snapshots]


def stored_rows() -> list[tuple[object, ...]]:
    names = ("symbol", "ts_event", "sequence", "best_bid_px", "best_ask_px")
    return list(Snapshot.objects.order_by("ts_event").values_list(*names))


def live_book(client: redis.Redis) -> dict[str, object] | None:
    raw = client.get(BOOK_KEY.format(symbol="CLX5"))
    return None if raw is None else msgpack.unpackb(raw)


def levels(fragments: object) -> list[list[int]]:
    return [[round(px * 10**9), size, n] for px, size, n in map(json.loads, fragments)]  # type: ignore[call-overload]


def assert_live(client: redis.Redis, records: MboArray) -> None:
    book, expected = live_book(client), reference_book(records)
    assert book is not None
    assert levels(book["bids"]) == expected.levels(Side.BID).tolist()
    assert levels(book["asks"]) == expected.levels(Side.ASK).tolist()


def end(process: "subprocess.Popen[bytes]", number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(10)


@pytest.mark.parametrize(("framing", "encode"), [("dbn", dbn_bytes), ("csv", csv_bytes)])
def test_a_replay_reaches_every_output_and_sigterm_ends_with_0(
    spawn: Spawn,
    process_env: dict[str, str],
    data_folder: Path,
    redis_client: redis.Redis,
    wait_for: WaitFor,
    framing: str,
    encode: Callable[[MboArray], bytes],
) -> None:
    records = session(RECORDS)
    expected = expected_rows(data_folder, records)
    with FeedServer(send_and_end(encode(records)), send_and_end(encode(records))) as server:
        process = spawn(
            "runengine",
            env=environment(process_env, server, framing),
            until=lambda: server.connections == 3,
        )
        wait_for(
            lambda: (
                json.loads(redis_client.get(ENGINE_STATUS_KEY.format(name="engine")) or "{}").get("snapshots")
                == 2 * len(expected)
            )
        )
        assert end(process) == 0
    assert stored_rows() == expected
    assert Instrument.objects.get().symbol == "CLX5"
    feed = (data_folder / "snapshots_feed.jsonl").read_text().splitlines()
    assert len(feed) == 2 * len(expected)
    lines = [json.loads(line) for line in (data_folder / "benchmarks.jsonl").read_text().splitlines()]
    assert [line["processed"] for line in lines] == [RECORDS, RECORDS]
    assert lines[0]["run_id"] != lines[1]["run_id"]
    final = json.loads((data_folder / "final_books" / "CLX5.json").read_text())
    assert [[b["px"], b["sz"], b["ct"]] for b in final["bids"]] == reference_book(records).levels(Side.BID).tolist()
    assert_live(redis_client, records)


def test_sigterm_in_mid_stream_stores_everything_that_was_due(
    spawn: Spawn, process_env: dict[str, str], data_folder: Path, redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    records = session(RECORDS)
    records = records[: event_ends(records)[1500]]
    expected = expected_rows(data_folder, records, ended=False)
    with FeedServer(send_and_stay(dbn_bytes(records))) as server:
        process = spawn("runengine", env=environment(process_env, server), until=lambda: live_book(redis_client))
        wait_for(lambda: _records(redis_client) == len(records))
        begun = time.monotonic()
        assert end(process, signal.SIGINT) == 0
        assert time.monotonic() - begun < 10
    assert stored_rows() == expected
    assert len(expected) == len((data_folder / "snapshots_feed.jsonl").read_text().splitlines())
    assert not (data_folder / "benchmarks.jsonl").exists()


def event_ends(records: MboArray) -> list[int]:
    """Return how many records there are up to each event end."""
    return [int(index) + 1 for index in np.flatnonzero(records["flags"] & int(Flags.LAST))]


def _records(client: redis.Redis) -> int:
    book = live_book(client)
    return 0 if book is None else json.loads(str(book["head"]) + "}")["records"]


def test_an_engine_killed_in_mid_stream_comes_back_to_a_right_book(
    spawn: Spawn, process_env: dict[str, str], redis_client: redis.Redis, wait_for: WaitFor, data_folder: Path
) -> None:
    records = session(RECORDS)
    ends = event_ends(records)
    killed_at, joined_at = ends[800], ends[1200]
    late = np.concatenate((picture_of(records[:joined_at]), records[joined_at:]))
    before = expected_rows(data_folder, records[:killed_at], ended=False)
    after = expected_rows(data_folder, late)
    with FeedServer(send_and_stay(dbn_bytes(records[:killed_at])), send_and_end(dbn_bytes(late))) as server:
        env = environment(process_env, server)
        process = spawn("runengine", env=env, until=lambda: _records(redis_client) == killed_at)
        wait_for(lambda: stored_rows() == before)
        process.kill()
        process.wait(5)
        with (data_folder / "snapshots_feed.jsonl").open("ab") as feed_file:
            feed_file.write(b'{"torn')
        process = spawn("runengine", env=env, until=lambda: (data_folder / "benchmarks.jsonl").exists())
        assert end(process) == 0
    assert_live(redis_client, records)
    final = json.loads((data_folder / "final_books" / "CLX5.json").read_text())
    assert [[b["px"], b["sz"], b["ct"]] for b in final["asks"]] == reference_book(records).levels(Side.ASK).tolist()
    for line in (data_folder / "snapshots_feed.jsonl").read_text().splitlines():
        json.loads(line)
    assert stored_rows() == before + after


def test_an_engine_that_is_pointed_at_another_gateway_asks_it_as_the_environment_says(
    spawn: Spawn, process_env: dict[str, str], data_folder: Path, redis_client: redis.Redis, wait_for: WaitFor
) -> None:
    records, asked = session(RECORDS), []
    key = "db-" + "v" * 29

    def told(gateway_session: Session) -> None:
        asked.append(gateway_session)
        gateway_session.complete()

    with FeedServer(live(records, key=key, then=told)) as server:
        env = process_env | {
            "FEED_HOST": "127.0.0.1",
            "FEED_PORT": str(server.port),
            "FEED_KEY": key,
            "FEED_DATASET": "GLBX.MDP3",
            "FEED_SYMBOLS": "CLX5",
        }
        process = spawn("runengine", env=env, until=lambda: (data_folder / "benchmarks.jsonl").exists())
        status = wait_for(lambda: redis_client.get(ENGINE_STATUS_KEY.format(name="engine")))
        shown = [Path(f"/proc/{process.pid}/cmdline").read_bytes(), status]
        assert end(process) == 0
    assert asked[0].request.dataset == "GLBX.MDP3"
    assert [(wanted.schema, wanted.symbols) for wanted in asked[0].subscriptions] == [("mbo", ("CLX5",))]
    assert_live(redis_client, records)
    shown += [path.read_bytes() for path in (data_folder / "log").iterdir()]
    assert not any(key.encode() in text for text in shown)


def test_the_engine_starts_and_ends_without_postgresql_redis_and_feed(
    spawn: Spawn, process_env: dict[str, str], free_port: Callable[[], int], tmp_path: Path
) -> None:
    port = free_port()
    env = process_env | {
        "PG_CONNINFO": f"host=127.0.0.1 port={port} dbname=nowhere",
        "REDIS_URL": f"redis://127.0.0.1:{port}",
        "FEED_PORT": str(port),
    }
    log = tmp_path / "log" / "spawned-runengine.log"
    looks = count()
    process = spawn(
        "runengine",
        env=env,
        until=lambda: next(looks) > 1 and b"cannot be reached" in log.read_bytes() and b"Redis" in log.read_bytes(),
    )
    assert end(process) == 0
