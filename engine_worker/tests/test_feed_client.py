"""The feed's connection, on real sockets."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from engine_worker.connection import Connection, FeedInterrupted
from engine_worker.engine import Engine
from engine_worker.feed_client import FeedClient
from engine_worker.raw_feed import raw_feed
from engine_worker.tests.builders import (
    START_NS,
    Desk,
    FeedServer,
    csv_bytes,
    dbn_bytes,
    picture_of,
    reference_book,
    rows,
    send_and_end,
    send_and_reset,
    send_and_stay,
    session,
)
from orderbook.book.mbo import Flags, MboArray, Side
from replay.feed.stream import FramingName


def connected(server: FeedServer, framing: FramingName = "dbn") -> Connection:
    connection = FeedClient("127.0.0.1", server.port, raw_feed(framing)).connect(threading.Event())
    assert connection is not None
    return connection


def receive_some(connection: Connection) -> None:
    while (records := connection.receive(1)) is not None and not len(records):
        pass


def run_in_thread(
    engine: Engine, server: FeedServer, framing: FramingName = "dbn"
) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    feed = FeedClient("127.0.0.1", server.port, raw_feed(framing))
    thread = threading.Thread(target=engine.run, args=(feed, stop))
    thread.start()
    return thread, stop


@pytest.mark.parametrize(("framing", "encode"), [("dbn", dbn_bytes), ("csv", csv_bytes)])
def test_records_arrive_whole_and_the_end_is_told(framing: str, encode: Callable[[MboArray], bytes]) -> None:
    records = session(3000)
    with FeedServer(send_and_end(encode(records))) as server:
        connection = connected(server, framing)
        parts = []
        while (part := connection.receive(5)) is not None:
            parts.append(part.copy())
        connection.close()
    assert np.concatenate(parts).tobytes() == records.tobytes()
    assert connection.symbol(7) == "CLX5"


def test_a_silent_feed_is_not_an_end() -> None:
    with FeedServer(send_and_stay(dbn_bytes(session(10)))) as server:
        connection = connected(server)
        receive_some(connection)
        begun = time.monotonic()
        silence = connection.receive(0.05)
        assert silence is not None
        assert len(silence) == 0
        assert time.monotonic() - begun >= 0.04
        connection.close()


def test_an_end_inside_a_record_is_an_interruption() -> None:
    with FeedServer(send_and_end(dbn_bytes(session(10))[:-1])) as server:
        connection = connected(server)
        with pytest.raises(FeedInterrupted, match="expected a record of 56 bytes"):
            while connection.receive(5) is not None:
                pass
        connection.close()


def test_bytes_that_are_no_feed_are_an_interruption() -> None:
    with FeedServer(send_and_end(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        connection = connected(server)
        with pytest.raises(FeedInterrupted, match="expected b'DBN'"):
            connection.receive(5)
        connection.close()


def test_a_reset_is_an_interruption() -> None:
    taken = threading.Event()
    with FeedServer(send_and_reset(dbn_bytes(session(10)), lambda: taken.wait(5))) as server:
        connection = connected(server)
        receive_some(connection)
        taken.set()
        with pytest.raises(FeedInterrupted, match="reset"):
            while True:
                connection.receive(1)
        connection.close()


def test_the_connection_asks_the_kernel_whether_the_peer_lives() -> None:
    with FeedServer() as server:
        connection = connected(server)
        assert connection._peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        connection.close()


def test_a_feed_that_comes_later_is_found_and_waiting_can_be_stopped(free_port: Callable[[], int]) -> None:
    port, stop = free_port(), threading.Event()
    client = FeedClient("127.0.0.1", port, raw_feed("dbn"))
    found: list[Connection | None] = []
    seeker = threading.Thread(target=lambda: found.append(client.connect(stop)))
    seeker.start()
    time.sleep(0.1)
    with FeedServer(port=port):
        seeker.join(5)
        assert found[0] is not None
        found[0].close()
    stop.set()
    assert client.connect(stop) is None


@pytest.mark.parametrize(("framing", "encode"), [("dbn", dbn_bytes), ("csv", csv_bytes)])
def test_both_framings_give_the_same_rows_and_counts(
    tmp_path: Path, framing: str, encode: Callable[[MboArray], bytes], wait_for: Callable[..., object]
) -> None:
    records = session(5000)
    expected, desk = Desk(tmp_path / "a"), Desk(tmp_path / "b")
    expected.feed(records)
    expected.engine.end()
    with FeedServer(send_and_end(encode(records))) as server:
        thread, stop = run_in_thread(desk.engine, server, framing)
        wait_for(lambda: (tmp_path / "b" / "benchmarks.jsonl").exists())
        wait_for(lambda: server.connections == 2, what="reconnecting after the end")
        stop.set()
        thread.join(5)
    assert rows(desk.snapshots) == rows(expected.snapshots)
    counters = desk.engine.counters
    assert (counters.received, counters.applied, counters.runs, counters.interruptions) == (5000, 5000, 1, 0)
    for name in ("CLX5.json",):
        assert (tmp_path / "b/final_books" / name).read_bytes() == (tmp_path / "a/final_books" / name).read_bytes()


def test_lines_that_are_no_records_are_rejected_and_counted(tmp_path: Path, wait_for: Callable[..., object]) -> None:
    records = session(1000)
    lines = csv_bytes(records).splitlines(keepends=True)
    lines.insert(500, b"not,a,record\n")
    desk = Desk(tmp_path)
    with FeedServer(send_and_end(b"".join(lines))) as server:
        thread, stop = run_in_thread(desk.engine, server, "csv")
        wait_for(lambda: (tmp_path / "benchmarks.jsonl").exists())
        stop.set()
        thread.join(5)
    counters = desk.engine.counters
    assert (counters.received, counters.applied, counters.rejected, counters.ignored) == (1001, 1000, 1, 0)


def test_what_the_feed_says_of_itself_is_logged_once_each_and_counted(
    tmp_path: Path, wait_for: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    records = session(1000)
    said = bytes(dbn.SystemMsg(START_NS, "half way")), bytes(dbn.ErrorMsg(START_NS, "the end is near"))
    stream = dbn_bytes(records[:500]) + said[0] + records[500:].tobytes() + said[1] + b"no record"
    desk = Desk(tmp_path)
    with caplog.at_level("INFO"), FeedServer(send_and_end(stream)) as server:
        thread, stop = run_in_thread(desk.engine, server)
        wait_for(lambda: desk.engine.counters.interruptions)
        stop.set()
        thread.join(5)
    found = [(record.levelname, record.args[0]) for record in caplog.records if "the feed says" in record.msg]  # type: ignore[index]
    assert found == [("INFO", "half way"), ("WARNING", "the end is near")]
    counters = desk.engine.counters
    assert (counters.notices, counters.rejected) == (2, 0)


def test_more_notices_than_are_kept_are_counted_all(caplog: pytest.LogCaptureFixture) -> None:
    said = b"".join(bytes(dbn.SystemMsg(START_NS, f"message {number}")) for number in range(150))
    with caplog.at_level("INFO"), FeedServer(send_and_end(dbn_bytes(session(1)) + said)) as server:
        connection = connected(server)
        count = 0
        while connection.receive(5) is not None:
            count += connection.notices
        connection.close()
    assert count == 150
    assert "message 149" in caplog.text


def test_an_interrupted_replay_goes_on_with_the_picture_of_the_next_connection(
    tmp_path: Path, wait_for: Callable[..., object]
) -> None:
    records = session(4000)
    middle = int(np.flatnonzero(records["flags"] & int(Flags.LAST))[1000]) + 1
    desk = Desk(tmp_path)

    def taken() -> object:
        return wait_for(lambda: desk.engine.counters.applied == middle)

    late = np.concatenate((picture_of(records[:middle]), records[middle:]))
    with FeedServer(
        send_and_reset(dbn_bytes(records[:middle]), taken), send_and_end(b""), send_and_end(dbn_bytes(late))
    ) as server:
        thread, stop = run_in_thread(desk.engine, server)
        wait_for(lambda: (tmp_path / "benchmarks.jsonl").exists())
        stop.set()
        thread.join(5)
    assert desk.engine.counters.interruptions == 2
    assert len((tmp_path / "benchmarks.jsonl").read_text().splitlines()) == 1
    book = reference_book(records)
    assert desk.books[-1].bids.tolist() == book.levels(Side.BID).tolist()
    assert desk.books[-1].asks.tolist() == book.levels(Side.ASK).tolist()
