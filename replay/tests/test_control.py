"""Start, stop and pace against a real streamer, a real database and a real Redis, without a worker between."""

import json
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
from replay import asking, control, dispatch, driving, runs, tasks
from replay.control import ControlError, ControlUnreachable, find_dataset, pace_of
from replay.feed.sources import Recording
from replay.models import Dataset, FeedLease, Replay
from replay.streamer import remote as remote_side
from replay.streamer.messages import FixedPlace, ReplayState, StreamerRefused
from replay.streamer.remote import StreamerRemote, StreamerUnreachable
from replay.tests.daemon import Daemon
from replay.tests.recordings import command, recording
from replay.tests.requests import SLOW, run_request


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


def states() -> list[str]:
    return list(Replay.objects.order_by("pk").values_list("state", flat=True))


def test_a_start_makes_a_row_and_runs_it(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    status = driving.start(run_request(dataset), remote)
    run = Replay.objects.get()
    assert (status["state"], status["replay_id"]) == ("REPLAYING", run.pk)
    assert (run.state, run.generation, run.pace) == ("REPLAYING", 1, SLOW)
    assert run.heartbeat_at is not None
    assert run.ended_at is None


def test_a_second_start_joins_the_first_and_makes_no_row(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    again = driving.start(run_request(dataset, {"records_per_s": 999}), remote)
    assert (again["note"], again["pace"]) == ("already running", SLOW)
    assert states() == ["REPLAYING"]


def test_many_starts_at_the_same_instant_make_one_replay(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    barrier, answers = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        try:
            answers.append(driving.start(run_request(dataset), remote))
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
    monkeypatch.setattr(driving, "_START_WITHIN_S", 0.1)
    with pytest.raises(StreamerUnreachable):
        driving.start(run_request(dataset), remote)
    run = Replay.objects.get()
    assert run.state == "FAILED"
    assert "did not take the command start within 0.1 s" in run.error
    assert run.ended_at is not None


def test_a_start_that_is_refused_leaves_a_failed_row_with_the_reason(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    with pytest.raises(StreamerRefused):
        driving.start(run_request(dataset, {"records_per_s": 0}), remote)
    assert states() == ["FAILED"]
    assert "Expected a pace" in Replay.objects.get().error


def test_stop_ends_the_row_where_the_replay_was(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, wait_for: Callable[..., Any]
) -> None:
    driving.start(run_request(dataset, {"records_per_s": 1000}), remote)
    wait_for(lambda: daemon.status()["position"] > 50)
    status = driving.stop(remote)
    run = Replay.objects.get()
    assert (run.state, run.position) == ("STOPPED", status["position"])
    assert run.position_ts_event == int(status["ts_event"])
    assert run.ended_at is not None
    assert driving.stop(remote)["state"] == "STOPPED"
    assert states() == ["STOPPED"]


def test_a_row_that_the_streamer_lost_is_closed_and_the_next_start_runs(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    runs.open_run(run_request(dataset))
    Replay.objects.update(state=ReplayState.REPLAYING)
    status = driving.start(run_request(dataset), remote)
    assert states() == ["FAILED", "REPLAYING"]
    assert status["replay_id"] == Replay.objects.latest("pk").pk


def test_a_row_whose_end_was_not_written_yet_is_ended_by_the_next_start(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    remote.call("stop")
    assert states() == ["REPLAYING"]
    driving.start(run_request(dataset), remote)
    assert states() == ["STOPPED", "REPLAYING"]


def test_a_start_that_a_worker_never_finished_is_failed_by_the_next(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    runs.open_run(run_request(dataset))
    Replay.objects.update(created_at=timezone.now() - timedelta(minutes=1))
    driving.start(run_request(dataset), remote)
    assert states() == ["FAILED", "REPLAYING"]


def test_a_start_beside_one_that_hangs_says_so(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "_OTHER_START_WITHIN_S", 0.2)
    runs.open_run(run_request(dataset))
    with pytest.raises(StreamerUnreachable, match="another start is under way"):
        driving.start(run_request(dataset), remote)


def test_a_streamer_that_runs_something_unknown_keeps_it_and_the_row_says_so(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    remote.call("start", command(SLOW, replay_id=12345))
    assert driving.start(run_request(dataset), remote)["note"] == "already running"
    assert "already running replay #12345" in Replay.objects.get().error


@pytest.mark.parametrize(
    ("ts_event", "kept"), [(0, None), (1, 1), (2**63 - 1, 2**63 - 1), (2**63, None), (2**64 - 1, None)]
)
def test_a_time_that_is_none_leaves_the_row_without_one(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, ts_event: int, kept: int | None
) -> None:
    status = driving.start(run_request(dataset), remote)
    assert runs.record_status({**status, "position": 9, "ts_event": str(ts_event)})
    run = Replay.objects.get()
    assert (run.position, run.position_ts_event) == (9, kept)


def test_a_write_of_an_older_generation_changes_nothing(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    status = driving.start(run_request(dataset), remote)
    Replay.objects.update(generation=2)
    assert not runs.record_status({**status, "position": 777})
    assert Replay.objects.get().position != 777


def test_a_late_heartbeat_does_not_bring_an_ended_row_back(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    status = driving.start(run_request(dataset), remote)
    ended = driving.stop(remote)
    assert runs.record_status(ended)
    assert not runs.record_status(status)
    assert states() == ["STOPPED"]


def test_a_claim_takes_over_once_and_fences_the_old_owner_off(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    status = driving.start(run_request(dataset), remote)
    runs.record_status({**status, "position": 1234})
    claimed = runs.claim_run(lambda replay_id: False)
    assert claimed is not None
    assert (claimed["generation"], claimed["start_record"], claimed["path"]) == (2, 1234, "made.dbn")
    assert not runs.record_status({**status, "position": 5})
    assert runs.claim_run(lambda replay_id: replay_id == Replay.objects.get().pk) is None


def test_a_row_keeps_where_the_replay_is_and_what_it_published(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    window: tuple[FixedPlace, FixedPlace] = ({"record": 100}, {"fraction": 0.5})
    status = driving.start(run_request(dataset, window=window), remote)
    assert (status["window_from"], status["window_to"]) == (100, 1500)
    runs.record_status({**status, "position": 105, "published": 2805, "loops": 2})
    run = Replay.objects.get()
    assert (run.position, run.published, run.loops) == (105, 2805, 2)
    again = runs.start_command(run)
    assert (again["start_record"], again["published"], again["loops"], again["paused"]) == (105, 2805, 2, False)
    assert (again["window_from"], again["window_to"]) == window


def test_pause_resume_step_and_stop_say_what_is_wanted_and_what_is(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    def row() -> tuple[str, str]:
        run = Replay.objects.get()
        return run.desired_state, run.state

    driving.start(run_request(dataset), remote)
    assert row() == ("REPLAYING", "REPLAYING")
    assert driving.pause(remote)["state"] == "PAUSED"
    assert row() == ("PAUSED", "PAUSED")
    assert driving.resume(remote)["state"] == "REPLAYING"
    assert row() == ("REPLAYING", "REPLAYING")
    before = driving.seek({"record": 1000}, remote)
    assert row() == ("REPLAYING", "REPLAYING")
    stepped = driving.step("record", 5, remote)
    assert row() == ("PAUSED", "PAUSED")
    assert stepped["position"] >= before["position"] + 5
    assert Replay.objects.get().position == stepped["position"]
    driving.change_pace({"pace": "max", "skip_idle_s": 60.0}, remote)
    assert (Replay.objects.get().pace, Replay.objects.get().skip_idle_s) == ("max", 60.0)
    driving.stop(remote)
    assert row() == ("STOPPED", "STOPPED")


def test_a_verb_that_fails_wants_nothing(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    driving.start(run_request(dataset), remote)
    with pytest.raises(StreamerRefused):
        driving.step("furlong", 1, remote)  # type: ignore[arg-type]
    assert Replay.objects.get().desired_state == "REPLAYING"


def test_a_desire_is_not_taken_back_when_somebody_wants_something_else_by_now(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    paused = runs.desire(Replay.Desired.PAUSED)
    assert paused is not None
    runs.desire(Replay.Desired.STOPPED)
    paused.take_back()
    assert Replay.objects.get().desired_state == "STOPPED"


def test_verbs_without_a_replay_are_refused_and_a_stop_is_harmless(
    transactional_db: None, daemon: Daemon, remote: StreamerRemote
) -> None:
    for verb in (driving.pause, driving.resume, lambda remote: driving.step("event", 1, remote)):
        with pytest.raises(StreamerRefused):
            verb(remote)
    assert driving.stop(remote)["state"] == "IDLE"


def test_a_start_whose_worker_died_before_the_streamer_heard_of_it_is_finished_by_asking_again(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    request = run_request(dataset, request_id="key:1")
    left_behind = runs.open_run(request)
    assert left_behind is not None
    status = driving.start(request, remote)
    assert (status["replay_id"], status["state"]) == (left_behind.pk, "REPLAYING")
    assert "note" not in status
    assert states() == ["REPLAYING"]


def test_a_start_whose_worker_died_after_the_streamer_heard_of_it_is_not_started_twice(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    request = run_request(dataset, request_id="key:1")
    run = runs.open_run(request)
    assert run is not None
    run.dataset = dataset
    remote.call("start", runs.start_command(run), once=f"replay:{run.pk}")
    assert driving.start(request, remote)["replay_id"] == run.pk
    assert states() == ["REPLAYING"]
    assert daemon.handled.count("start") == 1
    assert driving.start(request, remote)["note"] == "started before"
    driving.stop(remote)
    assert driving.start(request, remote)["note"] == "started before", "it was started, and has ended since"
    assert states() == ["STOPPED"]


def test_a_start_that_failed_fails_again_when_it_is_asked_for_again(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    request = run_request(dataset, {"records_per_s": 0}, request_id="key:1")
    for _ in range(2):
        with pytest.raises(StreamerRefused, match="Expected a pace"):
            driving.start(request, remote)
    assert states() == ["FAILED"]


def test_a_step_that_is_asked_for_again_is_made_once(dataset: Dataset, daemon: Daemon, remote: StreamerRemote) -> None:
    driving.start(run_request(dataset), remote)
    driving.pause(remote)
    first = driving.step("record", 5, remote, once="key:1")
    assert driving.step("record", 5, remote, once="key:1")["position"] == first["position"]
    assert remote.call("status")["position"] == first["position"]
    assert driving.step("record", 5, remote, once="key:2")["position"] == first["position"] + 5


def test_a_start_that_takes_too_long_is_left_undone_and_made_when_it_is_asked_for_again(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "_START_WITHIN_S", 0.1)
    monkeypatch.setattr(remote_side, "_GRACE_S", 0.4)
    opened = threading.Event()

    def open_slowly(path: Path) -> Recording:
        assert opened.wait(10)
        return recording()

    daemon.streamer._open_recording = open_slowly
    request = run_request(dataset, request_id="key:1")
    with pytest.raises(StreamerUnreachable, match="could not carry out the command start in time"):
        driving.start(request, remote)
    opened.set()
    assert (remote.call("status")["state"], states()) == ("IDLE", ["FAILED"])
    monkeypatch.setattr(remote_side, "_GRACE_S", 4.0)
    status = driving.start(request, remote)
    assert (status["state"], status["replay_id"]) == ("REPLAYING", Replay.objects.latest("pk").pk)
    assert "note" not in status
    assert states() == ["FAILED", "REPLAYING"]


def test_a_request_that_is_sent_again_does_not_undo_what_was_asked_for_since(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    paused = driving.pause(remote, once="key:1")
    driving.resume(remote, once="key:2")
    assert driving.pause(remote, once="key:1") == paused
    assert remote.call("status")["state"] == "REPLAYING"
    assert (Replay.objects.get().desired_state, states()) == ("REPLAYING", ["REPLAYING"])


def test_a_request_whose_worker_died_means_the_replay_that_it_meant_and_none_that_came_later(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    for name, wanted in (("stop", Replay.Desired.STOPPED), ("pause", Replay.Desired.PAUSED), ("seek", None)):
        asking.ask(name, wanted)  # and nobody is told
    driving.stop(remote)
    driving.start(run_request(dataset), remote)
    assert driving.stop(remote, once="stop")["note"] == "its replay has ended before"
    for again in (
        lambda: driving.pause(remote, once="pause"),
        lambda: driving.seek({"record": 9}, remote, once="seek"),
    ):
        with pytest.raises(StreamerRefused, match="The replay that this request meant has ended"):
            again()
    assert states() == ["STOPPED", "REPLAYING"]
    assert Replay.objects.latest("pk").desired_state == "REPLAYING"
    assert (daemon.handled.count("stop"), daemon.handled.count("pause")) == (1, 0)


def test_a_request_whose_worker_died_is_finished_by_asking_again_unless_it_was_overtaken(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote
) -> None:
    driving.start(run_request(dataset), remote)
    asking.ask("key:1", Replay.Desired.PAUSED)
    asking.ask("key:2", Replay.Desired.PAUSED)
    assert driving.pause(remote, once="key:1")["state"] == "PAUSED"
    driving.resume(remote)
    overtaken = driving.pause(remote, once="key:2")
    assert (overtaken["state"], overtaken["note"][:14]) == ("REPLAYING", "carried out be")
    assert Replay.objects.get().desired_state == "REPLAYING"


def test_a_request_that_failed_is_carried_out_when_it_is_sent_again(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    driving.start(run_request(dataset), remote)
    monkeypatch.setattr(driving, "_MOVE_WITHIN_S", 0.1)
    monkeypatch.setattr(remote_side, "_GRACE_S", 0.2)
    daemon.let_go.clear()
    with pytest.raises(StreamerUnreachable):
        driving.pause(remote, once="key:1")
    assert Replay.objects.get().desired_state == "REPLAYING"
    daemon.let_go.set()
    monkeypatch.setattr(remote_side, "_GRACE_S", 4.0)
    assert driving.pause(remote, once="key:1")["state"] == "PAUSED"
    assert Replay.objects.get().desired_state == "PAUSED"


def test_the_answer_of_a_streamer_that_has_lost_the_feed_is_none(
    dataset: Dataset, remote: StreamerRemote, settings: Settings
) -> None:
    FeedLease.objects.create(feed="main", owner="new", generation=2, taken_at=timezone.now(), expires_at=timezone.now())
    with Daemon(settings.REDIS_URL, lease=1):
        for ask in (driving.stop, driving.pause, lambda remote: driving.start(run_request(dataset), remote)):
            with pytest.raises(StreamerUnreachable, match="a streamer answered that another one has replaced"):
                ask(remote)
    with Daemon(settings.REDIS_URL, lease=2):
        assert driving.start(run_request(dataset), remote)["state"] == "REPLAYING"


@pytest.mark.parametrize(("ts_event", "ts"), [(0, None), (1_000_000_000, "1970-01-01T00:00:01"), (2**64 - 1, None)])
def test_a_time_that_is_none_is_shown_as_none(
    transactional_db: None, daemon: Daemon, remote: StreamerRemote, ts_event: int, ts: str | None
) -> None:
    shown = control._position({**remote.call("status"), "ts_event": str(ts_event)})["ts"]
    assert shown is None if ts is None else (shown or "").startswith(ts)


def test_a_start_beside_a_replay_that_is_just_being_resumed_does_not_close_it(
    dataset: Dataset, daemon: Daemon, remote: StreamerRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "_OTHER_START_WITHIN_S", 0.2)
    runs.open_run(run_request(dataset))
    Replay.objects.update(state="REPLAYING", heartbeat_at=timezone.now())
    with pytest.raises(StreamerUnreachable, match="another start is under way"):
        driving.start(run_request(dataset), remote)
    assert states() == ["REPLAYING"]


def test_outcomes_are_plain_data_for_every_verb(
    dataset: Dataset, daemon: Daemon, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.streamer_remote.cache_clear()
    assert tasks.change_pace({"pace": "max"}) == {"refused": "No replay is running."}
    assert tasks.start_replay(run_request(dataset))["status"]["state"] == "REPLAYING"
    assert tasks.change_pace({"pace": {"records_per_s": 3}})["status"]["pace"] == {"records_per_s": 3}
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
    monkeypatch.setattr(dispatch, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(dispatch, "_SLACK_S", 0.1)
    task = SlowTask()
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(dispatch.through_worker, task) for _ in range(8)]
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
        dispatch.through_worker(queued)
    with pytest.raises(TimeoutError):
        dispatch._on_waiter(lambda: done.append("too late"))
    busy.released.set()
    next_one.released.set()
    monkeypatch.setattr(dispatch, "ANSWER_WITHIN_S", 5)
    with pytest.raises(ControlError, match="a late answer"):
        dispatch.through_worker(next_one)
    assert (queued.sent, next_one.sent, done) == (0, 1, [])


def test_a_command_whose_turn_comes_after_its_deadline_is_not_sent() -> None:
    task = SlowTask()
    with pytest.raises(TaskTimeoutError):
        dispatch._run(task, (), time.monotonic())
    assert task.sent == 0


def test_more_commands_than_can_wait_are_refused_at_once_and_every_place_is_given_back(
    busy: SlowTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "ANSWER_WITHIN_S", 5)
    refused, answered = SlowTask(), SlowTask()
    answered.released.set()
    queued = dispatch.MAX_WAITING - 8
    with ThreadPoolExecutor(queued) as callers:
        answers = [callers.submit(dispatch.through_worker, answered) for _ in range(queued)]
        while dispatch._PLACES._value:  # until they all wait
            time.sleep(0.001)
        with pytest.raises(ControlUnreachable, match="64 commands are waiting for an answer already"):
            dispatch.through_worker(refused)
        busy.released.set()
        assert {type(answer.exception(10)) for answer in answers} == {ControlError}
    assert refused.sent == 0
    for place in [dispatch._PLACES.acquire(timeout=10) for _ in range(dispatch.MAX_WAITING)]:
        assert place
        dispatch._PLACES.release()


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


def test_a_second_request_to_read_files_goes_back_to_the_broker_and_holds_no_thread_of_a_worker(
    redis_client: redis.Redis, transactional_db: None
) -> None:
    with tasks._reading:
        tasks.rescan_datasets([17])
    (message,) = [json.loads(text) for text in redis_client.lrange("celery", 0, -1)]
    assert message["headers"]["argsrepr"] == "([17],)"
    assert message["headers"]["eta"] is not None
