"""Writing to clients that read, read slowly, or do not read at all: on real sockets, and with a made-up clock."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from replay.streamer.outlet import MAX_BUFFER_BYTES, Outlet, SlowReader
from replay.streamer.patience import Patience, Verdict

SECOND = 10**9
RECORD = 56
RECORDS = b"".join(bytes([14]) + bytes([number % 251]) * (RECORD - 1) for number in range(200_000))


def test_who_takes_nothing_is_warned_then_given_up_and_closed_after_a_grace() -> None:
    patience = Patience(10, 5)
    patience.begin(0, 0)
    verdicts = {at: patience.look(0, at * SECOND) for at in (1, 9, 10, 11, 19, 20, 21, 24, 25)}
    assert {at: verdict for at, verdict in verdicts.items() if verdict is not Verdict.WAIT} == {
        10: Verdict.WARN,
        20: Verdict.GIVE_UP,
        25: Verdict.CLOSE,
    }


def test_a_byte_that_is_taken_begins_the_patience_anew_until_the_client_is_given_up() -> None:
    patience = Patience(10, 5)
    patience.begin(0, 0)
    assert patience.look(0, 10 * SECOND) is Verdict.WARN
    assert patience.look(1, 19 * SECOND) is Verdict.WAIT
    assert patience.look(1, 28 * SECOND) is Verdict.WAIT
    assert patience.look(1, 29 * SECOND) is Verdict.WARN
    assert patience.look(1, 39 * SECOND) is Verdict.GIVE_UP
    assert patience.look(500, 44 * SECOND) is Verdict.CLOSE


def test_time_in_which_nothing_was_to_be_sent_does_not_count() -> None:
    patience = Patience(10, 5)
    patience.begin(0, 0)
    patience.begin(0, 100 * SECOND)
    assert patience.look(0, 109 * SECOND) is Verdict.WAIT


class Relenting(Patience):
    """Loses its patience once."""

    def relent(self) -> None:
        self._patience_ns = 3600 * SECOND


class Pair:
    """An outlet, and the client's end of its socket, which takes little at a time."""

    def __init__(self, patience: Patience) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client = socket.socket()
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            self.client.connect(server.getsockname())
            self.outlet = Outlet(server.accept()[0], patience)
        self.client.setblocking(False)
        self.patience = patience
        self.outlet.warning = lambda: b"\x02wait" + bytes(3)
        self.outlet.farewell = lambda: b"\x01bye" + bytes(0)

    async def read(self, most: int = 1 << 30) -> bytes:
        """Read to the end, or so many bytes."""
        data = bytearray()
        while len(data) < most:
            piece = await asyncio.get_running_loop().sock_recv(self.client, min(1 << 16, most - len(data)))
            if not piece:
                break
            data += piece
        return bytes(data)


@pytest.fixture
async def impatient() -> AsyncIterator[Pair]:
    pair = Pair(Relenting(0.1, 5))
    yield pair
    pair.outlet.close()
    pair.client.close()


def between_records(data: memoryview, offset: int) -> int:
    return -(-offset // RECORD) * RECORD


async def test_a_buffer_arrives_as_it_is_whatever_the_client_takes_at_once(impatient: Pair) -> None:
    sending = asyncio.create_task(impatient.outlet.send(memoryview(RECORDS), between_records))
    assert await impatient.read(len(RECORDS)) == RECORDS
    await sending
    assert impatient.outlet.sent == len(RECORDS) and impatient.outlet.waiting == 0


async def test_a_warning_goes_between_two_records_and_the_rest_follows(impatient: Pair) -> None:
    warned = asyncio.Event()
    warning = impatient.outlet.warning

    def warn() -> bytes:
        assert isinstance(impatient.patience, Relenting)
        impatient.patience.relent()
        warned.set()
        return bytes(warning())

    impatient.outlet.warning = warn
    sending = asyncio.create_task(impatient.outlet.send(memoryview(RECORDS), between_records))
    await asyncio.wait_for(warned.wait(), 5)
    data = await impatient.read(len(RECORDS) + len(warning()))
    await sending
    at = data.index(warning())
    assert at % RECORD == 0 and 0 < at < len(RECORDS)
    assert data[:at] + data[at + len(warning()) :] == RECORDS


async def test_a_client_that_is_given_up_gets_whole_records_and_the_farewell_and_the_end(impatient: Pair) -> None:
    given_up = asyncio.Event()
    farewell = impatient.outlet.farewell
    impatient.outlet.farewell = lambda: given_up.set() or farewell()  # type: ignore[func-returns-value]
    sending = asyncio.create_task(impatient.outlet.send(memoryview(RECORDS), between_records))
    await asyncio.wait_for(given_up.wait(), 5)
    data = await impatient.read()
    with pytest.raises(SlowReader, match="^it took nothing for too long$"):
        await sending
    records = data.removesuffix(impatient.outlet.warning() + farewell())
    assert len(records) % RECORD == 0 and RECORDS.startswith(records)
    assert 0 < len(records) < len(RECORDS)


async def test_a_client_that_does_not_even_take_the_farewell_is_left() -> None:
    pair = Pair(Patience(0.05, 0.05))
    with pytest.raises(SlowReader, match="nor what it was told"):
        await pair.outlet.send(RECORDS)
    pair.outlet.close()
    pair.client.close()


async def test_what_waits_for_a_client_that_reads_nothing_is_bounded_and_goes_down_as_it_reads() -> None:
    pair = Pair(Patience(3600, 5))
    pieces = [RECORDS[begin : begin + MAX_BUFFER_BYTES] for begin in range(0, len(RECORDS), MAX_BUFFER_BYTES)]

    async def send() -> None:
        for piece in pieces:
            await pair.outlet.send(piece, between_records)

    sending = asyncio.create_task(send())
    while not pair.outlet.waiting:  # the kernel's buffers are full
        await asyncio.sleep(0)
    assert 0 < pair.outlet.waiting_bytes() <= 4 << 20
    assert await pair.read(len(RECORDS)) == RECORDS
    await sending
    while pair.outlet.waiting_bytes():  # the last acknowledgements are on their way
        await asyncio.sleep(0)
    pair.outlet.close()
    pair.client.close()
