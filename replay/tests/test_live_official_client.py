"""The judge: the vendor's own client, unmodified, against our side of its protocol on real sockets."""

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

from replay.feed.cram import respond
from replay.feed.live_messages import ALL_SYMBOLS, AuthRequest, AuthResponse, Challenge, Greeting, SubscriptionRequest
from replay.feed.sources import Recording, open_recording
from replay.tests.live_gateway import KEY, Gateway
from replay.tests.recordings import SYMBOLS, VENUE, session, write_dbn

FOLDER = os.environ.get("REAL_DATA_DIR")
RECORDS = session(4000)
START = int(RECORDS[1500]["ts_event"])
LONG_S = 20


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return open_recording(write_dbn(tmp_path_factory.mktemp("live") / "made.dbn", RECORDS))


@pytest.fixture
def gateway(file: Recording) -> Iterator[Gateway]:
    with Gateway(file).running() as running:
        yield running


def live(gateway: Gateway, **options: Any) -> Any:
    return db.Live(**{"key": KEY, "gateway": "127.0.0.1", "port": gateway.port, **options})


def subscribed(gateway: Gateway, **options: Any) -> tuple[Any, list[Any]]:
    """Return a client that wants everything from the first record on, and the list that its records go to."""
    client = live(gateway, **options)
    got: list[Any] = []
    left = len(gateway.recording.records)

    def keep(record: Any) -> None:
        nonlocal left
        got.append(record)
        left -= isinstance(record, db.MBOMsg)
        if left == 0:
            gateway.all_read.set()

    client.subscribe(VENUE, "mbo", ALL_SYMBOLS, start=0)
    client.add_callback(keep)
    return client, got


def market(records: list[Any]) -> bytes:
    """Return the market data among the records as it was before any ts_out."""
    return b"".join(b"\x0e" + bytes(record)[1:56] for record in records if isinstance(record, db.MBOMsg))


def told(records: list[Any]) -> list[tuple[str, str]]:
    """Return what the gateway said of itself."""
    return [
        (str(record.code), record.err if isinstance(record, db.ErrorMsg) else record.msg)
        for record in records
        if isinstance(record, db.SystemMsg | db.ErrorMsg)
    ]


def said(gateway: Gateway, number: int = 0) -> bytes:
    """Return what a client has sent."""
    return b"".join(line.data for line in gateway.sessions[number] if line.by == "C")


@pytest.mark.parametrize("ts_out", [False, True])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_record_of_a_file_arrives_byte_for_byte(gateway: Gateway, compression: str, ts_out: bool) -> None:
    client, got = subscribed(gateway, compression=db.Compression(compression), ts_out=ts_out)
    client.start()
    client.block_for_close(LONG_S)
    assert market(got) == RECORDS.tobytes()
    assert {len(bytes(record)) for record in got if isinstance(record, db.MBOMsg)} == {64 if ts_out else 56}
    assert [type(record) for record in got[:3]] == [db.SystemMsg, db.SymbolMappingMsg, db.SymbolMappingMsg]
    assert told(got) == [
        ("subscription_ack", "Subscription request 0 for mbo data succeeded"),
        ("replay_completed", "Finished mbo replay"),
    ]
    if ts_out:
        sent = [record.ts_out for record in got]
        assert sent == sorted(sent) and sent[0] > START


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_iteration_brings_the_same_records(gateway: Gateway, compression: str) -> None:
    client = live(gateway, compression=db.Compression(compression))
    client.subscribe(VENUE, "mbo", start=0)
    # The client starts the session before it opens the queue that it iterates over, and drops what arrives between:
    # a gateway on the same machine can be that fast.
    gateway.go.clear()
    records = iter(client)
    gateway.go.set()
    assert market(list(records)) == RECORDS.tobytes()


def test_a_stream_to_a_file_is_metadata_and_every_record(gateway: Gateway) -> None:
    client, got = subscribed(gateway)
    out = io.BytesIO()
    client.add_stream(out)
    client.start()
    client.block_for_close(LONG_S)
    metadata = db.Metadata.decode(out.getvalue()[:128])
    assert (metadata.dataset, metadata.schema, metadata.stype_in, metadata.ts_out) == (VENUE, None, None, False)
    assert out.getvalue()[128:] == b"".join(bytes(record) for record in got)


def test_the_low_level_client_of_the_vendor_is_served_too(gateway: Gateway) -> None:
    class Protocol(DatabentoLiveProtocol):
        def received_record(self, record: Any) -> None:
            got.append(record)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: Protocol(KEY, VENUE), "127.0.0.1", gateway.port)
        assert await protocol.authenticated == "1700000000"
        protocol.subscribe("mbo", ["CLX5", "ESZ5"])
        protocol.start()
        await asyncio.wait_for(protocol.disconnected, LONG_S)

    got: list[Any] = []
    worker = threading.Thread(target=asyncio.run, args=(run(),))
    worker.start()
    worker.join(LONG_S)
    assert market(got) == RECORDS.tobytes()
    assert b"|id=" not in said(gateway) and told(got) == [
        ("subscription_ack", "Subscription request for mbo data succeeded")
    ]


def test_three_clients_at_once_get_everything_each(gateway: Gateway) -> None:
    clients = [
        subscribed(gateway),
        subscribed(gateway, ts_out=True),
        subscribed(gateway, compression=db.Compression("zstd")),
    ]
    for client, _ in clients:
        client.start()
    for client, got in clients:
        client.block_for_close(LONG_S)
        assert market(got) == RECORDS.tobytes()
    assert {client.session_id for client, _ in clients} == {"1700000000", "1700000001", "1700000002"}


@pytest.mark.skipif(not FOLDER, reason="set REAL_DATA_DIR to the folder that holds CLX5_mbo.dbn")
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_record_of_a_real_file_arrives_byte_for_byte(compression: str) -> None:
    recording = open_recording(Path(FOLDER or "") / "CLX5_mbo.dbn")
    with Gateway(recording).running() as gateway:
        client, got = subscribed(gateway, compression=db.Compression(compression))
        client.start()
        client.block_for_close(LONG_S)
    assert market(got) == recording.records.tobytes() and len(recording.records) == 38_212


def test_a_wrong_key_is_told_in_the_vendors_words(gateway: Gateway) -> None:
    client = live(gateway, key=KEY[:-6] + "x" + KEY[-5:])
    with pytest.raises(db.BentoError, match=r"^Authentication failed\.$"):
        client.subscribe(VENUE, "mbo")


def test_a_start_gives_what_happened_from_then_on(gateway: Gateway) -> None:
    client = live(gateway)
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", "CLX5", start=START)
    client.add_callback(got.append)
    client.start()
    client.block_for_close(LONG_S)
    wanted = RECORDS[(RECORDS["ts_event"] >= START) & (RECORDS["instrument_id"] == 432669)]
    assert market(got) == wanted.tobytes() and 0 < len(wanted) < len(RECORDS) / 2
    assert told(got)[-1] == ("replay_completed", "Finished mbo replay")


def test_1001_symbols_are_one_subscription(gateway: Gateway) -> None:
    client = live(gateway)
    symbols = [*(f"S{number:04}" for number in range(1000)), "CLX5"]
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", symbols)
    client.add_callback(got.append)
    client.start()
    with pytest.raises(db.BentoError, match="Failed to resolve symbol 1/1001: S0000"):
        client.block_for_close(LONG_S)
    assert [len(request.symbols) for request in gateway.requests[0]] == [1001]
    assert market(got) == RECORDS[RECORDS["instrument_id"] == 432669].tobytes()
    assert sum(code == "symbol_resolution_failed" for code, _ in told(got)) == 1000


def test_a_symbol_that_does_not_exist_is_an_error_record_and_the_rest_arrives(gateway: Gateway) -> None:
    client = live(gateway)
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", ["NOPE", "CLX5"])
    client.add_callback(got.append)
    client.start()
    with pytest.raises(db.BentoError, match=r"^Failed to resolve symbol 1/2: NOPE$"):
        client.block_for_close(LONG_S)
    assert told(got)[1] == ("symbol_resolution_failed", "Failed to resolve symbol 1/2: NOPE")
    assert market(got) == RECORDS[RECORDS["instrument_id"] == 432669].tobytes()


def test_a_schema_that_we_do_not_have_is_told_and_ends_the_session(gateway: Gateway) -> None:
    client = live(gateway)
    client.subscribe(VENUE, "ohlcv-1s", "CLX5")
    client.start()
    with pytest.raises(db.BentoError, match="subscription, schema: expected one of mbo, trades, .* found 'ohlcv-1s'"):
        client.block_for_close(LONG_S)


def test_instruments_can_be_asked_for_by_id_and_get_their_symbols(gateway: Gateway) -> None:
    client = live(gateway)
    got: list[Any] = []
    client.subscribe(VENUE, "mbo", [7001, 432669], stype_in="instrument_id")
    client.add_callback(got.append)
    client.start()
    client.block_for_close(LONG_S)
    assert client.symbology_map == SYMBOLS
    assert market(got) == RECORDS.tobytes()


def test_what_the_client_wishes_of_the_session_is_understood(gateway: Gateway) -> None:
    client = live(gateway, slow_reader_behavior="warn", heartbeat_interval_s=7)
    client.subscribe(VENUE, "mbo", "CLX5", snapshot=True)
    client.subscribe(VENUE, "mbp-10", "ESZ5", start="2025-09-24T19:30:00")
    client.stop()
    client.block_for_close(LONG_S)
    [mbo, mbp] = [line for line in said(gateway).splitlines() if line.startswith(b"schema")]
    assert b"|slow_reader_behavior=warn|" in said(gateway) and b"|heartbeat_interval_s=7|" in said(gateway)
    assert b"|snapshot=1|" in mbo and b"|start=1758742200000000000|" in mbp
    assert gateway.requests[0] == [
        SubscriptionRequest("mbo", ("CLX5",), snapshot=True, id=0),
        SubscriptionRequest("mbp-10", ("ESZ5",), start_ns=1_758_742_200_000_000_000, id=1),
    ]


def test_an_idle_session_gets_heartbeats_and_takes_further_subscriptions(file: Recording) -> None:
    arrived: queue.Queue[Any] = queue.Queue()
    with Gateway(file, "stay").running() as gateway:
        client = live(gateway, heartbeat_interval_s=5)
        client.subscribe(VENUE, "mbo", "CLX5")
        client.add_callback(arrived.put)
        gateway.clock_speed = 100  # a heartbeat every 0.05 s, now that the client is let in
        client.start()
        while not (isinstance(record := arrived.get(timeout=LONG_S), db.SystemMsg) and record.is_heartbeat()):
            pass
        client.subscribe(VENUE, "mbo", "ESZ5")
        while not (isinstance(record := arrived.get(timeout=LONG_S), db.SystemMsg) and "request 1" in record.msg):
            pass
        client.stop()
        client.block_for_close(LONG_S)


def test_an_error_and_the_end_are_raised_to_the_user(file: Recording) -> None:
    with Gateway(file, "error").running() as gateway:
        client, got = subscribed(gateway)
        client.start()
        with pytest.raises(db.BentoError, match="^Something is broken here$"):
            client.block_for_close(LONG_S)
    assert market(got) == RECORDS.tobytes() and told(got)[-1] == ("internal_error", "Something is broken here")


def test_a_reset_is_an_error_to_the_user(file: Recording) -> None:
    with Gateway(file, "reset").running() as gateway:
        client, got = subscribed(gateway)
        client.start()
        with pytest.raises(db.BentoError):
            client.block_for_close(LONG_S)
    assert market(got) == RECORDS.tobytes()


def test_after_a_reset_the_client_comes_back_and_subscribes_anew_without_a_start(file: Recording) -> None:
    gaps: list[tuple[Any, Any]] = []
    with Gateway(file, "reset").running() as gateway:
        client, got = subscribed(gateway, reconnect_policy="reconnect")
        client.add_reconnect_callback(lambda begin, end: gaps.append((begin, end)))
        client.start()
        client.block_for_close(LONG_S)
        assert len(gateway.sessions) == 2
        assert [request.start_ns for [request] in gateway.requests] == [0, None]
    assert market(got) == RECORDS.tobytes() * 2
    [(_, gap_end)] = gaps
    assert gap_end.value == int(RECORDS[0]["ts_event"])  # the start of the second session's metadata


def test_a_normal_end_is_no_reason_to_come_back(gateway: Gateway) -> None:
    client, got = subscribed(gateway, reconnect_policy="reconnect")
    client.start()
    client.block_for_close(LONG_S)
    assert len(gateway.sessions) == 1 and market(got) == RECORDS.tobytes()


def test_the_vendors_parsers_take_our_lines_and_we_take_theirs() -> None:
    challenge = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"
    assert get_challenge_response(challenge, KEY) == respond(challenge, KEY)
    decoder = theirs.GatewayDecoder()
    decoder.write(Greeting().encode() + Challenge(challenge).encode() + AuthResponse(True, 17).encode())
    decoder.write(AuthResponse(False, error="a|b=c").encode())
    assert decoder.decode() == [
        theirs.Greeting("0.8.0"),
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


def test_a_file_of_the_vendors_own_store_equals_what_arrived(gateway: Gateway, tmp_path: Path) -> None:
    client, _ = subscribed(gateway)
    client.add_stream(tmp_path / "captured.dbn")
    client.start()
    client.block_for_close(LONG_S)
    recording = open_recording(tmp_path / "captured.dbn", tmp_path / "cache")
    assert np.array_equal(recording.records, RECORDS) and recording.symbols == dict(sorted(SYMBOLS.items()))
