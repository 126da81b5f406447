"""What snapshots wait from the end of their event on until every store has them, and their encoding. Floor 3."""

import numpy as np
import numpy.typing as npt

from engine_worker.histogram import LatencyHistogram


class Waits:
    """Keeps what was handed over until it is counted: apart, so that no snapshot waits for that."""

    def __init__(self) -> None:
        self._handed: list[tuple[npt.NDArray[np.int64], int]] = []

    def add(self, ended_ns: npt.NDArray[np.int64], handed_ns: int, encode_ns: int) -> None:
        """Take when the events of some snapshots ended, when all were handed over, and what encoding each takes.

        Times are those of the monotonic clock.
        """
        self._handed.append((ended_ns, handed_ns + encode_ns))

    def note(self, *histograms: LatencyHistogram) -> None:
        """Count all of it in each histogram, and forget it. Cost: 1 us a hand-over, 5 ns a snapshot."""
        if not self._handed:
            return
        waited_ns = np.concatenate([until_ns - ended_ns for ended_ns, until_ns in self._handed])
        for histogram in histograms:
            histogram.add_many(waited_ns)
        self._handed.clear()
