"""Commands over a real Redis: acknowledged, refused, given up, and with Redis away."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from django.conf import settings

from replay.streamer import commands
from replay.streamer import remote as remote_side
from replay.streamer.messages import ANSWER_KEY, COMMAND_KEY, COMMANDS_KEY, STATUS_KEY, StreamerRefused
from replay.streamer.remote import StreamerRemote, StreamerUnreachable
from replay.tests.daemon import Daemon
from replay.tests.recordings import command

FEED = "test"


@pytest.fixture
def remote(redis_client: redis.Redis) -> Iterator[StreamerRemote]:
    caller = StreamerRemote(settings.REDIS_URL, FEED)
    yield caller
    caller.close()


def test_a_command_is_answered_with_the_true_status(remote: StreamerRemote) -> None:
    with Daemon(settings.REDIS_URL, FEED):
        assert remote.call("status")["state"] == "IDLE"
        started = remote.call("start", command({"records_per_s": 100}))
        assert (started["state"], started["replay_id"], started["pace"]) == ("REPLAYING", 1, {"records_per_s": 100})
        assert remote.call("pace", {"pace": {"records_per_s": 7}})["pace"] == {"records_per_s": 7}
        assert remote.call("stop")["state"] == "STOPPED"


def test_time_is_controlled_through_commands(remote: StreamerRemote) -> None:
    with Daemon(settings.REDIS_URL, FEED):
        remote.call("start", command({"records_per_s": 1}))
        assert remote.call("pause")["state"] == "PAUSED"
        assert remote.call("seek", {"to": {"fraction": 0.5}})["position"] == 1500
        assert remote.call("step", {"unit": "record", "by": -7})["position"] == 1493
        status = remote.call("pace", {"pace": {"market_time": 0.5}, "skip_idle_s": 2.5})
        assert (status["pace"], status["skip_idle_s"]) == ({"market_time": 0.5}, 2.5)
        with pytest.raises(StreamerRefused, match="Expected a record from 0 to 3000, the end of the file, found 3001"):
            remote.call("seek", {"to": {"record": 3001}})
        assert remote.call("resume")["state"] == "REPLAYING"  # for some ms only, that is what is left


class Held:
    """A command server whose commands wait until they are let go; all but ``status``."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.begun: list[str] = []
        self.done: list[str] = []
        self._server = commands.CommandServer(settings.REDIS_URL, self._handle, dict, FEED)  # type: ignore[arg-type]

    async def __aenter__(self) -> "Held":
        self._serving = asyncio.create_task(self._server.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def _handle(self, verb: str, args: dict[str, Any]) -> Any:
        self.begun.append(verb)
        if verb != "status":
            await self.let_go.wait()
            self.done.append(verb)
        return {"nth": len(self.begun)}

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:
                await asyncio.sleep(0.005)


def ask(remote: StreamerRemote, verb: str, once: str | None = None) -> "asyncio.Task[Any]":
    return asyncio.create_task(asyncio.to_thread(remote.call, verb, {}, 10, once))


async def test_a_long_command_holds_no_other_up(remote: StreamerRemote) -> None:
    async with Held() as held:
        slow = ask(remote, "seek")
        await held.until_begun(1)
        assert await ask(remote, "status")
        assert not slow.done()
        held.let_go.set()
        await slow


async def test_no_more_commands_than_a_bound_are_at_work_and_the_others_wait(
    remote: StreamerRemote, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_AT_ONCE", 2)
    async with Held() as held:
        asked = [ask(remote, "seek") for _ in range(3)]
        await held.until_begun(2)
        async with asyncio.timeout(10):
            while redis_client.llen(COMMANDS_KEY.format(feed=FEED)) != 1:
                await asyncio.sleep(0.005)
        assert held.begun == ["seek"] * 2
        held.let_go.set()
        await asyncio.gather(*asked)
        assert held.begun == ["seek"] * 3


async def test_what_is_to_be_done_once_is_done_once_also_for_two_who_ask_together(remote: StreamerRemote) -> None:
    async with Held() as held:
        asked = [ask(remote, "step", "this one") for _ in range(2)]
        await held.until_begun(1)
        assert await ask(remote, "status")  # behind both of them
        held.let_go.set()
        answers = await asyncio.gather(*asked, ask(remote, "step", "this one"))
        assert answers == [answers[0]] * 3
        assert held.begun == ["step", "status"]


def test_a_refused_command_says_why(remote: StreamerRemote) -> None:
    with Daemon(settings.REDIS_URL, FEED):
        with pytest.raises(StreamerRefused, match="No replay is running"):
            remote.call("pace", {"pace": "max"})
        with pytest.raises(StreamerRefused, match="Unknown command 'dance'"):
            remote.call("dance")


def test_a_command_that_crashes_is_answered_and_the_daemon_goes_on(remote: StreamerRemote) -> None:
    with Daemon(settings.REDIS_URL, FEED):
        with pytest.raises(StreamerRefused, match="RuntimeError: a fault"):
            remote.call("crash")
        assert remote.call("status")["state"] == "IDLE"


@pytest.mark.parametrize("body", ["[]", "null", "{", "[" * 5000, '"stop"', "{}", '{"verb":"pace","args":[]}'])
def test_a_body_that_is_no_command_is_answered_and_the_daemon_goes_on(
    remote: StreamerRemote, redis_client: redis.Redis, body: str
) -> None:
    with Daemon(settings.REDIS_URL, FEED):
        redis_client.set(COMMAND_KEY.format(feed=FEED, id="odd"), body)
        redis_client.rpush(COMMANDS_KEY.format(feed=FEED), "odd")
        answered = redis_client.blpop([ANSWER_KEY.format(feed=FEED, id="odd")], timeout=5)
        assert answered is not None and json.loads(answered[1])["refused"]
        assert remote.call("status")["state"] == "IDLE"


def test_a_command_whose_caller_gave_up_is_never_carried_out(remote: StreamerRemote, redis_client: redis.Redis) -> None:
    with pytest.raises(StreamerUnreachable, match="did not take the command stop within 0.2 s"):
        remote.call("stop", timeout_s=0.2)
    assert redis_client.keys("batonic:*") == []
    with Daemon(settings.REDIS_URL, FEED) as daemon:
        remote.call("status")
        assert daemon.handled == ["status"]


def test_a_command_whose_caller_died_while_it_waited_is_skipped(
    remote: StreamerRemote, redis_client: redis.Redis
) -> None:
    redis_client.rpush(COMMANDS_KEY.format(feed=FEED), "an-id-without-a-body")
    with Daemon(settings.REDIS_URL, FEED) as daemon:
        remote.call("status")
        assert daemon.handled == ["status"]


def test_a_command_taken_at_the_last_moment_is_still_answered(remote: StreamerRemote) -> None:
    with Daemon(settings.REDIS_URL, FEED) as daemon:
        daemon.hold_s = 0.5
        assert remote.call("status", timeout_s=0.2)["state"] == "IDLE"


def test_an_answer_that_never_comes_is_told_apart(
    remote: StreamerRemote, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_side, "_GRACE_S", 0.1)

    def take_and_die() -> None:
        taken = redis_client.blpop([COMMANDS_KEY.format(feed=FEED)], timeout=5)
        assert redis_client.delete(COMMAND_KEY.format(feed=FEED, id=taken[1].decode()))

    with ThreadPoolExecutor(1) as streamer:
        taking = streamer.submit(take_and_die)
        with pytest.raises(StreamerUnreachable, match="took the command status and did not answer"):
            remote.call("status", timeout_s=1)
        taking.result()


async def test_what_is_not_done_when_its_caller_gives_up_is_left_undone_and_done_when_it_is_asked_for_again(
    remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_side, "_GRACE_S", 0.2)
    async with Held() as held:
        with pytest.raises(StreamerUnreachable, match="could not carry out the command start in time"):
            await asyncio.to_thread(remote.call, "start", {}, 0.2, "this one")
        held.let_go.set()
        assert held.done == []
        await ask(remote, "start", "this one")
        assert held.done == ["start"]


def test_beside_a_newer_lease_an_older_one_takes_no_command_and_writes_no_status(
    remote: StreamerRemote, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    def told() -> object:
        status = remote.status()
        return status and status["lease"]

    with Daemon(settings.REDIS_URL, FEED, lease=1) as older:
        assert remote.call("status")["lease"] == 1
        with Daemon(settings.REDIS_URL, FEED, lease=2) as newer:
            wait_for(lambda: told() == 2)
            older.handled.clear()
            answers = [remote.call("status")["lease"] for _ in range(20)]
            assert (answers, older.handled, len(newer.handled)) == ([2] * 20, [], 20)
            assert told() == 2
        wait_for(lambda: told() == 1)
        assert remote.call("status")["lease"] == 1, "alone it goes on: whoever asks knows what its answer is worth"


def test_the_status_is_written_and_goes_away_with_the_streamer(
    remote: StreamerRemote, redis_client: redis.Redis, wait_for: Callable[..., Any]
) -> None:
    assert remote.status() is None
    with Daemon(settings.REDIS_URL, FEED) as daemon:
        status = wait_for(remote.status)
        assert status == {**daemon.status(), "lease": 0}
        assert 0 < redis_client.pttl(STATUS_KEY.format(feed=FEED)) <= commands.STATUS_TTL_S * 1000
    assert remote.status() is None


def test_without_redis_callers_hear_it_at_once(free_port: Callable[[], int]) -> None:
    lonely = StreamerRemote(f"redis://127.0.0.1:{free_port()}/0", FEED)
    with pytest.raises(StreamerUnreachable, match="Redis does not answer"):
        lonely.call("status")
    with pytest.raises(StreamerUnreachable, match="Redis does not answer"):
        lonely.status()
    lonely.close()


def test_the_daemon_survives_redis_and_takes_commands_again_when_it_is_back(
    own_redis: Any, wait_for: Callable[..., Any]
) -> None:
    with Daemon(own_redis.url, FEED) as daemon:
        caller = StreamerRemote(own_redis.url, FEED)
        caller.call("start", command({"records_per_s": 20}))  # for 150 s: however long the restart takes
        own_redis.stop()
        before = daemon.status()["position"]
        wait_for(lambda: daemon.status()["position"] > before + 5)  # the market clock goes on
        with pytest.raises(StreamerUnreachable):
            caller.call("stop", timeout_s=0.2)
        own_redis.start()
        assert wait_for(caller.status)["state"] == "REPLAYING"
        assert caller.call("stop", timeout_s=5)["state"] == "STOPPED"
        caller.close()


def test_the_status_is_plain_json(remote: StreamerRemote) -> None:
    with Daemon(settings.REDIS_URL, FEED) as daemon:
        remote.call("start", command({"records_per_s": 1}, start_record=2500))
        status = daemon.status()
        assert json.loads(json.dumps(status)) == status
        assert int(status["ts_event"]) > 2**53
