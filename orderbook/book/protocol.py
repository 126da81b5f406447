"""The one face of both books, and of the markets that hold them. Floor 0.

ReferenceBook is written to be read and is the oracle, KernelBook is written to be fast; whoever holds an
OrderBook cannot tell which one it is. Both belong to the thread that applies records; other threads look
at snapshots, or through ``orderbook.shared_market``.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from orderbook.book.audit import Audit
from orderbook.book.depth import DepthTape, Mbp10Array
from orderbook.book.mbo import BookKey, MboArray, Side
from orderbook.book.snapshot import Bbo, Levels
from orderbook.book.snapshot_tape import SnapshotTape
from orderbook.book.tape import Tape


class RestingOrder(NamedTuple):
    """One order as it rests now."""

    order_id: int
    side: Side
    price: int
    size: int


class QueuePosition(NamedTuple):
    """What would be filled at its price before an order."""

    orders_ahead: int
    size_ahead: int


class OrderBook(Protocol):
    """A full L3 book of one instrument of one publisher: every order, in queue order."""

    @property
    def ts_event(self) -> int:
        """Venue time of the last record applied, ns; 0 before the first."""

    @property
    def ts_recv(self) -> int:
        """Capture time of the last record applied, ns."""

    @property
    def sequence(self) -> int:
        """Sequence of the last record applied."""

    @property
    def at_event_end(self) -> bool:
        """True when the last record applied closed its event (or none was applied): the book may be looked at."""

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records of this book in order. Data faults are counted in ``anomalies``, never raised.

        Writes BBO changes and trades on the tape, if there is one.
        """

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

    def queue(self, side: Side, price: int) -> npt.NDArray[np.void]:
        """Return the orders of one level (dtype ORDER) in queue order; none where no level is. Cost: O(orders)."""

    def order(self, order_id: int) -> RestingOrder | None:
        """Return an order as it rests, None when it does not. Cost: O(1)."""

    def queue_position(self, order_id: int) -> QueuePosition | None:
        """Return what waits ahead of an order at its level, None when it does not rest. Cost: O(orders ahead).

        The size of a top-of-book publisher's level is no order and not counted.
        """

    def check(self) -> None:
        """Raise InvariantError when the book contradicts itself. Cost: O(orders)."""

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind since the book was made; kinds that did not occur are absent."""

    def __len__(self) -> int:
        """Return the number of resting orders."""


class Market(Protocol):
    """The books of every instrument in a stream, made when their first record comes."""

    @property
    def books(self) -> Mapping[BookKey, OrderBook]:
        """The books that the stream has named."""

    @property
    def keys(self) -> Sequence[BookKey]:
        """The keys of the books by number: they are numbered in the order in which the stream named them."""

    def apply(self, records: MboArray, tape: Tape | None = None) -> None:
        """Apply records of any books in stream order. Data faults are counted by each book, never raised."""

    def apply_audited(self, records: MboArray, tape: Tape, audit: Audit) -> None:
        """As ``apply``, and check the book of an event behind it, as often as the audit says.

        Notes where each kind of anomaly came first: hand the market's records over so from the first one on. Raises
        InvariantError: the books are then not to be trusted.
        """

    def apply_depth(self, records: MboArray, tape: DepthTape) -> None:
        """As ``apply``, and write changes of the ten best levels and trades on a tape; its rules are in depth.py.

        Hand a market all of its records over so, or none: it compares with what it wrote last.
        """

    def newest_depth(self) -> Mbp10Array:
        """Return for each book, in the order in which they were met, the newest row that an event end wrote.

        A book of which nothing was written is left out.
        """

    def apply_snapshots(
        self,
        records: MboArray,
        tape: SnapshotTape,
        times: npt.NDArray[np.int64] | None = None,
    ) -> int:
        """As ``apply``, and write the snapshots that fall due, and trades; the rules are in snapshot_tape.py.

        Where the tape says that it hands snapshots over, it stops behind one that it may not, or that fills its block.
        Returns how many records are applied: at least one, if there is one.
        ``times`` gets how long each record took, ns, the reading of the clock included, the writing of snapshots not;
        a shorter one is of the first records. Raises ValueError when it is longer, or no array of int64.
        """

    def snap_rest(self, tape: SnapshotTape) -> None:
        """Write a snapshot of each book that took records since its last one, but of none in mid-event.

        What is left at the end of a run: the rows are in order of the books' numbers, behind the last record on the
        tape. The tape must be one that this market has written. Cost: O(books).
        """

    @property
    def anomalies(self) -> dict[str, int]:
        """Count of data faults by kind over all books; kinds that did not occur are absent. Cost: O(books)."""

    def check(self) -> None:
        """Raise InvariantError when a book, or what the books share, contradicts itself. Cost: O(orders)."""

    def book(self, key: BookKey) -> OrderBook:
        """Return the book of a key, a new empty one when the stream has not named it yet."""
