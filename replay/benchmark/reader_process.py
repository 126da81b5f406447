"""A client of the live port in a process of its own, which counts bytes and notes when they came. Floor 1."""

import socket
import time
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO
from replay.benchmark.streamer_process import KEY
from replay.feed.cram import bucket_of, parse_response, respond
from replay.feed.live_messages import ALL_SYMBOLS, AuthRequest, Challenge, SessionStart, SubscriptionRequest

_BUFFER_BYTES: Final = 1 << 18  # stays in the cache of the processor
_METADATA_BYTES: Final = 128
_MESSAGE_BYTES: Final = 320
_MAPPING_BYTES: Final = 176


class Received(NamedTuple):
    """What a reader got, and when: monotonic ns."""

    first_ns: int
    last_ns: int
    nbytes: int
    arrivals: npt.NDArray[np.int64] | None
    """Rows of time and bytes so far, one for each receive."""


def framing_bytes(instruments: int) -> int:
    """Return how many bytes of a session with one subscription are no market data."""
    return _METADATA_BYTES + 2 * _MESSAGE_BYTES + instruments * _MAPPING_BYTES


def run(port: int, control: Connection, note_arrivals: bool) -> None:
    """Log in, subscribe to all of mbo, tell that all is ready, and tell what was Received at the end."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        opened = log_in(sock)
        control.send(None)
        control.send(_read(sock, opened, note_arrivals))


def log_in(sock: socket.socket) -> int:
    """Open a session, and return the bytes that came behind its start: the metadata and the acknowledgement."""
    lines = sock.makefile("rb", buffering=0)
    lines.readline()
    challenge = Challenge.parse(lines.readline()).cram
    answer = parse_response(respond(challenge, KEY))
    assert answer.bucket_id == bucket_of(KEY)
    sock.sendall(AuthRequest(answer, "BATONIC.REPLAY").encode())
    lines.readline()
    sock.sendall(SubscriptionRequest("mbo", (ALL_SYMBOLS,)).encode() + SessionStart().encode())
    opened = 0
    while opened < _METADATA_BYTES + _MESSAGE_BYTES:
        piece = sock.recv(_METADATA_BYTES + _MESSAGE_BYTES - opened)
        if not piece:
            raise ConnectionError("the gateway closed the connection before the replay")
        opened += len(piece)
    return opened


def _read(sock: socket.socket, nbytes: int, note_arrivals: bool) -> Received:
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    arrivals: list[tuple[int, int]] = []
    first_ns = last_ns = 0
    while size := sock.recv_into(buffer):
        last_ns = time.monotonic_ns()
        first_ns = first_ns or last_ns
        nbytes += size
        if note_arrivals:
            arrivals.append((last_ns, nbytes))
    return Received(first_ns, last_ns, nbytes, np.array(arrivals, np.int64) if note_arrivals else None)


def arrival_times(received: Received, instruments: int, records: int) -> npt.NDArray[np.int64]:
    """Return when each record was complete, monotonic ns."""
    assert received.arrivals is not None
    before = framing_bytes(instruments) - _MESSAGE_BYTES  # the last message comes behind the records
    complete = (received.arrivals[:, 1] - before) // MBO.itemsize
    number = np.searchsorted(complete, np.arange(1, records + 1))
    times: npt.NDArray[np.int64] = received.arrivals[number, 0]
    return times
