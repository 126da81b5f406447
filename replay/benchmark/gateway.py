"""How fast the live port serves, and how punctually: a streamer and its readers, each a process. Floor 1.

The readers do nothing but receive, so the figures are those of the streamer as far as the machine has a processor
for each process; where it has fewer, they share.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

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
_MEGABYTE: Final = 1_000_000


class Throughput(NamedTuple):
    """How a replay at ``max`` went."""

    records_per_s: int  # of the slowest reader
    streamer_cpu_s: float
    streamer_peak_bytes: int
    """Memory of its own: pages of the mapped file, which the kernel takes back whenever it needs them, not counted."""


class Lateness(NamedTuple):
    """How late records came behind a schedule that the most punctual of them kept, ns."""

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
    received, spent, peak = _replay(path, "max", clients, note_arrivals=False)
    expected = framing_bytes(len(_SYMBOLS)) + records * MBO.itemsize
    for each in received:
        if each.nbytes != expected:
            raise BenchmarkError(f"expected {expected} bytes at each reader, found {each.nbytes}")
    slowest_ns = max(each.last_ns - each.first_ns for each in received)
    return Throughput(records * 10**9 // max(slowest_ns, 1), spent.cpu_s, peak)


def lateness(path: Path, records: MboArray, times_as_fast: float) -> Lateness:
    """Replay records by market time to one reader, and compare when they came with when they were due."""
    [received], _, _ = _replay(path, {"market_time": times_as_fast}, 1, note_arrivals=True)
    captured = latest(records).astype(np.int64)
    due = ((captured - captured[0]) / times_as_fast).astype(np.int64)
    late = arrival_times(received, len(_SYMBOLS), len(records)) - due
    late -= late.min()
    p50, p99 = (int(value) for value in np.percentile(late, [50, 99]))
    return Lateness(p50, p99, int(late.max()), len(records))


def _metadata(records: MboArray) -> bytes:
    return encode_metadata(simulator.VENUE_DATASET, int(records[0]["ts_event"]), simulator.instrument_ids(_SYMBOLS))


def _replay(path: Path, pace: Pace, clients: int, *, note_arrivals: bool) -> tuple[Sequence[Received], Spent, int]:
    """Run one replay with all its processes; return what the readers got, and what the streamer spent and held."""
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
        received = [take(reader) for reader in readers]
        return received, take(control), max(memory)
