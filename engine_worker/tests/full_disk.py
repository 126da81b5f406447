"""A disk without room, for the feed file's tests: run in a process of its own, because the limit is a process's.

Imports no Django: a spawned process has none set up.
"""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from engine_worker.batch import SnapshotBatch
from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.metrics import SinkCounters
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink
from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.tests.levels import snapshots_of

P = ParamSpec("P")
R = TypeVar("R")


def in_its_own_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what a function of this package's modules returns or raises in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *args, **kwargs).result(60)


@contextmanager
def no_room_behind(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes, as a full disk would: the write that meets it is cut."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def write_twice(path: Path, batches: list[SnapshotBatch], first: int, room: int) -> tuple[str, int, int]:
    """Write ``first`` batches, try the rest with room for ``room`` more bytes, and write it once there is more.

    Returns the refusal, and the size of the file before and after it.
    """
    writer = JsonlWriter(path, depth=10)
    writer.write(batches[:first])
    before = path.stat().st_size
    refusal = ""
    with no_room_behind(before + room):
        try:
            writer.write(batches[first:])
        except SinkUnavailable as error:
            refusal = str(error)
    after = path.stat().st_size
    writer.write(batches[first:])
    writer.close()
    return refusal, before, after


class Outage(NamedTuple):
    """What a sink said of itself while there was no room, and its counters and lines then; its counters at the end."""

    degraded: list[str]
    during: SinkCounters
    lines: int
    after: SinkCounters


def offer_without_room(path: Path, batches: list[SnapshotBatch], waiting: int) -> Outage:
    """Offer batches to a queue for ``waiting`` of them, all but the first and the last ten while there is no room."""
    mailbox = FifoMailbox[SnapshotBatch](waiting * batches[0].nbytes, batch=5, age_s=0.01)
    sink = ThreadedSink("jsonl", mailbox, JsonlWriter(path, depth=10), retry_cap_s=0.1)
    sink.start()
    for batch in batches[:10]:
        sink.offer(batch)
    assert sink.flush(10)
    begun = path.stat().st_size
    with no_room_behind(begun + 100):
        sink.offer(batches[10])
        _until(lambda: bool(sink.degraded))
        degraded = [sink.degraded]
        for batch in batches[11:-10]:
            sink.offer(batch)
        _until(lambda: f"{sink.counters.dropped} snapshots dropped" in sink.degraded)
        degraded.append(sink.degraded)
        during, lines = sink.counters, len(path.read_bytes().splitlines())
    assert sink.flush(10)
    for batch in batches[-10:]:
        sink.offer(batch)
    assert sink.flush(10)
    _until(lambda: not sink.degraded)
    sink.close(5)
    return Outage(degraded, during, lines, sink.counters)


def on_a_small_disk(function: Callable[[Path], list[str]], folder: Path) -> list[str]:
    """Return what a function of this module says in a process whose ``folder`` is a disk of 64 KiB.

    Raises PermissionError where the system lets nobody have a disk of his own.
    """
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" || exit 77; shift; exec "$@"'
    program = (
        f"import sys, pathlib, {__name__} as m; print(*m.{function.__name__}(pathlib.Path(sys.argv[1])), sep='\\n')"
    )
    python = [sys.executable, "-c", program, str(folder)]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(folder), *python]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode and "Traceback" not in done.stderr:
        raise PermissionError(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def fill_and_make_room(folder: Path) -> list[str]:
    """Write a snapshot at a time until the disk is full, then make room and write the rest.

    Returns the refusal, whether the file ended with a whole line then, and the seqs of its lines then and at the end.
    """
    path, ballast = folder / "feed.jsonl", folder / "ballast"
    ballast.write_bytes(bytes(32 << 10))
    writer = JsonlWriter(path, depth=10)
    waiting = [snapshots_of(100)[n : n + 1] for n in range(100)]
    while True:
        try:
            writer.write(waiting[:1])
        except SinkUnavailable as error:
            refusal = str(error)
            break
        del waiting[0]
    full = path.read_bytes()
    ballast.unlink()
    writer.write(waiting)
    writer.close()
    seqs = [[json.loads(line)["seq"] for line in text.splitlines()] for text in (full, path.read_bytes())]
    return [refusal, str(full.endswith(b"\n")), *map(str, seqs)]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
