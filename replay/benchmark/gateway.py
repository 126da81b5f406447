"""How fast the live port serves, and how punctually: a streamer and its readers, each a process. Floor 1.

The readers do nothing but receive, so the figures are those of the streamer as far as the machine has a processor
for each process; where it has fewer, they share.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO, MboArray
from replay import simulator
from replay.benchmark import reader_process, streamer_process
from replay.benchmark.processes import BenchmarkError, process, take, watched_memory
from replay.benchmark.reader_process import Received, arrival_times, framing_bytes
from replay.benchmark.streamer_process import Spent
from replay.feed.dbn_metadata import encode_metadata
from replay.feed.marks import latest
from replay.streamer.messages import Pace

_SYMBOLS: Final = ["CLX5", "ESZ5"]
_SEED: Final = 1
_MADE_RECORDS: Final = 1_000_000
_CHUNK: Final = 1 << 20
_SECOND_NS: Final = 10**9


class Throughput(NamedTuple):
    """How a replay at ``max`` went."""

    records_per_s: int  # of the slowest reader
    streamer_cpu_s: float
    streamer_peak_bytes: int
    """Memory of its own: pages of the mapped file, which the kernel takes back whenever it needs them, not counted."""


class Lateness(NamedTuple):
    """How late records came behind the schedule that began with the order to replay, ns."""

    p50: int
    p99: int
    most: int
    records: int


def write_recording(path: Path, records: int) -> None:
    """Write a simulated session of so many records, repeated where it is shorter."""
    made = simulator.simulate(min(max(records, 2 * simulator.MIN_RECORDS), _MADE_RECORDS), _SYMBOLS, _SEED)
    with path.open("wb") as file:
        file.write(_metadata(made))
        for begin in range(0, records, len(made)):
            made[: min(len(made), records - begin)].tofile(file)


def write_slice(path: Path, market_s: float) -> MboArray:
    """Write so many seconds of market time out of a simulated session, and return its records."""
    made = simulator.simulate(_MADE_RECORDS, _SYMBOLS, _SEED)
    times = latest(made)
    middle = len(made) // 4
    stop = int(np.searchsorted(times, times[middle] + np.uint64(int(market_s * 1e9))))
    part = made[middle : max(stop, middle + 2)]
    path.write_bytes(_metadata(part) + part.tobytes())
    return part


def throughput(path: Path, records: int, clients: int) -> Throughput:
    """Replay a file at ``max`` to so many readers. Raises BenchmarkError when one of them did not get all of it."""
    received, spent, peak = _replay(path, "max", clients, records, note_arrivals=False)
    slowest_ns = max(each.last_ns - each.first_ns for each in received)
    return Throughput(records * 10**9 // max(slowest_ns, 1), spent.cpu_s, peak)


def lateness(path: Path, records: MboArray, times_as_fast: float) -> Lateness:
    """Replay records by market time to one reader, and compare when they came with when they were due.

    Raises BenchmarkError when it did not get all of them.
    """
    lasts_s = int(_due(records, times_as_fast)[-1]) / _SECOND_NS
    pace: Pace = {"market_time": times_as_fast}
    [received], spent, _ = _replay(path, pace, 1, len(records), lasts_s=lasts_s, note_arrivals=True)
    return late(arrival_times(received, len(_SYMBOLS), len(records)), spent.begun_ns, records, times_as_fast)


def late(arrivals: npt.NDArray[np.int64], begun_ns: int, records: MboArray, times_as_fast: float) -> Lateness:
    """Return how late records came (monotonic ns) that were due by market time from a moment on.

    That moment is when the order to replay was given: what the streamer takes to begin makes all of them late.
    """
    late_ns = arrivals - begun_ns - _due(records, times_as_fast)
    p50, p99 = (int(value) for value in np.percentile(late_ns, [50, 99]))
    return Lateness(p50, p99, int(late_ns.max()), len(records))


def _due(records: MboArray, times_as_fast: float) -> npt.NDArray[np.int64]:
    """Return when each record is due, ns after the first."""
    captured = latest(records).astype(np.int64)
    due: npt.NDArray[np.int64] = ((captured - captured[0]) / times_as_fast).astype(np.int64)
    return due


def check_complete(received: Sequence[Received], records: int) -> None:
    """Raise BenchmarkError unless every reader got so many records, and what frames them."""
    expected = framing_bytes(len(_SYMBOLS)) + records * MBO.itemsize
    for each in received:
        if each.nbytes != expected:
            raise BenchmarkError(f"expected {expected} bytes at each reader, found {each.nbytes}")


def _metadata(records: MboArray) -> bytes:
    return encode_metadata(simulator.VENUE_DATASET, int(records[0]["ts_event"]), simulator.instrument_ids(_SYMBOLS))


def _replay(
    path: Path, pace: Pace, clients: int, records: int, *, lasts_s: float = 0.0, note_arrivals: bool
) -> tuple[Sequence[Received], Spent, int]:
    """Run one replay with all its processes; return what the readers got, and what the streamer spent and held.

    ``lasts_s`` is how long the pace makes it last. Raises BenchmarkError when it lasts 120 s longer, or a reader did
    not get all of the records.
    """
    with contextlib.ExitStack() as stack:
        streamer, control = stack.enter_context(process(streamer_process.run, path))
        port = take(control)
        readers = [
            stack.enter_context(process(reader_process.run, port, more=(note_arrivals,)))[1] for _ in range(clients)
        ]
        for reader in readers:
            take(reader)  # it is let in, and has subscribed
        memory = stack.enter_context(watched_memory(streamer.pid or 0))
        control.send(pace)
        received = [take(reader, lasts_s) for reader in readers]
        check_complete(received, records)
        control.send(None)
        return received, take(control), max(memory)
