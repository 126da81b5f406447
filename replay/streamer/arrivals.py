"""What brings clients' books to a position of a recording: pictures for new ones, arrivals for all. Floor 1.

All of it runs on one thread, which need not be that of the clock: the shadow belongs to it. But which books there are
is found on any.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final
from weakref import WeakValueDictionary

import numpy as np

from orderbook.book.mbo import MBO, Action, BookKey, Flags, MboArray, book_key, book_tags
from replay.feed.index import Index, IndexFault
from replay.feed.raw_protocol import clear_record
from replay.streamer.shadow import Shadow

_KEYS_CHUNK: Final = 1 << 20

logger = logging.getLogger(__name__)


class Arrivals:
    """The books of one recording, drawn for those who follow it."""

    def __init__(self, records: MboArray, index: Index | None) -> None:
        self._records = records
        self._shadow = Shadow(records, index=index)
        self._scanned: int | None = None  # records whose books are known
        self._tags: set[int] = set()
        self._scanning = Lock()
        self._pictures: WeakValueDictionary[int, MboArray] = WeakValueDictionary()  # what is being sent to anybody
        self._drawn: WeakValueDictionary[int, MboArray] = WeakValueDictionary()
        self._newest: MboArray | None = None

    def use_index(self, index: Index) -> None:
        """Take an index that was made later. From any thread."""
        self._shadow.index = index

    def picture(self, position: int) -> MboArray:
        """Return the records that bring a new client's books to a position.

        Clients at one place share them: nobody may write to them. Cost: see Shadow.picture; none while one holds them.
        """
        picture = self._pictures.get(position)
        if picture is None:
            picture = self._pictures[position] = self._shadow.picture(position)
        return picture

    def at(self, position: int) -> MboArray:
        """Return the records that bring any client's books to a position; the newest is kept for the next client.

        For every book of the recording a clear; then what rests, flagged SNAPSHOT as a venue's own picture. At 0 the
        clears are plain ones at the time of the first record: the past is gone. Cost: that of a picture, and once what
        ``find_books`` costs.
        """
        drawn = self._drawn.get(position)
        if drawn is None:
            drawn = self._newest = self._drawn[position] = self._draw(position)
        return drawn

    def find_books(self, goes_on: Callable[[], bool] = lambda: True) -> Sequence[BookKey]:
        """Return which books the recording has; those found so far as soon as it need not go on. From any thread.

        Several threads at it share the work. Cost: the first time that of ``book_keys``, for what lies behind the last
        keyframe of the index.
        """
        while self._scanned != len(self._records) and goes_on():
            with self._scanning:
                if self._scanned is None:
                    self._scanned = self._begin_scan()
                part = self._records[self._scanned : self._scanned + _KEYS_CHUNK]
                self._tags |= book_tags_of(part)
                self._scanned += len(part)
        with self._scanning:
            return [book_key(tag) for tag in sorted(self._tags)]

    def clears(self, keys: Sequence[BookKey]) -> MboArray:
        """Return a plain R for each book, at the time of the recording's first record. From any thread."""
        return self._clears(keys, 0, int(Flags.LAST))

    def _begin_scan(self) -> int:
        """Take the books of the last keyframe, which has all that were named before it; return its position."""
        index = self._shadow.index
        if index is None or not len(index.positions):
            return 0
        try:
            heads = index.keyframe(len(index.positions) - 1).picture.heads
        except IndexFault as error:
            logger.warning("the last keyframe of %s cannot be used: %s", index.path.name, error)
            return 0
        self._tags |= set(book_tags(heads).tolist())
        return int(index.positions[-1])

    def _draw(self, position: int) -> MboArray:
        if not position:
            return self.clears(self.find_books())
        picture = self.picture(position)
        drawn = set(book_keys(picture[picture["action"] == np.uint8(Action.CLEAR)]))
        unborn = [key for key in self.find_books() if key not in drawn]
        if not unborn:
            return picture
        return np.concatenate([self._clears(unborn, position - 1, int(Flags.SNAPSHOT | Flags.LAST)), picture])

    def _clears(self, keys: Sequence[BookKey], record: int, flags: int) -> MboArray:
        if not keys or not len(self._records):
            return np.empty(0, MBO)
        at = self._records[record]
        return np.concatenate([clear_record(key, int(at["ts_event"]), int(at["ts_recv"]), flags=flags) for key in keys])


def book_keys(records: MboArray) -> list[BookKey]:
    """Return which books records belong to, sorted. Cost: O(n), some 5 ns each, and 15 more where books alternate."""
    return [book_key(tag) for tag in sorted(book_tags_of(records))]


def book_tags_of(records: MboArray) -> set[int]:
    """Return the tags of the books that records belong to. Cost: that of ``book_keys``."""
    tags = book_tags(records)
    newcomers = tags[1:][tags[1:] != tags[:-1]]  # of one book there are none, and 15 ns a record less to be done
    return {*tags[:1].tolist(), *np.unique(newcomers, sorted=False).tolist()}
