"""The live protocol as the engine speaks it, on real sockets."""

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine_worker.connection import Connection, FeedInterrupted
from engine_worker.engine import Engine
from engine_worker.feed_client import FeedClient
from engine_worker.ledger import Ledger
from engine_worker.live_feed import Login, live_feed
from engine_worker.mailbox import Progress
from engine_worker.mark import Mark
from engine_worker.resumption import Known, Resumption
from engine_worker.status import StatusReader
from engine_worker.tests.builders import (
    KEY,
    START_NS,
    Behaviour,
    Desk,
    FeedServer,
    config,
    picture_of,
    reference_book,
    rows,
    send_and_end,
    session,
)
from engine_worker.tests.gateway import Session, complete, live
from engine_worker.threads import EngineThreads, feed_of
from orderbook.book.mbo import Flags, MboArray, Side
from replay.feed import live_records
from replay.feed.live_messages import MAX_SYMBOLS_PER_LINE

WaitFor = Callable[..., object]
LOGIN = Login(KEY, "BATONIC.REPLAY", ("ALL_SYMBOLS",))


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: int) -> None:
        self.now_ns += seconds * 10**9


def client(server: FeedServer, login: Login = LOGIN, clock: Clock | None = None) -> FeedClient:
    return FeedClient("127.0.0.1", server.port, live_feed(login, clock or Clock()), refused_retry_s=0.05)


def connected(server: FeedServer, login: Login = LOGIN, clock: Clock | None = None) -> Connection:
    connection = client(server, login, clock).connect(threading.Event())
    assert connection is not None
    return connection


def all_of(connection: Connection) -> MboArray:
    """Return the records of a connection up to the end of its replay, and close it."""
    parts = []
    try:
        while (part := connection.receive(5)) is not None:
            parts.append(part.copy())
    finally:
        connection.close()
    return np.concatenate(parts)


class Running:
    """An engine that follows a feed on a thread, as long as the block lasts."""

    def __init__(self, engine: Engine, feed: FeedClient) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=engine.run, args=(feed, self._stop))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


def final_book(folder: Path) -> list[list[int]]:
    book = json.loads((folder / "final_books" / "CLX5.json").read_text())
    return [[level["px"], level["sz"], level["ct"]] for level in book["bids"]]


def finished(folder: Path) -> Callable[[], bool]:
    return (folder / "benchmarks.jsonl").exists


def test_a_replay_arrives_whole_and_its_end_is_told() -> None:
    records = session(3000)
    with FeedServer(live(records[:1000], records[1000:], then=complete)) as server:
        connection = connected(server)
        assert all_of(connection).tobytes() == records.tobytes()
    assert connection.symbol(7) == "CLX5"


def say_slow(session: Session) -> None:
    session.say(live_records.system_message(START_NS, live_records.SLOW_READER_WARNING, "You are slow"))


@pytest.mark.parametrize("ending", [lambda session: None, say_slow])
def test_a_gateway_that_only_closes_has_not_ended_the_replay(ending: Callable[[Session], object]) -> None:
    with (
        FeedServer(live(session(10), then=ending)) as server,
        pytest.raises(FeedInterrupted, match="closed the connection before the replay was over"),
    ):
        all_of(connected(server))


def test_an_error_and_the_end_are_an_interruption_that_says_why() -> None:
    revoked = live_records.error_message(START_NS, live_records.KEY_DEACTIVATED, "The key was revoked")
    with (
        FeedServer(live(session(10), then=lambda made: made.say(revoked))) as server,
        pytest.raises(FeedInterrupted, match="found error 2 and the end: The key was revoked"),
    ):
        all_of(connected(server))


def test_what_is_asked_for_is_the_mbo_of_the_symbols_with_their_books_first() -> None:
    asked: list[Session] = []
    symbols = tuple(f"S{number}" for number in range(MAX_SYMBOLS_PER_LINE + 1))
    with FeedServer(live(then=lambda made: (asked.append(made), made.complete()))) as server:
        assert len(all_of(connected(server, Login(KEY, "GLBX.MDP3", symbols)))) == 0
    assert asked[0].request.dataset == "GLBX.MDP3" and asked[0].request.heartbeat_interval_s == 10
    [wanted] = asked[0].subscriptions
    assert (wanted.schema, wanted.symbols, wanted.stype_in) == ("mbo", symbols, "raw_symbol")
    assert (wanted.snapshot, wanted.start_ns) == (True, None)


def asking(server: FeedServer, known: Known = Known(0, 0)) -> Connection:  # noqa: B008
    """Return a connection that has asked for a replay by its number."""
    connection = FeedClient("127.0.0.1", server.port, live_feed(LOGIN, Clock(), lambda: known)).connect(
        threading.Event()
    )
    assert connection is not None
    return connection


def test_records_of_a_replay_that_was_not_named_though_it_was_asked_for_are_an_interruption() -> None:
    records = session(500)
    with (
        FeedServer(live(picture_of(records[:100]), records, replay_id=None, then=complete)) as server,
        pytest.raises(FeedInterrupted, match="expected the name of the replay before its first record, found none"),
    ):
        all_of(asking(server))


def test_a_picture_comes_without_a_name_and_so_does_everything_of_a_gateway_of_another_make() -> None:
    records = session(500)
    picture = picture_of(records[:100])
    vendor = live(records, replay_id=None, greeting=b"lsg_version=0.8.0", then=complete)
    with FeedServer(live(picture, replay_id=None, then=complete), vendor) as server:
        assert all_of(asking(server)).tobytes() == picture.tobytes()
        assert all_of(asking(server)).tobytes() == records.tobytes()


def test_one_connection_brings_one_replay_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def renamed(made: Session) -> None:
        made.follows(1)
        made.send(session(10))
        made.follows(2)

    with (
        FeedServer(live(then=renamed)) as server,
        pytest.raises(FeedInterrupted, match="expected replay 1 in this connection, found replay 2"),
    ):
        all_of(asking(server))
    assert caplog.text.count("the gateway brings replay") == 1


class NoDatabase:
    """A store in which nothing is."""

    progress = Progress(0, 0, 0)


def test_where_we_were_is_found_out_before_a_gateway_is_kept_waiting(tmp_path: Path, wait_for: WaitFor) -> None:
    with FeedServer(live(session(500), then=complete)) as server:
        before: list[int] = []

        def load(first: Mark, stop: threading.Event) -> None:
            before.append(server.connections)

        desk = Desk(tmp_path, resumption=Resumption(Ledger(NoDatabase(), None, load)))
        feed = FeedClient("127.0.0.1", server.port, live_feed(LOGIN, Clock(), desk.engine.resumption.known))
        with Running(desk.engine, feed):
            wait_for(finished(tmp_path))
    assert before == [0]


def test_an_engine_that_was_to_go_on_says_once_that_another_make_of_gateway_has_no_replays(
    tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    vendor = live(session(500), greeting=b"lsg_version=0.8.0", then=complete)
    resumption = Resumption(Ledger(NoDatabase(), None, lambda first, stop: None))
    for desk, said in ((Desk(tmp_path / "a"), 0), (Desk(tmp_path / "b", resumption=resumption), 1)):
        with FeedServer(vendor, vendor) as server:
            feed = FeedClient("127.0.0.1", server.port, live_feed(LOGIN, Clock(), desk.engine.resumption.known))
            with Running(desk.engine, feed):
                wait_for(lambda desk=desk: desk.engine.counters.runs == 2)
        assert caplog.text.count("this gateway is none of ours") == said


def test_a_wrong_key_is_told_once_and_tried_again_until_it_is_right(
    tmp_path: Path, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path)
    wrong, seen = live(key="db-" + "x" * 29), threading.Event()

    def right(peer: socket.socket) -> None:
        seen.wait(10)
        live(session(500), then=complete)(peer)

    with FeedServer(wrong, wrong, right) as server:
        feed = client(server)
        status = StatusReader(desk.engine, [], feed)
        with Running(desk.engine, feed):
            wait_for(lambda: server.connections > 2)  # the last one keeps it waiting for a greeting
            found = status()
            assert (found["state"], found["degraded"]) == (
                "connecting",
                {
                    "feed": f"127.0.0.1:{server.port} refuses us "
                    "(authentication: expected to be let in, found Authentication failed.)"
                },
            )
            seen.set()
            wait_for(finished(tmp_path))
            assert status()["degraded"] == {}
    assert (desk.engine.counters.received, desk.engine.counters.interruptions) == (500, 0)
    assert caplog.text.count("refuses us") == 1
    assert KEY not in caplog.text


def test_a_gateway_that_dies_in_the_handshake_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    records = session(10)
    with FeedServer(send_and_end(b"lsg_version=1\n"), live(records, then=complete)) as server:
        assert all_of(connected(server)).tobytes() == records.tobytes()
    assert "handshake: expected the challenge, found the end of the stream" in caplog.text


def test_waiting_for_a_gateway_that_never_greets_can_be_ended(wait_for: WaitFor) -> None:
    stop = threading.Event()
    with FeedServer() as server:
        found: list[Connection | None] = []
        feed = client(server)
        seeker = threading.Thread(target=lambda: found.append(feed.connect(stop)))
        seeker.start()
        wait_for(lambda: server.connections)
        stop.set()
        seeker.join(5)
    assert found == [None] and feed.fault == ""


def test_a_gateway_that_falls_silent_is_an_interruption() -> None:
    clock, stay = Clock(), threading.Event()
    with FeedServer(live(session(10), then=lambda _: stay.wait(10))) as server:
        connection = connected(server, clock=clock)
        while not connection.fruitful:
            connection.receive(1)
        clock.pass_s(19)
        assert len(connection.receive(0.01)) == 0
        clock.pass_s(2)
        with pytest.raises(FeedInterrupted, match="expected records or a heartbeat, found silence"):
            connection.receive(0.01)
        connection.close()
        stay.set()


def test_heartbeats_keep_a_silent_connection() -> None:
    beats: list[Session] = []
    clock, stay = Clock(), threading.Event()
    with FeedServer(live(then=lambda made: (beats.append(made), stay.wait(10), made.complete()))) as server:
        connection = connected(server, clock=clock)
        while not beats:
            connection.receive(0.01)
        for _ in range(5):
            clock.pass_s(15)
            beats[0].say(live_records.heartbeat(START_NS))
            assert connection.receive(5) is not None
        stay.set()
        assert len(all_of(connection)) == 0


def run_over(server: FeedServer, desk: Desk, wait_for: WaitFor, **changes: object) -> None:
    """Let an engine follow a gateway, as its configuration says, until a replay is over."""
    enter = feed_of(replace(desk.engine.config, protocol="live", **changes))
    with Running(desk.engine, FeedClient("127.0.0.1", server.port, enter)):
        wait_for(desk.engine.config.bench_log_path.exists)
        wait_for(lambda: server.connections >= 2, what="connecting again")


def test_the_rows_and_counts_are_those_of_the_raw_feed(tmp_path: Path, wait_for: WaitFor) -> None:
    records = session(5000)
    expected, desk = Desk(tmp_path / "a"), Desk(tmp_path / "b")
    expected.feed(records)
    expected.engine.end()
    with FeedServer(live(records, then=complete)) as server:
        run_over(server, desk, wait_for)
    assert rows(desk.snapshots) == rows(expected.snapshots)
    counters = desk.engine.counters
    assert (counters.received, counters.applied, counters.runs, counters.interruptions) == (5000, 5000, 1, 0)
    assert counters.notices == 2  # the acknowledgement and the end
    assert final_book(tmp_path / "b") == final_book(tmp_path / "a")


def test_a_gateway_that_dies_in_mid_replay_ends_nothing_and_the_next_connection_goes_on(
    tmp_path: Path, wait_for: WaitFor
) -> None:
    records = session(4000)
    middle = int(np.flatnonzero(records["flags"] & int(Flags.LAST))[1000]) + 1
    desk = Desk(tmp_path)
    ended: list[bool] = []

    def die(_: Session) -> None:
        wait_for(lambda: desk.engine.counters.applied == middle)

    def back(peer: socket.socket) -> None:
        ended.append(finished(tmp_path)())
        live(picture_of(records[:middle]), records[middle:], then=complete)(peer)

    with FeedServer(live(records[:middle], then=die), back) as server:
        run_over(server, desk, wait_for)
    assert ended == [False]
    assert desk.engine.counters.interruptions == 1
    assert len((tmp_path / "benchmarks.jsonl").read_text().splitlines()) == 1
    assert final_book(tmp_path) == reference_book(records).levels(Side.BID).tolist()


def test_a_gateway_of_another_make_is_asked_as_the_settings_say(tmp_path: Path, wait_for: WaitFor) -> None:
    asked: list[Session] = []
    desk = Desk(tmp_path)
    key = "db-" + "v" * 29
    done: Behaviour = live(session(100), key=key, then=lambda made: (asked.append(made), made.complete()))
    with FeedServer(done) as server:
        run_over(server, desk, wait_for, key=key, dataset="GLBX.MDP3", symbols=("CLX5",))
    assert asked[0].request.dataset == "GLBX.MDP3"
    assert [wanted.symbols for wanted in asked[0].subscriptions] == [("CLX5",)]


def test_nothing_of_the_engine_shows_the_key(tmp_path: Path) -> None:
    made = config(tmp_path, protocol="live", redis_url="redis://127.0.0.1:1", feed_enabled=False)
    threads = EngineThreads(made)
    shown = [repr(made), repr(Login(KEY, "X", ())), json.dumps(threads.status())]
    assert not any(KEY in text for text in shown)
    for sink in threads.sinks:
        sink._writer.close()
