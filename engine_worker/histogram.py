"""Latencies: a histogram of true resolution, and the sampler that times records while they are applied. Floor 3."""

import time
from typing import Final

import numpy as np
import numpy.typing as npt

from engine_worker import histogram_kernel
from engine_worker.histogram_kernel import BUCKETS, COUNT, LONGEST, SUB_BUCKETS, SUM
from orderbook.book.mbo import MboArray
from orderbook.book.protocol import Market
from orderbook.book.snapshot_tape import SnapshotTape

# Timing costs 30 ns a record, and noting it 3: below 1 % of the thread.
_SAMPLE_EVERY_NS: Final = 10**6
_SAMPLE_RECORDS: Final = 128
_NO_TIMES: Final = np.zeros(0, np.int64)
LEAST_BOUND_NS: Final = 250
"""Of the buckets that are shown outside; it must have as many bits as there are in a power of two's sub-buckets + 1."""


class LatencyHistogram:
    """Counts of durations in ns, 128 buckets to each power of two.

    Below 256 ns a percentile is exact, above it is at most 0.8 % too high and never too low. The maximum is
    exact. Memory: 35 KB, whatever is added. Other threads may read it.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS, np.int64)
        self._totals = np.zeros(3, np.int64)

    @property
    def count(self) -> int:
        return int(self._totals[COUNT])

    @property
    def sum_ns(self) -> int:
        return int(self._totals[SUM])

    @property
    def max_ns(self) -> int:
        return int(self._totals[LONGEST])

    def add(self, ns: int, times: int = 1) -> None:
        """Count one duration, or so many alike. Cost: about 0.6 us."""
        histogram_kernel.add(self._counts, self._totals, ns, times)

    def add_many(self, ns: npt.NDArray[np.int64]) -> None:
        """Count durations. Cost: about 0.6 us, and 3 ns each."""
        histogram_kernel.add_many(self._counts, self._totals, ns)

    def percentile(self, percent: float) -> int:
        """Return the duration in ns that ``percent`` of all did not exceed; 0 when there is none."""
        if not self.count:
            return 0
        rank = max(int(np.ceil(self.count * percent / 100)), 1)
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        if bucket == BUCKETS - 1:
            return self.max_ns
        shift = max(bucket // SUB_BUCKETS - 1, 0)
        return min(((bucket - shift * SUB_BUCKETS + 1) << shift) - 1, self.max_ns)

    def below(self, doublings: int) -> tuple[list[int], int]:
        """Return how many durations were below 250 ns x 2^k, for k from 0 on, and how many there are in all.

        One that is at most 0.4 % longer than a bound may be counted below it. For other threads too.
        """
        summed = np.cumsum(self._counts)
        places = np.arange(doublings) * SUB_BUCKETS + LEAST_BOUND_NS
        return summed[places].tolist(), int(summed[-1])


class ApplySampler:
    """Applies records, and times a few of them, at most once a millisecond.

    At low rates that is every record; at high ones those just behind a wait or a hand-over, whose caches are cold.
    """

    def __init__(self) -> None:
        self.apply_ns = LatencyHistogram()
        """Over all runs."""
        self.decode_ns = 0
        """What decoding one record of the current batch took: part of each sample."""
        self._sample = _NO_TIMES
        self._due = 0

    def apply(self, market: Market, records: MboArray, tape: SnapshotTape) -> int:
        """Apply records as ``Market.apply_snapshots`` does. Returns how many: at least one, if there is one."""
        now = time.perf_counter_ns()
        if now < self._due:
            return market.apply_snapshots(records, tape)
        self._due = now + _SAMPLE_EVERY_NS
        times = np.zeros(min(len(records), _SAMPLE_RECORDS), np.int64)
        done = market.apply_snapshots(records, tape, times)
        self._sample = times[:done]
        return done

    def note(self, histogram: LatencyHistogram) -> None:
        """Add what the sample took, if there was one, ns a record: apart, so that nobody waits for it."""
        if len(self._sample):
            sample = self._sample + self.decode_ns
            histogram.add_many(sample)
            self.apply_ns.add_many(sample)
            self._sample = _NO_TIMES


def warm_up() -> None:
    """Load or compile what counts durations. Cost: 10 ms, 1 s the first time."""
    histogram = LatencyHistogram()
    histogram.add(1)
    histogram.add_many(np.zeros(1, np.int64))
