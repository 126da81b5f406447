"""When passes over records ran, and so since when each snapshot that they wrote has been waiting. Floor 3.

The kernel reads no clock by record: the events of a pass are taken to have ended evenly between its begin and its end.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine_worker.histogram import LatencyHistogram
from orderbook.book.tape import Rows


class PassTimes(NamedTuple):
    """One pass. Times are ns of any one clock."""

    first: int
    """Number of its first record on the tape."""
    records: int
    begun_ns: int
    ended_ns: int


class Waits:
    """What snapshots waited from the end of their event on, until it is counted: apart, so that none waits for that."""

    def __init__(self) -> None:
        self._behind: list[npt.NDArray[np.int64]] = []
        self._passes: list[tuple[int, ...]] = []

    def add(self, rows: Rows, times: PassTimes, handed_ns: int, encode_ns: int) -> None:
        """Take snapshots of one pass (dtype SNAPSHOT_ROW), when they were handed over, and what encoding each takes."""
        self._behind.append(rows["record"])
        waited_ns = handed_ns - times.begun_ns + encode_ns
        self._passes.append((len(rows), waited_ns, times.first, times.ended_ns - times.begun_ns, times.records))

    def note(self, *histograms: LatencyHistogram) -> None:
        """Count all of it in each histogram, and forget it. Cost: 1 us a pass, 30 ns a snapshot."""
        if not self._passes:
            return
        counts, *columns = np.array(self._passes, np.int64).T
        waited_ns, first, spent_ns, records = (np.repeat(column, counts) for column in columns)
        # Counted from where its last record began: it, and the writing of the snapshot, are part of it.
        waited_ns = waited_ns - (np.concatenate(self._behind) - first) * spent_ns // records
        for histogram in histograms:
            histogram.add_many(waited_ns)
        self._behind.clear()
        self._passes.clear()
