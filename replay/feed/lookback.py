"""Looking back in a recording from one position: where open events began, where a second began, the last trades.

Floor 1. Each gives up after a bound: what lies further back costs too much to find at a jump.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO, Action, Flags, MboArray, book_tags
from replay.feed.marks import latest

REACH: Final = 1 << 18
"""How far back a second or an open event is looked for; from there on all is derived anew, some 30 ms."""

TRADE_REACH: Final = 1 << 20
"""How far back the last trade of a book is looked for, some 20 ms when it is not there: the sale is unknown then."""

_FIRST: Final = 1 << 12
_SECOND_NS: Final = np.uint64(1_000_000_000)
_LAST: Final = np.uint8(Flags.LAST)
_TRADE: Final = np.uint8(Action.TRADE)

Tags = npt.NDArray[np.int64]
"""Books, by ``book_tags``."""


def second_begin(records: MboArray, position: int) -> int:
    """Return the position at which the second of market time that is under way began: its first record.

    The beginning of the reach when it lies before that. Cost: O(reach), because times may step back.
    """
    low = max(position - REACH, 0)
    times = latest(records[low:position])
    return low + int(np.searchsorted(times, times[-1] - times[-1] % _SECOND_NS)) if len(times) else low


def events_begin(records: MboArray, position: int, books: Tags) -> int:
    """Return a position at which none of these books, which all stand inside an event, stood inside that event yet.

    The beginning of the reach when there is none in it. Cost: O(records between).
    """
    for low in _lows(position, REACH):
        found, places = _newest(records[low:position], books, records["flags"][low:position] & _LAST != 0)
        if len(found) == len(books):
            return low + int(places.min()) + 1
    return max(position - REACH, 0)


def open_books(picture: MboArray) -> Tags:
    """Return the books that a picture leaves inside an event. Cost: O(n log n)."""
    tags, places = np.unique(book_tags(picture)[::-1], return_index=True)
    found: Tags = tags[picture["flags"][::-1][places] & _LAST == 0]
    return found


def last_trades(records: MboArray, position: int, books: Tags) -> MboArray:
    """Return the last trade of each of these books before a position, where the reach has one. Cost: O(records)."""
    trades, found = np.empty(0, MBO), np.empty(0, np.int64)
    high = position
    for low in _lows(position, TRADE_REACH):
        part = records[low:high]
        tags, places = _newest(part, np.setdiff1d(books, found), part["action"] == _TRADE)
        trades, found = np.concatenate([trades, part[places]]), np.concatenate([found, tags])
        high = low
        if len(found) == len(books):
            break
    return trades


def _lows(position: int, reach: int) -> Iterator[int]:
    """Yield where to look from: near at first, twice as far each time, to the end of the reach."""
    end = max(position - reach, 0)
    size, low = _FIRST, position
    while low > end:
        low = max(position - size, end)
        yield low
        size *= 2


def _newest(records: MboArray, books: Tags, chosen: npt.NDArray[np.bool_]) -> tuple[Tags, npt.NDArray[np.int64]]:
    """Return which of some books have a chosen record, and the place of the last one of each."""
    places = np.flatnonzero(chosen)
    tags = book_tags(records)[places]
    wanted = np.isin(tags, books)
    found, back = np.unique(tags[wanted][::-1], return_index=True)
    newest: npt.NDArray[np.int64] = places[wanted][::-1][back]
    return found, newest
