"""What a checked pass over a stream keeps: where each kind of anomaly came first, and how often books were checked.

Floor 0. A market fills it in ``apply_audited``; reports read it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.anomaly import Anomaly

KINDS: Final = tuple(kind.value for kind in Anomaly)
_NONE: Final = -1


class Audit:
    """The state of one checked pass; hand the same one, with the same tape, to every batch."""

    def __init__(self, every: int = 1) -> None:
        """Check the book of an event behind every ``every``-th event end of the stream."""
        if every < 1:
            raise ValueError(f"expected to check at every 1 or more event ends, found {every}")
        self.every = every
        self.counts: npt.NDArray[np.int64] = np.zeros(2, np.int64)
        """Event ends seen, checks made."""
        self.first_records: npt.NDArray[np.int64] = np.full(len(KINDS), _NONE, np.int64)
        """For each kind of anomaly the tape's number of its first record, -1 while there is none."""

    @property
    def events(self) -> int:
        """Event ends seen so far."""
        return int(self.counts[0])

    @property
    def checks(self) -> int:
        """Checks made so far, none of which failed: a failed one raises."""
        return int(self.counts[1])

    @property
    def first(self) -> dict[str, int]:
        """Number of the first record of each kind of anomaly that occurred."""
        found = zip(KINDS, self.first_records.tolist(), strict=True)
        return {kind: number for kind, number in found if number != _NONE}

    def event_ended(self) -> bool:
        """Count an event end; return whether the book is to be checked here."""
        self.counts[0] += 1
        due = self.events % self.every == 0
        self.counts[1] += due
        return due

    def saw(self, anomalies: dict[str, int], number: int) -> None:
        """Note the anomalies that a book has behind a record."""
        for kind in anomalies:
            if self.first_records[KINDS.index(kind)] == _NONE:
                self.first_records[KINDS.index(kind)] = number
