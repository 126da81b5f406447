"""The quality of a recorded file: checked, and kept with its dataset. Floor 3.

A report belongs to the content that it was made of: it is stored where the row still has that content's digest only.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

from django.conf import settings

from orderbook.quality.building import make_report
from orderbook.quality.report import VERSION, Failure, Report
from orderbook.quality.verification import CheckOptions, RecordedFile, verify
from replay.datasets import as_text, open_dataset
from replay.feed.sources import SourceError, file_sha256
from replay.models import Dataset

INSTRUMENTS_KEPT: Final = 100
"""In a stored report, those with the most records: a row stays small, however many a file has."""

_LOOK_S: Final = 0.25
_SIGNALS: Final[Mapping[int, str]] = {
    signal.SIGBUS: " (as when the file became shorter while it was read)",
    signal.SIGKILL: " (as when memory is short)",
}

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is under way (sha256, orders, books), how many more bytes or records of it are done, and of how many.

What it raises ends the work.
"""


class CheckError(Exception):
    """There is no report; the message says why."""


def check_file(
    path: Path,
    options: CheckOptions,
    sha256: str | None = None,
    progress: Progress = lambda stage, n, total: None,
) -> Report:
    """Open a file, rebuild its books and return the report.

    Raises SourceError, also when the file changes meanwhile, and when its content is not the one that ``sha256`` names.
    A file that becomes shorter kills the process: it is mapped into memory. Loads numba for the kernel book. Cost:
    reading the file twice, and that of ``verify``.
    """
    try:
        before = path.stat()
        found = file_sha256(path, lambda n: progress("sha256", n, before.st_size))
        if sha256 not in (None, found):
            raise SourceError(path, "", f"content with the SHA-256 {sha256}", found)
        recording = open_dataset(path)
        file = RecordedFile(as_text(Path(path.name)), recording.format, found, recording.records, recording.symbols)
        outcome = verify(file, options, lambda stage, n: progress(stage, n, len(recording.records)))
        after = path.stat()
    except OSError as error:
        raise SourceError(path, "", "a readable file", error.strerror or str(error)) from error
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SourceError(path, "", "a file that stays as it is", "one that was written while it was checked")
    return make_report(outcome)


def check_apart(path: Path, sha256: str, look: Callable[[], None] = lambda: None) -> Report:
    """Check a file in a process of its own: a file that becomes shorter, or wants all memory, ends that one only.

    The books are those that BOOK names, checked as often as takes about ten seconds. ``look`` is called four times a
    second; what it raises ends the process. Raises CheckError. Cost: that of ``check_file``, and two seconds to start.
    """
    words = [sys.executable, str(settings.BASE_DIR / "manage.py"), "verify", str(path), "--json"]
    words += ["--book", settings.BOOK, "--every", "auto", "--instruments", str(INSTRUMENTS_KEPT)]
    words += ["--sha256", sha256, "--parent", str(os.getpid())]
    # A session of its own: a Ctrl-C in a terminal is ours to pass on.
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    with process:
        try:
            printed, said = _output(process, look)
        except BaseException:
            process.kill()
            raise
    if not printed or process.returncode < 0:
        raise CheckError(_reason(process.returncode, said))
    return cast(Report, json.loads(printed))


def store_report(
    dataset_id: int,
    look: Callable[[], None] = lambda: None,
    check: Callable[[Path, str, Callable[[], None]], Report] = check_apart,
) -> bool:
    """Check the file of a dataset, and keep the report in its row, or why there is none.

    False when nothing is kept: the dataset is not ready, or its row tells of other content by now.
    """
    dataset = Dataset.objects.defer("quality").filter(pk=dataset_id, state=Dataset.State.READY).first()
    if dataset is None:
        return False
    began = time.monotonic()
    found: Report | Failure
    try:
        found = check(Path(dataset.path), dataset.sha256, look)
    except CheckError as error:
        logger.warning("%s has no quality report: %s", dataset.name, error)
        found = {"version": VERSION, "error": str(error)}
    else:
        logger.info("%s has a quality report, made in %.1f s", dataset.name, time.monotonic() - began)
    row = Dataset.objects.filter(pk=dataset_id, state=Dataset.State.READY, sha256=dataset.sha256)
    return bool(row.update(quality=found))


def _output(process: "subprocess.Popen[bytes]", look: Callable[[], None]) -> tuple[bytes, bytes]:
    """Return all that a process writes, as soon as it has ended."""
    while True:
        look()
        with contextlib.suppress(subprocess.TimeoutExpired):  # nothing is lost: the next call goes on
            return process.communicate(timeout=_LOOK_S)


def _reason(status: int, said: bytes) -> str:
    """Say why a process ended without a report: by its last line, or by the signal that ended it."""
    if status < 0:
        return f"the check was ended by a signal: {signal.strsignal(-status)}{_SIGNALS.get(-status, '')}"
    lines = said.decode(errors="backslashreplace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), f"the check ended with status {status}")
    return last.removeprefix("CommandError: ")
