"""What the engine measures of itself: a histogram of true resolution, a sampler, and the counters. Floor 3.

Not an exporter: the numbers leave through the benchmark line and the status.
"""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MboArray
from orderbook.book.protocol import Market
from orderbook.book.snapshot_tape import SnapshotTape

_SUB_BITS: Final = 7
_SUB_BUCKETS: Final = 1 << _SUB_BITS
_MAX_BITS: Final = 41  # about 18 minutes; longer ones share the last bucket, and the maximum stays exact
# Timing costs 25 ns a record and 20 us a sample: one sample a millisecond takes below 4 % of the thread.
_SAMPLE_EVERY_NS: Final = 10**6
_SAMPLE_RECORDS: Final = 512
_BUCKETS: Final = (_MAX_BITS - _SUB_BITS) * _SUB_BUCKETS + _SUB_BUCKETS


class LatencyHistogram:
    """Counts of durations in ns, 128 buckets to each power of two.

    Below 256 ns a percentile is exact, above it is at most 0.8 % too high and never too low. The maximum is
    exact. Memory: 35 KB, whatever is added.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.max_ns = 0

    def add(self, ns: int, times: int = 1) -> None:
        """Count one duration, or so many alike. Cost: about 0.4 us."""
        ns = max(ns, 0)
        shift = max(min(ns.bit_length(), _MAX_BITS) - _SUB_BITS - 1, 0)
        self._counts[min(shift * _SUB_BUCKETS + (ns >> shift), _BUCKETS - 1)] += times
        self.count += times
        self.max_ns = max(self.max_ns, ns)

    def add_many(self, ns: npt.NDArray[np.int64]) -> None:
        """Count durations. Cost: about 15 us, and 20 ns each."""
        if not len(ns):
            return
        ns = np.maximum(ns, 0)
        bits = np.minimum(np.frexp(ns.astype(np.float64))[1], _MAX_BITS)
        shifts = np.maximum(bits - _SUB_BITS - 1, 0)
        buckets = np.minimum(shifts * _SUB_BUCKETS + (ns >> shifts), _BUCKETS - 1)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)
        self.count += len(ns)
        self.max_ns = max(self.max_ns, int(ns.max()))

    def percentile(self, percent: float) -> int:
        """Return the duration in ns that ``percent`` of all did not exceed; 0 when there is none."""
        if not self.count:
            return 0
        rank = max(int(np.ceil(self.count * percent / 100)), 1)
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        if bucket == _BUCKETS - 1:
            return self.max_ns
        shift = max(bucket // _SUB_BUCKETS - 1, 0)
        return min(((bucket - shift * _SUB_BUCKETS + 1) << shift) - 1, self.max_ns)


class ApplySampler:
    """Applies records, and times the first ones of a call, at most once a millisecond.

    At low rates that is every record; at high ones those just behind a wait, whose caches are cold.
    """

    def __init__(self) -> None:
        self.decode_ns = 0
        """What decoding one record of the current batch took: part of each sample."""
        self.snap_ns = 0
        """What writing a snapshot into the tape took in the last sample that had any, the call's own cost included."""
        self._due = 0

    def apply(self, market: Market, records: MboArray, tape: SnapshotTape, histogram: LatencyHistogram) -> None:
        """Apply records, in order. Adds ns a record to the histogram."""
        now = time.perf_counter_ns()
        if now >= self._due:
            sample, records = records[:_SAMPLE_RECORDS], records[_SAMPLE_RECORDS:]
            self._apply_timed(market, sample, tape, histogram)
            self._due = now + _SAMPLE_EVERY_NS
        if len(records):
            market.apply_snapshots(records, tape)

    def _apply_timed(self, market: Market, records: MboArray, tape: SnapshotTape, histogram: LatencyHistogram) -> None:
        times, before = np.zeros(len(records), np.int64), len(tape.rows)
        begun = time.perf_counter_ns()
        market.apply_snapshots(records, tape, times)
        rest = time.perf_counter_ns() - begun - int(times.sum())
        if count := len(tape.rows) - before:
            self.snap_ns = max(rest, 0) // count
        histogram.add_many(times + self.decode_ns)


@dataclass(slots=True)
class EngineCounters:
    """Counts since the process started. ``received = applied + ignored + rejected`` after every step."""

    received: int = 0
    applied: int = 0
    ignored: int = 0
    """Records beyond MAX_MSGS."""
    rejected: int = 0
    """What arrived whole and was no MBO record: a broken line, a record of another schema."""
    notices: int = 0
    """What the feed said about itself: system and error records."""
    snapshots: int = 0
    connections: int = 0
    interruptions: int = 0
    runs: int = 0

    def heard(self, rejected: int, notices: int) -> None:
        """Count what arrived besides records."""
        self.received += rejected
        self.rejected += rejected
        self.notices += notices


@dataclass(frozen=True, slots=True)
class SinkCounters:
    """Counts of one sink: ``offered = written + duplicates + dropped + conflated + pending`` at every moment."""

    offered: int
    written: int
    duplicates: int
    """Already stored by an earlier replay of the same market."""
    dropped: int
    """Lost, each time with a reason in the log."""
    conflated: int
    """Replaced by a newer snapshot before they went out."""
    pending: int
    spilled: int = 0
    """Moved to the disk since the start, because the target was slow or away."""
    on_disk: int = 0
    """Part of what is pending."""
