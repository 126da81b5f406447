"""What brings clients' books to a position of a recording: pictures for new ones, arrivals for all. Floor 1.

All of it runs on one thread, which need not be that of the clock: the shadow belongs to it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from orderbook.book.mbo import MBO, Action, BookKey, Flags, MboArray, book_key, book_tags
from replay.feed.index import Index
from replay.feed.raw_protocol import clear_record
from replay.streamer.shadow import Shadow

_KEYS_CHUNK: Final = 1 << 20


class Arrivals:
    """The books of one recording, drawn for those who follow it."""

    def __init__(self, records: MboArray, index: Index | None) -> None:
        self._records = records
        self._shadow = Shadow(records, index=index)
        self._books: Sequence[BookKey] | None = None
        self._newest: tuple[int, MboArray] | None = None

    def use_index(self, index: Index) -> None:
        """Take an index that was made later. From any thread."""
        self._shadow.index = index

    def picture(self, position: int) -> MboArray:
        """Return the records that bring a new client's books to a position. Cost: see Shadow.picture."""
        return self._shadow.picture(position)

    def at(self, position: int) -> MboArray:
        """Return the records that bring any client's books to a position; the newest is kept for the next client.

        For every book of the recording a clear; then what rests, flagged SNAPSHOT as a venue's own picture. At 0 the
        clears are plain ones at the time of the first record: the past is gone. Cost: that of a picture, and once what
        ``find_books`` costs.
        """
        if self._newest is None or self._newest[0] != position:
            self._newest = position, self._draw(position)
        return self._newest[1]

    def find_books(self) -> Sequence[BookKey]:
        """Return which books the recording has. Cost: the first time that of ``book_keys``."""
        if self._books is None:
            self._books = book_keys(self._records)
        return self._books

    def clears(self, keys: Sequence[BookKey]) -> MboArray:
        """Return a plain R for each book, at the time of the recording's first record. From any thread."""
        return self._clears(keys, 0, int(Flags.LAST))

    def _draw(self, position: int) -> MboArray:
        if not position:
            return self.clears(self.find_books())
        picture = self.picture(position)
        drawn = set(book_keys(picture[picture["action"] == np.uint8(Action.CLEAR)]))
        unborn = [key for key in self.find_books() if key not in drawn]
        return np.concatenate([self._clears(unborn, position - 1, int(Flags.SNAPSHOT | Flags.LAST)), picture])

    def _clears(self, keys: Sequence[BookKey], record: int, flags: int) -> MboArray:
        if not keys or not len(self._records):
            return np.empty(0, MBO)
        at = self._records[record]
        return np.concatenate([clear_record(key, int(at["ts_event"]), int(at["ts_recv"]), flags=flags) for key in keys])


def book_keys(records: MboArray) -> list[BookKey]:
    """Return which books records belong to, sorted. Cost: O(n), some 15 ns each; in steps, so that others get on."""
    tags: set[int] = set()
    for begin in range(0, len(records), _KEYS_CHUNK):
        tags |= set(np.unique(book_tags(records[begin : begin + _KEYS_CHUNK]), sorted=False).tolist())
    return [book_key(tag) for tag in sorted(tags)]
