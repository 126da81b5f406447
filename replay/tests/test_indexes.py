"""The index of a dataset: asked for at registration, made by a worker, kept while the file stays what it is."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import redis
import zstandard
from django.conf import settings as django_settings
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from replay import indexes, tasks
from replay.datasets import INDEX_TASK, open_dataset, register, scan
from replay.feed import indexing
from replay.feed.index import index_path, is_indexed, open_index
from replay.indexes import store_index
from replay.models import Dataset
from replay.tests.recordings import session, write_dbn

pytestmark = pytest.mark.django_db


@pytest.fixture
def path(data_folder: Path) -> Path:
    return write_dbn(data_folder / "data" / "made.dbn", session(1000))


@pytest.fixture
def dataset(path: Path) -> Dataset:
    return register(path)


def percent(dataset: Dataset) -> int:
    return Dataset.objects.get(pk=dataset.pk).indexed_percent


def place(path: Path) -> Path:
    return index_path(path, django_settings.RECORDINGS_FOLDER)


def indexed(path: Path) -> bool:
    return is_indexed(path, django_settings.RECORDINGS_FOLDER)


def asked(redis_client: redis.Redis) -> list[str]:
    """Return the arguments of each index task that waits for a worker."""
    messages = [json.loads(text) for text in redis_client.lrange("celery", 0, -1)]
    return [message["headers"]["argsrepr"] for message in messages if message["headers"]["task"] == INDEX_TASK]


def test_a_scan_asks_for_the_indexes_that_are_missing(
    path: Path, redis_client: redis.Redis, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    path.with_name("cut.dbn").write_bytes(path.read_bytes()[:-7])
    with django_capture_on_commit_callbacks(execute=True):
        scan()
        assert asked(redis_client) == []
    dataset = Dataset.objects.get(name="made.dbn")
    assert asked(redis_client) == [f"[{dataset.pk}]"]
    assert tasks.index_dataset.name == INDEX_TASK
    tasks.index_dataset(dataset.pk)
    assert indexed(path) and percent(dataset) == 100
    redis_client.flushdb()
    with django_capture_on_commit_callbacks(execute=True):
        scan()
    assert asked(redis_client) == []
    place(path).unlink()  # the folder may be emptied at any time
    with django_capture_on_commit_callbacks(execute=True):
        scan()
    assert asked(redis_client) == [f"[{dataset.pk}]"]


def test_the_streamer_opens_what_the_worker_made(dataset: Dataset, path: Path) -> None:
    assert store_index(dataset.pk)
    index = open_index(open_dataset(path), django_settings.RECORDINGS_FOLDER)
    assert index is not None
    assert index.marks["events"][-1] == dataset.events


def test_a_compressed_file_is_indexed_as_what_it_was_decoded_to(data_folder: Path) -> None:
    plain = write_dbn(data_folder / "made.dbn", session(1000))
    path = data_folder / "data" / "made.dbn.zst"
    path.write_bytes(zstandard.compress(plain.read_bytes()))
    dataset = register(path)
    assert store_index(dataset.pk)
    index = open_index(open_dataset(path), django_settings.RECORDINGS_FOLDER)
    assert index is not None and index.records == 1000


def test_an_index_that_is_there_is_not_made_again(dataset: Dataset, path: Path) -> None:
    store_index(dataset.pk)
    Dataset.objects.update(indexed_percent=40)  # as a worker left it that was killed
    before = place(path).stat()
    assert store_index(dataset.pk, lambda n: pytest.fail("made again"))
    after = place(path).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # reading it changes the rest
    assert percent(dataset) == 100


def test_a_damaged_index_is_made_again(dataset: Dataset, path: Path) -> None:
    store_index(dataset.pk)
    data = bytearray(place(path).read_bytes())
    data[-1] ^= 1
    place(path).write_bytes(data)
    assert not indexed(path)
    assert store_index(dataset.pk) and indexed(path)


def test_changed_content_is_indexed_anew_and_so_is_a_touched_file(
    dataset: Dataset,
    path: Path,
    redis_client: redis.Redis,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    store_index(dataset.pk)
    write_dbn(path, session(1000, seed=2))
    with django_capture_on_commit_callbacks(execute=True):
        tasks.rescan_datasets([dataset.pk])
    assert asked(redis_client) == [f"[{dataset.pk}]"] and percent(dataset) == 0
    assert store_index(dataset.pk) and percent(dataset) == 100
    os.utime(path, ns=(0, 1))
    assert not indexed(path)
    assert store_index(dataset.pk) and indexed(path)


def test_the_row_tells_how_far_it_is(data_folder: Path, monkeypatch: pytest.MonkeyPatch, admin_client: Client) -> None:
    dataset = register(write_dbn(data_folder / "data" / "long.dbn", np.tile(session(50_000), 4)))
    monkeypatch.setattr(indexes, "TOLD_EVERY_S", 0)
    shown: list[str] = []
    told: list[int] = []

    def look(n: int) -> None:
        told.append(percent(dataset))
        page = admin_client.get("/admin/replay/dataset/").content.decode()
        shown.extend(text for text in ("0 %", "32 %", "65 %", "98 %") if f">{text}<" in page)

    store_index(dataset.pk, look)
    assert told == [0, 32, 65, 98]
    assert shown == ["0 %", "32 %", "65 %", "98 %"]
    assert percent(dataset) == 100
    assert ">ready<" in admin_client.get("/admin/replay/dataset/").content.decode()


def test_a_row_that_tells_of_other_content_by_now_is_left_alone(dataset: Dataset) -> None:
    def overtake(n: int) -> None:
        Dataset.objects.update(sha256="0" * 64, indexed_percent=7)

    store_index(dataset.pk, overtake)
    assert percent(dataset) == 7


def test_a_registration_does_not_undo_what_a_worker_writes_meanwhile(dataset: Dataset, path: Path) -> None:
    os.utime(path)
    register(path, lambda path, n: Dataset.objects.update(indexed_percent=55) and None)
    assert percent(dataset) == 55


def test_a_dataset_that_is_gone_failed_or_damaged_has_no_index(
    dataset: Dataset, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(indexing, "SPARE_DISK_BYTES", 1 << 62)
        assert store_index(dataset.pk) is False
    assert "made.dbn has no index: expected" in caplog.text
    path.write_bytes(path.read_bytes()[:-7])
    assert store_index(dataset.pk) is False
    assert "made.dbn has no index: made.dbn, byte" in caplog.text
    path.unlink()
    assert store_index(dataset.pk) is False
    Dataset.objects.update(state="failed")
    assert store_index(dataset.pk) is False
    dataset.delete()
    assert store_index(dataset.pk or 0) is False


def test_while_one_file_is_indexed_the_next_waits_in_the_broker(
    dataset: Dataset, path: Path, redis_client: redis.Redis
) -> None:
    with tasks._indexing:
        tasks.index_dataset(dataset.pk)
    assert not indexed(path)
    assert asked(redis_client) == [f"({dataset.pk},)"]


def test_a_worker_that_stops_gives_its_file_back(
    dataset: Dataset, path: Path, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_stopping", tasks.threading.Event())
    tasks._give_up()
    tasks.index_dataset(dataset.pk)
    assert not indexed(path)
    assert list(django_settings.RECORDINGS_FOLDER.iterdir()) == []
    assert asked(redis_client) == [f"({dataset.pk},)"]
    assert not tasks._indexing.locked()


def test_a_failed_file_is_shown_without_a_percentage(dataset: Dataset, admin_client: Client) -> None:
    Dataset.objects.update(state="failed")
    page = admin_client.get("/admin/replay/dataset/").content.decode()
    assert '<td class="field-index">-</td>' in page
