"""The compiled pass that samples the best prices once a second. Floor 1.

Knows rows of a depth tape and no books: where a second ends, it writes a record of each book that had a row of its best
prices or a trade in it. It imports no code of its own project, because numba's cache does not see a change in another
file; a test compares the codes with the public ones.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

TRADE: Final = 84
NONE: Final = 78
UNDEF_PRICE: Final = 2**63 - 1
UNDEF_TIMESTAMP: Final = 2**64 - 1
BBO_1S_RTYPE: Final = 195
BBO_WORDS: Final = 10  # of 64 bits in a BBO record
HEAD_WORDS: Final = 6  # in a BBO record and in a row of a depth tape: the best level follows
SECOND_NS: Final = 1_000_000_000

# Columns of ``clock``.
SECOND_END: Final = 0  # of the second under way, ns; 0 before the first record
CHANGED: Final = 1  # how many books changed in it
CLOCK_COLUMNS: Final = 2

_njit: Any = njit
_outer = _njit(cache=True, nogil=True, _nrt=False)


class SecondArrays(NamedTuple):
    """What is known of each book, by its number: its sample as it would be written now, and who changed."""

    clock: npt.NDArray[np.int64]
    newest: npt.NDArray[np.void]  # BBO records; a length of 0 where no row was seen
    words: npt.NDArray[np.int64]  # the same memory by 64 bits
    is_changed: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.int64]  # their numbers, in order of their first change


@_outer
def sample(records, numbers, books, rows, row_words, state, positions, out, out_words):
    """Write the samples of the seconds that end among these records; return how many.

    ``numbers``, ``books`` and ``rows`` are those of the depth tape of these records; there must be room for as many
    samples as there are rows and books that changed before. A sample stands behind the first record of a later
    second, where it is known. Capture times that step back, or are not there, belong to the second under way.
    Cost: about 8 ns a record.
    """
    clock = state.clock
    written = 0
    row = 0
    for position in range(len(records)):
        now = np.int64(records[position].ts_recv)  # undefined: -1, which never ends a second
        if now >= clock[SECOND_END]:
            for place in range(clock[CHANGED]):
                book = state.changed[place]
                state.is_changed[book] = False
                for word in range(BBO_WORDS):
                    out_words[written, word] = state.words[book, word]
                out[written].ts_recv = np.uint64(clock[SECOND_END])
                positions[written] = position
                written += 1
            clock[CHANGED] = 0
            clock[SECOND_END] = now - now % SECOND_NS + SECOND_NS
        while row < len(numbers) and numbers[row] == position:
            head = rows[row]
            if head.action == TRADE or head.depth == 0:
                book = books[row]
                newest = state.newest[book]
                if newest.length == 0:
                    newest.length = BBO_WORDS * 2
                    newest.rtype = BBO_1S_RTYPE
                    newest.publisher_id = head.publisher_id
                    newest.instrument_id = head.instrument_id
                    newest.ts_event = np.uint64(UNDEF_TIMESTAMP)
                    newest.price = UNDEF_PRICE
                    newest.size = 0
                    newest.side = NONE
                if head.action == TRADE:
                    newest.ts_event = head.ts_event
                    newest.price = head.price
                    newest.size = head.size
                    newest.side = head.side
                newest.flags = head.flags
                newest.sequence = head.sequence
                for word in range(HEAD_WORDS, BBO_WORDS):
                    state.words[book, word] = row_words[row, word]
                if not state.is_changed[book]:
                    state.is_changed[book] = True
                    state.changed[clock[CHANGED]] = book
                    clock[CHANGED] += 1
            row += 1
    return written
