"""The verbs of a replay over real sockets: what each does in each state, and the books that clients then have."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import Flags, MboArray
from replay.feed.index import Index
from replay.feed.live_client import LiveClient
from replay.feed.live_messages import ALL_SYMBOLS, SubscriptionRequest
from replay.feed.sources import Recording
from replay.streamer import places
from replay.streamer.doorman import Keys
from replay.streamer.gateway import GatewayConfig
from replay.streamer.live_session import ANY_DATASET
from replay.streamer.messages import Pace, ReplayState, StreamerRefused, StreamerStatus
from replay.streamer.server import Streamer
from replay.tests.recordings import Reader, command, decode, recording
from replay.tests.serving import KEY
from replay.tests.streams import eventful, index_of

SLOW: Pace = {"records_per_s": 1}
RECORDS = eventful(3)
INDEX = index_of(RECORDS)
ENDS = (np.flatnonzero(RECORDS["flags"] & Flags.LAST) + 1).tolist()


@contextlib.asynccontextmanager
async def streaming(made: Recording | None = None, **more: Any) -> AsyncIterator[Streamer]:
    """Run a streamer of one recording, with its index unless ``open_index`` is given."""
    made = made or recording(RECORDS, dict.fromkeys(RECORDS["instrument_id"].tolist(), "X"))
    more = {"open_index": lambda _: INDEX if made.records is RECORDS else None} | more
    streamer = Streamer(lambda path: made, "dbn", "127.0.0.1", 0, **more)
    await streamer.listen()
    try:
        yield streamer
    finally:
        await streamer.close(grace_s=0)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def joined(streamer: Streamer, count: int = 1) -> list[Reader]:
    readers = [await Reader.connect(streamer.port) for _ in range(count)]
    await until(lambda: streamer.status()["clients"] == count)
    return readers


async def caught_up(streamer: Streamer) -> None:
    """Wait until every client has been sent what is released."""
    await until(lambda: streamer.status()["lag_records"] == 0)


def hash_of(records: MboArray) -> str:
    market = make_market("kernel")
    market.apply(records)
    return market_hash(market.books.items())


def plain(records: MboArray) -> MboArray:
    return records[records["flags"] & Flags.SNAPSHOT == 0]


async def books_at_the_end(reader: Reader) -> str:
    return hash_of(decode("dbn", await reader.to_end())[0])


async def live_books_at_the_end(port: int) -> str:
    """Follow one replay on the live port as the engine does, and return the hash of the books behind it."""
    market = make_market("kernel")
    request = SubscriptionRequest("mbo", (ALL_SYMBOLS,), snapshot=True)
    client = LiveClient(KEY, ANY_DATASET, [request], time.monotonic_ns())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while data := await reader.read(1 << 16):
        while data:
            space = client.space()
            n = min(len(space), len(data))
            space[:n], data = data[:n], data[n:]
            market.apply(client.received(n))
        writer.write(client.to_send())
    client.finish()
    writer.close()
    return market_hash(market.books.items())


async def begin(streamer: Streamer, state: str) -> None:
    """Bring a streamer to a state."""
    if state == "IDLE":
        return
    await streamer.handle("start", dict(command(SLOW, paused=state == "PAUSED", start_record=ENDS[500])))
    if state == "DONE":
        await streamer.handle("seek", {"to": {"fraction": 1}})
        await until(lambda: streamer.status()["state"] == "DONE")
    if state == "STOPPED":
        await streamer.handle("stop", {})


NONE_RUNS = "No replay is running."
OUTCOMES: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("pause", {}, {"REPLAYING": "PAUSED", "PAUSED": "PAUSED", "ended": NONE_RUNS}),
    ("resume", {}, {"REPLAYING": "REPLAYING", "PAUSED": "REPLAYING", "ended": NONE_RUNS}),
    ("pace", {"pace": {"records_per_s": 3}}, {"REPLAYING": "REPLAYING", "PAUSED": "PAUSED", "ended": NONE_RUNS}),
    ("seek", {"to": {"record": 9}}, {"REPLAYING": "REPLAYING", "PAUSED": "PAUSED", "ended": NONE_RUNS}),
    ("step", {"unit": "event", "by": 1}, {"REPLAYING": "PAUSED", "PAUSED": "PAUSED", "ended": NONE_RUNS}),
    ("step", {"unit": "event", "by": -1}, {"REPLAYING": "PAUSED", "PAUSED": "PAUSED", "ended": NONE_RUNS}),
    ("stop", {}, {"REPLAYING": "STOPPED", "PAUSED": "STOPPED", "ended": "as it was"}),
    ("status", {}, {"REPLAYING": "REPLAYING", "PAUSED": "PAUSED", "ended": "as it was"}),
    ("start", dict(command(SLOW)), {"REPLAYING": "REPLAYING", "PAUSED": "PAUSED", "ended": "REPLAYING"}),
]


@pytest.mark.parametrize("state", ["IDLE", "REPLAYING", "PAUSED", "DONE", "STOPPED"])
async def test_each_verb_does_what_it_says_in_each_state_or_is_refused_with_the_reason(state: str) -> None:
    for verb, args, outcomes in OUTCOMES:
        async with streaming() as streamer:
            await begin(streamer, state)
            expected = outcomes.get(state, outcomes["ended"])
            if expected == NONE_RUNS:
                with pytest.raises(StreamerRefused, match=f"^{NONE_RUNS}$"):
                    await streamer.handle(verb, args)
                assert streamer.status()["state"] == state
                continue
            status = await streamer.handle(verb, args)
            assert status["state"] == (state if expected == "as it was" else expected), verb
            assert streamer.status()["state"] == status["state"], "the effect is in place when it is answered"
            assert ("note" in status) == (verb == "start" and state in ("REPLAYING", "PAUSED"))


async def test_an_unknown_verb_is_refused_with_those_there_are() -> None:
    async with streaming() as streamer:
        with pytest.raises(StreamerRefused, match="Unknown command 'dance': expected start, pause, resume, stop, pace"):
            await streamer.handle("dance", {})


async def test_a_paused_replay_stands_and_a_resumed_one_sends_every_record_once() -> None:
    async with streaming() as streamer:
        (reader,) = await joined(streamer)
        await streamer.start(command({"records_per_s": 5000}))
        for at in (50, 400, 1000):
            await until(lambda at=at: streamer.status()["position"] > at)
            paused = streamer.pause()
            await caught_up(streamer)
            assert paused["achieved_records_per_s"] == 0
            assert streamer.status()["position"] == paused["position"]
            streamer.resume()
        streamer.change_pace("max")
        records, _ = decode("dbn", await reader.to_end())
        assert records.tobytes() == RECORDS.tobytes()


@pytest.mark.parametrize("paused", [False, True])
async def test_clients_have_the_books_of_wherever_the_replay_is_sent_to(paused: bool) -> None:
    inside = next(n for n in range(3000, 4000) if not RECORDS["flags"][n - 1] & Flags.LAST)
    async with streaming() as streamer:
        readers = await joined(streamer, 2)
        await streamer.start(command({"records_per_s": 20_000}, paused=paused))
        for record in (5000, 10, inside, 0, 2222):
            status = await streamer.seek({"record": record})
            assert status["state"] == ("PAUSED" if paused else "REPLAYING")
            if paused:
                assert status["position"] == record
                await caught_up(streamer)
            else:
                await until(lambda record=record: streamer.status()["position"] >= record + 20)
        stopped = streamer.stop()
        if not paused:
            assert 2222 <= stopped["position"] < len(RECORDS)
        for reader in readers:
            assert await books_at_the_end(reader) == hash_of(RECORDS[: stopped["position"]])


async def test_a_seek_sends_what_brings_the_books_there_and_then_the_stream() -> None:
    async with streaming() as streamer:
        (reader,) = await joined(streamer)
        await streamer.start(command("max", paused=True))
        await streamer.seek({"record": 4000})
        streamer.resume()
        records, _ = decode("dbn", await reader.to_end())
        arrival = records[: len(records) - (len(RECORDS) - 4000)]
        assert records[len(arrival) :].tobytes() == RECORDS[4000:].tobytes()
        assert all(arrival["flags"] & Flags.SNAPSHOT)
        assert hash_of(arrival) == hash_of(RECORDS[:4000])


async def test_steps_go_both_ways_by_each_unit_and_pause_a_replay_that_runs() -> None:
    async with streaming() as streamer:
        (reader,) = await joined(streamer)
        await streamer.start(command(SLOW, start_record=ENDS[700]))
        status = await streamer.step("event", 1)
        assert (status["state"], status["position"], status["event"]) == ("PAUSED", ENDS[701], 702)
        assert (await streamer.step("event", -2))["position"] == ENDS[699]
        assert (await streamer.step("record", 7))["position"] == ENDS[699] + 7
        assert (await streamer.step("record", -8))["position"] == ENDS[699] - 1
        for unit in ("trade", "bbo"):
            there = await streamer.step(unit, 2)  # type: ignore[arg-type]
            back = await streamer.step(unit, -1)  # type: ignore[arg-type]
            assert ENDS[699] < back["position"] < there["position"]
            assert (await streamer.step(unit, 1))["position"] == there["position"]  # type: ignore[arg-type]
        position = streamer.stop()["position"]
        assert await books_at_the_end(reader) == hash_of(RECORDS[:position])


async def test_a_step_that_is_none_does_not_even_pause() -> None:
    async with streaming() as streamer:
        await streamer.start(command(SLOW))
        with pytest.raises(StreamerRefused, match="Expected a unit"):
            await streamer.handle("step", {"unit": "year", "by": 1})
        assert streamer.status()["state"] == "REPLAYING"


@pytest.mark.parametrize("ran", [True, False])
async def test_a_step_that_cannot_be_made_leaves_a_replay_as_it_was(ran: bool) -> None:
    async with streaming(open_index=lambda _: None) as streamer:
        await streamer.start(command(SLOW, paused=not ran))
        with pytest.raises(StreamerRefused, match="index"):
            await streamer.step("event", 1)
        assert streamer.status()["state"] == ("REPLAYING" if ran else "PAUSED")


async def test_a_step_that_is_given_up_lets_the_replay_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on = threading.Event()
    monkeypatch.setattr(places, "stepped", lambda *args: may_go_on.wait(10) and 1)
    async with streaming() as streamer:
        await streamer.start(command(SLOW))
        stepping = asyncio.create_task(streamer.step("event", 1))
        await until(lambda: streamer.status()["state"] == "PAUSED")
        stepping.cancel()
        await asyncio.gather(stepping, return_exceptions=True)
        may_go_on.set()
        assert streamer.status()["state"] == "REPLAYING"


async def test_jumps_go_to_the_next_trade_crossing_and_anomaly_until_there_is_none() -> None:
    async with streaming() as streamer:
        await streamer.start(command(SLOW, paused=True))
        for name in ("trade", "crossing", "anomaly", "event", "bbo"):
            await streamer.seek({"record": 0})
            first = await streamer.seek({"next": name})
            assert first["position"] > 0
        await streamer.seek({"fraction": 1})
        for name in ("trade", "crossing", "anomaly", "event", "bbo"):
            with pytest.raises(StreamerRefused, match=rf"no further {name} behind record {len(RECORDS)}"):
                await streamer.seek({"next": name})
        assert streamer.status()["position"] == len(RECORDS)


async def test_a_window_loops_and_is_told_and_nothing_outside_of_it_is_reached() -> None:
    async with streaming() as streamer:
        (reader,) = await joined(streamer)
        window = ({"record": 1000}, {"fraction": 0.25})
        order = command("max", loop=True, max_msgs=1200, window=window)  # type: ignore[arg-type]
        await streamer.start({**order, "paused": True})
        status = streamer.status()
        assert (status["window_from"], status["window_to"], status["position"]) == (1000, 1500, 1000)
        with pytest.raises(StreamerRefused, match="outside of the window"):
            await streamer.seek({"record": 999})
        streamer.resume()
        records, _ = decode("dbn", await reader.to_end())
        parts = [RECORDS[1000:1500], RECORDS[1000:1500], RECORDS[1000:1200]]
        assert plain(records).tobytes() == b"".join(plain(part).tobytes() for part in parts)
        assert hash_of(records) == hash_of(RECORDS[:1200])
        assert streamer.status()["loops"] == 2


async def test_a_window_that_is_empty_or_cannot_be_found_is_refused() -> None:
    async with streaming(open_index=lambda _: None) as streamer:
        with pytest.raises(StreamerRefused, match="The window is empty: from record 9 to record 9"):
            await streamer.start(command(window=({"record": 9}, {"record": 9})))
        with pytest.raises(StreamerRefused, match="The index of made is not made yet"):
            await streamer.start(command(window=({"ts_ns": "5"}, None)))
        assert streamer.status()["state"] == "IDLE"


async def test_the_status_tells_where_the_replay_is() -> None:
    async with streaming() as streamer:
        idle = streamer.status()
        assert (idle["state"], idle["event"], idle["ts_recv"]) == ("IDLE", None, "0")
        assert set(idle) == StreamerStatus.__required_keys__
        await streamer.start(command({"market_time": 1}, paused=True, skip_idle_s=60))
        await streamer.seek({"record": ENDS[41]})
        status = await streamer.step("record", 3)
        last = RECORDS[ENDS[41] + 2]
        assert set(status) == StreamerStatus.__required_keys__
        assert (status["position"], status["published"], status["records"]) == (ENDS[41] + 3, 3, len(RECORDS))
        assert (status["ts_event"], status["ts_recv"]) == (str(last["ts_event"]), str(last["ts_recv"]))
        assert status["event"] == int(np.count_nonzero(RECORDS["flags"][: ENDS[41] + 3] & Flags.LAST))
        assert (status["pace"], status["skip_idle_s"]) == ({"market_time": 1}, 60)
        assert (status["window_from"], status["window_to"]) == (0, len(RECORDS))


async def test_skip_idle_is_left_as_it_is_changed_or_switched_off_with_the_pace() -> None:
    async with streaming() as streamer:
        await streamer.start(command({"market_time": 2}, paused=True, skip_idle_s=5))
        assert (await streamer.handle("pace", {"pace": {"market_time": 3}}))["skip_idle_s"] == 5
        assert (await streamer.handle("pace", {"pace": "max", "skip_idle_s": 7}))["skip_idle_s"] == 7
        assert (await streamer.handle("pace", {"pace": "max", "skip_idle_s": None}))["skip_idle_s"] is None
        for wrong in (-1, True, "5", float("nan"), 86_401):
            with pytest.raises(StreamerRefused, match="Expected skip_idle_s from 0 to 86400 seconds or null"):
                await streamer.handle("pace", {"pace": "max", "skip_idle_s": wrong})


@pytest.mark.parametrize(
    "pace",
    [{"market_time": 0.09}, {"market_time": 10_001}, {"market_time": True}, {"market_time": float("nan")}, {}]
    + [{"market_time": 1, "records_per_s": 1}, {"records_per_s": 1.0}, {"records_per_s": 10**9 + 1}, "MAX"],
)
async def test_a_pace_that_is_none_is_refused_and_the_one_before_stays(pace: Any) -> None:
    async with streaming() as streamer:
        await streamer.start(command(SLOW))
        with pytest.raises(StreamerRefused, match='^Expected a pace "max"'):
            await streamer.handle("pace", {"pace": pace})
        assert streamer.status()["pace"] == SLOW


async def test_an_index_that_is_made_while_the_replay_runs_is_used_from_then_on() -> None:
    made: list[Index] = []
    async with streaming(open_index=lambda _: made[0] if made else None) as streamer:
        await streamer.start(command(SLOW, paused=True))
        with pytest.raises(StreamerRefused, match="The index of made is not made yet"):
            await streamer.seek({"next": "trade"})
        assert streamer.status()["event"] is None
        made.append(INDEX)
        assert (await streamer.seek({"next": "trade"}))["event"] is not None


async def test_while_a_place_is_sought_other_commands_are_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, find = threading.Event(), places.find

    def find_slowly(*args: Any) -> int:
        assert may_go_on.wait(10), "the event loop waits for the search"
        return find(*args)

    monkeypatch.setattr(places, "find", find_slowly)
    async with streaming() as streamer:
        await streamer.start(command({"records_per_s": 1000}))
        seeking = asyncio.create_task(streamer.handle("seek", {"to": {"record": 5000}}))
        await asyncio.sleep(0)
        assert (await streamer.handle("pause", {}))["state"] == "PAUSED"
        assert (await streamer.handle("pace", {"pace": SLOW}))["pace"] == SLOW
        assert not seeking.done()
        may_go_on.set()
        sought = await seeking
        assert (sought["state"], sought["position"]) == ("PAUSED", 5000)
        may_go_on.clear()
        seeking = asyncio.create_task(streamer.handle("seek", {"to": {"record": 7}}))
        await asyncio.sleep(0)
        await streamer.handle("stop", {})
        may_go_on.set()
        with pytest.raises(StreamerRefused, match="The replay ended while the place was sought"):
            await seeking
        assert streamer.status()["position"] == 5000


async def test_the_clock_stands_while_a_place_is_sought_so_that_what_is_next_stays_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_go_on, sought_from, find = threading.Event(), [], places.find

    def find_slowly(*args: Any) -> int:
        sought_from.append(args[3])
        assert may_go_on.wait(10)
        return find(*args)

    monkeypatch.setattr(places, "find", find_slowly)
    async with streaming() as streamer:
        await streamer.start(command({"records_per_s": 5000}))
        await until(lambda: streamer.status()["position"] > 10)
        seeking = asyncio.create_task(streamer.handle("seek", {"to": {"next": "event"}}))
        await until(lambda: bool(sought_from))
        await asyncio.sleep(0.1)  # 500 records, were it not for the seek
        assert streamer.status()["position"] == sought_from[0]
        streamer.change_pace(SLOW)
        may_go_on.set()
        assert (await seeking)["position"] == min(end for end in ENDS if end > sought_from[0])
        streamer.change_pace({"records_per_s": 5000})
        with pytest.raises(StreamerRefused):
            await streamer.handle("seek", {"to": {"next": "year"}})
        await until(lambda: streamer.status()["position"] > sought_from[1] + 10)


async def test_a_step_that_was_overtaken_by_a_resume_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, stepped = threading.Event(), places.stepped

    def step_slowly(*args: Any) -> int:
        assert may_go_on.wait(10)
        return stepped(*args)

    monkeypatch.setattr(places, "stepped", step_slowly)
    async with streaming() as streamer:
        await streamer.start(command({"records_per_s": 5000}))
        stepping = asyncio.create_task(streamer.handle("step", {"unit": "event", "by": 1}))
        await until(lambda: streamer.status()["state"] == "PAUSED")
        position = (await streamer.handle("resume", {}))["position"]
        await until(lambda: streamer.status()["position"] > position)
        may_go_on.set()
        with pytest.raises(StreamerRefused, match="The replay was resumed while the step was sought"):
            await stepping
        assert streamer.status()["state"] == "REPLAYING"


async def test_who_speaks_of_a_replay_while_it_is_opened_means_that_one() -> None:
    may_open = threading.Event()
    made = recording(RECORDS)

    def open_slowly(path: Any) -> Recording:
        assert may_open.wait(10)
        return made

    streamer = Streamer(open_slowly, "dbn", "127.0.0.1", 0)
    await streamer.listen()
    try:
        starting = asyncio.create_task(streamer.handle("start", dict(command(SLOW))))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(streamer.handle("stop", {}))
        assert (await streamer.handle("status", {}))["state"] == "IDLE"
        may_open.set()
        assert (await starting)["state"] == "REPLAYING"
        assert (await stopping)["state"] == "STOPPED"
    finally:
        await streamer.close(grace_s=0)


async def test_a_sleeping_clock_is_woken_by_a_command() -> None:
    records = RECORDS[:10].copy()
    records["ts_recv"] = 10**18 + np.arange(10, dtype=np.uint64) * np.uint64(3600 * 10**9)
    async with streaming(recording(records)) as streamer:
        await streamer.start(command({"market_time": 1}))
        await until(lambda: streamer.status()["position"] == 1)
        streamer.change_pace({"market_time": 1}, skip_idle_s=60)
        await until(lambda: streamer.status()["state"] == ReplayState.DONE)


async def test_two_hundred_commands_by_chance_leave_every_client_with_the_right_books() -> None:
    rng, told = random.Random(4), []
    units, paces = ("record", "event", "trade", "bbo"), ["max", {"records_per_s": 50_000}, {"market_time": 100}]

    def one() -> tuple[str, dict[str, Any]]:
        match rng.randrange(8):
            case 0 | 1:
                place = rng.choice([{"record": rng.randrange(5000)}, {"fraction": rng.random() * 0.8}])
                return "seek", {"to": rng.choice([place, {"next": rng.choice(["trade", "event", "crossing"])}])}
            case 2 | 3:
                return "step", {"unit": rng.choice(units), "by": rng.randrange(-9, 9) or 1}
            case 4:
                return "pause", {}
            case 5:
                return "pace", {"pace": rng.choice(paces), "skip_idle_s": rng.choice([None, 1])}
        return "resume", {}

    async with streaming(gateway=GatewayConfig(port=0, keys=Keys(own=KEY))) as streamer:
        readers = await joined(streamer, 2)
        live = [asyncio.create_task(live_books_at_the_end(streamer.gateway_port)) for _ in range(2)]
        await until(lambda: streamer.status()["clients"] == 4)
        await streamer.start(command("max", loop=True))
        for _ in range(200):
            verb, args = one()
            try:
                status: StreamerStatus = await streamer.handle(verb, args)
                told.append(status["state"])
            except StreamerRefused as refusal:
                assert "There is no" in str(refusal)
            await asyncio.sleep(rng.random() * 0.004)
        late = await Reader.connect(streamer.port)
        await until(lambda: streamer.status()["clients"] == 5)
        position = streamer.stop()["position"]
        hashes = [await books_at_the_end(reader) for reader in (*readers, late)] + await asyncio.gather(*live)
    assert hashes == [hash_of(RECORDS[:position])] * 5
    assert {"PAUSED", "REPLAYING"} == set(told)
