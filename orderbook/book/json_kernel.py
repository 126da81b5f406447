"""The compiled part of the JSON encoder: rows of snapshots -> lines of text. Floor 0.

Self-contained: numba's cache does not notice a change in another file. It knows no field name: the text between the
numbers comes in as *pieces*, one array of bytes and the offsets where each begins. Arrays in, numbers out, no
exceptions. Unsigned 64-bit arithmetic is kept apart from signed: numba turns a mixture into floats.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def"

from typing import Any, Final

import numpy as np
from numba import njit

# Without numba's reference counts (_nrt), which cost an atomic add at every hand-over of an array: nothing here may
# make one, working memory comes in as an argument.
_njit: Any = njit  # its type does not know _nrt
compiled = _njit(cache=True, nogil=True, _nrt=False)
inlined = _njit(cache=True, nogil=True, _nrt=False, forceinline=True)

# The pieces that all lines share, named by what comes behind them; then those of the states, then two of each book.
TS_NS: Final = 0
TS_RECV_NS: Final = 1
SEQUENCE: Final = 2
SEQ: Final = 3
RECORDS: Final = 4
STATE: Final = 5
ASKS: Final = 6
END: Final = 7
OK: Final = 8
LOCKED: Final = 9
CROSSED: Final = 10
ONE_SIDED: Final = 11
EMPTY: Final = 12
BOOKS: Final = 13  # for each book how its lines begin, up to the readable time; and what is between state and bids

NUMBER_BYTES: Final = 20  # of the longest integer of 64 bits, its sign included
LEVEL_BYTES: Final = 22 + 2 * NUMBER_BYTES + 5  # the longest price; two numbers; brackets and commas
NUMBERS_BYTES: Final = 30 + 5 * NUMBER_BYTES  # of a line, besides its levels: the readable time and five numbers

SCALE_DIGITS: Final = 9
NS: Final = np.uint64(10**9)
DAY_S: Final = np.uint64(86_400)
TEN: Final = np.uint64(10)
HUNDRED: Final = np.uint64(100)
NO_SECOND: Final = np.uint64(2**64 - 1)
COMMA, DOT, MINUS, ZERO, COLON, OPEN, CLOSE = 44, 46, 45, 48, 58, 91, 93
POWERS: Final = np.array([10**k for k in range(SCALE_DIGITS + 1)], np.uint64)
PAIRS: Final = np.frombuffer("".join(f"{n:02}" for n in range(100)).encode(), np.uint8).copy()


# Copies a piece to position i. Returns the position behind it, as every writer below does.
@inlined
def _put_piece(out, i, texts, begins, piece):
    begin, end = begins[piece], begins[piece + 1]
    for k in range(end - begin):
        out[i + k] = texts[begin + k]
    return i + end - begin


# Writes a number below 100 as two digits.
@inlined
def _put_pair(out, i, value):
    at = np.int64(value) * 2
    out[i] = PAIRS[at]
    out[i + 1] = PAIRS[at + 1]
    return i + 2


# Writes a number with leading zeros.
@inlined
def _put_fixed(out, i, value, width):
    k = i + width
    while k - i >= 2:
        rest = value // HUNDRED
        k -= 2
        _put_pair(out, k, value - rest * HUNDRED)
        value = rest
    if k > i:
        out[i] = np.uint8(value) + np.uint8(ZERO)
    return i + width


# Writes a number of any width; most are short.
@inlined
def _put(out, i, value):
    if value < TEN:
        out[i] = np.uint8(value) + np.uint8(ZERO)
        return i + 1
    if value < HUNDRED:
        return _put_pair(out, i, value)
    width, rest = 2, value // HUNDRED
    while rest > np.uint64(0):
        width += 1
        rest //= TEN
    return _put_fixed(out, i, value, width)


# Writes a number that may be negative.
@inlined
def _put_signed(out, i, value):
    magnitude = np.uint64(value)
    if value < 0:
        out[i] = MINUS
        i += 1
        magnitude = np.uint64(0) - magnitude
    return _put(out, i, magnitude)


# Writes a price with so many decimals, and with more only where fewer would lie: what price.format_price says.
@inlined
def _put_price(out, i, price, decimals):
    magnitude = np.uint64(price)
    if price < 0:
        out[i] = MINUS
        i += 1
        magnitude = np.uint64(0) - magnitude
    whole = magnitude // NS
    fraction = magnitude - whole * NS
    i = _put(out, i, whole)
    unit = POWERS[SCALE_DIGITS - decimals]
    kept = np.uint64(np.uint32(fraction) // np.uint32(unit))
    if kept * unit == fraction:
        if decimals == 0:
            return i
        out[i] = DOT
        return _put_fixed(out, i + 1, kept, decimals)
    out[i] = DOT
    i = _put_fixed(out, i + 1, fraction, SCALE_DIGITS)
    while out[i - 1] == ZERO:
        i -= 1
    return i


# Writes an instant as timestamp.format_ns does. ``second`` and ``face`` keep the last second written and its 20
# characters: neighbours mostly share them.
@compiled
def _put_time(out, i, ns, second, face):
    seconds = ns // NS
    if seconds != second:
        days = np.int64(seconds // DAY_S)
        of_day = seconds % DAY_S
        # From days to a date, in eras of 400 years that start in March.
        shifted = days + 719468
        era = shifted // 146097
        day_of_era = shifted - era * 146097
        year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
        day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
        month = (5 * day_of_year + 2) // 153
        day = day_of_year - (153 * month + 2) // 5 + 1
        month = month + 3 if month < 10 else month - 9
        year = year_of_era + era * 400 + (month <= 2)
        _put_fixed(face, 0, np.uint64(year), 4)
        _put_fixed(face, 5, np.uint64(month), 2)
        _put_fixed(face, 8, np.uint64(day), 2)
        _put_fixed(face, 11, of_day // np.uint64(3600), 2)
        _put_fixed(face, 14, of_day // np.uint64(60) % np.uint64(60), 2)
        _put_fixed(face, 17, of_day % np.uint64(60), 2)
        second = seconds
    for k in range(20):
        out[i + k] = face[k]
    i = _put_fixed(out, i + 20, ns - seconds * NS, SCALE_DIGITS)
    out[i] = 90  # Z
    return i + 1, second


# Writes the first levels of one side of snapshot n, best first.
@compiled
def _put_levels(out, i, levels, n, count, decimals):
    for k in range(count):
        if k > 0:
            out[i] = COMMA
            i += 1
        out[i] = OPEN
        i = _put_price(out, i + 1, levels[n, k, 0], decimals)
        out[i] = COMMA
        i = _put_signed(out, i + 1, levels[n, k, 1])
        out[i] = COMMA
        i = _put_signed(out, i + 1, levels[n, k, 2])
        out[i] = CLOSE
        i += 1
    return i


# Returns the piece that says what the best prices mean.
@inlined
def _state(bids, asks, n, bid_count, ask_count):
    if bid_count == 0 or ask_count == 0:
        return EMPTY if bid_count == ask_count else ONE_SIDED
    bid, ask = bids[n, 0, 0], asks[n, 0, 0]
    if bid == ask:
        return LOCKED
    return CROSSED if bid > ask else OK


# Writes the lines of rows[first:] to ``out`` from position i on, as many as surely fit, the top ``depth`` levels of
# each. Reads of a row what is not on its levels, and of bids[n] and asks[n] the levels that the row counts.
# ``books``: which book of the pieces a row is of, not its number in the market; ``piece_bytes``: the most that the
# pieces of a line take; ``decimals``: by book of the pieces, of its prices; ``face``: 20 bytes to
# work with. Returns the first row not written and the position behind the last line. Cost: O(levels).
@compiled
def encode(rows, bids, asks, seqs, books, first, depth, texts, begins, piece_bytes, decimals, face, out, i):
    face[4] = face[7] = MINUS
    face[10] = 84  # T
    face[13] = face[16] = COLON
    face[19] = DOT
    second = NO_SECOND
    for n in range(first, len(rows)):
        row = rows[n]
        book = books[n]
        state = _state(bids, asks, n, row.bids, row.asks)
        bid_count, ask_count = min(np.int64(row.bids), depth), min(np.int64(row.asks), depth)
        if i + piece_bytes + NUMBERS_BYTES + (bid_count + ask_count) * LEVEL_BYTES > len(out):
            return n, i
        i = _put_piece(out, i, texts, begins, BOOKS + 2 * book)
        i, second = _put_time(out, i, row.ts_event, second, face)
        i = _put_piece(out, i, texts, begins, TS_NS)
        i = _put(out, i, row.ts_event)
        i = _put_piece(out, i, texts, begins, TS_RECV_NS)
        i = _put(out, i, row.ts_recv)
        i = _put_piece(out, i, texts, begins, SEQUENCE)
        i = _put(out, i, np.uint64(row.sequence))
        i = _put_piece(out, i, texts, begins, SEQ)
        i = _put_signed(out, i, seqs[n])
        i = _put_piece(out, i, texts, begins, RECORDS)
        i = _put_signed(out, i, row.records)
        i = _put_piece(out, i, texts, begins, STATE)
        i = _put_piece(out, i, texts, begins, state)
        i = _put_piece(out, i, texts, begins, BOOKS + 2 * book + 1)
        i = _put_levels(out, i, bids, n, bid_count, decimals[book])
        i = _put_piece(out, i, texts, begins, ASKS)
        i = _put_levels(out, i, asks, n, ask_count, decimals[book])
        i = _put_piece(out, i, texts, begins, END)
    return len(rows), i
