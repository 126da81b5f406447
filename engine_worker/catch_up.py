"""The way back to a place in a replay that was had before, in a stream that begins somewhere before it. Floor 3.

Pure: it says how many of some records were had before. What it meets must be what was there: the first plain record
that is as late as the spot's is the spot's own, byte for byte. Anything else and the stream is not the one that was
known, and must be had from its beginning.
"""

import numpy as np

from engine_worker.stream_kinds import channelless_clears, first_plain, is_plain
from engine_worker.trail import Spot, venue_times
from orderbook.book.mbo import MboArray


class Astray(Exception):
    """The stream does not lead to the place that was looked for: another connection has to bring all of it."""


class CatchUp:
    """Follows a stream from its picture to a spot."""

    def __init__(self, spot: Spot) -> None:
        self._spot = spot
        self._is_past_picture = False
        self._left: int | None = None  # records up to the place; None: the spot's record has not come

    @property
    def is_there(self) -> bool:
        """Whether the place is reached: what comes now is new."""
        return self._left == 0

    def had(self, records: MboArray) -> int:
        """Return how many of these records, which come next, were had before. Raises Astray."""
        begin = self._picture_end(records)
        end = begin + self._had_of(records[begin:])
        if len(channelless_clears(records[begin:end])):
            raise Astray("the replay was sent elsewhere before the place where we were came")
        return end

    def _picture_end(self, records: MboArray) -> int:
        """Return where plain records begin, once; pictures inside the stream are part of it."""
        if self._is_past_picture:
            return 0
        begin = first_plain(records)
        if begin == len(records):
            return begin
        self._is_past_picture = True
        if venue_times(records)[begin] < self._spot.since_ns:
            raise Astray("the replay was set back to before what we had of it")
        return begin

    def _had_of(self, records: MboArray) -> int:
        at = 0
        if self._left is None:
            late = is_plain(records) & (venue_times(records) >= np.int64(self._spot.ts_event))
            if not late.any():
                return len(records)
            at = int(late.argmax())
            if records[at].tobytes() != self._spot.record:
                raise Astray(f"expected the record we had at ts_event {self._spot.ts_event}, found another one")
            self._left = self._spot.after
        had = min(at + self._left, len(records))
        self._left -= had - at
        return had
