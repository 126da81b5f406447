"""Which records of a stream are of a picture, and which clears may be the streamer's own. Floor 3.

Pure. A streamer marks neither beyond doubt: there are two questions about its clears, and each has its own answer.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from engine_worker import stream_kernel
from orderbook.book.mbo import MBO, UNDEF_CHANNEL, Action, Flags, MboArray

_NONE: Final = np.zeros(0, np.intp)


def is_plain(records: MboArray) -> npt.NDArray[np.bool_]:
    """Say which records are of no picture."""
    plain: npt.NDArray[np.bool_] = (records["flags"] & np.uint8(Flags.SNAPSHOT)) == 0
    return plain


def first_plain(records: MboArray) -> int:
    """Return the index of the first record of no picture; the length when there is none."""
    return int(stream_kernel.first_plain(records))


def channelless_clears(records: MboArray) -> npt.NDArray[np.intp]:
    """Return the indices of the clears of no channel, as a jump of the streamer has them. Cost: 0.5 ns a record."""
    clears = _clears(records)
    return clears[records["channel_id"][clears] == UNDEF_CHANNEL] if len(clears) else clears


def emptying_clears(records: MboArray) -> list[int]:
    """Return the indices of the clears that look like those of a streamer, which empty a book for good.

    Plain ones come before a replay and a round of a loop; after a jump, ones flagged SNAPSHOT and nothing else are the
    picture of a book that does not exist there yet. A recording may hold the like. Cost: 0.5 ns a record.
    """
    clears = _clears(records)
    if not len(clears):
        return []
    found = records[clears]
    plain_end = (found["flags"] & int(Flags.SNAPSHOT | Flags.LAST)) == int(Flags.LAST)
    nothing_yet = found["flags"] == int(Flags.SNAPSHOT | Flags.LAST)
    return [int(index) for index in clears[(plain_end | nothing_yet) & (found["sequence"] == 0)]]


def warm_up() -> None:
    """Load or compile the looks over a stream. Cost: 20 ms, 1 s the first time."""
    records = np.zeros(1, MBO)
    stream_kernel.first_plain(records)
    stream_kernel.latest_plain(records)
    stream_kernel.first_clear(records)


def _clears(records: MboArray) -> npt.NDArray[np.intp]:
    """Return the indices of all clears; mostly there are none."""
    if stream_kernel.first_clear(records) == len(records):
        return _NONE
    return np.flatnonzero(records["action"].copy() == int(Action.CLEAR))  # copied: numpy is slow over strides
