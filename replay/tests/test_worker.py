"""REST to streamer and back through a real Celery worker, the only tests that start one."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from batonic_site import health
from replay import dispatch
from replay.datasets import scan
from replay.feed.index import is_indexed
from replay.models import Dataset, Replay, ScheduledReplay
from replay.tests.daemon import Daemon
from replay.tests.recordings import session, write_dbn

START, STOP = "/api/control/replay/start", "/api/control/replay/stop"
PACE, STATUS = "/api/control/replay/pace", "/api/control/replay/status"
PAUSE, RESUME = "/api/control/replay/pause", "/api/control/replay/resume"
SEEK, STEP, SCHEDULE = (f"/api/control/replay/{name}" for name in ("seek", "step", "schedule"))
StartWorker = Callable[[int], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(process_env: dict[str, str], wait_for: Callable[..., Any], tmp_path: Path) -> Iterator[StartWorker]:
    """Return a function that starts a worker with this many threads; it ends with the test."""
    with contextlib.ExitStack() as running:

        def start(threads: int) -> "subprocess.Popen[bytes]":
            celery = [sys.executable, "-m", "celery", "-A", "batonic_site", "worker", "-P", "threads"]
            log = running.enter_context((tmp_path / "worker.log").open("ab"))
            process = subprocess.Popen(
                [*celery, "-c", str(threads)], env=process_env, cwd=django_settings.BASE_DIR, stdout=log, stderr=log
            )
            running.callback(process.wait, 20)
            running.callback(process.terminate)
            wait_for(lambda: current_app.control.ping(timeout=0.3), timeout_s=30, what="the worker's first answer")
            return process

        yield start


@pytest.fixture
def admin(transactional_db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("alice", password="a long enough password"))
    return client


@pytest.fixture
def dataset(transactional_db: None, data_folder: Path) -> Dataset:
    path = str(data_folder / "data" / "made.dbn")
    return Dataset.objects.create(name="made", path=path, state="ready", records=3000)


def post(client: Client, path: str, body: object = None, key: str | None = None) -> Any:
    headers = {} if key is None else {"idempotency-key": key}
    if body is None:
        return client.post(path, headers=headers)
    return client.post(path, body, content_type="application/json", headers=headers)


def bench() -> dict[str, Any]:
    out = StringIO()
    call_command("benchcontrol", "--rounds", "3", "--json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_every_verb_travels_through_the_worker(start_worker: StartWorker, admin: Client, dataset: Dataset) -> None:
    start_worker(2)
    with Daemon(django_settings.REDIS_URL) as daemon:
        started = post(admin, START, {"rate": 200})
        assert started.status_code == 200, started.content
        answer = started.json()
        assert (answer["state"], answer["rate"], answer["dataset"]) == ("REPLAYING", 200, "made")
        assert answer["upstream"]["replay_id"] == Replay.objects.get().pk
        assert "note" not in answer
        again = post(admin, START, {"pace": "max"}).json()
        assert (again["note"], again["rate"], again["state"]) == ("already running", 200, "REPLAYING")

        status = admin.get(STATUS).json()
        assert (status["state"], status["rate"], status["clients"]) == ("REPLAYING", 200, 0)
        assert status["pid"] == daemon.status()["pid"]
        assert status["position"]["records"] == 3000
        assert status["position"]["ts"].startswith("2025-09-24T19:30:00.")

        faster = post(admin, PACE, {"pace": {"records_per_s": 777}}).json()
        assert (faster["pace"], faster["rate"]) == ({"records_per_s": 777}, 777)
        paused = post(admin, PAUSE).json()
        assert (paused["state"], Replay.objects.get().desired_state) == ("PAUSED", "PAUSED")
        sought = post(admin, SEEK, {"fraction": 0.5}).json()
        assert (sought["state"], sought["position"]["record"]) == ("PAUSED", 1500)
        steps = [post(admin, STEP, {"unit": "record", "by": -2}, key="one step").json() for _ in range(2)]
        assert steps[0] == steps[1]
        assert admin.get(STATUS).json()["position"]["record"] == 1498
        beyond = post(admin, SEEK, {"ts": "2025-09-24T19:30:00.5Z"})
        assert beyond.status_code == 400, "without an index no time is found"
        assert "index" in beyond.json()["detail"]
        assert post(admin, RESUME).json()["state"] == "REPLAYING"
        for state in ("REPLAYING", "PAUSED"):
            measured = bench()
            assert list(measured) == ["rounds", "p50_ms", "p95_ms", "max_ms"]
            assert 0 < measured["p50_ms"] <= measured["p95_ms"] <= measured["max_ms"]
            assert admin.get(STATUS).json()["state"] == state, "as it was"
            post(admin, PAUSE)
        assert (daemon.handled.count("pause"), daemon.handled.count("resume")) == (1 + 3 + 1 + 3 + 1, 1 + 3 + 3)
        stopped = post(admin, STOP).json()
        assert stopped["state"] == "STOPPED"
        assert Replay.objects.get().state == "STOPPED"
        assert Replay.objects.get().requested_by == User.objects.get()
        refused = post(admin, PACE, {"rate": 200})
        assert (refused.status_code, refused.json()) == (400, {"detail": "No replay is running."})
        with pytest.raises(CommandError, match="No replay is running: the streamer is STOPPED. Start one first"):
            bench()

    with pytest.raises(CommandError, match="the streamer is silent"):
        bench()
    gone = admin.get(STATUS)  # the worker is there, the streamer is not
    assert gone.status_code == 502
    assert gone.json() == {"detail": "Cannot reach streamer-control (feed main): the streamer is silent"}
    untaken = post(admin, STOP)
    assert untaken.status_code == 502
    assert untaken.json()["detail"].startswith("Cannot reach streamer-control (feed main): the streamer did not take")


def on_a_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Do this, and close the connection that Django opened for this thread."""
    try:
        return work(*args)
    finally:
        connection.close()


def test_fifty_starts_at_the_same_instant_make_one_replay_and_all_are_answered(
    start_worker: StartWorker, admin: Client, dataset: Dataset
) -> None:
    start_worker(8)
    barrier = threading.Barrier(50)

    def start(number: int) -> tuple[int, int]:
        client = Client()
        client.cookies = admin.cookies
        barrier.wait()
        answer = post(client, START, {"rate": 200}, key=f"key {number // 2}")  # each key is sent twice
        return answer.status_code, answer.json()["upstream"]["replay_id"]

    with Daemon(django_settings.REDIS_URL) as daemon, ThreadPoolExecutor(50) as callers:
        answers = list(callers.map(lambda number: on_a_thread(start, number), range(50)))
        assert set(answers) == {(200, Replay.objects.get().pk)}
        assert daemon.handled.count("start") == 1


def test_a_worker_that_is_killed_in_the_middle_of_a_verb_does_no_harm(
    start_worker: StartWorker,
    admin: Client,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[..., Any],
) -> None:
    doomed = start_worker(2)
    with Daemon(django_settings.REDIS_URL) as daemon, ThreadPoolExecutor(1) as caller:
        assert post(admin, START, {"rate": 200}).status_code == 200
        assert post(admin, PAUSE).status_code == 200
        before = daemon.status()["position"]
        monkeypatch.setattr(dispatch, "ANSWER_WITHIN_S", 1.0)
        daemon.let_go.clear()
        answer = caller.submit(on_a_thread, post, admin, STEP, {"unit": "record", "by": 3}, "a step")
        wait_for(lambda: "step" in daemon.handled)
        doomed.kill()
        doomed.wait()
        daemon.let_go.set()
        assert answer.result(10).status_code == 502
        monkeypatch.setattr(dispatch, "ANSWER_WITHIN_S", 5.0)
        start_worker(2)
        again = post(admin, STEP, {"unit": "record", "by": 3}, "a step")
        assert (again.status_code, again.json()["position"]["record"]) == (200, before + 3)
        assert daemon.status()["position"] == before + 3
        assert daemon.handled.count("step") == 1
        assert Replay.objects.get().state == "PAUSED"


def test_a_scheduled_replay_starts_when_its_time_comes_by_the_ticks_of_beat(
    start_worker: StartWorker,
    process_env: dict[str, str],
    admin: Client,
    dataset: Dataset,
    wait_for: Callable[..., Any],
) -> None:
    start_worker(2)
    at = timezone.now() + timedelta(seconds=2)
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "batonic_site", "beat"], env=process_env, cwd=django_settings.BASE_DIR
    )
    try:
        with Daemon(django_settings.REDIS_URL):
            assert post(admin, SCHEDULE, {"at": at.isoformat(), "rate": 200}).status_code == 201
            wait_for(lambda: ScheduledReplay.objects.get().state == "started", timeout_s=30)
            assert Replay.objects.get().created_at >= at
            assert health.failure(health.check_beat) == ""
    finally:
        beat.terminate()
        assert beat.wait(20) == 0
    assert not list(django_settings.BASE_DIR.glob("celerybeat*")), "its memory is in the database"


def test_a_worker_makes_the_quality_report_of_what_a_scan_registers(
    start_worker: StartWorker, data_folder: Path, transactional_db: None, wait_for: Callable[..., Any]
) -> None:
    write_dbn(data_folder / "data" / "made.dbn", session(1000))
    scan()
    start_worker(2)
    reports = Dataset.objects.values_list("quality__ok", flat=True)
    wait_for(lambda: reports.get(), timeout_s=60, what="the report")  # the first worker compiles the book


def test_a_worker_makes_the_index_of_what_a_scan_registers(
    start_worker: StartWorker, data_folder: Path, transactional_db: None, wait_for: Callable[..., Any]
) -> None:
    path = write_dbn(data_folder / "data" / "made.dbn", session(1000))
    scan()
    start_worker(2)
    wait_for(lambda: Dataset.objects.get().indexed_percent == 100, timeout_s=60, what="the index")
    assert is_indexed(path, django_settings.RECORDINGS_FOLDER)


def test_without_a_worker_the_answer_is_502_and_the_task_is_not_carried_out_later(
    start_worker: StartWorker, admin: Client, dataset: Dataset, redis_client: redis.Redis
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dispatch, "ANSWER_WITHIN_S", 0.3)
        answer = post(admin, START, {"rate": 200})
    assert answer.status_code == 502
    assert answer.json() == {
        "detail": "Cannot reach streamer-control (feed main): no Celery worker answered within 0.3 s"
    }
    assert redis_client.llen("celery") == 1, "the start is still in the queue"
    start_worker(1)
    with Daemon(django_settings.REDIS_URL) as daemon:
        assert post(admin, STOP).status_code == 200  # queued behind the start, and one thread does both in order
        assert daemon.handled == ["stop"]
    assert not Replay.objects.exists()
