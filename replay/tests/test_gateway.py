"""The live port, byte by byte: what each kind of client gets, and what a bad one gets and does to the others."""

import contextlib
import csv
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import databento_dbn as dbn
import numpy as np
import pytest

from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import MBO, Action, Flags, MboArray
from replay.feed import live_server
from replay.feed.cram import parse_response, respond
from replay.feed.live_messages import ALL_SYMBOLS, AuthRequest, Challenge, SessionStart, SubscriptionRequest
from replay.streamer import gateway as gateway_module
from replay.streamer import live_stream, outlet
from replay.streamer.attempts import MAX_FAILURES
from replay.streamer.doorman import Keys
from replay.streamer.live_stream import find_starts
from replay.streamer.patience import Patience
from replay.streamer.publication import Publication
from replay.streamer.server import Streamer
from replay.tests.naive_schemas import naive_schemas
from replay.tests.recordings import SYMBOLS, VENUE, recording, session
from replay.tests.serving import KEY, WAIT_S, Served, serving

RECORDS = session(3000)
CLX5, ESZ5 = 432669, 7001
ALL = SubscriptionRequest("mbo", (ALL_SYMBOLS,))
OTHER_KEY = "db-abcdefghijklmnopqrstuvwxyzABC"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(recording(RECORDS)) as running:
        yield running


class Client:
    """A client that is written for the test: it says what it is told to, and reads what it is told to."""

    def __init__(self, port: int, buffer_bytes: int = 0, address: str = "127.0.0.1") -> None:
        self.sock = socket.socket()
        self.sock.bind((address, 0))
        if buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(("127.0.0.1", port))
        self.lines = self.sock.makefile("rb", buffering=0)
        assert self.lines.readline().startswith(b"lsg_version=")
        self.challenge = Challenge.parse(self.lines.readline()).cram
        self.decoder = dbn.DBNDecoder()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.lines.close()
        self.sock.close()

    def log_in(self, key: str = KEY, **more: Any) -> bytes:
        """Answer the challenge, and return the verdict."""
        self.say_key(key, **more)
        return bytes(self.lines.readline())

    def say_key(self, key: str = KEY, **more: Any) -> None:
        answer = parse_response(respond(self.challenge, key))
        self.sock.sendall(AuthRequest(answer, **{"dataset": VENUE, **more}).encode())

    def start(self, *requests: SubscriptionRequest, **more: Any) -> "Client":
        """Log in, subscribe and start."""
        assert b"success=1" in self.log_in(**more)
        self.sock.sendall(b"".join(request.encode() for request in requests) + SessionStart().encode())
        return self

    def to_end(self) -> bytes:
        """Read until the gateway closes."""
        data = b""
        while piece := self.sock.recv(1 << 18):
            data += piece
        return data

    def records(self) -> list[Any]:
        """Return the records of the rest of the stream; the metadata comes first among them."""
        self.decoder.write(self.to_end())
        return list(self.decoder.decode())

    def until(self, kind: type) -> list[Any]:
        """Read until a record of a kind has come, and return all of them."""
        got: list[Any] = []
        while not any(isinstance(record, kind) for record in got):
            self.decoder.write(self.sock.recv(1 << 18))
            got += self.decoder.decode()
        return got


@contextlib.contextmanager
def connected(served: Served, *requests: SubscriptionRequest, **more: Any) -> Iterator[Client]:
    """Yield a client whose session has started."""
    before = sum(session.is_streaming for session in served.sessions())
    with Client(served.port) as client:
        client.start(*(requests or (ALL,)), **more)
        served.following(before + 1)
        yield client


def mbo(records: list[Any]) -> MboArray:
    return np.frombuffer(b"".join(bytes(each) for each in records if isinstance(each, dbn.MBOMsg)), MBO)


def told(records: list[Any]) -> list[str]:
    return [getattr(each, "msg", "") or each.err for each in records if isinstance(each, dbn.SystemMsg | dbn.ErrorMsg)]


def books(records: MboArray, instrument: int | None = None) -> str:
    market = make_market("kernel")
    market.apply(np.array(records))
    return market_hash((key, book) for key, book in market.books.items() if instrument in (None, key.instrument_id))


def of(records: MboArray, instrument: int) -> MboArray:
    return records[records["instrument_id"] == instrument]


def plain(records: MboArray) -> MboArray:
    return records[records["flags"] & Flags.SNAPSHOT == 0]


def paused_at(served: Served, position: int) -> None:
    served.replay(paused=True)
    served.do("step", unit="record", by=position)


# What a client gets


def test_a_client_of_one_instrument_gets_its_records_alone(served: Served) -> None:
    with connected(served, SubscriptionRequest("mbo", ("ESZ5",))) as client:
        served.replay()
        records = client.records()
    assert mbo(records).tobytes() == of(RECORDS, ESZ5).tobytes()
    assert [(each.instrument_id, each.stype_out_symbol) for each in records if hasattr(each, "stype_out_symbol")] == [
        (ESZ5, "ESZ5")
    ]


@pytest.mark.parametrize("symbol", ["CLX5", ALL_SYMBOLS])
def test_a_snapshot_is_a_clear_and_the_orders_of_what_was_subscribed_and_then_the_stream(
    served: Served, symbol: str
) -> None:
    position = 1 + int(np.flatnonzero(RECORDS["flags"] & Flags.LAST)[700])
    paused_at(served, position)
    with connected(served, SubscriptionRequest("mbo", (symbol,), snapshot=True)) as client:
        picture = mbo(client.until(dbn.MBOMsg))
        served.do("pace", pace="max")
        served.do("resume")
        got = np.concatenate([picture, mbo(client.records())])
    instrument = CLX5 if symbol == "CLX5" else None
    pictured = got[: len(got) - len(plain(got))]
    assert set(pictured["flags"] & Flags.SNAPSHOT) == {Flags.SNAPSHOT} and pictured[0]["action"] == Action.CLEAR
    assert plain(got).tobytes() == (of(RECORDS, CLX5) if instrument else RECORDS)[-len(plain(got)) :].tobytes()
    assert books(pictured) == books(RECORDS[:position], instrument)
    assert books(got) == books(RECORDS, instrument)


def test_a_snapshot_with_a_start_is_that_of_the_start(served: Served) -> None:
    paused_at(served, 2000)
    start = int(RECORDS["ts_event"][1200])
    first = int(np.flatnonzero(RECORDS["ts_event"] >= start)[0])
    request = SubscriptionRequest("mbo", (ALL_SYMBOLS,), start_ns=start, snapshot=True)
    with connected(served, request) as client:
        served.until(lambda status: all(session.holds_up for session in served.sessions()))
        served.do("resume")
        got = mbo(client.records())
    assert books(got[: len(got) - len(plain(got))]) == books(RECORDS[:first])
    assert plain(got).tobytes() == RECORDS[first:].tobytes()


def test_what_has_a_start_catches_up_and_what_has_none_begins_with_the_present(served: Served) -> None:
    paused_at(served, 2000)
    requests = (SubscriptionRequest("mbo", ("CLX5",), start_ns=0), SubscriptionRequest("mbo", ("ESZ5",)))
    with connected(served, *requests) as client:
        records = client.until(dbn.MBOMsg)
        while "Finished mbo replay" not in told(records):
            records += client.until(dbn.SystemMsg)
        served.do("resume")
        rest = client.records()
    assert mbo(records).tobytes() == of(RECORDS[:2000], CLX5).tobytes()
    assert mbo(rest).tobytes() == RECORDS[2000:].tobytes()
    assert told(records + rest).count("Finished mbo replay") == 2  # it has caught up; and it is over


def test_each_start_holds_for_its_own_subscription_also_where_venue_times_step_back() -> None:
    records = session(3000)
    records["ts_event"][1500:1600] = records["ts_event"][1000]  # entered late, as the orders of a snapshot are
    start = int(records["ts_event"][1200])
    requests = (
        SubscriptionRequest("mbo", ("CLX5",), start_ns=0),
        SubscriptionRequest("mbo", ("ESZ5",), start_ns=start),
    )
    with serving(recording(records)) as served:
        served.replay({"records_per_s": 1_000_000})
        served.until(lambda status: status["state"] == "DONE")
        with Client(served.port) as client:
            got = mbo(client.start(*requests).records())
    wanted = (records["instrument_id"] == CLX5) | (records["ts_event"] >= start)
    assert got.tobytes() == records[wanted].tobytes()


def test_several_schemas_come_in_the_order_of_the_stream(served: Served) -> None:
    schemas = ("mbo", "trades", "tbbo", "mbp-1", "mbp-10")
    with connected(served, *(SubscriptionRequest(schema, (ALL_SYMBOLS,)) for schema in schemas)) as client:
        served.replay({"records_per_s": 20_000})
        got = [type(each).__name__ for each in client.records()]
    rows = naive_schemas(RECORDS)
    names = ("TradeMsg", "MBP1Msg", "MBP1Msg", "MBP10Msg")
    expected = sorted(
        [(number, 0, "MBOMsg") for number in range(len(RECORDS))]
        + [
            (row["at"], order, name)
            for order, (schema, name) in enumerate(zip(schemas[1:], names, strict=True), 1)
            for row in rows[schema]
        ]
    )
    assert [name for name in got if name in (*names, "MBOMsg")] == [name for *_, name in expected]


def test_json_is_an_object_a_line_and_csv_a_table_with_a_header(served: Served) -> None:
    requests = (ALL, SubscriptionRequest("trades", (ALL_SYMBOLS,)))
    with (
        connected(served, *requests, encoding="json", pretty_px=True, compression="none") as as_json,
        connected(served, *requests, encoding="csv") as as_csv,
    ):
        served.replay()
        objects = [json.loads(line) for line in as_json.to_end().splitlines()]
        table = list(csv.reader(io.StringIO(as_csv.to_end().decode())))
    trades = int((RECORDS["action"] == Action.TRADE).sum())
    assert [each["order_id"] for each in objects if "order_id" in each] == [str(id_) for id_ in RECORDS["order_id"]]
    assert sum(each["hd"]["rtype"] == 0 for each in objects) == trades
    rows = rows_of(table, "order_id")
    assert [row["order_id"] for row in rows] == [str(id_) for id_ in RECORDS["order_id"]]
    assert sum(row["action"] == "T" for row in rows_of(table, "depth")) == trades


def rows_of(table: list[list[str]], column: str) -> list[dict[str, str]]:
    """Return the rows that stand below a header with a column."""
    rows, header = [], []
    for row in table:
        if "rtype" in row:
            header = row
        elif column in header:
            rows.append(dict(zip(header, row, strict=True)))
    return rows


def test_after_a_jump_a_client_gets_the_books_of_its_own_instruments_in_each_schema(served: Served) -> None:
    requests = (SubscriptionRequest("mbo", ("CLX5",)), SubscriptionRequest("mbp-1", ("ESZ5",)))
    with connected(served, *requests) as client:
        paused_at(served, 100)
        client.until(dbn.MBP1Msg)
        served.do("seek", to={"record": 2500})
        served.until(lambda status: status["position"] == 2500)
        served.do("pace", pace="max")
        served.do("resume")
        records = client.records()
    got = mbo(records)
    pictured = got[np.flatnonzero(got["flags"] & Flags.SNAPSHOT)]
    assert set(got["instrument_id"]) == {CLX5}
    assert books(pictured) == books(RECORDS[:2500], CLX5)
    assert books(got) == books(RECORDS, CLX5)
    told_anew = [each for each in records if isinstance(each, dbn.MBP1Msg) and each.flags & Flags.SNAPSHOT]
    assert [each.instrument_id for each in told_anew] == [ESZ5]


def test_each_round_of_a_loop_begins_with_a_clear_of_the_clients_books(served: Served) -> None:
    with connected(served, SubscriptionRequest("mbo", ("CLX5",))) as client:
        served.replay(loop=True, max_msgs=7500)
        got = mbo(client.records())
    one = of(RECORDS, CLX5)
    clears = np.flatnonzero((got["action"] == Action.CLEAR) & (got["sequence"] == 0))
    assert clears.tolist() == [len(one), 2 * len(one) + 1]
    assert books(got) == books(RECORDS[:1500], CLX5)


def test_after_the_end_a_snapshot_shows_the_last_books_and_the_next_replay_takes_them_back(served: Served) -> None:
    served.replay({"records_per_s": 1_000_000}, max_msgs=1500)
    served.until(lambda status: status["state"] == "DONE")
    with connected(served, SubscriptionRequest("mbo", (ALL_SYMBOLS,), snapshot=True)) as client:
        shown = mbo(client.until(dbn.MBOMsg))
        served.replay()
        rest = mbo(client.records())
    got = np.concatenate([shown, rest])
    pictured, rest = np.split(got, [int((got["flags"] & Flags.SNAPSHOT == 0).argmax())])
    assert books(pictured) == books(RECORDS[:1500])
    taken_back, nothing_yet, records = np.split(rest, [len(SYMBOLS), 2 * len(SYMBOLS)])
    assert set(taken_back["action"]) == {Action.CLEAR} == set(nothing_yet["action"])
    assert books(np.concatenate([pictured, taken_back])) == books(RECORDS[:0])
    assert set(nothing_yet["flags"]) == {Flags.SNAPSHOT | Flags.LAST}
    assert records.tobytes() == RECORDS.tobytes()


def test_a_snapshot_that_is_asked_for_after_the_end_shows_the_books_too(served: Served) -> None:
    served.replay({"records_per_s": 1_000_000}, max_msgs=1500)
    served.until(lambda status: status["state"] == "DONE")
    with connected(served, SubscriptionRequest("mbo", ("CLX5",), snapshot=True)) as client:
        first = mbo(client.until(dbn.MBOMsg))
        client.sock.sendall(SubscriptionRequest("mbo", ("ESZ5",), snapshot=True).encode())
        then = mbo(client.until(dbn.MBOMsg))
        while set(then["instrument_id"]) != {ESZ5} or books(then) != books(RECORDS[:1500], ESZ5):
            then = np.concatenate([then, mbo(client.until(dbn.MBOMsg))])
        served.replay()
        rest = mbo(client.records())
    clears = rest[: len(SYMBOLS)]
    assert set(first["instrument_id"]) == {CLX5}
    assert set(clears["instrument_id"]) == set(SYMBOLS) and set(clears["flags"]) == {Flags.LAST}


@pytest.mark.parametrize("position", [0, 3])
def test_a_snapshot_has_a_clear_of_each_subscribed_book_that_is_not_there_yet(served: Served, position: int) -> None:
    with serving(recording(np.concatenate([of(RECORDS, CLX5), of(RECORDS, ESZ5)]))) as ordered:
        ordered.replay(paused=True)
        ordered.do("seek", to={"record": position})
        with connected(ordered, SubscriptionRequest("mbo", ("ESZ5",), snapshot=True)) as client:
            [shown] = mbo(client.until(dbn.MBOMsg))
    assert (shown["instrument_id"], chr(shown["action"])) == (ESZ5, "R")
    assert (shown["flags"], shown["sequence"]) == (Flags.SNAPSHOT | Flags.LAST, 0)


def test_samples_from_a_full_second_on_begin_with_the_one_of_that_very_second() -> None:
    second = 10**9
    start = int(RECORDS["ts_event"][0]) // second * second
    records = RECORDS[:4].copy()
    records["instrument_id"], records["flags"], records["action"] = CLX5, Flags.LAST, Action.ADD
    records["price"], records["order_id"] = [1, 2, 3, 4], [1, 2, 3, 4]
    records["side"], records["size"] = ord("B"), 1
    records["ts_event"] = [start - second // 2, start - 2, start + 5, start + second + 5]
    records["ts_recv"] = [start - second // 2, start + 1, start + 7, start + second + 7]
    with serving(recording(records)) as served:
        served.replay({"records_per_s": 1_000_000})
        served.until(lambda status: status["state"] == "DONE")
        with Client(served.port) as client:
            client.start(SubscriptionRequest("bbo-1s", ("CLX5",), start_ns=start))
            samples = [each.ts_recv for each in client.records() if isinstance(each, dbn.BBOMsg)]
    assert samples == [start, start + second]


def test_who_looks_for_its_starts_holds_nobody_up_and_all_of_them_take_one_look(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, found = [], threading.Event()

    def find(*args: Any) -> Any:
        looks.append(args)
        assert found.wait(WAIT_S)
        return find_starts(*args)

    monkeypatch.setattr(live_stream, "find_starts", find)
    requests = [SubscriptionRequest(schema, (ALL_SYMBOLS,), start_ns=0) for schema in ("mbo", "trades", "mbp-1")]
    made = recording(np.tile(session(10_000), 20))
    with serving(made) as served, connected(served, *requests) as searching, connected(served) as good:
        served.replay()
        assert len(mbo(good.records())) == len(made.records)
        found.set()
        assert len(mbo(searching.records())) == len(made.records)
    assert len(looks) == 1


def test_what_is_derived_for_a_client_is_forgotten_when_it_leaves(served: Served) -> None:
    with connected(served, SubscriptionRequest("mbp-1", (ALL_SYMBOLS,))) as client:
        paused_at(served, 100)
        client.until(dbn.MBP1Msg)
        publication = served.streamer.publication
        assert publication is not None
        feed = served.streamer.derived(publication)
        assert len(feed._places) == 1
    served.until(lambda status: status["clients"] == 0)
    served.until(lambda status: not feed._places and not feed._derivers)


def test_a_client_gets_replays_of_its_own_dataset_or_of_any(served: Served) -> None:
    with (
        connected(served, dataset="XNAS.ITCH") as other,
        connected(served, dataset="BATONIC.REPLAY") as anybody,
    ):
        served.replay()
        records = anybody.records()
        assert records[0].dataset == "BATONIC.REPLAY" and len(mbo(records)) == len(RECORDS)
        other.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.to_end()


def test_a_replay_that_fails_is_told_as_an_error_and_not_as_completed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(served) as client:
        monkeypatch.setattr(Publication, "wait_ns", lambda self, now_ns: 1 // 0)
        served.replay({"records_per_s": 1})
        last = client.records()[-1]
    assert last.code == dbn.ErrorCode.INTERNAL_ERROR and last.err.startswith("The replay failed: ZeroDivisionError")


# What a bad client gets


def test_a_client_that_does_not_answer_the_challenge_in_time_is_told_and_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_server, "AUTH_TIMEOUT_S", 0.05)
    with Client(served.port) as client:
        assert client.to_end() == b"success=0|error=Expected authentication within 0.05 s.\n"
    served.until(lambda status: status["clients"] == 0)


def test_the_connection_beyond_the_limit_is_told_in_the_vendors_words(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "MAX_CLIENTS", 2)
    with connected(served), connected(served) as second:
        with Client(served.port) as third:
            assert third.log_in() == b"success=0|error=User has reached their open connection limit\n"
        second.close()
        served.until(lambda status: status["clients"] == 1)
        with connected(served) as fourth:
            served.replay()
            assert len(mbo(fourth.records())) == len(RECORDS)


def test_our_own_engine_takes_nobodys_place_and_has_one_when_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "MAX_CLIENTS", 1)
    keys = Keys(lambda bucket_id: [KEY], own=OTHER_KEY)
    with (
        serving(recording(RECORDS), keys=keys) as served,
        connected(served, key=OTHER_KEY),
        connected(served),
        connected(served, key=OTHER_KEY),
        Client(served.port) as beyond,
    ):
        assert beyond.log_in() == b"success=0|error=User has reached their open connection limit\n"


def test_silent_connections_lock_nobody_out_and_those_of_the_address_that_has_most_go(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "MAX_STRANGERS", 4)
    with contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(Client(served.port, address="127.0.0.2"))
        silent = [stack.enter_context(Client(served.port)) for _ in range(9)]
        assert all(client.to_end() == b"" for client in silent[:6]), "closed, and without a word"
        with connected(served) as good:
            served.replay()
            assert len(mbo(good.records())) == len(RECORDS)
        assert b"success=1" in silent[-1].log_in()
        assert b"success=1" in elsewhere.log_in()


def test_of_two_that_have_shown_no_key_the_one_that_has_answered_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "MAX_STRANGERS", 2)
    asked, may_go_on = threading.Event(), threading.Event()

    def find(bucket_id: str) -> list[str]:
        asked.set()
        assert may_go_on.wait(WAIT_S)
        return [KEY]

    with serving(recording(RECORDS), keys=Keys(find)) as served, Client(served.port) as first:
        first.say_key()
        assert asked.wait(WAIT_S)
        with Client(served.port) as second, Client(served.port):
            assert second.to_end() == b""
            may_go_on.set()
            assert b"success=1" in first.lines.readline()


def test_a_key_that_is_looked_up_for_too_long_is_told_in_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(live_server, "AUTH_TIMEOUT_S", 0.2)
    keys = Keys(lambda bucket_id: [KEY] if may_go_on.wait(WAIT_S) else [])
    with serving(recording(RECORDS), keys=keys) as slow, Client(slow.port) as client:
        assert client.log_in() == b"success=0|error=Keys cannot be looked up at the moment. Try again.\n"
        assert client.to_end() == b""
        may_go_on.set()


def test_who_is_turned_away_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "_LINGER_S", 2 * WAIT_S)
    with Client(served.port) as client:
        client.log_in(KEY[:-6] + "x" + KEY[-5:])
        served.until(lambda status: status["clients"] == 0)


def test_an_address_that_fails_too_often_is_refused_but_our_own_engine_is_not() -> None:
    with serving(recording(RECORDS), keys=Keys(lambda bucket_id: [KEY], own=OTHER_KEY)) as served:
        for _ in range(MAX_FAILURES):
            with Client(served.port) as client:
                assert client.log_in(KEY[:-6] + "x" + KEY[-5:]) == b"success=0|error=Authentication failed.\n"
        with Client(served.port) as client:
            assert b"Too many failed attempts from this address" in client.log_in(KEY)
        with connected(served, key=OTHER_KEY):
            pass


def test_an_address_that_fails_too_often_is_not_even_greeted_unless_our_own_engine_was_seen_there() -> None:
    wrong = KEY[:-6] + "x" + KEY[-5:]
    with serving(recording(RECORDS), keys=Keys(lambda bucket_id: [KEY], own=OTHER_KEY)) as served:
        with Client(served.port, address="127.0.0.3") as engine:
            assert b"success=1" in engine.log_in(OTHER_KEY)
        for address in ("127.0.0.2", "127.0.0.3"):
            for _ in range(MAX_FAILURES):
                with Client(served.port, address=address) as client:
                    client.log_in(wrong)
        with socket.create_connection(("127.0.0.1", served.port), WAIT_S, ("127.0.0.2", 0)) as refused:
            assert refused.recv(1) == b""
        with Client(served.port, address="127.0.0.3") as engine:
            assert b"success=1" in engine.log_in(OTHER_KEY)


def test_where_keys_cannot_be_looked_up_nobody_is_blamed_for_it() -> None:
    def away(bucket_id: str) -> list[str]:
        raise ConnectionError("PostgreSQL is away")

    with serving(recording(RECORDS), keys=Keys(away)) as served:
        for _ in range(MAX_FAILURES + 1):
            with Client(served.port) as client:
                assert client.log_in() == b"success=0|error=Keys cannot be looked up at the moment. Try again.\n"


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff" * 40_000, b"auth=x|dataset=y\n"])
def test_rubbish_instead_of_an_answer_is_told_and_nobody_else_notices(served: Served, rubbish: bytes) -> None:
    with connected(served) as good, Client(served.port) as bad:
        with contextlib.suppress(ConnectionError):
            bad.sock.sendall(rubbish)
            assert bad.to_end().startswith(b"success=0|error=")
        served.replay()
        assert mbo(good.records()).tobytes() == RECORDS.tobytes()


def test_rubbish_in_the_stream_is_an_error_record_and_the_end_and_nobody_else_notices(served: Served) -> None:
    with connected(served) as good, connected(served) as bad:
        bad.sock.sendall(b"what=ever\n")
        errors = [each for each in bad.records() if isinstance(each, dbn.ErrorMsg)]
        assert [each.code for each in errors] == [dbn.ErrorCode.INVALID_SUBSCRIPTION]
        assert "expected a subscription or start_session" in errors[0].err
        served.replay()
        assert mbo(good.records()).tobytes() == RECORDS.tobytes()


def test_a_client_that_resets_its_connection_leaves_the_others_alone(served: Served) -> None:
    with connected(served) as good, connected(served) as bad:
        served.replay(paused=True)
        served.do("step", unit="record", by=500)
        bad.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bad.close()
        served.until(lambda status: status["clients"] == 1)
        served.do("resume")
        assert mbo(good.records()).tobytes() == RECORDS.tobytes()


def test_at_max_a_client_that_reads_nothing_is_warned_told_and_closed_and_the_others_go_on() -> None:
    made = recording(np.tile(session(10_000), 40))
    short = iter([Patience(0.3, 5)])  # for the first client alone
    with serving(made, make_patience=lambda: next(short, Patience())) as served:
        with Client(served.port, 1 << 16) as stuck:
            stuck.start(ALL)
            served.following()
            with connected(served) as good:
                served.replay()
                data = good.to_end()
            assert len(data) > made.records.nbytes
            records = stuck.records()
        assert told(records)[-2:] == [
            "Slow reader: nothing was read for a while. The connection will be closed if that goes on.",
            "Slow reader: nothing was read for too long. What comes next is not sent any more.",
        ]
        assert 0 < len(mbo(records)) < len(made.records)
        assert mbo(records).tobytes() == made.records[: len(mbo(records))].tobytes()
        served.until(lambda status: status["clients"] == 0)
        assert served.streamer.slow_readers == 1


def test_a_client_whose_key_is_taken_back_is_closed_however_slowly_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "REVOKED_GRACE_S", 0.1)
    good = [True]
    keys = Keys(lambda bucket_id: [KEY], is_usable=lambda secret: good[0])
    made = recording(np.tile(session(10_000), 40))
    with serving(made, keys=keys) as served, Client(served.port, 1 << 16) as slow:
        slow.start(ALL)
        served.following()
        served.replay()
        good[0] = False
        served.until(lambda status: status["clients"] == 0)


def test_what_was_derived_goes_with_the_last_who_followed(served: Served) -> None:
    with connected(served, SubscriptionRequest("mbp-1", (ALL_SYMBOLS,))) as client:
        served.replay()
        client.records()
        assert len(served.streamer._feeds) == 1
    served.until(lambda status: status["clients"] == 0)
    assert served.streamer._feeds == {}


@pytest.mark.parametrize(("end", "is_told"), [(Streamer.abandon, False), (Streamer.stop, True)])
def test_a_replay_that_goes_on_elsewhere_is_not_told_as_completed_and_one_that_was_stopped_is(
    served: Served, end: Callable[[Streamer], object], is_told: bool
) -> None:
    async def on_the_loop() -> None:
        end(served.streamer)

    with connected(served) as client:
        paused_at(served, 100)
        records = client.until(dbn.MBOMsg)
        served.run(on_the_loop())
        with contextlib.suppress(ConnectionResetError):
            while data := client.sock.recv(1 << 18):
                client.decoder.write(data)
                records += client.decoder.decode()
    assert ("Finished mbo replay" in told(records)) is is_told
