"""Which records of a stream are of a picture, and which clears may be the streamer's own. Floor 3.

Pure. A streamer marks neither beyond doubt: there are two questions about its clears, and each has its own answer.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from engine_worker import stream_kernel
from orderbook.book.mbo import MBO, UNDEF_CHANNEL, Flags, MboArray


def is_plain(records: MboArray) -> npt.NDArray[np.bool_]:
    """Say which records are of no picture."""
    plain: npt.NDArray[np.bool_] = (records["flags"] & np.uint8(Flags.SNAPSHOT)) == 0
    return plain


def first_plain(records: MboArray) -> int:
    """Return the index of the first record of no picture; the length when there is none."""
    return int(stream_kernel.first_plain(records))


def channelless_clears(records: MboArray) -> list[int]:
    """Return the indices of the clears of no channel, as a jump of the streamer has them. Cost: 0.5 ns a record."""
    return [index for index in _clears(records) if records[index]["channel_id"] == UNDEF_CHANNEL]


def emptying_clears(records: MboArray) -> list[int]:
    """Return the indices of the clears that look like those of a streamer, which empty a book for good.

    Plain ones come before a replay and a round of a loop; after a jump, ones flagged SNAPSHOT and nothing else are the
    picture of a book that does not exist there yet. A recording may hold the like. Cost: 0.5 ns a record.
    """
    return [index for index in _clears(records) if _is_emptying(records[index])]


def warm_up() -> None:
    """Load or compile the looks over a stream. Cost: 20 ms, 1 s the first time."""
    records = np.zeros(1, MBO)
    stream_kernel.first_plain(records)
    stream_kernel.latest_plain(records)
    stream_kernel.first_clear(records, 0)


def _clears(records: MboArray) -> Iterator[int]:
    index = -1
    while (index := stream_kernel.first_clear(records, index + 1)) < len(records):
        yield index


def _is_emptying(clear: np.void) -> bool:
    flags = int(clear["flags"])
    plain_end = flags & (Flags.SNAPSHOT | Flags.LAST) == Flags.LAST
    nothing_yet = flags == Flags.SNAPSHOT | Flags.LAST
    return bool((plain_end or nothing_yet) and clear["sequence"] == 0)
