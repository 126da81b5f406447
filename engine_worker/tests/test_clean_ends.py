"""How an engine process ends when it is told to: in time, with status 0, and with nothing lost that was due."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import redis

from engine_worker.results import write_final_book
from engine_worker.tests.builders import Desk, FeedServer, dbn_bytes, session
from engine_worker.tests.proxy import TcpProxy
from engine_worker.tests.scrape import probe
from history.models import Snapshot
from orderbook.live import ENGINE_STATUS_KEY

WaitFor = Callable[..., object]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
RECORDS, HALF = 4000, 2000
EVERY = 10


def times_due(folder: Path, records: int) -> list[int]:
    """Return the times of the snapshots that so many records make due."""
    desk = Desk(folder / f"expected-{records}", snapshot_every=EVERY)
    desk.feed(session(RECORDS)[:records])
    return [snapshot.ts_event for snapshot in desk.snapshots]


def stored() -> list[int]:
    return list(Snapshot.objects.order_by("ts_event").values_list("ts_event", flat=True))


def test_an_end_while_postgresql_is_frozen_comes_in_time_and_the_next_engine_stores_what_is_left(
    spawn: Spawn,
    process_env: dict[str, str],
    data_folder: Path,
    pg_proxied: str,
    pg_proxy: TcpProxy,
    redis_client: redis.Redis,
    free_port: Callable[[], int],
    wait_for: WaitFor,
) -> None:
    port = free_port()
    data, go_on = dbn_bytes(session(RECORDS)), threading.Event()
    middle = len(data) - HALF * 56

    def feed(peer: socket.socket) -> None:
        peer.sendall(data[:middle])
        go_on.wait(60)
        peer.sendall(data[middle:])

    def seen() -> int:
        status = redis_client.get(ENGINE_STATUS_KEY.format(name="engine"))
        return json.loads(status)["records"] if status else 0

    pg_proxy.up()
    with FeedServer(feed) as server:
        env = process_env | {
            "FEED_PROTOCOL": "raw", "FEED_FRAMING": "dbn", "FEED_PORT": str(server.port), "SNAPSHOT_EVERY": str(EVERY),
            "METRICS_PORT": str(port),
        }  # fmt: skip
        process = spawn("runengine", env=env | {"PG_CONNINFO": pg_proxied}, until=lambda: seen() == HALF)
        wait_for(lambda: stored() == times_due(data_folder, HALF))
        pg_proxy.freeze()
        go_on.set()
        wait_for(lambda: seen() == RECORDS)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: probe(port, "/readyz")[1].get("engine") == "stopping")
        for impatient in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            process.send_signal(impatient)
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 10
    assert stored() == times_due(data_folder, HALF)
    assert list((data_folder / "spill").glob("*.spill"))
    with FeedServer() as silent:
        process = spawn(
            "runengine",
            env=env | {"FEED_PORT": str(silent.port)},
            until=lambda: stored() == times_due(data_folder, RECORDS),
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert not list((data_folder / "spill").glob("*.spill"))


def test_whoever_reads_a_final_book_while_it_is_replaced_finds_a_whole_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.feed(session(500))
    [track] = desk.engine.shown.tracks.values()
    path, over, found = tmp_path / "CLX5.json", threading.Event(), set()
    write_final_book(tmp_path, track)

    def read() -> None:
        while not over.is_set():
            found.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        assert write_final_book(tmp_path, track)
    over.set()
    reader.join(10)
    assert len(found) == 1 and json.loads(found.pop())["symbol"] == "CLX5"
    assert [each.name for each in tmp_path.glob("*.json*")] == ["CLX5.json"]
