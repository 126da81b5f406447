"""What the engine measures of itself: a histogram of true resolution, a sampler, and the counters. Floor 3.

Not an exporter: the numbers leave through the benchmark line, the status and exposition.py.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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
_FEW: Final = 20
_NO_TIMES: Final = np.zeros(0, np.int64)
_BUCKETS: Final = (_MAX_BITS - _SUB_BITS) * _SUB_BUCKETS + _SUB_BUCKETS
LEAST_BOUND_NS: Final = 250
"""Of the buckets that are shown outside; it must have as many bits as there are in a power of two's sub-buckets + 1."""


class LatencyHistogram:
    """Counts of durations in ns, 128 buckets to each power of two.

    Below 256 ns a percentile is exact, above it is at most 0.8 % too high and never too low. The maximum is
    exact. Memory: 35 KB, whatever is added.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.sum_ns = 0
        self.max_ns = 0

    def add(self, ns: int, times: int = 1) -> None:
        """Count one duration, or so many alike. Cost: about 0.4 us."""
        ns = max(ns, 0)
        shift = max(min(ns.bit_length(), _MAX_BITS) - _SUB_BITS - 1, 0)
        self._counts[min(shift * _SUB_BUCKETS + (ns >> shift), _BUCKETS - 1)] += times
        self.count += times
        self.sum_ns += ns * times
        self.max_ns = max(self.max_ns, ns)

    def add_many(self, ns: npt.NDArray[np.int64], *others: "LatencyHistogram") -> None:
        """Count durations, in other histograms too. Cost: 0.5 us each; of many 20 ns, and 20 us in all."""
        if len(ns) <= _FEW:
            for value in ns.tolist():
                for histogram in (self, *others):
                    histogram.add(value)
            return
        ns = np.maximum(ns, 0)
        bits = np.minimum(np.frexp(ns.astype(np.float64))[1], _MAX_BITS)
        shifts = np.maximum(bits - _SUB_BITS - 1, 0)
        buckets = np.minimum(shifts * _SUB_BUCKETS + (ns >> shifts), _BUCKETS - 1)
        counts, total, longest = np.bincount(buckets, minlength=_BUCKETS), int(ns.sum()), int(ns.max())
        for histogram in (self, *others):
            histogram._counts += counts
            histogram.count += len(ns)
            histogram.sum_ns += total
            histogram.max_ns = max(histogram.max_ns, longest)

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

    def below(self, doublings: int) -> tuple[list[int], int]:
        """Return how many durations were below 250 ns x 2^k, for k from 0 on, and how many there are in all.

        One that is at most 0.4 % longer than a bound may be counted below it. For other threads too.
        """
        summed = np.cumsum(self._counts)
        places = np.arange(doublings) * _SUB_BUCKETS + LEAST_BOUND_NS
        return summed[places].tolist(), int(summed[-1])


class ApplySampler:
    """Applies records, and times the first ones of a call, at most once a millisecond.

    At low rates that is every record; at high ones those just behind a wait, whose caches are cold.
    """

    def __init__(self) -> None:
        self.apply_ns = LatencyHistogram()
        """Over all runs."""
        self.decode_ns = 0
        """What decoding one record of the current batch took: part of each sample."""
        self._sample = _NO_TIMES
        self._due = 0

    def apply(self, market: Market, records: MboArray, tape: SnapshotTape) -> None:
        """Apply records, in order."""
        now = time.perf_counter_ns()
        if now >= self._due:
            sample, records = records[:_SAMPLE_RECORDS], records[_SAMPLE_RECORDS:]
            self._sample = np.zeros(len(sample), np.int64)
            market.apply_snapshots(sample, tape, self._sample)
            self._due = now + _SAMPLE_EVERY_NS
        if len(records):
            market.apply_snapshots(records, tape)

    def note(self, histogram: LatencyHistogram) -> None:
        """Add what the sample took, if there was one, ns a record: apart, so that nobody waits for it."""
        histogram.add_many(self._sample + self.decode_ns, self.apply_ns)
        self._sample = _NO_TIMES


class Flow(NamedTuple):
    """What became of what arrived: ``received = applied + ignored + sum(rejected.values())``."""

    received: int
    applied: int
    ignored: int
    rejected: Mapping[str, int]
    """By reason."""


@dataclass(slots=True)
class EngineCounters:
    """Counts since the process started. ``received = applied + ignored + rejected`` after every step."""

    received: int = 0
    applied: int = 0
    ignored: int = 0
    """Records beyond MAX_MSGS."""
    rejected: int = 0
    """What arrived whole and was no MBO record: a broken line, a record of another schema."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Of what was rejected. Replaced, never changed."""
    events: int = 0
    """Closed by what was applied."""
    notices: int = 0
    """What the feed said about itself: system and error records."""
    snapshots: int = 0
    connections: int = 0
    interruptions: int = 0
    partial_frames: int = 0
    """Interruptions that left a part of a record, or garbage, of which nothing was made."""
    runs: int = 0
    settled: Flow = Flow(0, 0, 0, {})
    """As it was behind the last step: for other threads, which see the rest in the middle of one."""

    def heard(self, rejected: Mapping[str, int], notices: int) -> None:
        """Count what arrived besides records."""
        self.notices += notices
        if rejected:
            count = sum(rejected.values())
            self.received += count
            self.rejected += count
            self.reasons = {
                reason: self.reasons.get(reason, 0) + rejected.get(reason, 0) for reason in {**self.reasons, **rejected}
            }

    def interrupted(self, left: int) -> None:
        """Count a connection that broke, with so many bytes of which no record was made."""
        self.interruptions += 1
        self.partial_frames += left > 0

    def settle(self) -> None:
        """Show the others where what arrived has gone. Cost: 0.3 us."""
        self.settled = Flow(self.received, self.applied, self.ignored, self.reasons)


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
    queue_bytes: int = 0
    queue_capacity_bytes: int = 0
    """0: bounded by the number of books, and not by bytes."""
    disk_bytes: int = 0
    disk_capacity_bytes: int = 0
    """0: nothing goes to the disk."""
