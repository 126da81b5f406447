"""When a snapshot of one book is due. Pure: values in, values out. Floor 3.

Counted are the records of the book itself, not the clears and the picture (Flags.SNAPSHOT) that a streamer puts
before them: the same file then gives the same snapshots to whoever joined before it began. The count starts
again at each snapshot, so that it depends on nothing older than the last one.
"""

from typing import Final

import numpy as np

from orderbook.book.mbo import Action, Flags, MboArray

# Plain integers: numpy widens whole arrays to 64 bits for an enum.
_LAST: Final = int(Flags.LAST)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)
_CLEAR: Final = int(Action.CLEAR)


class Cadence:
    """A snapshot after every ``every`` records of a book, at the first event end from there on."""

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"expected to take a snapshot every 1 or more records, found {every}")
        self.every = every
        self._since = 0  # records counted since the last snapshot

    def cuts(self, records: MboArray) -> list[int]:
        """Return the indices just behind the records after which a snapshot is due, in order.

        However the records of the book are cut into calls, the snapshots fall behind the same records.
        Cost: O(n) in numpy, and one search a snapshot.
        """
        flags = records["flags"]
        counted = np.cumsum(((flags & _SNAPSHOT) == 0) & (records["action"] != _CLEAR))
        event_ends = np.flatnonzero(flags & _LAST)
        counted_at_ends = counted[event_ends]
        cuts: list[int] = []
        base = -self._since  # value of ``counted`` at the last snapshot
        while (end := int(np.searchsorted(counted_at_ends, base + self.every))) < len(event_ends):
            cuts.append(int(event_ends[end]) + 1)
            base = int(counted_at_ends[end])
        self._since = (int(counted[-1]) if len(counted) else 0) - base
        return cuts
