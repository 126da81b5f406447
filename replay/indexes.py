"""The index of a registered file: made by a worker, kept beside the decoded recordings. Floor 3.

What is true lies on the disk; the row tells people how far it is.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from django.conf import settings

from replay.datasets import open_dataset
from replay.feed.index import IndexFault, is_indexed, origin_of
from replay.feed.indexing import make_index
from replay.feed.sources import SourceError
from replay.models import Dataset

TOLD_EVERY_S: Final = 0.5

logger = logging.getLogger(__name__)

Progress = Callable[[int], None]
"""Told how many more records are indexed. What it raises ends the work."""


def store_index(dataset_id: int, progress: Progress = lambda n: None) -> bool:
    """Make the index of a dataset that has none. False when there is none to make, or the log tells why it is not."""
    dataset = Dataset.objects.defer("quality").filter(pk=dataset_id, state=Dataset.State.READY).first()
    if dataset is None:
        return False
    path = Path(dataset.path)
    try:
        if not is_indexed(path, settings.RECORDINGS_FOLDER):
            _make(dataset, path, progress)
    except (SourceError, IndexFault, OSError) as error:
        logger.warning("%s has no index: %s", dataset.name, error)
        return False
    _tell(dataset, 100)
    return True


def _make(dataset: Dataset, path: Path, progress: Progress) -> None:
    origin = origin_of(path)
    recording = open_dataset(path)
    done, told_at = 0, time.monotonic()

    def advance(n: int) -> None:
        nonlocal done, told_at
        progress(n)
        done += n
        if time.monotonic() - told_at >= TOLD_EVERY_S:
            told_at = time.monotonic()
            _tell(dataset, done * 100 // (len(recording.records) + 1))

    make_index(recording, origin, settings.RECORDINGS_FOLDER, progress=advance)
    logger.info("%s is indexed: %d records", dataset.name, done)


def _tell(dataset: Dataset, percent: int) -> None:
    """Write how much is made to the row, while it tells of the same content."""
    Dataset.objects.filter(pk=dataset.pk, sha256=dataset.sha256).update(indexed_percent=percent)
