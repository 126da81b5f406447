"""REST to streamer and back through a real Celery worker, the only tests that start one."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client

from replay import control
from replay.datasets import scan
from replay.feed.index import is_indexed
from replay.models import Dataset, Replay
from replay.tests.daemon import Daemon
from replay.tests.recordings import session, write_dbn

START, STOP = "/api/control/replay/start", "/api/control/replay/stop"
PACE, STATUS = "/api/control/replay/pace", "/api/control/replay/status"
StartWorker = Callable[[int], None]


@pytest.fixture
def start_worker(process_env: dict[str, str], wait_for: Callable[..., Any], tmp_path: Path) -> Iterator[StartWorker]:
    """Return a function that starts a worker with this many threads; it ends with the test."""
    with contextlib.ExitStack() as running:

        def start(threads: int) -> None:
            words = [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "batonic_site",
                "worker",
                "-P",
                "threads",
                "-c",
                str(threads),
            ]
            log = running.enter_context((tmp_path / "worker.log").open("wb"))
            process = subprocess.Popen(words, env=process_env, cwd=django_settings.BASE_DIR, stdout=log, stderr=log)
            running.callback(process.wait, 20)
            running.callback(process.terminate)
            wait_for(lambda: current_app.control.ping(timeout=0.3), timeout_s=30, what="the worker's first answer")

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


def post(client: Client, path: str, body: object = None) -> Any:
    return client.post(path, body, content_type="application/json") if body is not None else client.post(path)


def test_start_status_pace_and_stop_travel_through_the_worker(
    start_worker: StartWorker, admin: Client, dataset: Dataset
) -> None:
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
        assert (status["state"], status["rate"], status["clients"]) == ("RUNNING", 200, 0)
        assert status["pid"] == daemon.status()["pid"]
        assert status["position"]["records"] == 3000
        assert status["position"]["ts"].startswith("2025-09-24T19:30:00.")

        faster = post(admin, PACE, {"pace": {"records_per_s": 777}}).json()
        assert (faster["pace"], faster["rate"]) == ({"records_per_s": 777}, 777)
        stopped = post(admin, STOP).json()
        assert stopped["state"] == "STOPPED"
        assert Replay.objects.get().state == "STOPPED"
        assert Replay.objects.get().requested_by == User.objects.get()
        refused = post(admin, PACE, {"rate": 200})
        assert (refused.status_code, refused.json()) == (400, {"detail": "No replay is running."})

    gone = admin.get(STATUS)  # the worker is there, the streamer is not
    assert gone.status_code == 502
    assert gone.json() == {"detail": "Cannot reach streamer-control (feed main): the streamer is silent"}
    untaken = post(admin, STOP)
    assert untaken.status_code == 502
    assert untaken.json()["detail"].startswith("Cannot reach streamer-control (feed main): the streamer did not take")


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
        patched.setattr(control, "ANSWER_WITHIN_S", 0.3)
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
