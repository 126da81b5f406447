"""The quality of a recorded file: checked, and kept with its dataset. Floor 3.

A report belongs to the content that it was made of: it is stored where the row still has that content's digest only.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from django.conf import settings

from orderbook.quality.report import Report, shortened
from orderbook.quality.request import Choice, How, Source
from orderbook.quality.verification import verify
from replay.datasets import open_dataset
from replay.feed.sources import SourceError, file_sha256
from replay.models import Dataset

INSTRUMENTS_KEPT: Final = 100
"""In a stored report, those with the most records: a row stays small, however many a file has."""

_CHECKS_KEPT_TO: Final = 100_000  # of a stored report: some seconds with big books, every event end of a small file

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is under way (sha256, book), how many more bytes or records of it are done, and of how many.

What it raises ends the work.
"""


def check_file(path: Path, how: How, progress: Progress = lambda stage, n, total: None) -> Report:
    """Open a file, rebuild its books and return the report. Raises SourceError, also when it changes meanwhile.

    Loads numba for the kernel book. Cost: reading the file twice, and that of ``verify``.
    """
    try:
        before = path.stat()
        recording = open_dataset(path)
        sha256 = file_sha256(path, lambda n: progress("sha256", n, before.st_size))
        source = Source(_written(path), recording.format, sha256, recording.records, recording.symbols)
        report = verify(source, how, lambda n: progress("book", n, len(recording.records)))
        after = path.stat()
    except OSError as error:
        raise SourceError(path, "", "a readable file", error.strerror or str(error)) from error
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SourceError(path, "", "a file that stays as it is", "one that was written while it was checked")
    return report


def store_report(dataset_id: int, progress: Progress = lambda stage, n, total: None) -> bool:
    """Check the file of a dataset and keep the report in its row.

    False when there is none to keep: the file cannot be read, which the log tells, or the row tells of other content.
    """
    dataset = Dataset.objects.defer("quality").filter(pk=dataset_id, state=Dataset.State.READY).first()
    if dataset is None:
        return False
    how = How(book=cast(Choice, settings.BOOK), every=max(1, -(-dataset.events // _CHECKS_KEPT_TO)))
    try:
        report = shortened(check_file(Path(dataset.path), how, progress), INSTRUMENTS_KEPT)
    except SourceError as error:
        logger.warning("%s has no quality report: %s", dataset.name, error)
        return False
    row = Dataset.objects.filter(pk=dataset_id, state=Dataset.State.READY, sha256=report["sha256"])
    return bool(row.update(quality=report))


def _written(path: Path) -> str:
    """Write a file's name as text that every terminal and database takes."""
    return os.fsencode(path.name).decode(errors="backslashreplace")
