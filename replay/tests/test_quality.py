"""The quality report of a dataset: asked for, made by a worker, kept for its content only."""

import ast
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from batonic_site.tests.fixtures import Spawn
from orderbook.book.reference import ReferenceBook
from orderbook.quality.report import VERSION, Report, shortened
from orderbook.quality.verification import CheckOptions
from replay import quality, report_queue, tasks
from replay.datasets import register, scan
from replay.feed.sources import SourceError, file_sha256
from replay.models import Dataset
from replay.quality import INSTRUMENTS_KEPT, CheckError, check_apart, check_file, store_report
from replay.report_queue import VERIFY_TASK
from replay.tests.recordings import session, write_dbn

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(data_folder: Path) -> Path:
    return write_dbn(data_folder / "data" / "made.dbn", session(1000))


@pytest.fixture
def dataset(path: Path) -> Dataset:
    return register(path)


@pytest.fixture
def scanned(
    path: Path, redis_client: redis.Redis, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> Callable[[], list[object]]:
    """Return a function that scans, and returns the arguments of every report that is asked for then."""

    def scanned() -> list[object]:
        with django_capture_on_commit_callbacks(execute=True):
            scan()
        return asked(redis_client)

    return scanned


def check_here(path: Path, sha256: str, look: Callable[[], None]) -> Report:
    """Check as the process of its own does, without the seconds that it takes to start."""
    look()
    try:
        return shortened(check_file(path, CheckOptions("reference", None), sha256), INSTRUMENTS_KEPT)
    except SourceError as error:
        raise CheckError(str(error)) from error


def report_of(dataset: Dataset) -> Any:
    return Dataset.objects.get(pk=dataset.pk).report


def asked(redis_client: redis.Redis) -> list[object]:
    """Return the arguments of every report that waits for a worker, in the order in which they were asked for."""
    headers = [json.loads(text)["headers"] for text in reversed(redis_client.lrange("celery", 0, -1))]
    return [list(ast.literal_eval(each["argsrepr"])) for each in headers if each["task"] == VERIFY_TASK]


def verify(dataset: Dataset, anew: bool = False) -> None:
    tasks.verify_dataset(dataset.pk, dataset.sha256, anew)


def test_a_scan_asks_for_one_report_and_each_report_for_the_next(
    path: Path, scanned: Callable[[], list[object]], redis_client: redis.Redis
) -> None:
    path.with_name("cut.dbn").write_bytes(path.read_bytes()[:-7])
    write_dbn(path.with_name("other.dbn"), session(1000, seed=2))
    assert asked(redis_client) == []
    wanted = scanned()
    made, other = Dataset.objects.filter(state="ready")
    assert wanted == [[made.pk, made.sha256, False]]
    assert tasks.verify_dataset.name == VERIFY_TASK
    verify(made)
    assert report_of(made) and not report_of(other)
    assert asked(redis_client)[1:] == [[other.pk, other.sha256, False]]
    store_report(other.pk, check=check_here)
    redis_client.flushdb()
    assert scanned() == []


def test_what_waits_or_is_being_made_is_not_asked_for_again(
    dataset: Dataset, scanned: Callable[[], list[object]], redis_client: redis.Redis
) -> None:
    assert len(scanned()) == 1
    assert len(scanned()) == 1
    assert report_queue.ask(dataset.pk, dataset.sha256, anew=True) is False
    (mark,) = redis_client.keys("batonic:report:*")
    assert 0 < redis_client.ttl(mark) <= report_queue.WAITING_S
    report_queue.mark(dataset.pk, dataset.sha256, report_queue.RUNNING_S)
    assert 0 < redis_client.ttl(mark) <= report_queue.RUNNING_S
    redis_client.delete(mark)  # as when it expires
    assert len(scanned()) == 2
    Dataset.objects.update(sha256="0" * 64)
    assert len(scanned()) == 3, "other content"


def test_a_mark_is_gone_when_its_report_is_made(dataset: Dataset, redis_client: redis.Redis) -> None:
    assert report_queue.ask(dataset.pk, dataset.sha256)
    Dataset.objects.update(quality={"version": VERSION})
    verify(dataset)
    assert redis_client.keys("batonic:report:*") == []


def test_what_could_not_be_asked_for_may_be_asked_for_at_once(
    dataset: Dataset, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object, **options: object) -> None:
        raise redis.ConnectionError("no broker")

    with monkeypatch.context() as patched:
        patched.setattr(report_queue.current_app, "send_task", fail)
        with pytest.raises(redis.ConnectionError):
            report_queue.ask(dataset.pk, dataset.sha256)
    assert report_queue.ask(dataset.pk, dataset.sha256)


def test_a_file_that_is_read_again_gets_a_new_report(
    dataset: Dataset,
    path: Path,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    store_report(dataset.pk, check=check_here)
    write_dbn(path, session(1000, seed=2))
    with django_capture_on_commit_callbacks(execute=True):
        tasks.rescan_datasets([dataset.pk])
    changed = Dataset.objects.get()
    assert changed.sha256 != dataset.sha256
    assert asked(redis_client) == [[dataset.pk, changed.sha256, False]]


def test_the_report_is_that_of_the_file(dataset: Dataset, path: Path, redis_client: redis.Redis) -> None:
    verify(dataset)
    report = report_of(dataset)
    assert report == check_file(path, CheckOptions(django_settings.BOOK))
    assert (report["ok"], report["sha256"]) == (True, dataset.sha256)
    assert Dataset.objects.get().registered_at == dataset.registered_at


def test_a_stored_report_has_at_most_so_many_instruments(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "INSTRUMENTS_KEPT", 1)
    store_report(dataset.pk)
    assert (len(report_of(dataset)["instruments"]), report_of(dataset)["instrument_count"]) == (1, 2)


def test_a_report_that_is_there_is_made_again_only_when_asked(dataset: Dataset, redis_client: redis.Redis) -> None:
    there = {"version": VERSION, "ok": False}
    Dataset.objects.update(quality=there)
    verify(dataset)
    assert report_of(dataset) == there
    verify(dataset, anew=True)
    assert report_of(dataset)["ok"] is True


@pytest.mark.parametrize("other", [{}, {"version": VERSION - 1, "ok": True}, {"ok": True, "hash": "0f"}, [1], "text"])
def test_a_report_of_another_version_is_as_good_as_none(
    dataset: Dataset, scanned: Callable[[], list[object]], other: object
) -> None:
    Dataset.objects.update(quality=other)
    assert report_of(dataset) is None
    (row,) = Dataset.objects.with_verdict()
    assert (row.quality_ok, row.quality_anomalies, row.quality_hash, row.quality_error) == (None, None, None, None)
    assert scanned() == [[dataset.pk, dataset.sha256, False]]


def test_changed_content_loses_the_report_and_touched_content_keeps_it(dataset: Dataset, path: Path) -> None:
    store_report(dataset.pk, check=check_here)
    os.utime(path)
    register(path)
    assert report_of(dataset)["sha256"] == dataset.sha256
    write_dbn(path, session(1000, seed=2))
    assert register(path).state == "ready"
    assert report_of(dataset) is None
    store_report(dataset.pk, check=check_here)
    path.write_bytes(b"DBN")
    assert register(path).state == "failed"
    assert report_of(dataset) is None


def test_a_report_is_not_kept_when_the_row_tells_of_other_content_by_then(dataset: Dataset) -> None:
    assert store_report(dataset.pk, lambda: Dataset.objects.update(sha256="0" * 64) and None, check_here) is False
    assert report_of(dataset) is None


def test_a_registration_does_not_undo_what_a_worker_writes_meanwhile(dataset: Dataset, path: Path) -> None:
    os.utime(path)
    written = {"version": VERSION, "ok": True}
    register(path, lambda path, n: Dataset.objects.update(quality=written) and None)
    assert report_of(dataset) == written


def test_a_dataset_that_is_gone_or_failed_has_no_report(dataset: Dataset, redis_client: redis.Redis) -> None:
    Dataset.objects.update(state="failed")
    assert store_report(dataset.pk) is False
    dataset_id = dataset.pk
    dataset.delete()
    tasks.verify_dataset(dataset_id, dataset.sha256, True)
    assert asked(redis_client) == []


def test_why_there_is_no_report_is_kept_and_it_is_not_tried_again_by_itself(
    dataset: Dataset, path: Path, scanned: Callable[[], list[object]], caplog: pytest.LogCaptureFixture
) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    Dataset.objects.update(sha256=file_sha256(path))
    dataset.refresh_from_db()
    assert store_report(dataset.pk) is True
    assert report_of(dataset)["error"].startswith("made.dbn, byte 56")
    assert "made.dbn has no quality report: made.dbn, byte 56" in caplog.text
    (row,) = Dataset.objects.with_verdict()
    assert (row.quality_ok, row.quality_error) == (None, report_of(dataset)["error"])
    assert Dataset.objects.without_report().count() == 0
    assert report_queue.ask(dataset.pk, dataset.sha256, anew=True), "when somebody asks"
    path.write_bytes(content)
    assert scanned()[1:] == [[dataset.pk, file_sha256(path), False]]
    assert report_of(dataset) is None, "the file was written: it may be another try's turn"


def test_other_content_than_the_row_tells_of_is_not_reported(dataset: Dataset, path: Path) -> None:
    write_dbn(path, session(1000, seed=2))  # not registered yet
    store_report(dataset.pk, check=check_here)
    assert report_of(dataset)["error"].startswith(
        f"made.dbn: expected content with the SHA-256 {dataset.sha256}, found"
    )


def maps(path: Path) -> list[int]:
    """Return the other processes that have a file mapped: those that check it have told its digest by then."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_mapped = str(path) in (process / "maps").read_text()
        except OSError:  # it has ended, or is somebody else's
            continue
        if is_mapped and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


@pytest.fixture
def long_one(data_folder: Path, settings: Settings) -> Path:
    """Return a file whose check takes a second at least."""
    settings.BOOK = "reference"
    return write_dbn(data_folder / "data" / "made.dbn", session(100_000))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which process has mapped a file")
def test_a_file_that_is_cut_while_it_is_checked_ends_the_check_and_nothing_else(long_one: Path) -> None:
    dataset = register(long_one)

    def cut() -> None:
        if maps(long_one):
            os.truncate(long_one, 8192)

    assert store_report(dataset.pk, cut) is True
    assert report_of(dataset)["error"] == (
        "the check was ended by a signal: Bus error (as when the file became shorter while it was read)"
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which process has mapped a file")
def test_what_a_look_raises_ends_the_check_whatever_it_does(long_one: Path) -> None:
    stopped: list[int] = []

    def look() -> None:
        for checking in maps(long_one):
            os.kill(checking, signal.SIGSTOP)
            stopped.append(checking)
            raise tasks.Stopping

    rescue = threading.Timer(60, lambda: [os.kill(checking, signal.SIGKILL) for checking in stopped])
    rescue.start()
    try:
        with pytest.raises(tasks.Stopping):
            check_apart(long_one, file_sha256(long_one), look)
        assert rescue.is_alive(), "it ended because we killed it"
    finally:
        rescue.cancel()
    assert not maps(long_one)


def test_a_check_that_cannot_even_begin_says_why(path: Path, settings: Settings) -> None:
    settings.BOOK = "none of them"
    with pytest.raises(CheckError, match="invalid choice: 'none of them'"):
        check_apart(path, "")


@pytest.fixture
def other_worker() -> Iterator[psycopg.Connection[Any]]:
    """Return a connection of another worker that is making a report."""
    parameters = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{name: parameters[name] for name in names if parameters.get(name)}) as other:
        assert other.execute("SELECT pg_try_advisory_lock(%s)", [report_queue._LOCK]).fetchone() == (True,)
        yield other


def may_make_one() -> bool:
    with report_queue.turn() as is_mine:
        return is_mine


def test_while_another_worker_makes_a_report_the_next_waits_in_the_broker(
    dataset: Dataset,
    redis_client: redis.Redis,
    other_worker: psycopg.Connection[Any],
    wait_for: Callable[..., Any],
) -> None:
    verify(dataset, anew=True)
    assert report_of(dataset) is None
    assert asked(redis_client) == [[dataset.pk, dataset.sha256, True]]
    assert report_queue.ask(dataset.pk, dataset.sha256) is False
    other_worker.close()  # as when the worker is killed
    wait_for(may_make_one, what="the end of the other worker's turn")


def test_a_worker_that_stops_gives_its_file_back(
    dataset: Dataset, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_stopping", tasks.threading.Event())
    tasks._give_up()
    verify(dataset)
    assert report_of(dataset) is None
    assert asked(redis_client) == [[dataset.pk, dataset.sha256, False]]
    assert report_queue.ask(dataset.pk, dataset.sha256) is False
    assert may_make_one()


def test_a_violation_is_kept_too(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceBook, "_resize", lambda book, order, size: setattr(order, "size", size))
    store_report(dataset.pk, check=check_here)
    assert report_of(dataset)["ok"] is False
    assert report_of(dataset)["violation"]["kind"] == "invariant"


def test_without_a_broker_files_are_registered_all_the_same(
    path: Path, spawn: Spawn, process_env: dict[str, str], free_port: Any
) -> None:
    process = spawn("scandatasets", env=process_env | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    assert process.wait(30) == 0
    assert Dataset.objects.get().state == "ready"
    assert Dataset.objects.get().quality is None


def test_lists_do_not_load_the_reports(dataset: Dataset, django_assert_num_queries: Any) -> None:
    store_report(dataset.pk, check=check_here)
    with django_assert_num_queries(1):
        (row,) = Dataset.objects.with_verdict()
        verdict = row.quality_ok, row.quality_anomalies, row.quality_hash, row.quality_error
    assert row.get_deferred_fields() == {"quality"}
    assert verdict == (True, row.quality["anomaly_count"], row.quality["hash"], None)
