"""The server's state machine: events from bytes in any pieces, deadlines as data, and no harm from a hostile client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.feed.cram import respond
from replay.feed.live_line import MAX_LINE_BYTES
from replay.feed.live_messages import ALL_SYMBOLS, AuthRequest, SubscriptionRequest
from replay.feed.live_records import INVALID_SUBSCRIPTION
from replay.feed.live_server import (
    AUTH_TIMEOUT_S,
    MAX_PIPELINED_BYTES,
    MAX_SUBSCRIPTIONS,
    MAX_SYMBOLS,
    Authenticate,
    Event,
    Failed,
    HeartbeatDue,
    LiveServer,
    Phase,
    Refused,
    Send,
    SessionStarted,
    Subscribed,
)
from replay.tests.feeds import pieces

KEY = "db-0123456789abcdefghijklmnopqrs"
CHALLENGE = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"
SECOND = 10**9
NOW = 77 * SECOND
AUTH = (
    f"auth={respond(CHALLENGE, KEY)}|dataset=GLBX.MDP3|encoding=dbn|ts_out=0|compression=none|heartbeat_interval_s=10"
    "|client=Databento/0.87.0 Python/3.11.7\n"
).encode()
MBO = b"schema=mbo|stype_in=raw_symbol|symbols=CLX5|snapshot=0|id=0|is_last=1\n"
TRADES = b"schema=trades|stype_in=raw_symbol|symbols=ALL_SYMBOLS|id=1\n"
START = b"start_session=0\n"
WELCOME = Send(b"success=1|session_id=17\n")
MBO_REQUEST = SubscriptionRequest("mbo", ("CLX5",), id=0)


def drive(server: LiveServer, data: bytes, sizes: list[int] | None = None, now_ns: int = NOW) -> list[Event]:
    """Return the events of bytes that arrive in these pieces, the rest at once; whoever asks is let in."""
    events: list[Event] = []
    done = 0
    for size in [*(sizes or []), len(data)]:
        for event in server.receive(data[done : done + size], now_ns):
            events.append(event)
            if isinstance(event, Authenticate):
                events += server.accept(17, now_ns)
        done += size
    return events


def started(data: bytes = MBO) -> LiveServer:
    server = LiveServer(CHALLENGE, NOW)
    assert drive(server, AUTH + data + START)[-1] == SessionStarted()
    return server


def test_a_connection_opens_with_greeting_and_challenge() -> None:
    assert LiveServer(CHALLENGE, NOW).opening() == b"lsg_version=0.8.0+batonic\ncram=" + CHALLENGE.encode() + b"\n"


def test_a_session_is_authentication_subscriptions_and_start() -> None:
    events = drive(LiveServer(CHALLENGE, NOW), AUTH + MBO + TRADES + START)
    assert events == [
        Authenticate(AuthRequest.parse(AUTH), CHALLENGE),
        WELCOME,
        Subscribed(MBO_REQUEST),
        Subscribed(SubscriptionRequest("trades", (ALL_SYMBOLS,), id=1)),
        SessionStarted(),
    ]


LINES = [AUTH, MBO, TRADES, MBO.replace(b"mbo", b"xyz"), START, MBO, b"junk\n", b"\r\n", TRADES.replace(b"\n", b"\r\n")]


@given(st.lists(st.sampled_from(LINES), max_size=6).map(b"".join), pieces, st.booleans())
def test_pieces_change_nothing(data: bytes, sizes: list[int], polite: bool) -> None:
    data = AUTH + data if polite else data
    whole, cut, single = (LiveServer(CHALLENGE, NOW) for _ in range(3))
    expected = drive(whole, data)
    assert drive(cut, data, sizes) == expected
    assert drive(single, data, [1] * len(data)) == expected
    assert repr(cut) == repr(whole) == repr(single) and cut.deadline_ns == whole.deadline_ns


def test_the_owner_lets_in_or_turns_away_and_nothing_happens_before() -> None:
    server = LiveServer(CHALLENGE, NOW)
    assert len(server.receive(AUTH + MBO, NOW)) == 1 and server.receive(START, NOW) == []
    assert server.phase is Phase.VERDICT
    assert server.accept(17, NOW) == [WELCOME, Subscribed(MBO_REQUEST), SessionStarted()]

    server = LiveServer(CHALLENGE, NOW)
    server.receive(AUTH + MBO, NOW)
    assert server.refuse() == [Refused(b"success=0|error=Authentication failed.\n")]
    assert server.receive(MBO + START, NOW) == [] and server.phase is Phase.CLOSED and server.deadline_ns is None
    assert not server._buffer


@pytest.mark.parametrize(
    "line", [MBO, START, b"\n", b"auth=x|dataset=GLBX.MDP3\n", b"GET / HTTP/1.1\r\n", b"\xff\xfe\n"]
)
def test_a_first_line_that_is_no_authentication_ends_the_connection_with_a_line(line: bytes) -> None:
    server = LiveServer(CHALLENGE, NOW)
    [refused] = server.receive(line + AUTH, NOW)
    assert (
        isinstance(refused, Refused) and refused.line.startswith(b"success=0|error=") and server.phase is Phase.CLOSED
    )


def test_a_client_has_five_seconds_to_authenticate() -> None:
    server = LiveServer(CHALLENGE, NOW)
    late = NOW + AUTH_TIMEOUT_S * SECOND
    assert server.deadline_ns == late
    assert server.tell_time(late - 1) == []
    assert server.tell_time(late) == [Refused(b"success=0|error=Expected authentication within 5 s.\n")]
    assert server.tell_time(late) == [] and server.deadline_ns is None


def test_an_authenticated_client_may_take_its_time_until_the_start() -> None:
    server = LiveServer(CHALLENGE, NOW)
    drive(server, AUTH + MBO)
    assert server.deadline_ns is None and server.tell_time(NOW + 3600 * SECOND) == []


def test_a_heartbeat_is_due_when_nothing_was_sent_for_the_interval_that_the_client_wished() -> None:
    server = started()
    assert server.deadline_ns == NOW + 10 * SECOND
    server.sent(NOW + 4 * SECOND)
    assert server.tell_time(NOW + 10 * SECOND) == []
    assert server.tell_time(NOW + 14 * SECOND) == [HeartbeatDue()]
    assert server.tell_time(NOW + 23 * SECOND) == []
    assert server.tell_time(NOW + 24 * SECOND) == [HeartbeatDue()]


def test_1001_symbols_in_three_lines_are_one_subscription() -> None:
    symbols = tuple(f"S{number}" for number in range(1001))
    request = SubscriptionRequest("mbo", symbols, id=4)
    server = LiveServer(CHALLENGE, NOW)
    assert drive(server, AUTH + request.encode() + START)[2:] == [Subscribed(request), SessionStarted()]


def test_after_a_reconnect_a_subscription_may_come_again_with_the_same_id() -> None:
    symbols = [f"S{number}" for number in range(1001)]
    lines = [SubscriptionRequest("mbo", tuple(symbols[begin : begin + 500]), id=0) for begin in (0, 500, 1000)]
    server = LiveServer(CHALLENGE, NOW)
    assert drive(server, AUTH + b"".join(line.encode() for line in lines))[2:] == [Subscribed(line) for line in lines]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (MBO.replace(b"=mbo", b"=ohlcv-1s") + MBO, "subscription, schema: expected one of mbo, trades"),
        (b"nonsense\n", "control line: expected a subscription or start_session"),
        (MBO.replace(b"is_last=1", b"is_last=0"), "start_session: expected the rest of the subscription before it"),
        (MBO.replace(b"is_last=1", b"is_last=0") + TRADES, "subscription: expected the rest of the one before"),
        (AUTH + MBO, "control line: expected a subscription or start_session"),
    ],
)
def test_a_wrong_subscription_is_told_when_the_session_starts(lines: bytes, message: str) -> None:
    server = LiveServer(CHALLENGE, NOW)
    events = drive(server, AUTH + lines)
    assert server.phase is Phase.SUBSCRIPTION
    assert events[-1] == WELCOME  # what follows the fault is of no use any more
    [failed] = server.receive(START, NOW)
    assert isinstance(failed, Failed) and failed.code == INVALID_SUBSCRIPTION and failed.text.startswith(message)
    assert server.phase is Phase.CLOSED and server.receive(MBO, NOW) == []


def test_a_running_session_takes_further_subscriptions_but_no_further_start() -> None:
    server = started()
    assert server.receive(TRADES, NOW) == [Subscribed(SubscriptionRequest("trades", (ALL_SYMBOLS,), id=1))]
    [failed] = server.receive(START, NOW)
    assert failed == Failed(INVALID_SUBSCRIPTION, "start_session: expected one start, found another one")


@pytest.mark.parametrize("line", [MBO.replace(b"snapshot=0", b"start=0"), b"schema=x|symbols=A\n", b"?\n"])
def test_a_wrong_line_in_a_running_session_ends_it_with_a_record(line: bytes) -> None:
    server = started()
    [failed] = server.receive(line, NOW)
    assert isinstance(failed, Failed) and failed.code == INVALID_SUBSCRIPTION and server.phase is Phase.CLOSED


@pytest.mark.parametrize("size", [1, 4096, 1 << 20])
def test_a_line_without_an_end_is_given_up(size: int) -> None:
    chunk = b"x" * size
    for server, before in ((LiveServer(CHALLENGE, NOW), b""), (LiveServer(CHALLENGE, NOW), AUTH), (started(), b"")):
        events = drive(server, before)
        sent = 0
        while not any(isinstance(event, Refused | Failed) for event in events):
            assert sent <= MAX_LINE_BYTES + size, "the line has no bound"
            events = server.receive(chunk, NOW)
            sent += size
        assert sent > MAX_LINE_BYTES and server.phase is Phase.CLOSED


def test_the_longest_line_is_taken_and_one_byte_more_is_not() -> None:
    for size, taken in ((MAX_LINE_BYTES, True), (MAX_LINE_BYTES + 1, False)):
        server = LiveServer(CHALLENGE, NOW)
        line = (b"pad=" + b"x" * MAX_LINE_BYTES)[: size - len(MBO)] + b"|" + MBO
        assert len(line) == size + 1
        last = drive(server, AUTH + line)[-1]
        assert isinstance(last, Subscribed) is taken and isinstance(last, Failed) is not taken


def test_a_client_cannot_fill_the_memory_while_its_key_is_looked_up() -> None:
    server = LiveServer(CHALLENGE, NOW)
    server.receive(AUTH, NOW)
    sent = 0
    while not (events := server.receive(MBO, NOW)):
        sent += len(MBO)
        assert sent <= MAX_PIPELINED_BYTES
    assert isinstance(events[0], Refused) and sent > MAX_PIPELINED_BYTES - len(MBO)


def test_a_client_cannot_fill_the_memory_with_subscriptions() -> None:
    many = b"".join(MBO for _ in range(MAX_SUBSCRIPTIONS + 1))
    events = drive(LiveServer(CHALLENGE, NOW), AUTH + many + START)
    assert sum(isinstance(event, Subscribed) for event in events) == MAX_SUBSCRIPTIONS
    assert isinstance(events[-1], Failed) and "number 257 and 257 symbols" in events[-1].text

    endless = SubscriptionRequest("mbo", ("A",) * 500, is_last=True).encode().replace(b"is_last=1", b"is_last=0")
    events = drive(LiveServer(CHALLENGE, NOW), AUTH + endless * (MAX_SYMBOLS // 500 + 1) + START)
    assert isinstance(events[-1], Failed) and f"{MAX_SYMBOLS + 500} symbols" in events[-1].text


def test_the_machine_says_of_itself_what_an_operator_wants_to_know() -> None:
    assert repr(LiveServer(CHALLENGE, NOW)) == "<LiveServer AUTHENTICATION no dataset, 0 subscriptions>"
    assert repr(started()) == "<LiveServer STREAM GLBX.MDP3, 1 subscriptions>"
