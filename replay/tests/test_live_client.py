"""The client's state machine: against our server's in every cutting of the bytes, and against hostile gateways."""

import socket
from collections.abc import Iterable

import databento_dbn as dbn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.book.mbo import MBO, MboArray
from replay.feed import live_records
from replay.feed.cram import respond, verify
from replay.feed.live_client import (
    HANDSHAKE_TIMEOUT_S,
    MAX_ANSWER_BYTES,
    Event,
    GatewayError,
    GatewayRefused,
    LiveClient,
    LoggedIn,
    ReplayCompleted,
    Told,
)
from replay.feed.live_encoding import LiveEncoder
from replay.feed.live_messages import AuthRequest, SubscriptionRequest
from replay.feed.live_server import Authenticate, Failed, LiveServer, Refused, Send, SessionStarted, Subscribed
from replay.feed.live_symbology import resolve
from replay.feed.stream import FeedError
from replay.tests.feeds import SYMBOLS, pieces, random_records
from replay.tests.recordings import recording, session
from replay.tests.serving import serving

KEY = "db-0123456789abcdefghijklmnopqrs"
CHALLENGE = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"
SECOND = 10**9
NOW = 77 * SECOND
RECORDS = random_records(3, 60)
BOTH = SubscriptionRequest("mbo", ("CLX5", "ESZ5"), id=0)
OPENING = LiveServer(CHALLENGE, NOW).opening()
WELCOME = b"success=1|session_id=17\n"
ACK = Told(1, "Subscription request 0 for mbo data succeeded")


def client(*subscriptions: SubscriptionRequest, key: str = KEY, interval_s: int = 10) -> LiveClient:
    return LiveClient(
        key, "GLBX.MDP3", subscriptions or (BOTH,), NOW, heartbeat_interval_s=interval_s, buffer_bytes=1 << 13
    )


def served(server: LiveServer, said: bytes) -> bytes:
    """Return what a gateway around our machine answers; it holds the records of the test."""
    out: list[bytes] = []
    events = server.receive(said, NOW)
    requests: list[SubscriptionRequest] = []
    while events:
        match event := events.pop(0):
            case Send(data) | Refused(data):
                out.append(data)
            case Authenticate(request, challenge):
                events = [
                    *(server.accept(17, NOW) if verify(challenge, KEY, request.auth) else server.refuse()),
                    *events,
                ]
            case Subscribed(request):
                requests.append(request)
            case SessionStarted() | Failed():
                assert server.request is not None
                encoder = LiveEncoder(server.request)
                out.append(bytes(encoder.opening("GLBX.MDP3", NOW)))
                out += [bytes(data) for data in _stream(encoder, requests, event)]
    return b"".join(out)


def _stream(encoder: LiveEncoder, requests: list[SubscriptionRequest], event: object) -> Iterable[bytes | memoryview]:
    if isinstance(event, Failed):
        yield encoder.messages([live_records.error_message(NOW, event.code, event.text)], NOW)
        return
    for request in requests:
        found, missing = resolve(request, SYMBOLS)
        yield encoder.messages([live_records.subscription_ack(NOW, request)], NOW)
        for symbol in missing:
            yield encoder.messages([live_records.error_message(NOW, live_records.RESOLUTION_FAILED, symbol.text)], NOW)
        yield encoder.messages([live_records.symbol_mapping(NOW, one, request.stype_in) for one in found], NOW)
    yield encoder.records(RECORDS[:30], "mbo", NOW)
    yield encoder.messages([live_records.heartbeat(NOW)], NOW)
    yield encoder.records(RECORDS[30:], "mbo", NOW)
    yield encoder.messages([live_records.replay_completed(NOW, "mbo")], NOW)


def feed(machine: LiveClient, data: bytes, sizes: list[int] | None = None) -> MboArray:
    """Return the records of bytes that arrive in these pieces, the rest as large as there is room."""
    parts = [np.empty(0, MBO)]
    sizes = list(sizes or [])
    while data:
        space = machine.space()
        size = min(sizes.pop(0) if sizes else len(space), len(space), len(data))
        space[:size] = data[:size]
        parts.append(machine.received(size).copy())
        data = data[size:]
    return np.concatenate(parts)


def talk(machine: LiveClient, sizes: list[int] | None = None) -> tuple[MboArray, list[Event]]:
    """Let both machines speak until neither has anything to say."""
    server = LiveServer(CHALLENGE, NOW)
    data = server.opening()
    parts = [np.empty(0, MBO)]
    events: list[Event] = []
    while data:
        parts.append(feed(machine, data, sizes))
        events += machine.events()
        data = served(server, machine.to_send())
    machine.finish()
    return np.concatenate(parts), events


EVENTS = [LoggedIn(17), ACK, ReplayCompleted("Finished mbo replay")]


def test_both_machines_bring_all_records_across() -> None:
    machine = client()
    records, events = talk(machine)
    assert (records == RECORDS).all() and events == EVENTS
    assert machine.symbols == SYMBOLS and machine.rejected == {}


@given(pieces)
def test_pieces_change_nothing(sizes: list[int]) -> None:
    records, events = talk(client(), sizes)
    assert (records == RECORDS).all() and events == EVENTS


def test_a_byte_at_a_time_is_enough() -> None:
    records, events = talk(client(), [1] * 20_000)
    assert (records == RECORDS).all() and events == EVENTS


def test_a_socket_received_into_the_machine_brings_every_record() -> None:
    records = session(3000)
    parts = [np.empty(0, MBO)]
    with serving(recording(records)) as gateway, socket.create_connection(("127.0.0.1", gateway.port)) as peer:
        gateway.replay()  # at max it waits for its first client
        machine = client()
        while size := peer.recv_into(machine.space()):
            parts.append(machine.received(size).copy())
            peer.sendall(machine.to_send())
        machine.finish()
    assert (np.concatenate(parts) == records).all() and machine.symbols == SYMBOLS
    [logged_in, *events] = machine.events()
    assert isinstance(logged_in, LoggedIn) and events == [ACK, ReplayCompleted("Finished mbo replay")]


def test_records_are_views_of_the_receive_buffer() -> None:
    machine = client()
    server = LiveServer(CHALLENGE, NOW)
    feed(machine, server.opening())
    feed(machine, served(server, machine.to_send()))
    data = served(server, machine.to_send())
    first = data.index(RECORDS[:2].tobytes())
    feed(machine, data[:first])
    space = machine.space()
    space[: 30 * MBO.itemsize] = data[first : first + 30 * MBO.itemsize]
    assert np.shares_memory(machine.received(30 * MBO.itemsize), np.frombuffer(space, np.uint8))


def test_what_we_say_is_what_the_vendors_client_says() -> None:
    machine = client()
    feed(machine, OPENING)
    assert machine.to_send().decode() == (
        f"auth={respond(CHALLENGE, KEY)}|dataset=GLBX.MDP3|encoding=dbn|ts_out=0|compression=none"
        "|heartbeat_interval_s=10|client=Batonic\n"
    )
    assert machine.to_send() == b""
    feed(machine, WELCOME)
    assert machine.to_send() == (
        b"schema=mbo|stype_in=raw_symbol|symbols=CLX5,ESZ5|snapshot=0|id=0|is_last=1\nstart_session=0\n"
    )


def test_a_wrong_key_is_refused_for_good() -> None:
    machine = client(key=KEY[:-1] + "x")
    with pytest.raises(GatewayRefused, match="expected to be let in, found Authentication failed."):
        talk(machine)


def test_a_gateway_of_another_make_may_say_more() -> None:
    machine = client()
    feed(machine, b"lsg_version=0.9.0|build=7\r\ncram=abc|hint=x|\r\nsuccess=1|session_id=5|region=x\r\n")
    assert machine.events() == [LoggedIn(5)]


def test_a_symbol_that_does_not_exist_is_an_error_that_ends_nothing() -> None:
    machine = client(SubscriptionRequest("mbo", ("CLX5", "NOPE"), id=0))
    _, events = talk(machine)
    assert events == [LoggedIn(17), ACK, GatewayError(4, "Failed to resolve symbol 2/2: NOPE", False), EVENTS[-1]]
    assert machine.symbols == {432669: "CLX5"}


def test_a_fatal_error_makes_the_end_of_the_stream_a_fault() -> None:
    machine = client(SubscriptionRequest("ohlcv-1s", ("CLX5",)))
    with pytest.raises(FeedError, match="stream: expected records, found error 5 and the end: subscription, schema"):
        talk(machine)


@pytest.mark.parametrize("behind", [b"", OPENING[:10], OPENING, OPENING + WELCOME[:-1]])
def test_a_gateway_that_closes_in_the_handshake_is_a_fault(behind: bytes) -> None:
    machine = client()
    feed(machine, behind)
    with pytest.raises(FeedError, match="handshake: expected the (greeting|challenge|verdict), found the end"):
        machine.finish()


def test_a_gateway_that_closes_inside_a_record_is_a_fault() -> None:
    machine = client()
    feed(machine, OPENING + WELCOME)
    with pytest.raises(FeedError, match="the rest of the DBN metadata"):
        machine.finish()


def test_an_old_gateways_heartbeat_without_a_code_is_no_event() -> None:
    machine = client()
    feed(machine, OPENING)
    feed(machine, WELCOME)
    machine.events()
    metadata = dbn.Metadata(
        dataset="X", start=0, stype_in=None, stype_out=dbn.SType("instrument_id"), schema=None, version=1
    ).encode()
    feed(machine, metadata + bytes(dbn.SystemMsgV1(NOW, "Heartbeat")) + bytes(dbn.SystemMsgV1(NOW, "Hello")))
    assert machine.events() == [Told(255, "Hello")]


def test_more_notices_than_are_kept_leave_the_newest() -> None:
    machine = client()
    feed(machine, OPENING)
    feed(machine, WELCOME)
    texts = [live_records.system_message(NOW, 2, f"slow {number}") for number in range(1000)]
    feed(machine, bytes(LiveEncoder(server_request()).opening("X", 0)) + b"".join(texts))
    events = machine.events()
    assert len(events) <= 200 and events[-1] == Told(2, "slow 999")


def server_request() -> AuthRequest:
    server = LiveServer(CHALLENGE, NOW)
    machine = client()
    feed(machine, server.opening())
    server.receive(machine.to_send(), NOW)
    assert server.request is not None
    return server.request


def test_a_silent_gateway_is_gone_after_the_interval_and_a_margin() -> None:
    machine = client()
    patience = NOW + HANDSHAKE_TIMEOUT_S * SECOND
    assert machine.watch(NOW) == patience
    feed(machine, OPENING)
    assert machine.watch(NOW + SECOND) == patience  # a gateway that talks has no longer for the handshake
    feed(machine, WELCOME)
    assert machine.watch(NOW + 2 * SECOND) == NOW + 22 * SECOND
    assert machine.watch(NOW + 21 * SECOND) == NOW + 22 * SECOND
    feed(machine, bytes(LiveEncoder(server_request()).opening("X", 0)))
    assert machine.watch(NOW + 22 * SECOND) == NOW + 42 * SECOND
    with pytest.raises(FeedError, match="gateway: expected records or a heartbeat, found silence"):
        machine.watch(NOW + 42 * SECOND)


def test_a_gateway_that_never_greets_is_gone_after_30_s() -> None:
    with pytest.raises(FeedError, match="gateway: expected the greeting, found silence"):
        client().watch(NOW + HANDSHAKE_TIMEOUT_S * SECOND)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"hello\n", "greeting, lsg_version: expected 1 to 100 printable characters"),
        (b"lsg_version=1\ncram=\n", "challenge, cram: expected"),
        (b"lsg_version=1\ncram=" + b"x" * 101 + b"\n", "challenge, cram: expected"),
        (OPENING + b"success=2\n", "authentication response, success: expected one of 0, 1"),
        (OPENING + b"success=1|session_id=x\n", "session_id: expected a whole number"),
        (OPENING + b"success=0\n", "authentication: expected to be let in, found no reason given"),
        (OPENING + WELCOME + b"DBN", "handshake: expected nothing before start_session, found 'DBN'"),
        (b"x" * MAX_ANSWER_BYTES, "handshake: expected a line end within 4096 bytes"),
    ],
)
def test_a_wrong_answer_of_the_gateway_is_a_declared_error(said: bytes, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        feed(client(), said)


@pytest.mark.parametrize("key", ["", "abcd", "db-ä" * 8, "db-\n" * 8, "db-|" * 8])
def test_what_cannot_be_a_key_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="expected a key of at least 5 printable characters"):
        client(key=key)


@given(st.binary(max_size=300), st.sampled_from([b"", OPENING, OPENING + WELCOME]), pieces)
def test_any_bytes_of_a_gateway_are_records_or_a_declared_error(data: bytes, before: bytes, sizes: list[int]) -> None:
    machine = client()
    try:
        feed(machine, before)
        feed(machine, data, sizes)
        machine.finish()
    except FeedError as error:
        assert error.where and error.expected


def test_the_machine_says_of_itself_what_an_operator_wants_to_know() -> None:
    machine = client()
    assert repr(machine) == "<LiveClient GREETING GLBX.MDP3, 1 subscriptions>" and KEY not in repr(machine)
