"""The raw feed over real sockets: what a client gets, whenever it comes and however it behaves."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from orderbook.book.mbo import Action, Flags, MboArray
from orderbook.tests.records import LAST, TOB, add, stream
from replay.feed.csv_codec import HEADER
from replay.feed.index import Index
from replay.feed.sources import Recording, SourceError
from replay.feed.stream import FramingName
from replay.streamer import arrivals, raw_session
from replay.streamer import server as server_module
from replay.streamer.messages import ReplayState, StreamerRefused, StreamerStatus
from replay.streamer.outlet import Outlet
from replay.streamer.publication import Publication
from replay.streamer.server import Streamer, StreamerError
from replay.tests.recordings import SYMBOLS, Reader, books, command, decode, recording, session
from replay.tests.streams import index_of

FRAMINGS: list[FramingName] = ["csv", "dbn"]
Start = Callable[..., Awaitable[Streamer]]
Connect = Callable[[Streamer], Awaitable[Reader]]


@pytest.fixture
async def listen() -> AsyncIterator[Start]:
    """Return a function that starts a streamer of recordings in memory on a free port."""
    running: list[Streamer] = []

    async def start(
        framing: FramingName = "dbn", made: Recording | dict[str, Recording] | None = None, **more: object
    ) -> Streamer:
        shelf = made if isinstance(made, dict) else {"made.dbn": made or recording()}
        streamer = Streamer(lambda path: shelf[str(path)], framing, "127.0.0.1", 0, **more)  # type: ignore[arg-type]
        await streamer.listen()
        running.append(streamer)
        return streamer

    yield start
    for streamer in running:
        await streamer.close(grace_s=0)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return a function that connects a reader to a streamer; all are closed at the end."""
    readers: list[Reader] = []

    async def open_reader(streamer: Streamer) -> Reader:
        readers.append(await Reader.connect(streamer.port))
        return readers[-1]

    yield open_reader
    for reader in readers:
        await reader.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def plain(records: MboArray) -> MboArray:
    return records[records["flags"] & Flags.SNAPSHOT == 0]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_client_from_the_start_gets_the_recording_unchanged_and_then_the_end(
    listen: Start, connect: Connect, framing: FramingName
) -> None:
    made = recording()
    streamer = await listen(framing, made)
    reader = await connect(streamer)
    await streamer.start(command())
    records, symbols = decode(framing, await reader.to_end())
    assert records.tobytes() == made.records.tobytes()
    assert symbols == SYMBOLS
    assert streamer.status()["state"] == ReplayState.DONE


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_late_client_has_the_book_of_an_uninterrupted_one(
    listen: Start, connect: Connect, framing: FramingName
) -> None:
    made = recording()
    streamer = await listen(framing, made)
    await streamer.start(command({"records_per_s": 5000}))
    captures = []
    for at in (10, 700, 1111):
        streamer.change_pace({"records_per_s": 5000})
        await until(lambda at=at: streamer.status()["position"] >= at)  # type: ignore[misc]
        streamer.change_pace({"records_per_s": 1})  # crawls until the client is in
        captures.append(await connect(streamer))
        await captures[-1].until(len(HEADER) + 100)
    streamer.change_pace("max")
    for reader in captures:
        records, _ = decode(framing, await reader.to_end())
        assert len(plain(records)) < len(made.records)
        assert books(records) == books(made.records)
        live = records[-len(plain(records)) :]
        assert live.tobytes() == made.records[-len(live) :].tobytes()


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_client_after_the_end_sees_the_last_books_and_waits_for_the_next_replay(
    listen: Start, connect: Connect, framing: FramingName
) -> None:
    made = recording()
    streamer = await listen(framing, made)
    first = await connect(streamer)
    await streamer.start(command(max_msgs=1500))
    await first.to_end()
    reader = await connect(streamer)
    await until(lambda: streamer.status()["clients"] == 1)
    assert not await reader.nothing_more()
    while not await reader.nothing_more():
        await reader.until(len(reader.data) + 1)
    shown, _ = decode(framing, reader.data)
    assert books(shown) == books(made.records[:1500])
    await streamer.start(command(replay_id=2))
    records, _ = decode(framing, await reader.to_end())
    news = records[len(shown) :]
    clears = news[: len(SYMBOLS)]
    assert set(clears["action"]) == {Action.CLEAR}
    assert set(clears["flags"]) == {Flags.LAST}
    assert news[len(SYMBOLS) :].tobytes() == made.records.tobytes()


async def test_dbn_announces_the_instruments_of_another_dataset_on_an_open_line(
    listen: Start, connect: Connect
) -> None:
    other_records = session(500, seed=9, instruments=1)
    other_records["instrument_id"] = 55
    shelf = {"made.dbn": recording(), "other.dbn": recording(other_records, {55: "NGX5"})}
    streamer = await listen("dbn", shelf)
    await streamer.start(command())
    await (await connect(streamer)).to_end()
    reader = await connect(streamer)
    await reader.until(1000)
    await streamer.start(command(replay_id=2) | {"path": "other.dbn"})  # type: ignore[arg-type]
    records, symbols = decode("dbn", await reader.to_end())
    assert symbols == {**SYMBOLS, 55: "NGX5"}
    held = books(records)
    assert [orders for key, (orders, *_) in held.items() if key[1] in SYMBOLS] == [[], []]
    assert held[1, 55][0] == books(other_records)[1, 55][0]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_each_round_of_a_loop_starts_with_a_clear_of_every_book(
    listen: Start, connect: Connect, framing: FramingName
) -> None:
    made = recording(session(1000))
    streamer = await listen(framing, made)
    reader = await connect(streamer)
    await streamer.start(command(loop=True, max_msgs=2500))
    records, _ = decode(framing, await reader.to_end())
    assert len(records) == 2500 + 2 * len(SYMBOLS)
    assert books(records)[1, 7001][0] == books(made.records[:500])[1, 7001][0]
    status = streamer.status()
    assert (status["loops"], status["position"], status["records"]) == (2, 500, 1000)


async def test_a_late_client_in_a_later_round_has_the_right_books(listen: Start, connect: Connect) -> None:
    made = recording(session(1000))
    streamer = await listen("dbn", made)
    await streamer.start(command({"records_per_s": 20_000}, loop=True))
    await until(lambda: streamer.status()["loops"] >= 2)
    reader = await connect(streamer)
    await reader.until(60_000)
    stopped = streamer.stop()
    records, _ = decode("dbn", await reader.to_end())
    assert {key: held[0] for key, held in books(records).items()} == {
        key: held[0] for key, held in books(made.records[: stopped["position"]]).items()
    }


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_resumed_replay_gives_its_clients_the_books_of_that_moment(
    listen: Start, connect: Connect, framing: FramingName
) -> None:
    made = recording()
    streamer = await listen(framing, made)
    reader = await connect(streamer)
    await streamer.start(command(start_record=1234))
    records, _ = decode(framing, await reader.to_end())
    assert books(records) == books(made.records)
    assert plain(records).tobytes() == made.records[1234:].tobytes()


async def test_a_picture_ends_with_last_only_where_the_instrument_is_at_an_event_end(
    listen: Start, connect: Connect
) -> None:
    made = recording(session(200, instruments=1))
    flags = made.records["flags"]
    inside = int(np.flatnonzero(flags[:-1] == 0)[5]) + 1
    complete = int(np.flatnonzero(flags == Flags.LAST)[5]) + 1
    for position, expected in ((inside, 0), (complete, Flags.LAST)):
        streamer = await listen("dbn", made)
        reader = await connect(streamer)
        await streamer.start(command(start_record=position, max_msgs=0))
        picture, _ = decode("dbn", await reader.to_end())
        assert picture[0]["action"] == Action.CLEAR
        assert set(picture["flags"][:-1]) == {Flags.SNAPSHOT}
        assert picture["flags"][-1] == Flags.SNAPSHOT | expected
        for field in ("ts_event", "ts_recv", "sequence"):
            assert set(picture[field]) == {made.records[position - 1][field]}


@pytest.mark.parametrize("framing", ["csv", "dbn"])
async def test_a_late_client_of_a_top_of_book_publisher_sees_what_it_shows(
    listen: Start, connect: Connect, framing: str
) -> None:
    tops = [add("B", 64_830_000_000, 5, 0, LAST | TOB), add("A", 64_840_000_000, 2, 0, LAST | TOB)]
    made = recording(stream(*tops, add("B", 64_820_000_000, 7, 0, LAST | TOB)))
    streamer = await listen(framing, made)
    reader = await connect(streamer)
    await streamer.start(command(start_record=3))
    book = books(decode(framing, await reader.to_end())[0])
    assert book == books(made.records) and len(book) == 1


async def test_a_picture_begins_at_a_keyframe_of_the_recordings_index(
    listen: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recording(session(20_000))
    index, loaded = index_of(made.records, every=1000), []
    load = Index.keyframe
    monkeypatch.setattr(Index, "keyframe", lambda index, number: loaded.append(number) or load(index, number))
    streamer = await listen("dbn", made, open_index=lambda recording: index if recording is made else None)
    reader = await connect(streamer)
    await streamer.start(command(start_record=15_500))
    assert books(decode("dbn", await reader.to_end())[0]) == books(made.records)
    for_books = len(index.positions) - 1  # the last one names the books, if the run lasts until somebody looks
    assert [index.positions[number] for number in loaded if number != for_books] == [15_000]


async def test_many_clients_get_the_same_bytes(listen: Start, connect: Connect) -> None:
    streamer = await listen("csv")
    readers = [await connect(streamer) for _ in range(20)]
    await until(lambda: streamer.status()["clients"] == 20)
    await streamer.start(command({"records_per_s": 20_000}))
    captures = await asyncio.gather(*(reader.to_end() for reader in readers))
    assert len(set(captures)) == 1
    assert len(decode("csv", captures[0])[0]) == 3000
    await until(lambda: streamer.status()["clients"] == 0)


async def test_at_max_the_replay_waits_for_its_first_client(listen: Start, connect: Connect) -> None:
    streamer = await listen("dbn")
    await streamer.start(command())
    await asyncio.sleep(0.1)
    assert streamer.status()["position"] == 0
    reader = await connect(streamer)
    assert len(decode("dbn", await reader.to_end())[0]) == 3000


async def standstill(streamer: Streamer) -> int:
    """Return the position at which the replay has stood for a while."""
    seen, still = -1, 0
    async with asyncio.timeout(10):
        while still < 20:
            position = streamer.status()["position"]
            still = still + 1 if position == seen else 0
            seen = position
            await asyncio.sleep(0.005)
    return seen


async def test_at_max_the_slowest_client_paces_all_and_nothing_is_skipped(listen: Start, connect: Connect) -> None:
    made = recording(np.tile(session(10_000), 40))
    streamer = await listen("dbn", made)
    slow, fast = await connect(streamer), await connect(streamer)
    await until(lambda: streamer.status()["clients"] == 2)
    reading = asyncio.create_task(fast.to_end())
    await streamer.start(command())
    assert 0 < await standstill(streamer) < len(made.records)
    assert not reading.done()
    everything = await asyncio.gather(slow.to_end(), reading)
    assert [decode("dbn", data)[0].tobytes() for data in everything] == [made.records.tobytes()] * 2


async def test_at_max_a_stalled_client_that_leaves_lets_the_others_go_on(listen: Start, connect: Connect) -> None:
    made = recording(np.tile(session(10_000), 20))
    streamer = await listen("dbn", made)
    stalled, other = await connect(streamer), await connect(streamer)
    await until(lambda: streamer.status()["clients"] == 2)
    reading = asyncio.create_task(other.to_end())
    await streamer.start(command())
    assert await standstill(streamer) < len(made.records)
    stalled.writer.transport.abort()
    assert len(decode("dbn", await reading)[0]) == len(made.records)


async def test_stop_flushes_what_is_due_and_closes(listen: Start, connect: Connect) -> None:
    made = recording()
    streamer = await listen("csv", made)
    reader = await connect(streamer)
    await streamer.start(command({"records_per_s": 5000}))
    await until(lambda: streamer.status()["position"] > 300)
    stopped = streamer.stop()
    assert stopped["state"] == ReplayState.STOPPED
    records, _ = decode("csv", await reader.to_end())
    assert records.tobytes() == made.records[: stopped["position"]].tobytes()
    assert streamer.stop()["state"] == ReplayState.STOPPED


async def test_a_second_start_joins_the_first(listen: Start) -> None:
    streamer = await listen()
    first, second = await asyncio.gather(
        streamer.start(command({"records_per_s": 100})), streamer.start(command({"records_per_s": 50}, replay_id=2))
    )
    assert (first["replay_id"], second["replay_id"]) == (1, 1)
    assert "note" not in first
    assert second["note"] == "already running"
    assert second["pace"] == {"records_per_s": 100}


async def test_a_changed_pace_takes_effect_in_flight(listen: Start, connect: Connect) -> None:
    made = recording()
    streamer = await listen("dbn", made)
    reader = await connect(streamer)
    await streamer.start(command({"records_per_s": 1}))
    assert streamer.change_pace({"records_per_s": 20_000})["pace"] == {"records_per_s": 20_000}
    await until(lambda: streamer.status()["position"] > 500)
    streamer.change_pace("max")
    assert decode("dbn", await reader.to_end())[0].tobytes() == made.records.tobytes()


async def test_a_picture_that_takes_long_holds_nobody_else_up_and_is_still_exact(
    listen: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, may_go_on = recording(), threading.Event()
    draw = Publication.picture

    def draw_slowly(self: Publication, position: int) -> MboArray:
        assert may_go_on.wait(5), "the event loop waits for the picture"
        return draw(self, position)

    monkeypatch.setattr(Publication, "picture", draw_slowly)
    streamer = await listen("dbn", made)
    first = await connect(streamer)
    await streamer.start(command({"records_per_s": 2000}))
    await until(lambda: streamer.status()["position"] > 100)
    late = await connect(streamer)
    await until(lambda: streamer.status()["clients"] == 2)
    seen = streamer.status()["position"]
    await until(lambda: streamer.status()["position"] > seen + 200)
    may_go_on.set()
    streamer.change_pace("max")
    captures = [decode("dbn", data)[0] for data in await asyncio.gather(first.to_end(), late.to_end())]
    assert captures[0].tobytes() == made.records.tobytes()
    live = plain(captures[1])
    assert live.tobytes() == made.records[-len(live) :].tobytes()
    assert len(made.records) - len(live) < seen + 200  # from where it came in, and not from where the picture was done
    assert books(captures[1]) == books(made.records)


async def test_the_books_of_a_recording_are_found_beside_the_event_loop(
    listen: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    on: list[threading.Thread] = []
    monkeypatch.setattr(arrivals, "book_tags_of", lambda records: on.append(threading.current_thread()) or set())
    await (await listen()).start(command({"records_per_s": 1}))
    await until(lambda: bool(on))
    assert [thread.name for thread in on] == ["books"], "and not on the painter's, which new clients wait for"


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_run_that_goes_on_elsewhere_ends_with_a_reset_and_not_as_one_that_is_over(
    listen: Start, connect: Connect, framing: FramingName
) -> None:
    streamer = await listen(framing)
    reader = await connect(streamer)
    await until(lambda: streamer.status()["clients"] == 1)
    await streamer.start(command({"records_per_s": 1}))
    streamer.abandon_run(replay_id=1, generation=2)
    assert streamer.status()["state"] == "REPLAYING"
    streamer.abandon_run(replay_id=1, generation=1)
    with pytest.raises(ConnectionResetError):
        await reader.to_end()
    assert streamer.status()["state"] == "STOPPED"


async def test_a_fault_in_the_clock_ends_the_replay_as_failed_and_says_so(
    listen: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[StreamerStatus] = []
    streamer = await listen("dbn", recording(), report=told.append)
    reader = await connect(streamer)
    with monkeypatch.context() as patched:
        patched.setattr(Publication, "wait_ns", lambda self, now_ns: 1 // 0)
        await streamer.start(command({"records_per_s": 1000}))
        await reader.to_end()  # its clients are not left waiting
    assert [status["state"] for status in told] == ["REPLAYING", "FAILED"]
    assert told[-1]["error"].startswith("ZeroDivisionError: ")
    assert "the clock of replay 1 failed" in caplog.text
    assert (await streamer.start(command({"records_per_s": 1}, replay_id=2)))["error"] == ""


async def test_a_client_that_vanished_is_given_up_after_half_a_minute() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        sock, _ = server.accept()
        outlet = Outlet(sock)

        def option(name: str) -> int:
            return sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert option("TCP_USER_TIMEOUT") == 30_000
            assert option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT") == 30
        outlet.close()


async def test_rubbish_from_a_client_is_ignored(listen: Start, connect: Connect) -> None:
    made = recording()
    streamer = await listen("dbn", made)
    reader = await connect(streamer)
    reader.writer.write(b"GET / HTTP/1.1\r\n\r\n\x00\xff" * 100)
    await reader.writer.drain()
    await streamer.start(command({"records_per_s": 50_000}))
    assert decode("dbn", await reader.to_end())[0].tobytes() == made.records.tobytes()


async def test_a_client_that_keeps_talking_is_cut_off(listen: Start, connect: Connect) -> None:
    streamer = await listen("dbn")
    reader = await connect(streamer)
    reader.writer.write(b"x" * (raw_session.MAX_INPUT_BYTES * 4))
    await until(lambda: streamer.status()["clients"] == 0)
    await reader.close()


async def test_a_client_that_closes_its_own_side_still_gets_everything(listen: Start, connect: Connect) -> None:
    made = recording()
    streamer = await listen("dbn", made)
    reader = await connect(streamer)
    await streamer.start(command({"records_per_s": 10_000}))
    await reader.until(1000)
    reader.writer.write_eof()
    assert decode("dbn", await reader.to_end())[0].tobytes() == made.records.tobytes()


async def test_an_idle_client_that_leaves_is_forgotten(listen: Start, connect: Connect) -> None:
    streamer = await listen("csv")
    reader = await connect(streamer)
    assert await reader.until(len(HEADER)) == HEADER
    await reader.close()
    await until(lambda: streamer.status()["clients"] == 0)


async def test_more_clients_than_allowed_are_refused(
    listen: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    streamer = await listen("csv")
    kept = [await connect(streamer) for _ in range(2)]
    await until(lambda: streamer.status()["clients"] == 2)
    assert await (await connect(streamer)).to_end() == b""
    assert await kept[0].until(len(HEADER)) == HEADER


async def test_a_second_streamer_on_the_port_is_told_so(listen: Start) -> None:
    streamer = await listen()
    second = Streamer(lambda path: recording(), "csv", "127.0.0.1", streamer.port)
    with pytest.raises(StreamerError, match=rf"Cannot listen on 127.0.0.1:{streamer.port}: .*second streamer"):
        await second.listen()


async def test_a_file_that_cannot_be_opened_is_refused_and_the_daemon_stays(listen: Start) -> None:
    def broken(path: Path) -> Recording:
        raise SourceError(path, "byte 0", "DBN", "nothing")

    streamer = Streamer(broken, "csv", "127.0.0.1", 0)
    await streamer.listen()
    try:
        with pytest.raises(StreamerRefused, match="Cannot open made: .*byte 0"):
            await streamer.start(command())
        assert streamer.status()["state"] == ReplayState.IDLE
    finally:
        await streamer.close()


@pytest.mark.parametrize("pace", ["fast", {"records_per_s": 0}, {"records_per_s": True}, {"rate": 5}, None, 7])
async def test_a_pace_that_is_none_is_refused(listen: Start, pace: object) -> None:
    streamer = await listen()
    with pytest.raises(StreamerRefused, match="Expected a pace"):
        await streamer.start(command(pace))  # type: ignore[arg-type]


async def test_an_empty_recording_is_done_at_once(listen: Start, connect: Connect) -> None:
    streamer = await listen("csv", recording(session(10)[:0]))
    reader = await connect(streamer)
    await streamer.start(command(loop=True))
    assert await reader.to_end() == HEADER
    assert streamer.status()["state"] == ReplayState.DONE


async def test_every_change_of_state_is_reported(listen: Start) -> None:
    told: list[StreamerStatus] = []
    streamer = await listen("dbn", recording(), report=told.append)
    await streamer.start(command({"records_per_s": 100}))
    streamer.change_pace({"records_per_s": 200})
    streamer.stop()
    assert [status["state"] for status in told] == ["REPLAYING", "REPLAYING", "STOPPED"]


async def test_closing_the_streamer_flushes_its_clients(listen: Start, connect: Connect) -> None:
    made = recording()
    streamer = await listen("dbn", made)
    reader = await connect(streamer)
    await streamer.start(command({"records_per_s": 5000}))
    await until(lambda: streamer.status()["position"] > 100)
    closing = asyncio.create_task(streamer.close())
    records, _ = decode("dbn", await reader.to_end())
    await closing
    assert records.tobytes() == made.records[: streamer.status()["position"]].tobytes()
