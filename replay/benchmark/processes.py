"""The processes of a benchmark: started, spoken to over a pipe, and watched. Floor 1."""

import contextlib
import ctypes
import multiprocessing
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

_PATIENCE_S: Final = 120.0
"""What a process may take for what takes no time by itself."""
_SAMPLE_S: Final = 0.02
_SPAWN: Final = multiprocessing.get_context("spawn")


class BenchmarkError(Exception):
    """The benchmark cannot be trusted, and why."""


@contextlib.contextmanager
def process(target: Any, argument: object, more: tuple[Any, ...] = ()) -> Iterator[tuple[BaseProcess, Connection]]:
    """Run a process with a pipe to it; it is over when this is."""
    ours, theirs = _SPAWN.Pipe()
    started = _SPAWN.Process(target=target, args=(argument, theirs, *more), daemon=True)
    started.start()
    theirs.close()
    try:
        yield started, ours
    finally:
        ours.close()
        started.join(5)
        if started.is_alive():
            started.kill()
            started.join()


def take(control: Connection, lasts_s: float = 0.0) -> Any:
    """Return what a process says next, which lasts so long by itself. Raises BenchmarkError."""
    patience_s = lasts_s + _PATIENCE_S
    try:
        if control.poll(patience_s):
            return control.recv()
    except EOFError:
        raise BenchmarkError("a process of the benchmark has died; its error stands above") from None
    raise BenchmarkError(f"a process of the benchmark has said nothing for {patience_s:.0f} s")


@contextlib.contextmanager
def watched_memory(*pids: int) -> Iterator[list[int]]:
    """Look at the memory of processes, taken together, again and again; yields what was found, bytes."""
    found, over = [own_memory(*pids)], threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_S):
            found.append(own_memory(*pids))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def own_memory(*pids: int) -> int:
    """Return the memory of processes without the pages of files, bytes; 0 where the system does not tell."""
    return sum(_own_memory(pid) for pid in pids)


def cpu_s(*pids: int) -> float:
    """Return the processor time that processes have taken so far; 0 where the system does not tell."""
    return sum(_cpu_s(pid) for pid in pids)


def open_files(*pids: int) -> int:
    """Return how many files and sockets processes hold open; 0 where the system does not tell."""
    return sum(_open_files(pid) for pid in pids)


def _cpu_s(pid: int) -> float:
    """Read the clock that POSIX has for a process, in ns: the hundredths in /proc are more than a short load takes."""
    find, clock = getattr(ctypes.CDLL(None), "clock_getcpuclockid", None), ctypes.c_int()
    if find is not None and find(pid, ctypes.byref(clock)) == 0:
        with contextlib.suppress(OSError):  # it has ended since
            return time.clock_gettime(clock.value)
    return 0.0


def _open_files(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _own_memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
