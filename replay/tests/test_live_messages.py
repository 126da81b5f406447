"""The text lines of the live protocol: read from any client, written for the strictest one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.feed.cram import Response
from replay.feed.live_line import join_line, split_line
from replay.feed.live_messages import (
    ALL_SYMBOLS,
    SCHEMAS,
    AuthRequest,
    AuthResponse,
    Challenge,
    Greeting,
    SessionStart,
    SubscriptionRequest,
    parse_request,
)
from replay.feed.stream import FeedError

AUTH = f"{'0123456789abcdef' * 4}-opqrs"
ANSWER = Response("0123456789abcdef" * 4, "opqrs")
START = 1_758_742_200_000_000_000

# What each client sends, as its source or a capture says (facts of the protocol, 2026-11).
PYTHON = (
    f"auth={AUTH}|dataset=GLBX.MDP3|encoding=dbn|ts_out=0|compression=none|heartbeat_interval_s=30"
    "|client=Databento/0.87.0 Python/3.11.7 Linux/6.1"
)
RUST = (
    f"auth={AUTH}|dataset=GLBX.MDP3|encoding=dbn|compression=zstd|ts_out=1|client=Rust"
    "|heartbeat_interval_s=5|slow_reader_behavior=skip"
)
BASH = f"auth={AUTH}|dataset=GLBX.MDP3|encoding=json|ts_out=1"
GO = f"auth={AUTH}|dataset=GLBX.MDP3|client=dbn-go|encoding=json|pretty_px=1|pretty_ts=1|heartbeat_interval_s=1800\r"


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (PYTHON, AuthRequest(ANSWER, "GLBX.MDP3", client="Databento/0.87.0 Python/3.11.7 Linux/6.1")),
        (
            RUST,
            AuthRequest(
                ANSWER,
                "GLBX.MDP3",
                compression="zstd",
                ts_out=True,
                heartbeat_interval_s=5,
                slow_reader_behavior="skip",
                client="Rust",
            ),
        ),
        (BASH, AuthRequest(ANSWER, "GLBX.MDP3", "json", ts_out=True)),
        (
            GO,
            AuthRequest(
                ANSWER,
                "GLBX.MDP3",
                "json",
                pretty_px=True,
                pretty_ts=True,
                heartbeat_interval_s=1800,
                client="dbn-go",
            ),
        ),
    ],
    ids=["python", "rust", "bash", "go"],
)
def test_the_authentication_of_every_known_client_is_read(line: str, request_: AuthRequest) -> None:
    assert AuthRequest.parse(line.encode()) == request_


@given(st.permutations(PYTHON.split("|")), st.sampled_from(["", "|", "|details=x", "|new_key", "|new_key=1|other="]))
def test_the_order_of_keys_does_not_matter_nor_do_unknown_ones(parts: list[str], more: str) -> None:
    assert AuthRequest.parse(("|".join(parts) + more + "\n").encode()) == AuthRequest.parse(PYTHON.encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auth": None}, "authentication, auth: expected 1 to 100 printable characters, found no such key"),
        ({"auth": "abc"}, "authentication, auth: expected 64 hexadecimal digits"),
        ({"dataset": None}, "authentication, dataset: expected 1 to 15 printable characters"),
        ({"dataset": "GLBX.MDPé"}, "authentication, dataset: expected ASCII characters"),
        ({"dataset": "X" * 16}, "authentication, dataset: expected 1 to 15"),
        ({"dataset": "GLBX\t"}, "authentication, dataset: expected 1 to 15"),
        ({"encoding": "xml"}, "authentication, encoding: expected one of dbn, csv, json, found 'xml'"),
        ({"compression": "gzip"}, "authentication, compression: expected one of none, zstd"),
        ({"ts_out": "yes"}, "authentication, ts_out: expected one of 0, 1, found 'yes'"),
        ({"heartbeat_interval_s": "4"}, "heartbeat_interval_s: expected a whole number from 5 to 1800, found '4'"),
        ({"heartbeat_interval_s": "1801"}, "heartbeat_interval_s: expected"),
        ({"heartbeat_interval_s": "-5"}, "heartbeat_interval_s: expected"),
        ({"heartbeat_interval_s": "9" * 5000}, "heartbeat_interval_s: expected"),
        ({"heartbeat_interval_s": "٣٠"}, "heartbeat_interval_s: expected"),
        ({"slow_reader_behavior": "drop"}, "slow_reader_behavior: expected one of warn, skip"),
        ({"client": "x" * 501}, "client: expected 1 to 500"),
    ],
)
def test_a_wrong_authentication_is_refused_with_its_key(change: dict[str, str | None], message: str) -> None:
    values = {**split_line(PYTHON.encode()), **change}
    line = "|".join(f"{key}={value}" for key, value in values.items() if value is not None)
    with pytest.raises(FeedError, match=message):
        AuthRequest.parse(line.encode())


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (
            "schema=mbo|stype_in=raw_symbol|symbols=CLX5|snapshot=0|id=0|is_last=1",
            SubscriptionRequest("mbo", ("CLX5",), id=0),
        ),
        (
            f"schema=mbp-10|stype_in=raw_symbol|start={START}|id=7|symbols=CLX5,ESZ5|snapshot=0|is_last=0",
            SubscriptionRequest("mbp-10", ("CLX5", "ESZ5"), start_ns=START, id=7, is_last=False),
        ),
        ("symbols=ALL_SYMBOLS|schema=trades\r", SubscriptionRequest("trades", (ALL_SYMBOLS,))),
        ("schema=mbo|symbols=CLX5|snapshot=1", SubscriptionRequest("mbo", ("CLX5",), snapshot=True)),
        (
            "schema=mbo|symbols=CLX5|snapshot=1|start=5",
            SubscriptionRequest("mbo", ("CLX5",), start_ns=5, snapshot=True),
        ),
        (
            "schema=tbbo|stype_in=instrument_id|symbols=432669,7001",
            SubscriptionRequest("tbbo", ("432669", "7001"), "instrument_id"),
        ),
        (
            "schema=tbbo|stype_in=instrument_id|symbols=ALL_SYMBOLS",
            SubscriptionRequest("tbbo", (ALL_SYMBOLS,), "instrument_id"),
        ),
    ],
)
def test_subscriptions_of_every_known_form_are_read(line: str, request_: SubscriptionRequest) -> None:
    assert parse_request(line.encode()) == request_


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_six_schemas_are_taken(schema: str) -> None:
    assert parse_request(f"schema={schema}|symbols=A".encode()) == SubscriptionRequest(schema, ("A",))


@pytest.mark.parametrize(
    ("text", "start_ns"),
    [
        ("0", 0),
        (str(START), START),
        ("2025-09-24T19:30:00", START),
        ("2025-09-24T19:30:00.000000001", START + 1),
        ("2025-09-24 21:30+02:00", START),
        ("2025-09-24T19:30:00Z", START),
        ("2025-09-24", START - (19 * 3600 + 30 * 60) * 10**9),
    ],
)
def test_a_start_is_ns_or_an_iso_time(text: str, start_ns: int) -> None:
    request = parse_request(f"schema=mbo|symbols=A|start={text}".encode())
    assert isinstance(request, SubscriptionRequest) and request.start_ns == start_ns


@pytest.mark.parametrize("line", ["start_session", "start_session=0", "start_session=1\r\n", "x=1|start_session="])
def test_every_form_of_the_start_is_taken(line: str) -> None:
    assert parse_request(line.encode()) == SessionStart()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "control line: expected key=value"),
        ("hello", "control line: expected a subscription or start_session, found 'hello'"),
        ("schema=mbo|schema=mbo|symbols=A", "control line, 'schema': expected each key once"),
        ("schema=ohlcv-1s|symbols=A", "subscription, schema: expected one of mbo, trades, .*, found 'ohlcv-1s'"),
        ("schema=mbo", "subscription, symbols: expected symbols"),
        ("schema=mbo|symbols=", "subscription, symbols: expected symbols, separated by commas, found ''"),
        ("schema=mbo|symbols=A,,B", "subscription, symbols: expected symbols"),
        ("schema=mbo|symbols=Ä", "subscription, symbols: expected names of at most 70 printable ASCII"),
        ("schema=mbo|symbols=" + "A" * 71, "subscription, symbols: expected names of at most 70"),
        (
            "schema=mbo|symbols=" + ",".join("A" * 501),
            "subscription, symbols: expected at most 500 in a line, found 501",
        ),
        (
            "schema=mbo|stype_in=parent|symbols=ES.FUT",
            "stype_in: expected one of raw_symbol, instrument_id, found 'parent'",
        ),
        (
            "schema=mbo|stype_in=instrument_id|symbols=CLX5",
            "expected instrument ids, separated by commas, found 'CLX5'",
        ),
        ("schema=mbo|stype_in=instrument_id|symbols=4294967296", "expected instrument ids"),
        ("schema=mbo|symbols=A|start=now", "start: expected ns since 1970 or an ISO time, found 'now'"),
        ("schema=mbo|symbols=A|start=2025-02-30", "start: expected ns since 1970 or an ISO time that exists"),
        ("schema=mbo|symbols=A|start=9223372036854775808", "start: expected ns"),
        ("schema=mbo|symbols=A|start=-1", "start: expected ns"),
        ("schema=mbo|symbols=A|snapshot=2", "snapshot: expected one of 0, 1"),
        ("schema=trades|symbols=A|snapshot=1", "snapshot: expected 0 with any schema but mbo"),
        ("schema=mbo|symbols=A|id=-1", "id: expected a whole number from 0 to 4294967295, found '-1'"),
        ("schema=mbo|symbols=A|is_last=x", "is_last: expected one of 0, 1"),
    ],
)
def test_a_wrong_request_is_refused_with_its_key(line: str, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        parse_request(line.encode())


def test_the_servers_lines_are_exactly_what_the_strictest_client_takes() -> None:
    assert Greeting("0.8.0").encode() == b"lsg_version=0.8.0\n"
    assert Challenge("abc").encode() == b"cram=abc\n"
    assert AuthResponse(True, 1_700_000_001).encode() == b"success=1|session_id=1700000001\n"
    assert AuthResponse(False, error="Authentication failed.").encode() == b"success=0|error=Authentication failed.\n"


def test_an_error_stays_in_its_field_and_on_its_line() -> None:
    line = AuthResponse(False, error="a|b\nc" + "x" * 1000).encode()
    assert line.startswith(b"success=0|error=a/b cx") and line.count(b"|") == 1 and line.count(b"\n") == 1
    assert len(line) < 400


def test_a_value_that_would_end_its_field_is_never_written() -> None:
    with pytest.raises(ValueError, match="without | or a line end"):
        join_line({"client": "a|b"})
    with pytest.raises(ValueError, match="without | or a line end"):
        join_line({"client": "a\nb"})


def test_more_than_500_symbols_travel_in_lines_of_which_only_the_last_says_so() -> None:
    symbols = tuple(f"S{number}" for number in range(1001))
    lines = SubscriptionRequest("mbo", symbols, id=3).encode().splitlines()
    requests = [parse_request(line) for line in lines]
    assert [len(request.symbols) for request in requests] == [500, 500, 1]
    assert [request.is_last for request in requests] == [False, False, True]
    assert sum((request.symbols for request in requests), ()) == symbols
    assert {request.id for request in requests} == {3}


symbols = st.text(
    st.characters(codec="ascii", exclude_characters="|,", categories=["L", "N", "P", "S"]), min_size=1, max_size=70
)
requests = st.builds(
    SubscriptionRequest,
    st.sampled_from(SCHEMAS),
    st.lists(symbols, min_size=1, max_size=5).map(tuple),
    start_ns=st.none() | st.integers(0, 2**63 - 1),
    id=st.none() | st.integers(0, 2**32 - 1),
)


@given(requests)
def test_a_subscription_comes_back_from_its_line(request_: SubscriptionRequest) -> None:
    assert parse_request(request_.encode()) == request_


@given(
    st.builds(
        AuthRequest,
        st.just(ANSWER),
        st.just("XNAS.ITCH"),
        st.sampled_from(["dbn", "csv", "json"]),
        st.sampled_from(["none", "zstd"]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.integers(5, 1800),
        st.sampled_from([None, "warn", "skip"]),
        st.sampled_from(["", "Batonic/0.1"]),
    )
)
def test_an_authentication_comes_back_from_its_line(request_: AuthRequest) -> None:
    assert AuthRequest.parse(request_.encode()) == request_


def test_the_answers_of_a_gateway_come_back_from_their_lines() -> None:
    for message in (
        Greeting("0.7.0"),
        Challenge("abc"),
        AuthResponse(True, 2**64 - 1),
        AuthResponse(False, error="No"),
    ):
        assert type(message).parse(message.encode()) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_declared_error(data: bytes) -> None:
    for parse in (Greeting.parse, Challenge.parse, AuthRequest.parse, AuthResponse.parse, parse_request):
        try:
            parse(data)
        except FeedError as error:
            assert error.where and error.expected


@pytest.mark.parametrize(
    ("version", "is_ours"),
    [(Greeting().lsg_version, True), ("0.9.1+batonic", True), ("0.8.0", False), ("0.8.0+batonic2", False)],
)
def test_a_gateway_of_ours_is_known_by_its_greeting_whatever_its_release(version: str, is_ours: bool) -> None:
    assert Greeting.parse(Greeting(version).encode().rstrip(b"\n")).is_ours is is_ours
