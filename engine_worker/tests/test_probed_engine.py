"""An engine process as those see it who watch it: scraped in mid-replay and at its end, probed while parts fail."""

import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine_worker.tests.builders import FeedServer, csv_bytes, dbn_bytes, send_and_stay, session
from engine_worker.tests.proxy import TcpProxy
from engine_worker.tests.scrape import page, probe, scrape
from orderbook.book.mbo import Flags

WaitFor = Callable[..., object]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
RECORDS = 4000


def test_the_equations_close_in_mid_replay_and_at_its_end(
    spawn: Spawn, process_env: dict[str, str], free_port: Callable[[], int], wait_for: WaitFor
) -> None:
    records, go_on = session(RECORDS), threading.Event()
    lines = csv_bytes(records).splitlines(keepends=True)
    middle = len(lines) // 2
    lines[middle:middle] = [b"this is no record\n", b"nor,is,this\n"]

    def feed(peer: socket.socket) -> None:
        peer.sendall(b"".join(lines[:middle]))
        go_on.wait(60)
        for line in lines[middle:]:  # in many pieces: steps that are scraped between
            peer.sendall(line)
        peer.close()

    with FeedServer(feed) as server:
        port = free_port()
        env = process_env | {
            "FEED_PROTOCOL": "raw", "FEED_PORT": str(server.port), "SNAPSHOT_EVERY": "10", "METRICS_PORT": str(port),
        }  # fmt: skip
        process = spawn("runengine", env=env, until=lambda: probe(port, "/readyz")[0] == 200)
        wait_for(lambda: scrape(port).value("mbo_records_applied_total") == middle - 1)
        half = scrape(port)
        half.check_equations()
        assert half.value("mbo_snapshots_total") > 100
        go_on.set()

        def is_received() -> bool:
            seen = scrape(port)
            seen.check_equations()
            return seen.value("mbo_records_received_total") == RECORDS + 2

        wait_for(is_received)
        wait_for(lambda: scrape(port).value("mbo_sink_queue_items", sink="database") == 0)
        wait_for(lambda: scrape(port).value("mbo_sink_queue_items", sink="jsonl") == 0)
        last = scrape(port)
        last.check_equations()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert last.value("mbo_records_applied_total") == RECORDS
    assert last.value("mbo_records_rejected_total") == 2
    assert last.value("mbo_events_total") == np.count_nonzero(records["flags"] & int(Flags.LAST))
    assert last.value("mbo_sink_written_total", sink="database") == last.value("mbo_snapshots_total") > 200
    assert last.value("mbo_sink_written_total", sink="jsonl") == last.value("mbo_snapshots_total")
    assert last.value("mbo_sink_write_duration_seconds_count", sink="database") > 0
    assert last.value("mbo_event_to_publish_seconds_count") > 0
    assert last.value("mbo_feed_lag_records") == 0
    assert last.value("mbo_build_info", engine="engine") == 1


def test_readyz_names_what_fails_and_livez_does_not_care(
    spawn: Spawn,
    process_env: dict[str, str],
    pg_proxied: str,
    pg_proxy: TcpProxy,
    redis_proxied: str,
    redis_proxy: TcpProxy,
    free_port: Callable[[], int],
    wait_for: WaitFor,
) -> None:
    port = free_port()
    redis_proxy.up()
    with FeedServer(send_and_stay(dbn_bytes(session(RECORDS)))) as server:
        env = process_env | {
            "FEED_PROTOCOL": "raw", "FEED_FRAMING": "dbn", "FEED_PORT": str(server.port), "METRICS_PORT": str(port),
            "PG_CONNINFO": pg_proxied, "REDIS_URL": redis_proxied,
        }  # fmt: skip
        process = spawn("runengine", env=env, until=lambda: probe(port, "/livez") == (200, {}))
        wait_for(lambda: probe(port, "/readyz")[1].keys() == {"database"})
        assert "refused" in probe(port, "/readyz")[1]["database"]
        assert scrape(port).value("mbo_sink_degraded", sink="database") == 1
        pg_proxy.up()
        wait_for(lambda: probe(port, "/readyz") == (200, {}))
        pg_proxy.down()  # nothing is to be stored now: the sink looks for itself
        redis_proxy.down()
        wait_for(lambda: probe(port, "/readyz")[1].keys() == {"database", "broadcast"})
        assert probe(port, "/readyz")[0] == 503
        assert probe(port, "/livez") == (200, {})
        pg_proxy.up()
        redis_proxy.up()
        wait_for(lambda: probe(port, "/readyz") == (200, {}))
    wait_for(lambda: probe(port, "/readyz")[1].keys() == {"feed"})
    assert probe(port, "/livez") == (200, {})
    told = page(port, "/readyz")[1] + page(port, "/metrics")[1]
    secrets = [env["SECRET_KEY"].encode(), *([password] if (password := _password(redis_proxied)) else [])]
    assert not any(secret in told for secret in secrets)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def _password(url: str) -> bytes:
    return url.partition("://:")[2].partition("@")[0].encode()


def test_an_engine_whose_metrics_port_is_taken_works_and_says_so(
    spawn: Spawn, process_env: dict[str, str], data_folder: Path
) -> None:
    log = data_folder / "log" / "spawned-runengine.log"
    with socket.create_server(("127.0.0.1", 0)) as taken, FeedServer() as server:
        port = taken.getsockname()[1]
        env = process_env | {"FEED_PROTOCOL": "raw", "FEED_PORT": str(server.port), "METRICS_PORT": str(port)}
        process = spawn("runengine", env=env, until=lambda: b"METRICS_PORT: 127.0.0.1:%d" % port in log.read_bytes())
        assert server.connections == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
