"""Both ends of the live protocol: whatever the other side sends, in any pieces."""

import itertools
from collections.abc import Sequence
from typing import Final

from replay.feed.dbn_codec import DbnStreamDecoder
from replay.feed.live_client import Event as ClientEvent
from replay.feed.live_client import LiveClient
from replay.feed.live_line import MAX_LINE_BYTES
from replay.feed.live_messages import MAX_SYMBOLS_PER_LINE, AuthResponse, SubscriptionRequest, parse_request
from replay.feed.live_records import error_message
from replay.feed.live_server import (
    MAX_SYMBOLS,
    Authenticate,
    Event,
    Failed,
    LiveServer,
    Phase,
    Refused,
    Send,
    SessionStarted,
    Subscribed,
)
from replay.feed.stream import MIN_BUFFER_BYTES, FeedError
from replay.tests.fuzz.mutations import split_plan
from replay.tests.fuzz.streams import Outcome, agree, dbn_bound, drive

CHALLENGE: Final = "zS9TxijuCsebyaTxxcrmeJs_MkARdB2L"
KEY: Final = "db-0123456789abcdefghijklmnopqrs"
HANDSHAKE_LINES: Final = 3


def fuzz_live_server(data: bytes) -> None:
    """What a client sends: events in an order that makes sense, and lines and records that clients can read."""
    sizes, said = split_plan(data)
    whole = _events(said, (0,))
    assert _events(said, sizes) == whole
    kinds = [type(event) for event in whole]
    assert kinds.count(Authenticate) <= 1 and kinds.count(SessionStarted) <= 1
    assert not {Refused, Failed} & set(kinds[:-1]), "nothing follows the end"
    for event in whole:
        match event:
            case Send(line) | Refused(line):
                answer = AuthResponse.parse(line)
                assert line.count(b"\n") == 1 and line.endswith(b"\n") and not line.endswith(b"|\n")
                assert answer.success is isinstance(event, Send)
            case Failed(code, text):
                assert len(error_message(0, code, text)) == 320
            case Subscribed(request):
                _comes_back(request)
    assert sum(len(event.request.symbols) for event in whole if isinstance(event, Subscribed)) <= MAX_SYMBOLS


def _events(said: bytes, sizes: Sequence[int]) -> list[Event]:
    """Let a client in whoever it is, and return the events of what it says."""
    server = LiveServer(CHALLENGE, 0)
    events: list[Event] = []
    pieces = itertools.cycle(sizes)
    done = 0
    while done < len(said):
        n = next(pieces) or len(said)
        new = server.receive(said[done : done + n], 1)
        if server.phase is Phase.VERDICT and new:
            new += server.accept(17, 1)
        events += new
        done += n
        assert len(server._buffer) <= MAX_LINE_BYTES
    return events


def _comes_back(request: SubscriptionRequest) -> None:
    again = [parse_request(line.encode()) for line in request.lines()]
    assert all(isinstance(part, SubscriptionRequest) for part in again)
    if len(request.symbols) <= MAX_SYMBOLS_PER_LINE:
        assert again == [request]


def fuzz_live_client(data: bytes) -> None:
    """What a gateway sends: the handshake a line at a time, then a stream in any pieces; the records of the decoder."""
    sizes, said = split_plan(data)
    *lines, stream = said.split(b"\n", HANDSHAKE_LINES)
    whole, events = _outcome(lines, stream, (0,))
    pieces, events_of_pieces = _outcome(lines, stream, sizes)
    agree(whole, pieces)
    if whole.error is None:
        assert events == events_of_pieces
    if len(lines) == HANDSHAKE_LINES and whole.error is None:
        bare = drive(DbnStreamDecoder(MIN_BUFFER_BYTES), stream, bound=dbn_bound(stream, MIN_BUFFER_BYTES))
        assert bare == whole


def _outcome(lines: list[bytes], stream: bytes, sizes: Sequence[int]) -> tuple[Outcome, list[ClientEvent]]:
    request = SubscriptionRequest("mbo", ("CLX5",), id=0)
    client = LiveClient(KEY, "GLBX.MDP3", [request], 0, buffer_bytes=MIN_BUFFER_BYTES)
    try:
        for line in lines:
            space = client.space()
            answer = (line + b"\n")[: len(space)]
            space[: len(answer)] = answer
            assert not len(client.received(len(answer)))
    except FeedError as error:
        return Outcome(b"", (error.where, error.expected), {}, {}), []
    outcome = drive(client, stream, sizes, bound=dbn_bound(stream, MIN_BUFFER_BYTES))
    assert len(client.to_send()) <= 1000
    return outcome, client.events()
