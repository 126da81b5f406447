"""The judge: the vendor's own client, unmodified, against the product's gateway on real sockets."""

import asyncio
import io
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databento as db
import numpy as np
import pytest
from databento.common.cram import get_challenge_response
from databento.live import gateway as theirs
from databento.live.protocol import DatabentoLiveProtocol

from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import MBO, MboArray
from replay.feed.cram import respond
from replay.feed.live_messages import (
    ALL_SYMBOLS,
    LSG_VERSION,
    AuthRequest,
    AuthResponse,
    Challenge,
    Greeting,
    SubscriptionRequest,
)
from replay.feed.sources import Recording, open_recording
from replay.streamer.doorman import Keys
from replay.tests.naive_schemas import as_rows, naive_schemas
from replay.tests.recordings import SYMBOLS, VENUE, session, write_dbn
from replay.tests.serving import KEY, Served, serving
from replay.tests.streams import index_of

FOLDER = os.environ.get("REAL_DATA_DIR")
RECORDS = session(4000)
START = int(RECORDS[1500]["ts_event"])
LONG_S = 20
ACK = ("subscription_ack", "Subscription request 0 for mbo data succeeded")
COMPLETED = ("replay_completed", "Finished mbo replay")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return open_recording(write_dbn(tmp_path_factory.mktemp("live") / "made.dbn", RECORDS))


@pytest.fixture
def served(file: Recording) -> Iterator[Served]:
    with serving(file) as running:
        yield running


def live(served: Served, **options: Any) -> Any:
    return db.Live(**{"key": KEY, "gateway": "127.0.0.1", "port": served.port, **options})


def subscribed(
    served: Served, schema: str = "mbo", symbols: Any = ALL_SYMBOLS, **options: Any
) -> tuple[Any, list[Any]]:
    """Return a client that has subscribed and not started, and the list that its records go to."""
    client = live(served, **options)
    got: list[Any] = []
    client.subscribe(VENUE, schema, symbols)
    client.add_callback(got.append)
    return client, got


def run(served: Served, *clients: Any) -> None:
    """Replay everything to clients, from the first record on to the end."""
    for client in clients:
        client.start()
    served.following(len(clients))
    served.replay()
    for client in clients:
        client.block_for_close(LONG_S)


def raw(records: list[Any], kind: Any = db.MBOMsg) -> list[bytes]:
    """Return the market data among the records as it was before any ts_out."""
    sizes = {db.MBOMsg: 56, db.MBP1Msg: 80, db.MBP10Msg: 368}
    size = sizes[kind]
    return [bytes([size // 4]) + bytes(record)[1:size] for record in records if isinstance(record, kind)]


def market(records: list[Any]) -> bytes:
    return b"".join(raw(records))


def books(records: MboArray) -> str:
    """Return the state of all books after these records."""
    rebuilt = make_market("kernel")
    rebuilt.apply(np.array(records))
    return market_hash(rebuilt.books.items())


def told(records: list[Any]) -> list[tuple[str, str]]:
    """Return what the gateway said of itself."""
    return [
        (str(record.code), record.err if isinstance(record, db.ErrorMsg) else record.msg)
        for record in records
        if isinstance(record, db.SystemMsg | db.ErrorMsg)
    ]


@pytest.mark.parametrize("ts_out", [False, True])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_record_of_a_file_arrives_byte_for_byte(served: Served, compression: str, ts_out: bool) -> None:
    client, got = subscribed(served, compression=db.Compression(compression), ts_out=ts_out)
    run(served, client)
    assert market(got) == RECORDS.tobytes()
    assert {len(bytes(record)) for record in got if isinstance(record, db.MBOMsg)} == {64 if ts_out else 56}
    assert [type(record) for record in got[:3]] == [db.SystemMsg, db.SymbolMappingMsg, db.SymbolMappingMsg]
    assert told(got) == [ACK, COMPLETED]
    if ts_out:
        sent = [record.ts_out for record in got]
        assert sent == sorted(sent) and sent[0] > START


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_iteration_brings_the_same_records(served: Served, compression: str) -> None:
    client = live(served, compression=db.Compression(compression))
    client.subscribe(VENUE, "mbo")
    # The client starts the session before it opens the queue that it iterates over, and drops what arrives between:
    # a replay on the same machine can be that fast, so it begins when the queue is open.
    records = iter(client)
    served.following()
    served.replay()
    assert market(list(records)) == RECORDS.tobytes()


def test_a_stream_to_a_file_is_metadata_and_every_record(served: Served) -> None:
    client, got = subscribed(served)
    out = io.BytesIO()
    client.add_stream(out)
    run(served, client)
    metadata = db.Metadata.decode(out.getvalue()[:128])
    assert (metadata.dataset, metadata.schema, metadata.stype_in, metadata.ts_out) == (VENUE, None, None, False)
    assert out.getvalue()[128:] == b"".join(bytes(record) for record in got)


def test_the_low_level_client_of_the_vendor_is_served_too(served: Served) -> None:
    class Protocol(DatabentoLiveProtocol):
        def received_record(self, record: Any) -> None:
            got.append(record)

    async def follow() -> None:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: Protocol(KEY, VENUE), "127.0.0.1", served.port)
        assert (await protocol.authenticated).isdigit()
        protocol.subscribe("mbo", ["CLX5", "ESZ5"])
        protocol.start()
        await asyncio.wait_for(protocol.disconnected, LONG_S)

    got: list[Any] = []
    served.replay()  # at max it waits for its first client
    worker = threading.Thread(target=asyncio.run, args=(follow(),))
    worker.start()
    worker.join(LONG_S)
    assert market(got) == RECORDS.tobytes()
    assert b"|id=" not in served.said[0]
    assert told(got)[0] == ("subscription_ack", "Subscription request for mbo data succeeded")


def test_three_clients_at_once_get_everything_each(served: Served) -> None:
    clients = [
        subscribed(served),
        subscribed(served, ts_out=True),
        subscribed(served, compression=db.Compression("zstd")),
    ]
    run(served, *(client for client, _ in clients))
    for _, got in clients:
        assert market(got) == RECORDS.tobytes()
    assert len({client.session_id for client, _ in clients}) == 3


@pytest.mark.skipif(not FOLDER, reason="set REAL_DATA_DIR to the folder that holds CLX5_mbo.dbn")
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_record_of_a_real_file_arrives_byte_for_byte(compression: str) -> None:
    recording = open_recording(Path(FOLDER or "") / "CLX5_mbo.dbn")
    with serving(recording) as served:
        client, got = subscribed(served, compression=db.Compression(compression))
        run(served, client)
    assert market(got) == recording.records.tobytes() and len(recording.records) == 38_212


def test_after_pause_seek_and_resume_three_clients_have_the_books_of_an_uninterrupted_run(file: Recording) -> None:
    with serving(file, index=index_of(RECORDS)) as served:
        clients = [subscribed(served) for _ in range(3)]
        for client, _ in clients:
            client.start()
        served.following(3)
        served.replay({"records_per_s": 20_000})
        served.until(lambda status: status["position"] > 500)
        served.do("pause")
        served.do("seek", to={"record": 3001})
        served.do("resume")
        served.until(lambda status: status["position"] > 3500)
        served.do("seek", to={"fraction": 0.25})
        served.do("pace", pace="max")
        for client, _ in clients:
            client.block_for_close(LONG_S)
    for _, got in clients:
        records = np.frombuffer(market(got), MBO)
        assert records[-3000:].tobytes() == RECORDS[1000:].tobytes()
        assert books(records) == books(RECORDS)
        assert len(records) > 4000  # it was not one run from the start to the end


@pytest.mark.parametrize(("schema", "kind"), [("mbp-1", db.MBP1Msg), ("mbp-10", db.MBP10Msg)])
def test_derived_records_are_those_of_the_reference_book(served: Served, schema: str, kind: Any) -> None:
    client, got = subscribed(served, schema)
    run(served, client)
    rows = np.frombuffer(b"".join(raw(got, kind)), np.dtype(kind._dtypes))
    found = as_rows(lambda schema: (np.arange(len(rows)), rows), schema)
    expected = naive_schemas(RECORDS)[schema]
    assert len(found) == len(expected) > 400
    for row, wanted in zip(found, expected, strict=True):
        assert plain(row) == {name: value for name, value in plain(wanted).items() if name in row}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its place, with codes as numbers."""
    return {name: ord(value) if isinstance(value, bytes) else value for name, value in row.items() if name != "at"}


def test_a_wrong_key_is_told_in_the_vendors_words(served: Served) -> None:
    client = live(served, key=KEY[:-6] + "x" + KEY[-5:])
    with pytest.raises(db.BentoError, match=r"^Authentication failed\.$"):
        client.subscribe(VENUE, "mbo")


def test_a_start_gives_what_happened_from_then_on(served: Served) -> None:
    served.replay({"records_per_s": 1_000_000})
    served.until(lambda status: status["state"] == "DONE")
    client = live(served)
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", "CLX5", start=START)
    client.add_callback(got.append)
    client.start()
    client.block_for_close(LONG_S)
    wanted = RECORDS[(RECORDS["ts_event"] >= START) & (RECORDS["instrument_id"] == 432669)]
    assert market(got) == wanted.tobytes() and 0 < len(wanted) < len(RECORDS) / 2
    assert told(got) == [ACK, COMPLETED]


def test_1001_symbols_are_one_subscription(served: Served) -> None:
    client, got = subscribed(served, symbols=[*(f"S{number:04}" for number in range(1000)), "CLX5"])
    with pytest.raises(db.BentoError, match="Failed to resolve symbol 1/1001: S0000"):
        run(served, client)
    assert [len(request.symbols) for request in served.requests[0]] == [1001]
    assert market(got) == RECORDS[RECORDS["instrument_id"] == 432669].tobytes()
    assert sum(code == "symbol_resolution_failed" for code, _ in told(got)) == 1000


def test_a_symbol_that_does_not_exist_is_an_error_record_and_the_rest_arrives(served: Served) -> None:
    client, got = subscribed(served, symbols=["NOPE", "CLX5"])
    with pytest.raises(db.BentoError, match=r"^Failed to resolve symbol 1/2: NOPE$"):
        run(served, client)
    assert told(got)[1] == ("symbol_resolution_failed", "Failed to resolve symbol 1/2: NOPE")
    assert market(got) == RECORDS[RECORDS["instrument_id"] == 432669].tobytes()


def test_a_schema_that_we_do_not_have_is_told_and_ends_the_session(served: Served) -> None:
    client, _ = subscribed(served, "ohlcv-1s", "CLX5")
    client.start()
    with pytest.raises(db.BentoError, match="subscription, schema: expected one of mbo, trades, .* found 'ohlcv-1s'"):
        client.block_for_close(LONG_S)


def test_instruments_can_be_asked_for_by_id_and_get_their_symbols(served: Served) -> None:
    client = live(served)
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", [7001, 432669], stype_in="instrument_id")
    client.add_callback(got.append)
    run(served, client)
    assert client.symbology_map == SYMBOLS
    assert market(got) == RECORDS.tobytes()


def test_what_the_client_wishes_of_the_session_is_understood(served: Served) -> None:
    client = live(served, slow_reader_behavior="warn", heartbeat_interval_s=7)
    client.subscribe(VENUE, "mbo", "CLX5", snapshot=True)
    client.subscribe(VENUE, "mbp-10", "ESZ5", start="2025-09-24T19:30:00")
    served.until(lambda status: len(served.requests[0]) == 2)
    client.stop()
    client.block_for_close(LONG_S)
    said = served.said[0]
    [mbo, mbp] = [line for line in said.splitlines() if line.startswith(b"schema")]
    assert b"|slow_reader_behavior=warn|" in said and b"|heartbeat_interval_s=7|" in said
    assert b"|snapshot=1|" in mbo and b"|start=1758742200000000000|" in mbp
    assert served.requests[0] == [
        SubscriptionRequest("mbo", ("CLX5",), snapshot=True, id=0),
        SubscriptionRequest("mbp-10", ("ESZ5",), start_ns=1_758_742_200_000_000_000, id=1),
    ]


def test_a_client_without_a_replay_gets_heartbeats_and_takes_further_subscriptions(file: Recording) -> None:
    arrived: queue.Queue[Any] = queue.Queue()
    with serving(file, heartbeat_s=0.05) as served:
        client = live(served)
        client.subscribe(VENUE, "mbo", "CLX5")
        client.add_callback(arrived.put)
        client.start()
        while not (isinstance(record := arrived.get(timeout=LONG_S), db.SystemMsg) and record.is_heartbeat()):
            pass
        client.subscribe(VENUE, "mbo", "ESZ5")
        while not (isinstance(record := arrived.get(timeout=LONG_S), db.SystemMsg) and "request 1" in record.msg):
            pass
        served.replay()
        client.block_for_close(LONG_S)
    assert market(list(arrived.queue)) == RECORDS.tobytes()


def test_a_key_that_is_taken_back_closes_its_connection_and_the_user_is_told(file: Recording) -> None:
    usable = True
    with serving(file, keys=Keys(lambda bucket_id: [KEY], lambda secret: usable)) as served:
        client, got = subscribed(served)
        client.start()
        served.following()
        usable = False
        with pytest.raises(db.BentoError, match=r"^The key was deactivated\.$"):
            client.block_for_close(LONG_S)
    assert told(got) == [ACK, ("api_key_deactivated", "The key was deactivated.")]


def all_read(served: Served, got: list[Any], records: int) -> None:
    """Wait until a client has read so much: before that, a reset would destroy what is on its way."""
    served.until(lambda status: sum(isinstance(record, db.MBOMsg) for record in got) >= records)


def test_a_reset_is_an_error_to_the_user(served: Served) -> None:
    client, got = subscribed(served)
    client.start()
    served.following()
    served.replay(paused=True)
    served.do("step", unit="record", by=1000)
    all_read(served, got, 1000)
    served.reset()
    with pytest.raises(db.BentoError):
        client.block_for_close(LONG_S)
    assert market(got) == RECORDS[:1000].tobytes()


def test_after_a_reset_the_client_comes_back_and_subscribes_anew_without_a_start(served: Served) -> None:
    gaps: list[tuple[Any, Any]] = []
    client = live(served, reconnect_policy="reconnect")
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", start=0)
    client.add_callback(got.append)
    client.add_reconnect_callback(lambda begin, end: gaps.append((begin, end)))
    client.start()
    served.following()
    served.replay(paused=True)
    served.do("step", unit="record", by=1000)
    all_read(served, got, 1000)
    served.reset()
    served.following()
    served.do("resume")
    client.block_for_close(LONG_S)
    assert [request.start_ns for [request] in served.requests] == [0, None]
    assert market(got) == RECORDS.tobytes()
    [(_, gap_end)] = gaps
    assert gap_end.value == int(RECORDS[1000]["ts_event"])  # the start of the second session's metadata


def test_a_normal_end_is_no_reason_to_come_back(served: Served) -> None:
    client, got = subscribed(served, reconnect_policy="reconnect")
    run(served, client)
    assert len(served.said) == 1 and market(got) == RECORDS.tobytes()


def test_the_vendors_parsers_take_our_lines_and_we_take_theirs() -> None:
    challenge = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"
    assert get_challenge_response(challenge, KEY) == respond(challenge, KEY)
    decoder = theirs.GatewayDecoder()
    decoder.write(Greeting().encode() + Challenge(challenge).encode() + AuthResponse(True, 17).encode())
    decoder.write(AuthResponse(False, error="a|b=c").encode())
    assert decoder.decode() == [
        theirs.Greeting(LSG_VERSION),
        theirs.ChallengeRequest(challenge),
        theirs.AuthenticationResponse("1", session_id="17"),
        theirs.AuthenticationResponse("0", error="a/b=c"),
    ]
    request = theirs.AuthenticationRequest(respond(challenge, KEY), VENUE, heartbeat_interval_s=30)
    assert AuthRequest.parse(bytes(request)).client == request.client
    ours = AuthRequest.parse(bytes(request)).encode()
    assert theirs.AuthenticationRequest.parse(ours).auth == request.auth
    again = theirs.SubscriptionRequest.parse(SubscriptionRequest("mbo", ("CLX5",), start_ns=5, id=1).encode())
    assert (again.schema, again.symbols, again.start, again.is_last) == ("mbo", "CLX5", "5", "1")


def test_a_file_of_the_vendors_own_store_equals_what_arrived(served: Served, tmp_path: Path) -> None:
    client, _ = subscribed(served)
    client.add_stream(tmp_path / "captured.dbn")
    run(served, client)
    recording = open_recording(tmp_path / "captured.dbn", tmp_path / "cache")
    assert np.array_equal(recording.records, RECORDS) and recording.symbols == dict(sorted(SYMBOLS.items()))
