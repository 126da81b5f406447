"""The one face of both books. Floor 0.

ReferenceBook is written to be read and is the oracle, KernelBook is written to be fast; whoever holds an
OrderBook cannot tell which one it is.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MboArray, Side
from orderbook.book.snapshot import Bbo, Levels


class OrderBook(Protocol):
    """A full L3 book of one instrument of one publisher: every order, in queue order."""

    ts_event: int
    """Venue time of the last record applied, ns; 0 before the first."""
    ts_recv: int
    sequence: int
    at_event_end: bool
    """True when the last record applied closed its event (or none was applied): the book may be looked at."""

    def apply(self, records: MboArray) -> None:
        """Apply records of this book in order. Data faults are counted in ``anomalies``, never raised."""

    def apply_timed(self, records: MboArray) -> npt.NDArray[np.int64]:
        """Apply records and return how long each took, ns, the reading of the clock included."""

    def clear(self) -> None:
        """Remove every order."""

    def bbo(self) -> Bbo:
        """Return the best bid and offer. Cost: O(1)."""

    def levels(self, side: Side, depth: int | None = None) -> Levels:
        """Return the best ``depth`` levels of a side, all without it, as a new array. Cost: O(depth)."""

    def orders(self) -> npt.NDArray[np.void]:
        """Return every resting order (dtype ORDER): bids, then asks, best level first, in queue order.

        What a top-of-book publisher shows is no order: it is a level whose size its orders do not explain.
        """

    def check(self) -> None:
        """Raise InvariantError when the book contradicts itself. Cost: O(orders)."""

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind since the book was made."""

    def __len__(self) -> int:
        """Return the number of resting orders."""
