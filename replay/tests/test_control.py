"""Start, stop and pace against a real streamer, a real database and a real Redis, without a worker between."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TimeoutError as TaskTimeoutError
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from history.models import Instrument
from replay import control, runs, tasks
from replay.control import ControlError, ControlUnreachable, find_dataset, pace_of
from replay.models import Dataset, Replay
from replay.streamer.messages import Pace, ReplayState, StreamerRefused
from replay.streamer.remote import StreamerRemote, StreamerUnreachable
from replay.tests.daemon import Daemon
from replay.tests.recordings import command

SLOW: Pace = {"records_per_s": 10}


@pytest.fixture
def remote(redis_client: redis.Redis, settings: Settings) -> Iterator[StreamerRemote]:
    caller = StreamerRemote(settings.REDIS_URL)
    yield caller
    caller.close()


@pytest.fixture
def daemon(remote: StreamerRemote, settings: Settings) -> Iterator[Daemon]:
    with Daemon(settings.REDIS_URL) as running:
        yield running


@pytest.fixture
def dataset(transactional_db: None) -> Dataset:
    return Dataset.objects.create(name="made", path="made.dbn", state="ready", records=3000)


def request(dataset: Dataset, pace: Pace = SLOW) -> tasks.StartRequest:
    return {"dataset_id": dataset.pk, "pace": pace, "loop": False, "max_msgs": -1, "user_id": None}


def states() -> list[str]:
    return list(Replay.objects.order_by("pk").values_list("state", flat=True))


def test_a_start_makes_a_row_and_runs_it(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    status = tasks.start(request(dataset), remote)
    run = Replay.objects.get()
    assert (status["state"], status["replay_id"]) == ("REPLAYING", run.pk)
    assert (run.state, run.generation, run.pace) == ("REPLAYING", 1, SLOW)
    assert run.heartbeat_at is not None
    assert run.ended_at is None


def test_a_second_start_joins_the_first_and_makes_no_row(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    tasks.start(request(dataset), remote)
    again = tasks.start(request(dataset, {"records_per_s": 999}), remote)
    assert (again["note"], again["pace"]) == ("already running", SLOW)
    assert states() == ["REPLAYING"]


def test_many_starts_at_the_same_instant_make_one_replay(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    barrier, answers = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        try:
            answers.append(tasks.start(request(dataset), remote))
        finally:
            connection.close()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states() == ["REPLAYING"]
    assert {answer["replay_id"] for answer in answers} == {Replay.objects.get().pk}
    assert sum("note" not in answer for answer in answers) == 1
    assert len(answers) == 8
    assert daemon.handled.count("start") == 1


def test_a_start_that_nobody_answers_leaves_a_failed_row_with_the_reason(
    dataset: Dataset, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_START_WITHIN_S", 0.1)
    with pytest.raises(StreamerUnreachable):
        tasks.start(request(dataset), remote)
    run = Replay.objects.get()
    assert run.state == "FAILED"
    assert "did not take the command start within 0.1 s" in run.error
    assert run.ended_at is not None


def test_a_start_that_is_refused_leaves_a_failed_row_with_the_reason(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    with pytest.raises(StreamerRefused):
        tasks.start(request(dataset, {"records_per_s": 0}), remote)
    assert states() == ["FAILED"]
    assert "Expected a pace" in Replay.objects.get().error


def test_stop_ends_the_row_where_the_replay_was(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, wait_for: Callable[..., Any]
) -> None:
    tasks.start(request(dataset, {"records_per_s": 1000}), remote)
    wait_for(lambda: daemon.status()["position"] > 50)
    status = tasks.stop(remote)
    run = Replay.objects.get()
    assert (run.state, run.position) == ("STOPPED", status["position"])
    assert run.position_ts_event == int(status["ts_event"])
    assert run.ended_at is not None
    assert tasks.stop(remote)["state"] == "STOPPED"
    assert states() == ["STOPPED"]


def test_a_row_that_the_streamer_lost_is_closed_and_the_next_start_runs(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    runs.open_run(**request(dataset))
    Replay.objects.update(state=ReplayState.REPLAYING)
    status = tasks.start(request(dataset), remote)
    assert states() == ["FAILED", "REPLAYING"]
    assert status["replay_id"] == Replay.objects.latest("pk").pk


def test_a_row_whose_end_was_not_written_yet_is_ended_by_the_next_start(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    tasks.start(request(dataset), remote)
    remote.call("stop")
    assert states() == ["REPLAYING"]
    tasks.start(request(dataset), remote)
    assert states() == ["STOPPED", "REPLAYING"]


def test_a_start_that_a_worker_never_finished_is_failed_by_the_next(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    runs.open_run(**request(dataset))
    Replay.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    tasks.start(request(dataset), remote)
    assert states() == ["FAILED", "REPLAYING"]


def test_a_start_beside_one_that_hangs_says_so(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_OTHER_START_WITHIN_S", 0.2)
    runs.open_run(**request(dataset))
    with pytest.raises(StreamerUnreachable, match="another start is under way"):
        tasks.start(request(dataset), remote)


def test_a_streamer_that_runs_something_unknown_keeps_it_and_the_row_says_so(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    remote.call("start", command(SLOW, replay_id=12345))
    assert tasks.start(request(dataset), remote)["note"] == "already running"
    assert "already running replay #12345" in Replay.objects.get().error


@pytest.mark.parametrize(
    ("ts_event", "kept"), [(0, None), (1, 1), (2**63 - 1, 2**63 - 1), (2**63, None), (2**64 - 1, None)]
)
def test_a_time_that_is_none_leaves_the_row_without_one(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, ts_event: int, kept: int | None
) -> None:
    status = tasks.start(request(dataset), remote)
    assert runs.record_status({**status, "position": 9, "ts_event": str(ts_event)})
    run = Replay.objects.get()
    assert (run.position, run.position_ts_event) == (9, kept)


def test_a_write_of_an_older_generation_changes_nothing(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    status = tasks.start(request(dataset), remote)
    Replay.objects.update(generation=2)
    assert not runs.record_status({**status, "position": 777})
    assert Replay.objects.get().position != 777


def test_a_late_heartbeat_does_not_bring_an_ended_row_back(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    status = tasks.start(request(dataset), remote)
    ended = tasks.stop(remote)
    assert runs.record_status(ended)
    assert not runs.record_status(status)
    assert states() == ["STOPPED"]


def test_a_claim_takes_over_once_and_fences_the_old_owner_off(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    status = tasks.start(request(dataset), remote)
    runs.record_status({**status, "position": 1234})
    claimed = runs.claim_run(lambda replay_id: False)
    assert claimed is not None
    assert (claimed["generation"], claimed["start_record"], claimed["path"]) == (2, 1234, "made.dbn")
    assert not runs.record_status({**status, "position": 5})
    assert runs.claim_run(lambda replay_id: replay_id == Replay.objects.get().pk) is None


def test_the_position_of_a_loop_counts_all_rounds(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    status = tasks.start(request(dataset), remote)
    runs.record_status({**status, "position": 5, "records": 3000, "loops": 2})
    assert Replay.objects.get().position == 6005


def test_outcomes_are_plain_data_for_every_verb(
    dataset: Dataset, daemon: Daemon, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.streamer_remote.cache_clear()
    assert tasks.change_pace("max") == {"refused": "No replay is running."}
    assert tasks.start_replay(request(dataset))["status"]["state"] == "REPLAYING"
    assert tasks.change_pace({"records_per_s": 3})["status"]["pace"] == {"records_per_s": 3}
    assert control.status()["pace"] == {"records_per_s": 3}, "an answered command shows in the very next status"
    assert tasks.stop_replay()["status"]["state"] == "STOPPED"
    tasks.streamer_remote().close()
    tasks.streamer_remote.cache_clear()


class SlowTask:
    """Stands where a Celery task does; keeps a waiter busy until it is released."""

    def __init__(self) -> None:
        self.sent = 0
        self.released = threading.Event()

    def apply_async(self, *args: object, **options: object) -> "SlowTask":
        self.sent += 1
        return self

    def get(self, timeout: float) -> tasks.Outcome:
        self.released.wait(10)
        return {"refused": "a late answer"}

    def forget(self) -> None:
        pass


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowTask]:
    """Return a task that occupies every waiter."""
    monkeypatch.setattr(control, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(control, "_SLACK_S", 0.1)
    task = SlowTask()
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(control._through_worker, task) for _ in range(8)]
        for answer in answers:
            assert isinstance(answer.exception(10), ControlUnreachable)
    assert task.sent == 8
    yield task
    task.released.set()


def test_a_command_that_queued_until_its_caller_was_told_is_never_sent(
    busy: SlowTask, wait_for: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    queued, next_one = SlowTask(), SlowTask()
    done: list[str] = []
    with pytest.raises(ControlUnreachable, match="no Celery worker answered"):
        control._through_worker(queued)
    with pytest.raises(TimeoutError):
        control._on_waiter(lambda: done.append("too late"))
    busy.released.set()
    next_one.released.set()
    monkeypatch.setattr(control, "ANSWER_WITHIN_S", 5)
    with pytest.raises(ControlError, match="a late answer"):
        control._through_worker(next_one)
    assert (queued.sent, next_one.sent, done) == (0, 1, [])


def test_a_command_whose_turn_comes_after_its_deadline_is_not_sent() -> None:
    task = SlowTask()
    with pytest.raises(TaskTimeoutError):
        control._run(task, (), time.monotonic())
    assert task.sent == 0


def test_more_commands_than_can_wait_are_refused_at_once_and_every_place_is_given_back(
    busy: SlowTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_WITHIN_S", 5)
    refused, answered = SlowTask(), SlowTask()
    answered.released.set()
    queued = control.MAX_WAITING - 8
    with ThreadPoolExecutor(queued) as callers:
        answers = [callers.submit(control._through_worker, answered) for _ in range(queued)]
        while control._PLACES._value:  # until they all wait
            time.sleep(0.001)
        with pytest.raises(ControlUnreachable, match="64 commands are waiting for an answer already"):
            control._through_worker(refused)
        busy.released.set()
        assert {type(answer.exception(10)) for answer in answers} == {ControlError}
    assert refused.sent == 0
    for place in [control._PLACES.acquire(timeout=10) for _ in range(control.MAX_WAITING)]:
        assert place
        control._PLACES.release()


@pytest.mark.parametrize("rate", [5000, 0, -1, 500_001])
def test_a_rate_that_is_not_allowed_is_named_with_those_that_are(rate: int) -> None:
    with pytest.raises(ControlError) as error:
        pace_of(rate, None)
    assert str(error.value) == f"Invalid rate {rate}. Allowed: [200, 1000, 10000, 50000, 500000]"
    assert error.value.status == 400


def test_rate_and_pace_exclude_each_other() -> None:
    with pytest.raises(ControlError, match="not both"):
        pace_of(200, "max")
    assert pace_of(200, None) == {"records_per_s": 200}
    assert pace_of(None, "max") == "max"
    assert pace_of(None, None) is None


@pytest.mark.django_db
def test_a_dataset_is_found_by_name_or_id() -> None:
    ready = Dataset.objects.create(name="a.dbn", path="/a.dbn", state="ready")
    Dataset.objects.create(name="broken.csv", path="/b", state="failed", error="line 2: expected a price")
    assert find_dataset("a.dbn") == find_dataset(str(ready.pk)) == ready
    with pytest.raises(ControlError, match="No dataset 'b.dbn'") as unknown:
        find_dataset("b.dbn")
    assert unknown.value.status == 404
    with pytest.raises(ControlError, match="Dataset broken.csv is failed: line 2") as broken:
        find_dataset("broken.csv")
    assert broken.value.status == 400
    with pytest.raises(ControlError, match="No dataset '99999999999999999999'"):
        find_dataset("99999999999999999999")


@pytest.mark.django_db
def test_the_default_dataset_is_that_of_csv_path_else_of_symbol_else_the_first(settings: Settings) -> None:
    settings.CSV_PATH, settings.DATA_DIR = "", Path("/data")
    Dataset.objects.create(name="0", path="/data-of-before/0.dbn", state="ready")
    with pytest.raises(ControlError, match="No dataset is ready: put a file into DATA_DIR") as none:
        find_dataset(None)
    assert none.value.status == 404
    first = Dataset.objects.create(name="a", path="/data/a.dbn", state="ready")
    clx5 = Dataset.objects.create(name="c", path="/data/c.dbn", state="ready")
    assert find_dataset(None) == first
    clx5.instruments.add(Instrument.objects.create(symbol="CLX5", instrument_id=1, publisher_id=1, tick_size=1))
    assert find_dataset(None) == clx5
    settings.CSV_PATH = "/elsewhere/b.dbn"
    with pytest.raises(ControlError, match="CSV_PATH=/elsewhere/b.dbn is not registered"):
        find_dataset("")
    named = Dataset.objects.create(name="b", path="/elsewhere/b.dbn", state="ready")
    assert find_dataset("") == named
    Dataset.objects.filter(pk=named.pk).update(state="failed", error="line 2: …")
    with pytest.raises(ControlError, match="Dataset b is failed: line 2"):
        find_dataset("")
    assert control.find_dataset("a") == first
