"""How far a stream has come, told so that another connection can find the place: no record has a number. Floor 3.

A gateway can be asked for everything from a time on. Venue times stand still and step back, so a place is the record
that was the first to have the latest time, and how many records came from it on. A jump of the streamer begins anew:
what was before it comes no more. Pictures (Flags.SNAPSHOT) are no part of it before the first plain record.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine_worker.stream_kernel import latest_plain
from engine_worker.stream_kinds import channelless_clears, first_plain, is_plain
from orderbook.book.mbo import MBO, MboArray

_SIGNED: Final = np.dtype({"names": ["ts_event"], "formats": ["<i8"], "offsets": [8], "itemsize": MBO.itemsize})
_NO_TIME: Final = -1


class Spot(NamedTuple):
    """A place in a stream."""

    since_ns: int
    """Venue time of the first plain record behind the last jump; 0 when the replay was had from its beginning."""
    ts_event: int
    """The latest since then; below 2^63."""
    record: bytes
    """The first record that had it, which is a plain one."""
    after: int
    """Records from that one up to the place, that one included."""


class Trail:
    """Where one connection is in its replay."""

    def __init__(self, *, is_whole: bool = False, spot: Spot | None = None) -> None:
        """Begin at the beginning of a replay, anywhere in one, or at a spot."""
        self._since_ns: int | None = 0 if is_whole else None
        self._latest_ns, self._record, self._after = _NO_TIME, b"", 0
        if spot is not None:
            self._since_ns, self._latest_ns, self._record, self._after = spot

    @property
    def spot(self) -> Spot | None:
        """The place; None while nothing has come that could be found again."""
        if self._since_ns is None or not self._after:
            return None
        return Spot(self._since_ns, self._latest_ns, self._record, self._after)

    def took(self, records: MboArray) -> None:
        """Go on behind these records of the stream. Cost: 4 us, and 1.2 ns a record."""
        jumps = channelless_clears(records)
        if len(jumps):
            before = is_plain(records[: jumps[-1]])
            before[jumps[:-1]] = False
            if self._after or before.any():  # else it is the picture that a connection begins with
                self._since_ns = None
            self._latest_ns, self._after = _NO_TIME, 0
            records = records[jumps[-1] + 1 :]
        if len(records):
            self._go_on(records)

    def _go_on(self, records: MboArray) -> None:
        latest = latest_plain(records)
        if latest < len(records):
            times = venue_times(records)
            if self._since_ns is None:
                self._since_ns = int(times[first_plain(records)])
            if times[latest] > self._latest_ns:
                self._latest_ns, self._record = int(times[latest]), records[latest].tobytes()
                self._after = len(records) - latest
                return
        if self._after:
            self._after += len(records)


def venue_times(records: MboArray) -> npt.NDArray[np.int64]:
    """Return the venue times, a view; those from 2^63 on, which are none, are negative."""
    return records.view(_SIGNED)["ts_event"]
