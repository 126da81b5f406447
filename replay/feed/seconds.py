"""The best prices of each book once a second of market time: the samples of schema bbo-1s. Floor 1.

The vendor's words on the schema: a record holds the last best prices and the last sale; none is written of a second
without either; what did not change in it is carried from before; ``ts_recv`` is the end of the second, ``ts_event``
that of the last sale, ``sequence`` that of the last update. Without a sale, price and time are undefined and the size
is 0. Ours: the flags are those of the last update, and the second in which a stream ends is never over.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.depth import MBP10, WORD, DepthTape, row_words
from orderbook.book.mbo import MboArray
from replay.feed.seconds_kernel import BBO_WORDS, CHANGED, CLOCK_COLUMNS, SECOND_END, SECOND_NS, SecondArrays, sample

_OF_MBP: Final = {name: kind for name, (kind, *_) in (MBP10.fields or {}).items()}
_NAMES: Final = {"action": "reserved_1", "depth": "reserved_2", "ts_in_delta": "reserved_3"}

BBO: Final = np.dtype(
    [
        (_NAMES.get(name, name), kind)
        for name, kind in list(_OF_MBP.items())[: (MBP10.names or ()).index("ask_ct_00") + 1]
    ],
    align=True,
)
"""DBN's BBOMsg, 80 bytes: where an MBP record has action, depth and ts_in_delta, nothing."""


class Placed(NamedTuple):
    """Derived records, and the place of the record of the stream behind which each goes out."""

    positions: npt.NDArray[np.int64]
    """Ascending, from 0 at the beginning of the block."""
    records: npt.NDArray[np.void]


class Seconds:
    """Samples one stream, block by block. Not shared between threads."""

    def __init__(self) -> None:
        self._clock = np.zeros(CLOCK_COLUMNS, np.int64)
        self._newest = np.zeros(0, BBO)
        self._is_changed = np.zeros(0, np.bool_)
        self._changed = np.zeros(0, np.int64)

    def take(self, records: MboArray, tape: DepthTape) -> Placed:
        """Return the samples of the seconds that end among records; the tape is theirs alone. Cost: 8 ns a record."""
        self._make_place(int(tape.books.max()) + 1 if len(tape.books) else 0)
        state = SecondArrays(self._clock, self._newest, _words(self._newest), self._is_changed, self._changed)
        room = len(tape.rows) + int(self._clock[CHANGED])
        positions, samples = np.empty(room, np.int64), np.empty(room, BBO)
        used = sample(
            records,
            tape.numbers,
            tape.books,
            tape.rows,
            row_words(tape.rows),
            state,
            positions,
            samples,
            _words(samples),
        )
        return Placed(positions[:used].copy(), samples[:used].copy())

    @property
    def end_ns(self) -> int:
        """The end of the last full second, ns; 0 before the first record."""
        return max(int(self._clock[SECOND_END]) - SECOND_NS, 0)

    def forget_changes(self) -> None:
        """Take what was told so far as what stood before the second under way. Cost: O(books)."""
        self._is_changed[:] = False
        self._clock[CHANGED] = 0

    def newest(self) -> npt.NDArray[np.void]:
        """Return a sample of each book as it stands now (dtype BBO), dated at the end of the last second. O(books)."""
        samples: npt.NDArray[np.void] = self._newest[self._newest["length"] != 0]
        samples["ts_recv"] = self.end_ns
        return samples

    def _make_place(self, books: int) -> None:
        known = len(self._newest)
        if books > known:
            more = max(books, 2 * known) - known
            newest = np.zeros(known + more, BBO)
            _words(newest)[:known] = _words(self._newest)
            self._newest = newest
            self._is_changed = np.concatenate([self._is_changed, np.zeros(more, np.bool_)])
            self._changed = np.concatenate([self._changed, np.zeros(more, np.int64)])


def _words(records: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    return records.view(WORD).reshape(-1, BBO_WORDS)
