"""Replays that start at a time, against a real streamer; the clock is a call."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from replay import control, driving, runs, schedule, tasks
from replay.control import ControlError, Start
from replay.models import Dataset, Replay, ScheduledReplay
from replay.streamer import remote as remote_side
from replay.streamer.remote import StreamerRemote
from replay.tests.daemon import Daemon
from replay.tests.recordings import command
from replay.tests.requests import SLOW, run_request


@pytest.fixture
def remote(redis_client: redis.Redis, settings: Settings) -> Iterator[StreamerRemote]:
    caller = StreamerRemote(settings.REDIS_URL)
    yield caller
    caller.close()


@pytest.fixture
def daemon(remote: StreamerRemote, settings: Settings) -> Iterator[Daemon]:
    with Daemon(settings.REDIS_URL) as running:
        assert remote.call("status")["state"] == "IDLE"
        yield running


@pytest.fixture
def dataset(transactional_db: None) -> Dataset:
    return Dataset.objects.create(name="made", path="made.dbn", state="ready", records=3000)


def scheduled(dataset: Dataset, in_s: float) -> ScheduledReplay:
    return schedule.add(run_request(dataset), timezone.now() + timedelta(seconds=in_s))


def outcome(row: ScheduledReplay) -> tuple[str, str]:
    row.refresh_from_db()
    return row.state, row.error


def test_what_is_due_is_started_and_what_is_not_waits(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    due, later = scheduled(dataset, -1), scheduled(dataset, 60)
    assert schedule.start_due(remote) == 1
    assert outcome(due) == ("started", "")
    assert outcome(later) == ("waiting", "")
    run = Replay.objects.get()
    assert (due.replay, run.state, run.pace) == (run, "REPLAYING", SLOW)
    assert schedule.start_due(remote) == 0


def test_many_workers_that_hear_the_same_tick_start_it_once(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    row = scheduled(dataset, -1)
    barrier, started = threading.Barrier(6), []

    def tick() -> None:
        barrier.wait()
        started.append(schedule.start_due(remote))
        connection.close()

    threads = [threading.Thread(target=tick) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(started) == [0, 0, 0, 0, 0, 1]
    assert outcome(row) == ("started", "")
    assert daemon.handled.count("start") == 1


def test_what_a_worker_began_to_start_when_it_died_is_started_by_the_next_and_once(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    row = scheduled(dataset, -1)
    run = runs.open_run(run_request(dataset, request_id=f"schedule:{row.pk}"))
    ScheduledReplay.objects.update(claimed_at=timezone.now())
    assert schedule.start_due(remote) == 0, "its worker may live"
    ScheduledReplay.objects.update(claimed_at=timezone.now() - timedelta(minutes=1))
    assert schedule.start_due(remote) == 1
    assert outcome(row) == ("started", "")
    assert (Replay.objects.get(), row.replay) == (run, run)


def test_what_is_more_than_a_minute_late_is_not_started_any_more(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    row = scheduled(dataset, -61)
    assert schedule.start_due(remote) == 0
    state, error = outcome(row)
    assert (state, error[:38]) == ("failed", "Nobody could start it within 60 s of i")
    assert not Replay.objects.exists()


def test_what_the_streamer_cannot_begin_in_time_is_tried_again_until_it_is_too_late(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = scheduled(dataset, -1)
    with monkeypatch.context() as patched:
        patched.setattr(driving, "_START_WITHIN_S", 0.1)
        patched.setattr(remote_side, "_GRACE_S", 0.2)
        daemon.let_go.clear()
        assert schedule.start_due(remote) == 0
        assert outcome(row)[0] == "waiting"
        daemon.let_go.set()
    ScheduledReplay.objects.update(start_at=timezone.now() - timedelta(minutes=2))
    with transaction.atomic():
        assert schedule.start_due(remote) == 0
        assert "60 s of its time: the streamer could not carry out the command start" in outcome(row)[1]
        transaction.set_rollback(True)
    ScheduledReplay.objects.update(start_at=timezone.now())
    assert schedule.start_due(remote) == 1
    assert outcome(row) == ("started", "")
    assert row.replay == Replay.objects.get(state="REPLAYING")


def test_beside_a_replay_that_no_row_knows_it_fails(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    remote.call("start", command(SLOW, replay_id=12345))
    row = scheduled(dataset, -1)
    assert schedule.start_due(remote) == 0
    assert outcome(row) == ("failed", "Replay #12345 of made was running.")


def test_a_request_that_is_sent_again_schedules_nothing_twice(dataset: Dataset) -> None:
    at = timezone.now() + timedelta(minutes=1)
    first, again = (schedule.add(run_request(dataset, request_id="key:1"), at) for _ in range(2))
    assert (first, schedule.made_by("key:1")) == (again, first)
    assert ScheduledReplay.objects.get() == first
    assert schedule.made_by("key:2") is None
    late = timezone.now() - timedelta(minutes=1)
    user = User.objects.create_user("vera")
    assert control.schedule(Start(dataset="made"), late, user, once="key:1") == first, "its time has come meanwhile"
    with pytest.raises(ControlError, match="expected a time to come"):
        control.schedule(Start(dataset="made"), late, user, once="key:2")


def test_a_window_beyond_the_file_is_refused_while_somebody_listens(dataset: Dataset) -> None:
    at = timezone.now() + timedelta(minutes=1)
    user = User.objects.create_user("vera")
    asked = Start(dataset="made", window_to={"record": dataset.records + 1})
    with pytest.raises(ControlError, match=f"The file has {dataset.records} records"):
        control.schedule(asked, at, user)
    assert not ScheduledReplay.objects.exists()


def test_while_the_streamer_is_away_it_is_tried_again(dataset: Dataset, remote: StreamerRemote) -> None:
    row = scheduled(dataset, -1)
    assert schedule.start_due(remote) == 0
    assert outcome(row) == ("waiting", "")


def test_beside_another_replay_it_fails_and_says_which(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    running = Replay.objects.get()
    row = scheduled(dataset, -1)
    assert schedule.start_due(remote) == 0
    assert outcome(row) == ("failed", f"Replay #{running.pk} of made was running.")
    assert Replay.objects.get() == running


def test_what_the_streamer_refuses_fails_with_its_reason(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    row = scheduled(dataset, -1)
    ScheduledReplay.objects.update(pace={"records_per_s": 0})
    assert schedule.start_due(remote) == 0
    state, error = outcome(row)
    assert state == "failed"
    assert error.startswith("Expected a pace")


def test_what_is_cancelled_is_not_started(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    row = scheduled(dataset, -1)
    assert schedule.cancel(ScheduledReplay.objects.all()) == 1
    assert schedule.start_due(remote) == 0
    assert outcome(row) == ("cancelled", "")
    assert schedule.cancel(ScheduledReplay.objects.all()) == 0


def test_each_tick_is_heard(redis_client: redis.Redis, transactional_db: None) -> None:
    tasks.start_scheduled()
    assert 0 < redis_client.ttl(schedule.TICK_KEY) <= schedule.TICK_TTL_S
