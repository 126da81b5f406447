"""Files become Dataset rows: what is in DATA_DIR and CSV_PATH, looked at once for each content. Floor 3.

A file that cannot be replayed is a row in state failed that says why, and never stops the others. The rows are
written by ``scan`` and ``register`` only.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from os import stat_result
from pathlib import Path

from django.conf import settings
from django.db import transaction

from history.models import Instrument
from replay.feed.sources import SUFFIXES, Recording, SourceError, file_sha256, format_of, open_recording
from replay.feed.summary import InstrumentSummary, Summary, summarize
from replay.models import Dataset

GONE = "The file is gone."

Progress = Callable[[Path, int], None]
"""Told the file and how many more of its bytes were looked at."""


def scan(progress: Progress = lambda path, n: None) -> list[Dataset]:
    """Register every file of DATA_DIR and CSV_PATH, and mark the rows whose file is gone. Returns all rows.

    Cost: reading and decoding each file that is new or changed; one stat for each of the others.
    """
    for path in files():
        register(path, progress)
    for dataset in Dataset.objects.exclude(error=GONE):
        if not Path(dataset.path).exists():
            _fail(dataset, GONE)
    return list(Dataset.objects.prefetch_related("instruments"))


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
        _fail(dataset, f"{path.name}: expected a readable file, found {error.strerror or error}")
    return dataset


def _row(path: Path) -> Dataset:
    """Return the row of a path; its name is the file's, or the whole path when another file has that name."""
    known = Dataset.objects.filter(path=str(path)).first()
    if known is not None:
        return known
    name = path.name
    if Dataset.objects.filter(name=name).exclude(error=GONE).exists():
        name = str(path)
    return Dataset.objects.update_or_create(name=name, defaults={"path": str(path), "sha256": ""})[0]


def _is_known(dataset: Dataset, found: stat_result) -> bool:
    """Say whether the row tells of this very file: since it was written, nobody changed, moved or replaced it.

    The change time of the inode tells it, because unlike the modification time no copying tool sets it back.
    """
    changed = datetime.fromtimestamp(found.st_ctime, UTC)
    return bool(dataset.sha256) and dataset.size_bytes == found.st_size and changed < dataset.registered_at


def _look_at(dataset: Dataset, path: Path, before: stat_result, progress: Callable[[int], None]) -> None:
    _check_place(path)
    dataset.size_bytes, dataset.sha256, dataset.format = before.st_size, "", format_of(path)
    sha256 = file_sha256(path, progress) if path.is_file() else ""
    unchanged = Dataset.objects.filter(pk=dataset.pk, sha256=sha256, state=Dataset.State.READY).exists()
    if sha256 and unchanged:  # touched, or copied over by itself
        dataset.sha256 = sha256
        dataset.save()
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


def _check_place(path: Path) -> None:
    """Refuse a link that leads out of DATA_DIR: what lies there was put there on purpose, its target perhaps not."""
    folder = settings.DATA_DIR.resolve()
    if path.parent.resolve() == folder and not path.resolve().is_relative_to(folder):
        raise SourceError(path, "", f"a file in {folder}", f"a link to {path.resolve()}")


@transaction.atomic
def _save(dataset: Dataset, summary: Summary) -> None:
    dataset.state, dataset.error = Dataset.State.READY, ""
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
    dataset.records = dataset.events = 0
    dataset.first_ts_event = dataset.last_ts_event = None
    if error == GONE:
        dataset.sha256, dataset.size_bytes = "", 0
    dataset.save()
    dataset.instruments.clear()
