"""What the gateway gives an engine that comes back: the replay that it knows from where it was, all of any other."""

import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import MBO, Flags, MboArray
from replay.feed import live_records
from replay.feed.live_client import Event, GatewayError, LiveClient, LoggedIn, ReplayCompleted, ReplayFollows
from replay.feed.live_messages import ALL_SYMBOLS, SubscriptionRequest, parse_request
from replay.feed.stream import FeedError
from replay.streamer.publication import Publication
from replay.tests.recordings import VENUE, recording, session
from replay.tests.serving import KEY, WAIT_S, Served, serving

RECORDS = session(3000)
RECORDS["ts_event"] -= np.where(np.arange(3000) % 7 == 3, 20_000, 0).astype(np.uint64)  # times step back


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(recording(RECORDS)) as running:
        yield running


class Engine:
    """A client of ours: what it is sent, and what it is told."""

    def __init__(self, served: Served, replay: int | None, start_ns: int | None = None, *symbols: str) -> None:
        wanted = SubscriptionRequest("mbo", symbols or (ALL_SYMBOLS,), snapshot=True, replay=replay, start_ns=start_ns)
        self._machine = LiveClient(KEY, VENUE, [], 0, of_ours=[wanted])
        self._sock = socket.create_connection(("127.0.0.1", served.port), WAIT_S)
        self._parts = [np.empty(0, MBO)]
        self.told: list[Event] = []
        self.is_open = True
        while not any(isinstance(event, LoggedIn) for event in self.told):
            self.hear()
        ours = "{}:{}".format(*self._sock.getsockname())
        served.until(lambda status: any(each.is_streaming for each in served.sessions() if each.peer == ours))

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    @property
    def records(self) -> MboArray:
        return np.concatenate(self._parts)

    @property
    def plain(self) -> MboArray:
        return self.records[self.records["flags"] & Flags.SNAPSHOT == 0]

    @property
    def replay(self) -> int | None:
        return next((event.replay_id for event in self.told if isinstance(event, ReplayFollows)), None)

    def hear(self, most: int | None = None) -> bool:
        """Take what comes next, so many bytes of it at most; False once the gateway has closed."""
        size = self._sock.recv_into(self._machine.space()[:most])
        if not size:
            self._machine.finish()
            self.is_open = False
        else:
            self._parts.append(self._machine.received(size).copy())
        self.told += self._machine.events()
        self._sock.sendall(self._machine.to_send())
        return self.is_open

    def until(self, plain: int) -> "Engine":
        """Hear until so many plain records have come."""
        while len(self.plain) < plain:
            assert self.hear(), f"the gateway closed after {len(self.plain)} records"
        return self

    def to_end(self) -> "Engine":
        while self.hear():
            pass
        return self


def paused(served: Served, position: int, **more: Any) -> None:
    served.replay(paused=True, **more)
    served.do("seek", to={"record": position})


def books(records: MboArray) -> str:
    market = make_market("kernel")
    market.apply(np.array(records))
    return market_hash(market.books.items())


def first_since(start_ns: int) -> int:
    return int((RECORDS["ts_event"] >= start_ns).argmax())


def test_the_replay_that_is_known_comes_from_there_on_with_every_record_however_old_it_says_it_is(
    served: Served,
) -> None:
    paused(served, 2000, replay_id=7)
    start_ns = int(RECORDS["ts_event"][1200])
    first = first_since(start_ns)
    with Engine(served, 7, start_ns) as engine:
        engine.until(2000 - first)
        served.do("resume")
        engine.to_end()
    assert engine.replay == 7
    assert (engine.plain["ts_event"] < start_ns).any()
    assert engine.plain.tobytes() == RECORDS[first:].tobytes()
    assert books(engine.records[: len(engine.records) - len(engine.plain)]) == books(RECORDS[:first])


def test_having_caught_up_is_not_told_as_the_end_would_be(served: Served) -> None:
    paused(served, 2000)
    with Engine(served, 1, 0) as engine:
        engine.until(2000)
        served.until(lambda status: all(each.holds_up for each in served.sessions()))
        served.do("step", unit="record", by=1)
        engine.until(2001)
        assert not any(isinstance(event, ReplayCompleted) for event in engine.told)
        served.do("resume")
        engine.to_end()
    assert isinstance(engine.told[-1], ReplayCompleted)


@pytest.mark.parametrize("ended", [False, True])
def test_another_replay_than_the_known_one_comes_from_the_beginning_of_its_window(served: Served, ended: bool) -> None:
    window = ({"record": 500}, {"record": 2500})
    served.replay(paused=True, replay_id=8, window=window)
    served.do("seek", to={"record": 1500})
    if ended:
        served.do("stop")
    with Engine(served, 7, int(RECORDS["ts_event"][2900])) as engine:
        engine.until(1000)
        if not ended:
            served.do("resume")
        engine.to_end()
    assert engine.replay == 8
    assert engine.plain.tobytes() == RECORDS[500 : 1500 if ended else 2500].tobytes()


def test_a_replay_that_begins_while_an_engine_waits_is_another_one_and_comes_whole(served: Served) -> None:
    with Engine(served, 7, int(RECORDS["ts_event"][2900])) as engine:
        served.replay(replay_id=8)
        engine.to_end()
    assert engine.replay == 8
    assert engine.plain.tobytes() == RECORDS.tobytes()


def test_a_start_that_the_clock_was_set_back_before_is_the_present(served: Served) -> None:
    paused(served, 600)
    with Engine(served, 1, int(RECORDS["ts_event"][2000])) as engine:
        served.do("resume")
        engine.to_end()
    assert engine.plain.tobytes() == RECORDS[600:].tobytes()
    assert books(engine.records[: len(engine.records) - len(engine.plain)]) == books(RECORDS[:600])


def test_the_rest_of_a_replay_that_has_ended_comes_and_then_its_end(served: Served) -> None:
    with Engine(served, 0):
        served.replay()
        served.until(lambda status: status["state"] == "DONE")
    start_ns = int(RECORDS["ts_event"][2900])
    with Engine(served, 1, start_ns) as engine:
        engine.to_end()
    assert engine.plain.tobytes() == RECORDS[first_since(start_ns) :].tobytes()
    assert isinstance(engine.told[-1], ReplayCompleted)


def test_who_has_had_all_of_the_replay_that_ended_gets_its_picture_and_waits_for_the_next(served: Served) -> None:
    with Engine(served, 0):
        served.replay(replay_id=7)
        served.until(lambda status: status["state"] == "DONE")
    with Engine(served, 7) as engine:
        while books(engine.records) != books(RECORDS):
            engine.hear()
        assert engine.replay is None and engine.is_open
        served.replay(replay_id=8)
        engine.to_end()
    assert engine.replay == 8
    assert engine.plain[-3000:].tobytes() == RECORDS.tobytes()


def test_more_of_a_replay_that_has_failed_is_not_given_again_and_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Publication, now_ns: int, slowest: int | None) -> bool:
        raise ZeroDivisionError("a fault of the program")

    served.replay(paused=True, replay_id=7)
    with Engine(served, 0, 0) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(Publication, "advance", fail)
            served.do("resume")
            served.until(lambda status: status["state"] == "FAILED")
        with pytest.raises(FeedError, match="The replay failed"):
            engine.to_end()
    with Engine(served, 7, int(RECORDS["ts_event"][0])) as again:
        served.replay(replay_id=8)
        again.to_end()
    assert again.replay == 8 and len(again.plain) >= 3000


def test_in_a_loop_the_start_is_sought_in_the_round_that_is_under_way(served: Served) -> None:
    served.replay(loop=True, pace={"records_per_s": 100_000})
    with Engine(served, 1):
        served.until(lambda status: status["loops"] == 1)
        served.do("pause")
        here = served.do("status")["position"]
        start_ns = int(RECORDS["ts_event"][here // 2])
        with Engine(served, 1, start_ns) as engine:
            engine.until(here - first_since(start_ns))
            assert engine.plain.tobytes() == RECORDS[first_since(start_ns) : here].tobytes()


def test_one_instrument_comes_with_its_own_records_only(served: Served) -> None:
    paused(served, 2000)
    own = RECORDS[RECORDS["instrument_id"] == 7001]
    start_ns = int(own["ts_event"][400])
    expected = RECORDS[first_since(start_ns) :]
    with Engine(served, 1, start_ns, "ESZ5") as engine:
        served.do("resume")
        engine.to_end()
    assert engine.plain.tobytes() == expected[expected["instrument_id"] == 7001].tobytes()


def test_a_replay_is_named_to_those_only_who_ask_for_that(served: Served) -> None:
    served.replay(paused=True)
    with Engine(served, None) as other, Engine(served, 0) as engine:
        served.do("resume")
        assert (other.to_end().replay, engine.to_end().replay) == (None, 1)
    assert other.records.tobytes() == engine.records.tobytes()


def test_the_name_of_a_replay_comes_behind_all_that_is_said_of_symbols_and_before_the_first_record(
    served: Served,
) -> None:
    paused(served, 2000)
    unknown = [f"NONE{number}" for number in range(300)]
    with Engine(served, 1, 0, "ESZ5", *unknown) as engine:
        while engine.replay is None:
            engine.hear(most=32)  # less than a record: nothing behind the name can be heard with it
        assert not len(engine.records)
        before = engine.told[: engine.told.index(ReplayFollows(1))]
        assert sum(isinstance(event, GatewayError) for event in before) == len(unknown)
        served.do("resume")
        engine.to_end()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("schema=mbo|symbols=A|replay=1", "replay: expected none without snapshot=1"),
        ("schema=mbo|symbols=A|snapshot=1|replay=x", "replay: expected a whole number from 0 to"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(line: str, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        parse_request(line.encode())


def test_a_replay_travels_in_the_line_and_its_name_in_a_text() -> None:
    wanted = SubscriptionRequest("mbo", ("A",), start_ns=5, snapshot=True, replay=7)
    assert parse_request(wanted.encode()) == wanted
    assert live_records.replay_told(live_records.HEARTBEAT, "Replay 7 follows") is None
    assert live_records.replay_told(live_records.SUBSCRIPTION_ACK, "Replay 7 follows it") is None
