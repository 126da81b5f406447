"""The shadow market: what every book of a recording looks like at any position of it. Floor 1.

It lets a late client in: a clear and the resting orders of that moment, as a venue's own snapshot has them, and
the client's book is right without knowing how. It follows lazily, when somebody asks. To go back, or far ahead, it
starts at the nearest keyframe of the recording's index; without one, at the beginning.
"""

import logging
from typing import Final

from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import Flags, MboArray
from replay.feed.index import Index, IndexFault
from replay.feed.keyframe import restore
from replay.feed.picture import capture, picture_records

_STEP_RECORDS: Final = 1 << 20
"""How much is applied at once: a long way is gone in steps, so that it costs no more memory than a short one."""

_RESTORED_ORDER: Final = 1
"""What restoring an order costs, in records applied: as much where books are large, which is where it matters."""

_TOB: Final = int(Flags.TOB)

logger = logging.getLogger(__name__)


class Shadow:
    """The books of one recording; not shared between threads."""

    def __init__(self, records: MboArray, kind: BookKind = "kernel", index: Index | None = None) -> None:
        """Begin before the first record; ``index`` is that of these records, and may be set later."""
        self._records = records
        self._kind = kind
        self.index = index
        self._restart()

    def picture(self, position: int) -> MboArray:
        """Return the records that bring any book to where it is after ``position`` records; see picture_records.

        The books are in order of their keys. Cost: O(records since the last picture, or since the nearest keyframe
        before the position, whichever is nearer, + resting orders).
        """
        self._move_to(position)
        return picture_records(capture(self._market, self._tops))

    def _restart(self) -> None:
        self._market = make_market(self._kind)
        self._position = 0
        self._tops = False  # whether a top-of-book publisher was heard of

    def _move_to(self, position: int) -> None:
        if position < self._position:
            self._restart()
        self._skip_to(position)
        for begin in range(self._position, position, _STEP_RECORDS):
            self._position = min(begin + _STEP_RECORDS, position)
            part = self._records[begin : self._position]
            self._tops = self._tops or bool((part["flags"] & _TOB).any())
            self._market.apply(part)

    def _skip_to(self, position: int) -> None:
        """Take the books of the nearest keyframe when applying what lies before it would cost more."""
        index = self.index
        number = index.nearest(position) if index is not None else None
        if index is None or number is None:
            return
        start = int(index.positions[number])
        if start - self._position <= _RESTORED_ORDER * int(index.orders[number]):
            return
        try:
            keyframe = index.keyframe(number)
        except IndexFault as error:
            logger.warning("the index %s is removed; the next scan makes it anew: %s", index.path.name, error)
            index.discard()
            self.index = None
            return
        self._market, self._position = restore(keyframe, self._kind), start
        self._tops = keyframe.picture.has_tops
