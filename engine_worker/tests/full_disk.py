"""A disk without room, for the feed file's tests: run in a process of its own, because the limit is a process's.

Imports no Django: a spawned process has none set up.
"""

import resource
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

from engine_worker.mailbox import FifoMailbox
from engine_worker.metrics import SinkCounters
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink
from engine_worker.sinks.jsonl import JsonlWriter
from orderbook.book.snapshot import BookSnapshot

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


def write_twice(path: Path, snapshots: list[BookSnapshot], first: int, room: int) -> tuple[str, int, int]:
    """Write ``first`` snapshots, try the rest with room for ``room`` more bytes, and write it once there is more.

    Returns the refusal, and the size of the file before and after it.
    """
    writer = JsonlWriter(path, depth=10)
    writer.write(snapshots[:first])
    before = path.stat().st_size
    refusal = ""
    with no_room_behind(before + room):
        try:
            writer.write(snapshots[first:])
        except SinkUnavailable as error:
            refusal = str(error)
    after = path.stat().st_size
    writer.write(snapshots[first:])
    writer.close()
    return refusal, before, after


def offer_without_room(path: Path, snapshots: list[BookSnapshot]) -> tuple[int, SinkCounters]:
    """Offer 50 snapshots to a queue of 10 while there is no room, and the rest afterwards.

    Returns how many were dropped before there was room, and the counters at the end.
    """
    mailbox = FifoMailbox[BookSnapshot](10, batch=5, age_s=0.01)
    sink = ThreadedSink("jsonl", mailbox, JsonlWriter(path, depth=10), lossy_when_degraded=True)
    sink.start()
    with no_room_behind(100):
        sink.offer(snapshots[0])
        deadline = time.monotonic() + 10
        while not sink.degraded and time.monotonic() < deadline:
            time.sleep(0.01)
        for snapshot in snapshots[1:50]:
            sink.offer(snapshot)
        dropped = sink.counters.dropped
    assert sink.flush(10)
    assert sink.degraded == ""
    for snapshot in snapshots[50:]:
        sink.offer(snapshot)
    sink.close(5)
    return dropped, sink.counters
