"""Files become Dataset rows: what is in DATA_DIR and CSV_PATH, looked at once for each content. Floor 3.

A file that cannot be replayed is a row in state failed that says why, and never stops the others. The rows are
written by ``scan`` and ``register`` only; but what a worker makes later: the quality report and the index.
"""

import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from os import stat_result
from pathlib import Path
from typing import Final

from celery import current_app
from django.conf import settings
from django.db import transaction
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from history.models import Instrument
from replay import report_queue
from replay.feed.index import is_indexed
from replay.feed.sources import SUFFIXES, Recording, SourceError, file_sha256, format_of, open_recording
from replay.feed.summary import InstrumentSummary, Summary, summarize
from replay.models import Dataset

GONE = "The file is gone."
INDEX_TASK: Final = "replay.tasks.index_dataset"  # by name: the tasks call this module

_OF_WORKERS: Final = ("quality", "indexed_percent")
logger = logging.getLogger(__name__)

_FILE_CLOCK_TICK: Final = timedelta(milliseconds=10)  # a file's times come from a clock that may be so far behind

Progress = Callable[[Path, int], None]
"""Told the file and how many more of its bytes were looked at."""


def scan(progress: Progress = lambda path, n: None) -> list[Dataset]:
    """Register every file of DATA_DIR and CSV_PATH, and mark the rows whose file is gone. Returns all rows.

    A worker is asked for the indexes and the quality reports that are missing.

    Cost: reading and decoding each file that is new or changed; one stat for each of the others.
    """
    seen = {register(path, progress).pk for path in files()}
    for dataset in Dataset.objects.defer(*_OF_WORKERS).exclude(error=GONE):
        if dataset.pk not in seen and not Path(dataset.path).exists():
            _fail(dataset, GONE)
    request_missing()
    return list(Dataset.objects.defer("quality").prefetch_related("instruments"))


def open_dataset(path: Path) -> Recording:
    """Open a file as it is registered and replayed. Raises SourceError.

    Only CSV_PATH's instrument is SYMBOL when the file does not name it: two nameless files of a folder may hold
    different instruments, whose histories must not mix.
    """
    is_named = bool(settings.CSV_PATH) and path.resolve() == Path(settings.CSV_PATH).resolve()
    return open_recording(path, settings.RECORDINGS_FOLDER, settings.SYMBOL if is_named else None)


def files() -> Iterator[Path]:
    """Yield the files that a scan registers, in the order of their names; CSV_PATH last."""
    if settings.DATA_DIR.is_dir():
        yield from sorted(path for path in settings.DATA_DIR.iterdir() if path.name.lower().endswith(SUFFIXES))
    if settings.CSV_PATH:
        yield Path(settings.CSV_PATH).expanduser().absolute()


def register(path: Path, progress: Progress = lambda path, n: None) -> Dataset:
    """Look at one file and return its row, ready or failed. An unchanged file is not read again."""
    dataset = _row(path)
    try:
        before = path.stat()
        if _is_known(dataset, before):
            progress(path, before.st_size)
            return dataset
        _look_at(dataset, path, before, lambda n: progress(path, n))
    except SourceError as error:
        _fail(dataset, str(error))
    except FileNotFoundError:
        _fail(dataset, GONE)
    except OSError as error:
        _fail(dataset, f"{dataset.name}: expected a readable file, found {error.strerror or error}")
    return dataset


def request_missing() -> None:
    """Ask a worker for every index and quality report that is missing, as soon as what was registered is committed.

    Without a broker, which takes some seconds to find out, the log says so, and the next scan asks again.
    """
    transaction.on_commit(_request_missing)


def _request_missing() -> None:
    ready = Dataset.objects.filter(state=Dataset.State.READY)
    paths = ready.values_list("pk", "path")
    missing = [pk for pk, path in paths if not is_indexed(Path(path), settings.RECORDINGS_FOLDER)]
    try:
        for dataset_id in missing:
            current_app.send_task(INDEX_TASK, [dataset_id], retry=False, ignore_result=True)
        report_queue.ask_next()
    except (OperationalError, RedisError) as error:
        logger.warning("no worker could be asked for indexes and quality reports: %s", error)


def _row(path: Path) -> Dataset:
    """Return the row of a path; its name is the file's, or the whole path when another file has that name.

    Without what a worker may write at the same time: what is not loaded is not saved.
    """
    written = as_text(path)
    known = Dataset.objects.defer(*_OF_WORKERS).filter(path=written).first()
    if known is not None:
        return known
    name = as_text(Path(path.name))
    if Dataset.objects.filter(name=name).exclude(error=GONE).exists():
        name = written
    return Dataset.objects.defer(*_OF_WORKERS).update_or_create(name=name, defaults={"path": written, "sha256": ""})[0]


def as_text(path: Path) -> str:
    """Write a path as text that every terminal and database takes: bytes that are no UTF-8 as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _is_known(dataset: Dataset, found: stat_result) -> bool:
    """Say whether the row tells of this very file: since it was written, nobody changed, moved or replaced it.

    The change time of the inode tells it, because unlike the modification time no copying tool sets it back.
    """
    changed = datetime.fromtimestamp(found.st_ctime, UTC)
    written = dataset.registered_at - _FILE_CLOCK_TICK
    return bool(dataset.sha256) and dataset.size_bytes == found.st_size and changed < written


def _look_at(dataset: Dataset, path: Path, before: stat_result, progress: Callable[[int], None]) -> None:
    _check_name(dataset, path)
    _check_place(path)
    known = dataset.sha256 if dataset.state == Dataset.State.READY else ""
    dataset.size_bytes, dataset.sha256, dataset.format = before.st_size, "", format_of(path)
    dataset.state, dataset.error = Dataset.State.REGISTERING, ""
    dataset.save()
    sha256 = file_sha256(path, progress) if path.is_file() else ""
    if sha256 and sha256 == known:  # touched, or copied over by itself
        dataset.sha256, dataset.state = sha256, Dataset.State.READY
        dataset.save()
        # What kept the report from being made may be gone.
        Dataset.objects.filter(pk=dataset.pk, quality__has_key="error").update(quality=None)
        return
    error = None
    try:
        recording = open_dataset(path)
        summary = summarize(recording)
    except SourceError as source_error:
        error = source_error
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SourceError(path, "", "a file that stays as it is", "one that was written while it was read; scan again")
    dataset.sha256 = sha256
    if error is not None:
        raise error
    dataset.venue_dataset = recording.venue_dataset
    _save(dataset, summary)


def _check_name(dataset: Dataset, path: Path) -> None:
    """Refuse a name that the streamer could not be told: it learns the path from the row."""
    if dataset.path != str(path):
        raise SourceError(Path(dataset.name), "", "a file name in UTF-8", "other bytes")


def _check_place(path: Path) -> None:
    """Refuse a link that leads out of DATA_DIR: what lies there was put there on purpose, its target perhaps not."""
    folder = settings.DATA_DIR.resolve()
    if path.parent.resolve() == folder and not path.resolve().is_relative_to(folder):
        raise SourceError(path, "", f"a file in {folder}", f"a link to {path.resolve()}")


@transaction.atomic
def _save(dataset: Dataset, summary: Summary) -> None:
    dataset.state, dataset.error = Dataset.State.READY, ""
    dataset.quality, dataset.indexed_percent = None, 0
    dataset.records, dataset.events = summary.records, summary.events
    dataset.first_ts_event, dataset.last_ts_event = summary.first_ts_event, summary.last_ts_event
    dataset.save()
    dataset.instruments.set([_instrument(found) for found in summary.instruments])


def _instrument(found: InstrumentSummary) -> Instrument:
    """Return the row of a symbol. Its tick size is inferred when the row is new only: people correct it."""
    ids = {"instrument_id": found.instrument_id, "publisher_id": found.publisher_id}
    return Instrument.objects.update_or_create(
        symbol=found.symbol, defaults=ids, create_defaults={**ids, "tick_size": found.tick}
    )[0]


@transaction.atomic
def _fail(dataset: Dataset, error: str) -> None:
    dataset.state, dataset.error = Dataset.State.FAILED, error
    dataset.quality, dataset.indexed_percent = None, 0
    dataset.records = dataset.events = 0
    dataset.first_ts_event = dataset.last_ts_event = None
    if error == GONE:
        dataset.sha256, dataset.size_bytes = "", 0
    dataset.save()
    dataset.instruments.clear()
