"""When a pass over records ran, and so since when each snapshot that it wrote has been waiting. Floor 3.

The kernel reads no clock by record: the events of a pass are taken to have ended evenly between its begin and its end.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class PassTimes(NamedTuple):
    """One pass. Times are ns of any one clock."""

    first: int
    """Number of its first record on the tape."""
    records: int
    begun_ns: int
    ended_ns: int

    def waited(self, behind: npt.NDArray[np.int64], now_ns: int) -> npt.NDArray[np.int64]:
        """Return how long ago the events ended whose last records these are, by their numbers on the tape, ns.

        Counted from where that record began: it, and the writing of the snapshot, are part of it.
        """
        spent_ns = self.ended_ns - self.begun_ns
        found: npt.NDArray[np.int64] = (now_ns - self.begun_ns) - (behind - self.first) * spent_ns // self.records
        return found
