"""The quality report of a dataset: asked for, made by a worker, kept for its content only."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from batonic_site.tests.fixtures import Spawn
from orderbook.quality.request import How
from replay import quality, tasks
from replay.datasets import VERIFY_TASK, register, scan
from replay.models import Dataset
from replay.quality import check_file, store_report
from replay.tests.recordings import session, write_dbn

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(data_folder: Path) -> Path:
    return write_dbn(data_folder / "data" / "made.dbn", session(1000))


@pytest.fixture
def dataset(path: Path) -> Dataset:
    return register(path)


def report_of(dataset: Dataset) -> Any:
    return Dataset.objects.get(pk=dataset.pk).quality


def queued(redis_client: redis.Redis) -> list[tuple[str, object]]:
    """Return the name and the arguments of every task that waits for a worker."""
    messages = [json.loads(text) for text in redis_client.lrange("celery", 0, -1)]
    return [(message["headers"]["task"], message["headers"]["argsrepr"]) for message in messages]


def test_a_scan_asks_for_the_reports_that_are_missing(
    path: Path, redis_client: redis.Redis, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    path.with_name("cut.dbn").write_bytes(path.read_bytes()[:-7])
    with django_capture_on_commit_callbacks(execute=True):
        scan()
        assert queued(redis_client) == []
    dataset = Dataset.objects.get(name="made.dbn")
    assert queued(redis_client) == [(VERIFY_TASK, f"[{dataset.pk}]")]
    assert tasks.verify_dataset.name == VERIFY_TASK
    tasks.verify_dataset(dataset.pk)
    redis_client.flushdb()
    with django_capture_on_commit_callbacks(execute=True):
        scan()
    assert queued(redis_client) == []


def test_a_file_that_is_read_again_gets_a_new_report(
    dataset: Dataset,
    path: Path,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    store_report(dataset.pk)
    write_dbn(path, session(1000, seed=2))
    with django_capture_on_commit_callbacks(execute=True):
        tasks.rescan_datasets([dataset.pk])
    assert queued(redis_client) == [(VERIFY_TASK, f"[{dataset.pk}]")]


def test_the_report_is_that_of_the_file(dataset: Dataset, path: Path) -> None:
    tasks.verify_dataset(dataset.pk)
    report = report_of(dataset)
    assert report == check_file(path, How(django_settings.BOOK))
    assert (report["ok"], report["sha256"]) == (True, dataset.sha256)
    assert Dataset.objects.get().registered_at == dataset.registered_at


def test_a_long_file_is_checked_at_some_event_ends_only(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_CHECKS_KEPT_TO", 100)
    store_report(dataset.pk)
    checks = report_of(dataset)["checks"]
    assert (checks["every"], checks["made"]) == (6, dataset.events // 6)


def test_a_stored_report_has_at_most_so_many_instruments(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "INSTRUMENTS_KEPT", 1)
    store_report(dataset.pk)
    assert (len(report_of(dataset)["instruments"]), report_of(dataset)["instrument_count"]) == (1, 2)


def test_a_report_that_is_there_is_made_again_only_when_asked(dataset: Dataset) -> None:
    Dataset.objects.update(quality={"ok": False})
    tasks.verify_dataset(dataset.pk)
    assert report_of(dataset) == {"ok": False}
    tasks.verify_dataset(dataset.pk, True)
    assert report_of(dataset)["ok"] is True


def test_changed_content_loses_the_report_and_touched_content_keeps_it(dataset: Dataset, path: Path) -> None:
    store_report(dataset.pk)
    os.utime(path)
    register(path)
    assert report_of(dataset)["sha256"] == dataset.sha256
    write_dbn(path, session(1000, seed=2))
    assert register(path).state == "ready"
    assert report_of(dataset) is None
    store_report(dataset.pk)
    path.write_bytes(b"DBN")
    assert register(path).state == "failed"
    assert report_of(dataset) is None


def test_a_report_of_other_content_than_the_row_tells_of_is_not_kept(dataset: Dataset, path: Path) -> None:
    write_dbn(path, session(1000, seed=2))  # not registered yet
    assert store_report(dataset.pk) is False
    assert report_of(dataset) is None
    register(path)

    def overtake(stage: str, n: int, total: int) -> None:
        Dataset.objects.update(sha256="0" * 64)

    assert store_report(dataset.pk, overtake) is False
    assert report_of(dataset) is None


def test_a_registration_does_not_undo_what_a_worker_writes_meanwhile(dataset: Dataset, path: Path) -> None:
    os.utime(path)
    register(path, lambda path, n: Dataset.objects.update(quality={"ok": True}) and None)
    assert report_of(dataset) == {"ok": True}


def test_a_dataset_that_is_gone_or_failed_has_no_report(dataset: Dataset) -> None:
    Dataset.objects.update(state="failed")
    assert store_report(dataset.pk) is False
    dataset.delete()
    tasks.verify_dataset(dataset.pk or 0)


def test_a_damaged_file_has_no_report_and_the_log_says_why(
    dataset: Dataset, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(path.read_bytes()[:-7])
    tasks.verify_dataset(dataset.pk)
    assert report_of(dataset) is None
    assert "has no quality report: made.dbn, byte" in caplog.text


def test_while_one_file_is_verified_the_next_waits_in_the_broker(dataset: Dataset, redis_client: redis.Redis) -> None:
    with tasks._verifying:
        tasks.verify_dataset(dataset.pk, True)
    assert report_of(dataset) is None
    assert queued(redis_client) == [(VERIFY_TASK, f"({dataset.pk}, True)")]


def test_a_worker_that_stops_gives_its_file_back(
    dataset: Dataset, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_stopping", tasks.threading.Event())
    tasks._give_up()
    tasks.verify_dataset(dataset.pk)
    assert report_of(dataset) is None
    assert queued(redis_client) == [(VERIFY_TASK, f"({dataset.pk}, False)")]
    assert not tasks._verifying.locked()


def test_a_violation_is_kept_too(dataset: Dataset, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from orderbook.book.reference import ReferenceBook

    settings.BOOK = "reference"
    monkeypatch.setattr(ReferenceBook, "_resize", lambda book, order, size: setattr(order, "size", size))
    tasks.verify_dataset(dataset.pk)
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
    store_report(dataset.pk)
    with django_assert_num_queries(1):
        (row,) = Dataset.objects.with_verdict()
        verdict = row.quality_ok, row.quality_anomalies, row.quality_hash
    assert row.get_deferred_fields() == {"quality"}
    assert verdict == (True, row.quality["anomaly_count"], row.quality["hash"])
