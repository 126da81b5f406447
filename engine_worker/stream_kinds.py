"""Which records of a stream are of a picture, and which clears may be the streamer's own. Floor 3.

Pure. A streamer marks neither beyond doubt: there are two questions about its clears, and each has its own answer.
"""

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_CHANNEL, Action, Flags, MboArray


def is_plain(records: MboArray) -> npt.NDArray[np.bool_]:
    """Say which records are of no picture."""
    plain: npt.NDArray[np.bool_] = (records["flags"] & np.uint8(Flags.SNAPSHOT)) == 0
    return plain


def first_plain(records: MboArray) -> int:
    """Return the index of the first record of no picture; the length when there is none."""
    plain = is_plain(records)
    return int(plain.argmax()) if plain.any() else len(records)


def channelless_clears(records: MboArray) -> npt.NDArray[np.intp]:
    """Return the indices of the clears of no channel, as a jump of the streamer has them. Cost: 0.6 ns a record."""
    clears = np.flatnonzero(records["action"] == np.uint8(Action.CLEAR))
    return clears[records["channel_id"][clears] == UNDEF_CHANNEL] if len(clears) else clears


def emptying_clears(records: MboArray) -> list[int]:
    """Return the indices of the clears that look like those of a streamer, which empty a book for good.

    Plain ones come before a replay and a round of a loop; after a jump, ones flagged SNAPSHOT and nothing else are the
    picture of a book that does not exist there yet. A recording may hold the like. Cost: O(n) in numpy.
    """
    clears = np.flatnonzero(records["action"].copy() == int(Action.CLEAR))  # copied: numpy is slow over strides
    found = records[clears]
    plain_end = (found["flags"] & int(Flags.SNAPSHOT | Flags.LAST)) == int(Flags.LAST)
    nothing_yet = found["flags"] == int(Flags.SNAPSHOT | Flags.LAST)
    return [int(index) for index in clears[(plain_end | nothing_yet) & (found["sequence"] == 0)]]
