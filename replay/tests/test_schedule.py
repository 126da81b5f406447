"""Replays that start at a time, against a real streamer; the clock is a call."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from replay import driving, runs, schedule, tasks
from replay.models import Dataset, Replay, ScheduledReplay
from replay.streamer.remote import StreamerRemote
from replay.tests.daemon import Daemon
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
