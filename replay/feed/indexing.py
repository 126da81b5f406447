"""The pass that makes the index of a recording: its books rebuilt once, and kept every so many records. Floor 1."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import numpy as np

from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, Flags, MboArray, book_tags
from orderbook.book.protocol import Market
from orderbook.book.tape import Tape
from replay.feed.index import IndexFault, IndexWriter, Origin, index_path, origin_of
from replay.feed.keyframe import Keyframe
from replay.feed.marks import MARK_RECORDS, Tally
from replay.feed.picture import capture
from replay.feed.sources import SPARE_DISK_BYTES, Recording

KEYFRAME_PERCENT: Final = 9
"""Keyframes take at most so much of the records' bytes, at every position; the tables take 0.002 %."""

_MAX_PERCENT: Final = 10
_LEFT_BEHIND_S: Final = 3600  # whoever still writes does so all the time
_TOB: Final = int(Flags.TOB)

Progress = Callable[[int], None]
"""Told how many more records were indexed. What it raises ends the work."""


def make_index(
    recording: Recording, origin: Origin, folder: Path, kind: BookKind = "kernel", progress: Progress = lambda n: None
) -> Path:
    """Make the index of a recording, and return where it lies. It appears complete or not at all.

    ``origin`` is what the file was before it was opened: when it is another now, or the disk is short, IndexFault is
    raised. Cost: applying every record with a tape, and 50 ns for each order of each keyframe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    need = recording.records.nbytes * _MAX_PERCENT // 100 + SPARE_DISK_BYTES
    if shutil.disk_usage(folder).free < need:
        raise IndexFault(f"expected {need} bytes free on the disk of {folder}, found {shutil.disk_usage(folder).free}")
    target = index_path(recording.path, folder)
    _remove_left_behind(target)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{target.name}-", suffix=".part", delete=False) as file:
        try:
            write_index(file, recording.records, origin, kind, progress)
            file.flush()
            os.fsync(file.fileno())
            if origin_of(recording.path) != origin:
                raise IndexFault("expected a file that stays as it is, found one that was written meanwhile")
            os.replace(file.name, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
    return target


def _remove_left_behind(target: Path) -> None:
    """Remove what a killed process left half-written."""
    for part in target.parent.glob(f"{target.name}-*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _LEFT_BEHIND_S:
                part.unlink()


def write_index(
    file: IO[bytes],
    records: MboArray,
    origin: Origin,
    kind: BookKind = "kernel",
    progress: Progress = lambda n: None,
    every: int = MARK_RECORDS,
) -> None:
    """Write the index of records to an empty file; see ``make_index``.

    There is a mark every so many records, and a keyframe at each while that fits into the bound: where books are
    large, as often as the bound allows.
    """
    market, tape, tally, writer = make_market(kind), Tape(), Tally(), IndexWriter(file)
    marks, due, tops = [tally.mark], every, False
    for start in range(0, len(records), every):
        if start >= due:
            limit = start * MBO.itemsize * KEYFRAME_PERCENT // 100
            size = writer.add(start, _keyframe(market, tally, tops), limit)
            due = (writer.nbytes + size) * 100 // (MBO.itemsize * KEYFRAME_PERCENT)  # if the next one is as large
        chunk = records[start : start + every]
        tape.empty()
        market.apply(chunk, tape)
        tally.take(chunk, tape.bbos, tape.trades, market)
        tops = tops or bool((chunk["flags"] & _TOB).any())
        marks.append(tally.mark)
        progress(len(chunk))
    writer.finish(origin, records, np.concatenate(marks))


def _keyframe(market: Market, tally: Tally, tops: bool) -> Keyframe:
    picture = capture(market, tops, tally.in_snapshot)
    heads, newest = picture.heads, tally.crossings.newest
    open_books = book_tags(heads[~heads["at_event_end"]])
    return Keyframe(picture, newest[np.isin(book_tags(newest), open_books)])
