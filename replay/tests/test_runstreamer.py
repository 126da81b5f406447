"""The daemon as a process: signals, resumption after SIGKILL, and the row it leaves behind."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.db.models import F

from replay import driving, lease, runs
from replay.feed.index import index_path
from replay.models import Dataset, FeedLease, Replay
from replay.reporter import WRITE_EVERY_S, RowReporter, Run
from replay.runs import FEED
from replay.streamer.messages import StartCommand, StreamerRefused, StreamerStatus
from replay.streamer.remote import StreamerRemote
from replay.tests.daemon import Daemon
from replay.tests.recordings import Reader, books, decode, session, write_dbn
from replay.tests.requests import run_request

Wait = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def remote(redis_client: redis.Redis) -> Iterator[StreamerRemote]:
    caller = StreamerRemote(django_settings.REDIS_URL)
    yield caller
    caller.close()


@pytest.fixture
def dataset(transactional_db: None, data_folder: Path) -> Dataset:
    path = write_dbn(data_folder / "data" / "made.dbn", session(60_000))
    return Dataset.objects.create(name="made.dbn", path=str(path), state="ready", records=60_000)


@pytest.fixture
def port(process_env: dict[str, str]) -> int:
    return int(process_env["STREAMER_TCP_PORT"])


def start(dataset: Dataset, remote: StreamerRemote, records_per_s: int) -> None:
    driving.start(run_request(dataset, {"records_per_s": records_per_s}), remote)


def listens(port: int) -> Callable[[], bool]:
    def connects() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return connects


def test_sigterm_ends_the_daemon_at_once_and_leaves_the_row_stopped(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait
) -> None:
    process = spawn("runstreamer", until=listens(port))
    start(dataset, remote, 1000)
    wait_for(lambda: Replay.objects.get().position > 300)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert time.monotonic() - asked < 5
    run = Replay.objects.get()
    assert run.state == "STOPPED"
    assert run.position > 300
    assert run.position_ts_event
    assert run.ended_at is not None
    assert remote.status() is None
    assert lease.take(FEED, "next") is not None, "the feed is free at once"


def test_after_sigkill_the_next_daemon_resumes_the_same_replay_and_its_clients_are_right(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait
) -> None:
    first = spawn("runstreamer", "--framing", "dbn", until=listens(port))
    start(dataset, remote, 2000)
    wait_for(lambda: Replay.objects.get().position > 1000)
    first.kill()
    first.wait()
    run = Replay.objects.get()
    assert (run.state, run.generation) == ("REPLAYING", 1)
    spawn("runstreamer", "--framing", "dbn", until=listens(port))
    status = wait_for(lambda: (found := remote.status()) and found["generation"] == 2 and found)
    assert (status["replay_id"], status["state"]) == (run.pk, "REPLAYING")
    assert status["position"] >= run.position
    remote.call("pace", {"pace": {"records_per_s": 1}})  # crawls until the client is there

    async def capture() -> bytes:
        reader = await Reader.connect(port)
        await reader.until(1000)
        await asyncio.to_thread(remote.call, "pace", {"pace": "max"})
        return await reader.to_end()

    records, _ = decode("dbn", asyncio.run(capture()))
    made = session(60_000)
    assert books(records) == books(made)
    wait_for(lambda: Replay.objects.get().state == "DONE")
    assert Replay.objects.get().position == 60_000


def test_an_index_that_cannot_be_used_is_told_and_the_replay_starts_all_the_same(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait, tmp_path: Path
) -> None:
    place = index_path(Path(dataset.path), django_settings.RECORDINGS_FOLDER)
    place.parent.mkdir()
    place.write_bytes(b"no index" * 100)
    spawn("runstreamer", until=listens(port))
    start(dataset, remote, 1000)
    wait_for(lambda: Replay.objects.get().position > 300)
    log = (tmp_path / "log" / "spawned-runstreamer.log").read_text()
    assert "the index of made.dbn is not used: expected" in log


def test_each_report_carries_a_later_position_and_none_comes_before_its_time(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait
) -> None:
    spawn("runstreamer", until=listens(port))
    start(dataset, remote, 1000)
    assert WRITE_EVERY_S <= 0.5
    before = wait_for(lambda: (run := Replay.objects.get()).position and run)
    for _ in range(3):
        after = wait_for(lambda before=before: (run := Replay.objects.get()).heartbeat_at > before.heartbeat_at and run)
        assert after.position > before.position
        apart_s = (after.heartbeat_at - before.heartbeat_at).total_seconds()
        assert apart_s > WRITE_EVERY_S * 0.9, "on a busy machine they are further apart, and never closer"
        before = after


WARM = """
import django; django.setup()
import numpy as np
from django.core.management import CommandError, call_command
from orderbook.book import kernel
from replay.feed import csv_kernel
from replay.streamer.server import Streamer, StreamerError
from replay.streamer.shadow import Shadow
from replay.tests.recordings import SYMBOLS, session

def compiled():
    kernels = (kernel.apply, kernel.copy_levels, kernel.copy_orders, csv_kernel.encode, csv_kernel.decode)
    return [len(k.signatures) for k in kernels]

async def listen(self):
    before = compiled()
    from replay.feed.csv_codec import encode_csv
    records = session()
    encode_csv(records[5:], SYMBOLS), Shadow(records).picture(len(records))
    raise StreamerError(f"{before} became {compiled()}")

Streamer.listen = listen
try:
    call_command("runstreamer")
except CommandError as error:
    print(error)
"""


def test_everything_is_compiled_before_the_port_is_open(process_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARM], env=process_env, capture_output=True, text=True, cwd=django_settings.BASE_DIR
    )
    assert "[1, 1, 1, 1, 1] became [1, 1, 1, 1, 1]" in done.stdout, done.stderr


def run_streamer(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a streamer that is expected to end by itself."""
    manage = Path(django_settings.BASE_DIR) / "manage.py"
    return subprocess.run(
        [sys.executable, str(manage), "runstreamer"], env=environment, capture_output=True, text=True, timeout=30
    )


def test_a_second_streamer_is_refused_and_told_who_publishes_the_feed(
    spawn: Spawn, port: int, process_env: dict[str, str], wait_for: Wait
) -> None:
    first = spawn("runstreamer", until=listens(port))
    second = run_streamer(process_env)
    assert second.returncode == 1
    assert re.search(
        rf"CommandError: Another streamer publishes the feed main: process {first.pid} on \S+, since ", second.stderr
    )
    assert "Traceback" not in second.stderr
    assert first.poll() is None


def test_a_port_that_another_program_has_is_told_and_the_feed_is_free_again(
    port: int, process_env: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        refused = run_streamer(process_env)
    assert refused.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert lease.take(FEED, "next") is not None


def test_a_streamer_that_lost_the_feed_ends_and_changes_nothing_any_more(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait, tmp_path: Path
) -> None:
    zombie = spawn("runstreamer", until=listens(port))
    start(dataset, remote, 1000)
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        assert client.recv(1 << 16)
        FeedLease.objects.update(owner="other:1:x", generation=F("generation") + 1)
        with pytest.raises(ConnectionResetError):  # not the end of the stream, which would be that of the replay
            while client.recv(1 << 16):
                pass
    assert zombie.wait(5) == 1
    log = (tmp_path / "log" / "spawned-runstreamer.log").read_text()
    assert "Another streamer has taken the feed over" in log
    assert Replay.objects.get().state == "REPLAYING", "whoever has the feed now says what becomes of it"
    assert FeedLease.objects.get().owner == "other:1:x"


def test_a_paused_replay_is_paused_where_it_was_after_sigkill(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait
) -> None:
    first = spawn("runstreamer", until=listens(port))
    start(dataset, remote, 1000)
    driving.seek({"record": 30_000}, remote)
    paused = driving.pause(remote)
    first.kill()
    first.wait()
    run = Replay.objects.get()
    assert (run.state, run.desired_state, run.position) == ("PAUSED", "PAUSED", paused["position"])
    spawn("runstreamer", until=listens(port))
    status = wait_for(lambda: (found := remote.status()) and found["generation"] == 2 and found)
    assert (status["state"], status["position"]) == ("PAUSED", paused["position"])
    assert driving.resume(remote)["state"] == "REPLAYING"
    wait_for(lambda: Replay.objects.get().position > paused["position"])


def test_what_a_killed_worker_wanted_and_could_not_say_happens_all_the_same(
    spawn: Spawn, port: int, dataset: Dataset, remote: StreamerRemote, wait_for: Wait
) -> None:
    spawn("runstreamer", until=listens(port))
    start(dataset, remote, 100)
    for wanted in (Replay.Desired.PAUSED, Replay.Desired.REPLAYING, Replay.Desired.STOPPED):
        runs.desire(wanted)  # as a worker does, and dies
        wait_for(lambda wanted=wanted: Replay.objects.get().state == wanted)


class Owner:
    """Somebody who runs replays and remembers what he was told."""

    def __init__(self, refusal: str = "") -> None:
        self.resumed: list[StartCommand] = []
        self.brought: list[tuple[Run, str]] = []
        self.given_up: list[Run] = []
        self.lost = False
        self._refusal = refusal

    def resume(self, command: StartCommand) -> "Future[StreamerStatus]":
        self.resumed.append(command)
        resumption: Future[StreamerStatus] = Future()
        if self._refusal:
            resumption.set_exception(StreamerRefused(self._refusal))
        return resumption

    def bring(self, run: Run, state: str) -> None:
        self.brought.append((run, state))

    def give_up(self, run: Run) -> None:
        self.given_up.append(run)

    def lose(self) -> None:
        self.lost = True


def make_reporter() -> RowReporter:
    """Return a reporter that holds the feed."""
    held = lease.take(FEED, "tests")
    assert held is not None
    return RowReporter(held)


@pytest.fixture
def daemon(redis_client: redis.Redis) -> Iterator[Daemon]:
    with Daemon(django_settings.REDIS_URL) as running:
        yield running


def test_a_reporter_step_writes_the_newest_status_and_then_has_nothing_to_do(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    start(dataset, remote, 10)
    status, reporter, owner = daemon.status(), make_reporter(), Owner()
    reporter.offer({**status, "position": 5})
    reporter.offer({**status, "position": 9})
    assert reporter.step(owner)
    assert Replay.objects.get().position == 9
    assert not reporter.step(owner)
    assert owner.resumed == []  # it runs already: nothing was left behind


def test_the_end_of_a_replay_is_written_though_the_next_one_runs_already(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    start(dataset, remote, 10)
    status, reporter = daemon.status(), make_reporter()
    reporter.offer({**status, "state": "DONE"})
    reporter.offer({**status, "replay_id": status["replay_id"] + 1})
    reporter.step(Owner())
    assert Replay.objects.get().state == "DONE"


def test_a_run_whose_row_belongs_to_somebody_else_is_given_up(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    start(dataset, remote, 10)
    Replay.objects.update(generation=7)
    reporter, owner = make_reporter(), Owner()
    reporter.offer(daemon.status())
    reporter.step(owner)
    assert owner.given_up == [(Replay.objects.get().pk, 1)]


def test_a_replay_that_cannot_be_resumed_is_failed_with_the_reason(dataset: Dataset) -> None:
    runs.open_run(run_request(dataset))
    Replay.objects.update(state="REPLAYING", position=17)
    owner = Owner("Cannot open made.dbn: it is gone")
    make_reporter().step(owner)
    assert [command["start_record"] for command in owner.resumed] == [17]
    assert (Replay.objects.get().state, Replay.objects.get().error) == ("FAILED", "Cannot open made.dbn: it is gone")


def test_a_replay_that_was_to_be_stopped_is_ended_and_not_resumed(dataset: Dataset) -> None:
    runs.open_run(run_request(dataset))
    Replay.objects.update(state="PAUSED", desired_state="STOPPED")
    owner = Owner()
    make_reporter().step(owner)
    assert owner.resumed == []
    assert (Replay.objects.get().state, Replay.objects.get().generation) == ("STOPPED", 2)


def test_a_resumption_that_the_end_of_the_process_cut_off_is_left_to_the_next(dataset: Dataset) -> None:
    runs.open_run(run_request(dataset))
    Replay.objects.update(state="REPLAYING", position=17)
    cut_off: Future[StreamerStatus] = Future()
    cut_off.cancel()
    owner = Owner()
    owner.resume = lambda command: cut_off  # type: ignore[method-assign]
    make_reporter().step(owner)
    assert Replay.objects.get().state == "REPLAYING"


def test_a_row_is_given_what_it_wants_at_the_second_look_and_not_when_it_was_on_its_way(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    start(dataset, remote, 10)
    reporter, owner, status = make_reporter(), Owner(), daemon.status()
    run = (status["replay_id"], 1)

    def look(state: str) -> None:
        reporter.offer({**status, "state": state})
        reporter.step(owner)

    look("REPLAYING")
    runs.desire(Replay.Desired.PAUSED)
    look("REPLAYING")
    look("PAUSED")
    look("PAUSED")
    assert owner.brought == []
    runs.desire(Replay.Desired.REPLAYING)
    look("PAUSED")
    assert owner.brought == []
    look("PAUSED")
    assert owner.brought == [(run, "REPLAYING")]
    look("STOPPED")
    look("STOPPED")
    assert len(owner.brought) == 1, "what has ended is brought nowhere"


def test_without_the_lease_nothing_is_written_and_the_owner_is_told(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    start(dataset, remote, 10)
    reporter, owner, status = make_reporter(), Owner(), daemon.status()
    assert runs.record_status({**status, "position": 3}, reporter._lease)
    FeedLease.objects.update(generation=7)
    assert not runs.record_status({**status, "position": 4}, reporter._lease)
    reporter.offer({**status, "position": 5})
    assert not reporter.step(owner)
    assert owner.lost
    assert Replay.objects.get().position == 3
    reporter.offer({**status, "position": 6})
    assert not reporter.step(owner)
    reporter.close(1)


def test_a_fault_in_the_reporter_is_logged_and_it_goes_on(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, wait_for: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    class Clumsy(Owner):
        def give_up(self, run: Run) -> None:
            super().give_up(run)
            if len(self.given_up) == 1:
                raise RuntimeError("a fault of the program")

    start(dataset, remote, 10)
    Replay.objects.update(generation=7)
    reporter, owner = make_reporter(), Clumsy()
    reporter.offer(daemon.status())
    reporter.start(owner)
    try:
        wait_for(lambda: len(owner.given_up) == 2)
        Replay.objects.update(generation=1)
        reporter.offer({**daemon.status(), "position": 2**70})  # refused by a PostgreSQL that is there
        wait_for(lambda: caplog.text.count("the reporter tries again") == 2)
        reporter.offer({**daemon.status(), "position": 3})
        wait_for(lambda: Replay.objects.get().position == 3)
    finally:
        reporter.close(5)
    assert "a fault of the program" in caplog.text
    assert "PostgreSQL is away" not in caplog.text


def test_the_reporter_survives_a_lost_database_connection(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, wait_for: Wait
) -> None:
    start(dataset, remote, 10)
    reporter, status = make_reporter(), daemon.status()
    reporter.offer({**status, "position": 1})
    reporter.start(Owner())
    try:
        wait_for(lambda: Replay.objects.get().position == 1)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database()"
            )
        reporter.offer({**status, "position": 2})
        wait_for(lambda: Replay.objects.get().position == 2)
    finally:
        reporter.close(5)
