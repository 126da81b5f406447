"""The compiled part of the CSV codec: lines of bytes <-> MBO records. Floor 1.

Self-contained: numba's cache does not notice a change in another file, so every code that is used here lives here,
and a test holds them equal to the public ones. Arrays in, numbers out, no exceptions. Unsigned 64-bit arithmetic
is kept apart from signed: numba turns a mixture into floats.

A timestamp in the pretty form is ``2025-09-24T19:30:00.001385399Z``, a pretty price has nine decimals.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def"

from typing import Any

import numpy as np
from numba import njit

# Without numba's reference counts (_nrt): an atomic add at every hand-over of an array costs more than reading the
# line, 404 against 179 ns. So nothing here may make an array: working memory comes in as an argument.
_njit: Any = njit  # its type does not know _nrt
compiled = _njit(cache=True, nogil=True, _nrt=False)
inlined = _njit(cache=True, nogil=True, _nrt=False, forceinline=True)

# Columns, in the order in which they are written.
TS_RECV, TS_EVENT, RTYPE, PUBLISHER_ID, INSTRUMENT_ID, ACTION, SIDE, PRICE = 0, 1, 2, 3, 4, 5, 6, 7
SIZE, CHANNEL_ID, ORDER_ID, FLAGS, TS_IN_DELTA, SEQUENCE, SYMBOL = 8, 9, 10, 11, 12, 13, 14

# Why a line is not a record.
OK, TOO_FEW, TOO_MANY, NOT_A_VALUE, OUT_OF_RANGE, MIXED_FORMS = 0, 1, 2, 3, 4, 5
REASONS = 6

# Slots of the decoder's state, which lives from call to call.
LINE, PRICE_FORM, SYMBOLS, RENAMED, SYMBOL_BEGIN, FAULT_FIELD, FAULT_BEGIN, FAULT_END, STATE_SLOTS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
)
UNKNOWN_FORM, PRETTY, RAW = 0, 1, 2

# How a call to decode ended.
DONE, FAULT, SYMBOLS_FULL = 0, 1, 2

SYMBOL_BYTES = 72
MAX_LINE_BYTES = 192 + SYMBOL_BYTES  # of a line written here: the widest values of the other columns need 187

MBO_LENGTH, MBO_RTYPE = 14, 160
UNDEF_PRICE = 2**63 - 1
UNDEF_TIMESTAMP = 2**64 - 1
COMMA, NEWLINE, RETURN, DOT, MINUS, ZERO, COLON = 44, 10, 13, 46, 45, 48, 58
U64_MAX = np.uint64(2**64 - 1)
I64_MAX = np.uint64(2**63 - 1)
I32_MAX = np.uint64(2**31 - 1)
NS = np.uint64(1_000_000_000)
LAST_SECOND = (2**64 - 1) // 10**9  # in the year 2554; the undefined time lies in it


# The readers below start at a position and return the value, the position where they stopped, and a status. They need
# no bound: the text that they get ends with a line end, and none of them steps over one.


# Reads decimal digits; none, or a number above the limit, is a fault.
@inlined
def _unsigned(text, i, limit):
    begin = i
    value = np.uint64(0)
    digit = np.uint64(text[i]) - np.uint64(ZERO)  # what lies below '0' wraps to a huge number
    while digit <= np.uint64(9):
        if i - begin >= 19 and (i - begin > 19 or value > (U64_MAX - digit) // np.uint64(10)):
            return value, i, OUT_OF_RANGE
        value = value * np.uint64(10) + digit
        i += 1
        digit = np.uint64(text[i]) - np.uint64(ZERO)
    if i == begin:
        return value, i, NOT_A_VALUE
    return value, i, OK if value <= limit else OUT_OF_RANGE


# Reads a signed integer whose magnitude is at most the limit (one more when negative, as in two's complement).
@inlined
def _signed(text, i, limit):
    negative = text[i] == MINUS
    value, i, status = _unsigned(text, i + negative, limit + np.uint64(negative))
    return (-np.int64(value) if negative else np.int64(value)), i, status


# Reads a price, whole 1e-9 units or a decimal fraction of at most nine digits; also returns which form it had.
@inlined
def _price(text, i):
    if text[i] == COMMA or text[i] == NEWLINE or text[i] == RETURN:
        return np.int64(UNDEF_PRICE), i, OK, UNKNOWN_FORM
    negative = text[i] == MINUS
    value, i, status = _unsigned(text, i + negative, I64_MAX + np.uint64(negative))
    form = RAW
    if status == OK and text[i] == DOT:
        form = PRETTY
        fraction, stop, status = _unsigned(text, i + 1, U64_MAX)
        decimals = stop - i - 1
        i = stop
        if status == OK and decimals > 9:
            status = NOT_A_VALUE
        if status == OK and value > I64_MAX // NS:
            status = OUT_OF_RANGE
        if status == OK:
            for _ in range(9 - decimals):
                fraction *= np.uint64(10)
            value = value * NS + fraction
            if value > I64_MAX + np.uint64(negative):
                status = OUT_OF_RANGE
    return (-np.int64(value) if negative else np.int64(value)), i, status, form


# Reads two digits; a large negative number when they are not digits.
@inlined
def _two(text, i):
    tens, ones = np.int64(text[i]) - ZERO, np.int64(text[i + 1]) - ZERO
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1_000_000


# Counts days from 1970-01-01 of a date of the Gregorian calendar, years starting in March (a leap day ends a year).
@inlined
def _days(year, month, day):
    if month <= 2:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469


# Reads ns since 1970, or an ISO time in UTC with up to nine decimals. An empty field is the undefined time.
@inlined
def _timestamp(text, i, end):
    if text[i] == COMMA or text[i] == NEWLINE or text[i] == RETURN:
        return np.uint64(UNDEF_TIMESTAMP), i, OK
    if i + 20 >= end or text[i + 4] != MINUS:
        return _unsigned(text, i, U64_MAX)
    # A line end inside the fixed part is no digit and no separator: it is a fault like any other.
    separated = (
        text[i + 7] == MINUS
        and (text[i + 10] == 84 or text[i + 10] == 32)  # T or a space
        and text[i + 13] == COLON
        and text[i + 16] == COLON
    )
    year = 100 * _two(text, i) + _two(text, i + 2)
    month, day, hour = _two(text, i + 5), _two(text, i + 8), _two(text, i + 11)
    minute, second = _two(text, i + 14), _two(text, i + 17)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    month_days = 31 - (month == 4 or month == 6 or month == 9 or month == 11) - (3 - leap) * (month == 2)
    on_calendar = year >= 0 and 1 <= month <= 12 and 1 <= day <= month_days
    if not (separated and on_calendar and 0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
        return np.uint64(0), i, NOT_A_VALUE
    if year < 1970 or year > 2554:
        return np.uint64(0), i, OUT_OF_RANGE
    i += 19
    fraction = np.uint64(0)
    if text[i] == DOT:
        fraction, stop, status = _unsigned(text, i + 1, U64_MAX)
        decimals = stop - i - 1
        i = stop
        if status != OK or decimals > 9:
            return fraction, i, NOT_A_VALUE
        for _ in range(9 - decimals):
            fraction *= np.uint64(10)
    if text[i] == 90:  # Z
        i += 1
    elif text[i] == 43 and _two(text, i + 1) == 0 and text[i + 3] == COLON and _two(text, i + 4) == 0:  # +00:00
        i += 6
    else:
        return fraction, i, NOT_A_VALUE
    seconds = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    if seconds >= LAST_SECOND:
        return fraction, i, OUT_OF_RANGE
    return np.uint64(seconds) * NS + fraction, i, OK


# Finds the slot of an instrument in the open-addressing table, or the free slot where it belongs. Cost: O(1).
@inlined
def _slot(ids, instrument_id):
    mask = len(ids) - 1
    slot = (instrument_id * 2654435761) & mask
    while ids[slot] >= 0 and ids[slot] != instrument_id:
        slot = (slot + 1) & mask
    return slot


# Keeps the symbol of an instrument; state[SYMBOLS] counts the instruments, state[RENAMED] what changed besides.
@compiled
def _keep_symbol(text, begin, end, instrument_id, ids, lengths, names, state):
    slot = _slot(ids, instrument_id)
    same = ids[slot] == instrument_id and lengths[slot] == end - begin
    if same:
        for i in range(end - begin):
            same = same and names[slot, i] == text[begin + i]
    if same:
        return
    if ids[slot] < 0:
        ids[slot] = instrument_id
        state[SYMBOLS] += 1
    else:
        state[RENAMED] += 1
    lengths[slot] = end - begin
    for i in range(end - begin):
        names[slot, i] = text[begin + i]


# Reads the field of a column as 64 bits (signed values in two's complement); the caller looks at the range.
@inlined
def _field(text, i, end, column):
    if column <= TS_EVENT:
        return _timestamp(text, i, end)
    if ACTION <= column <= SIDE:
        code = text[i]
        known = code == 65 or code == 78  # A, N
        if column == SIDE:
            known = known or code == 66
        else:
            known = known or code == 67 or code == 77 or code == 84 or code == 70 or code == 82
        return np.uint64(code), i + known, OK if known else NOT_A_VALUE
    if column == SYMBOL:
        begin = i
        while 32 <= text[i] <= 126 and text[i] != COMMA and text[i] != 34:  # printable; quotes would hide commas
            i += 1
        return np.uint64(i - begin), i, OK
    if column == TS_IN_DELTA:
        value, i, status = _signed(text, i, I32_MAX)
        return np.uint64(value), i, status
    return _unsigned(text, i, U64_MAX)


# Reads one line; values[column] gets its fields, values[SYMBOL] the length of the symbol and state[SYMBOL_BEGIN] where
# it starts. Returns the position behind the line and OK or the fault, whose place is in the state.
@compiled
def _line(text, i, end, columns, limits, values, state):
    fields = len(columns)
    field, begin, status = 0, i, OK
    form = state[PRICE_FORM]
    while True:
        begin = i
        column = columns[field]
        if column == PRICE:
            price, i, status, this_form = _price(text, i)
            values[PRICE] = np.uint64(price)
            if this_form != UNKNOWN_FORM:
                if status == OK and form != UNKNOWN_FORM and form != this_form:
                    status = MIXED_FORMS
                form = this_form
        else:
            value, i, status = _field(text, i, end, column)
            values[column] = value
            if status == OK and value > limits[column]:
                status = OUT_OF_RANGE
            if column == SYMBOL:
                state[SYMBOL_BEGIN] = begin
            elif column == RTYPE and status == OK and value != np.uint64(MBO_RTYPE):
                status = NOT_A_VALUE
        if status != OK:
            break
        if text[i] == COMMA:
            i += 1
            field += 1
            if field == fields:
                begin, field, status = i, field - 1, TOO_MANY
                break
            continue
        if text[i] == RETURN and text[i + 1] == NEWLINE:
            i += 1
        if text[i] != NEWLINE:
            status = NOT_A_VALUE  # something stands behind the value
        elif field + 1 < fields:
            status = TOO_FEW
        break
    state[LINE] += 1
    if status == OK:
        state[PRICE_FORM] = form
        return i + 1, OK
    stop = i if status == TOO_FEW else begin
    while text[stop] != COMMA and text[stop] != NEWLINE:
        stop += 1
    state[FAULT_FIELD], state[FAULT_BEGIN], state[FAULT_END] = field, begin, stop
    while text[stop] != NEWLINE:
        stop += 1
    return stop + 1, status


# Writes the values of a line into record n.
@compiled
def _store(values, records, n):
    record = records[n]
    record.length = MBO_LENGTH
    record.rtype = MBO_RTYPE
    record.publisher_id = values[PUBLISHER_ID]
    record.instrument_id = values[INSTRUMENT_ID]
    record.ts_event = values[TS_EVENT]
    record.order_id = values[ORDER_ID]
    record.price = np.int64(values[PRICE])
    record.size = values[SIZE]
    record.flags = values[FLAGS]
    record.channel_id = values[CHANNEL_ID]
    record.action = values[ACTION]
    record.side = values[SIDE]
    record.ts_recv = values[TS_RECV]
    record.ts_in_delta = np.int64(values[TS_IN_DELTA])
    record.sequence = values[SEQUENCE]


# Reads the whole lines of text[begin:end) into records, until the lines, the records or (strict) the first fault end
# it; otherwise a faulty line is counted in rejected. Returns how it ended, where, the number of records, and the fault.
# columns[k] is the column of field k. values and limits have a place for each column:
# the fields of a line, and the largest that fits. Cost: O(bytes).
@compiled
def decode(text, begin, end, columns, strict, records, state, rejected, values, limits, ids, lengths, names):
    while end > begin and text[end - 1] != NEWLINE:
        end -= 1
    count = 0
    while begin < end and count < len(records):
        if 2 * (state[SYMBOLS] + 1) > len(ids):
            return SYMBOLS_FULL, begin, count, OK
        begin, fault = _line(text, begin, end, columns, limits, values, state)
        if fault == OK:
            _store(values, records, count)
            if values[SYMBOL] > 0:
                stop = state[SYMBOL_BEGIN] + np.int64(values[SYMBOL])
                _keep_symbol(
                    text, state[SYMBOL_BEGIN], stop, np.int64(values[INSTRUMENT_ID]), ids, lengths, names, state
                )
            count += 1
        elif strict:
            return FAULT, begin, count, fault
        else:
            rejected[fault] += 1
    return DONE, begin, count, OK


# Writes a number in decimal at position i. Returns the position behind it.
@inlined
def _put(out, i, value):
    width, rest = 1, value // np.uint64(10)
    while rest > np.uint64(0):
        width += 1
        rest //= np.uint64(10)
    return _put_fixed(out, i, value, width)


# Writes a number with leading zeros at position i.
@inlined
def _put_fixed(out, i, value, width):
    for k in range(i + width - 1, i - 1, -1):
        rest = value // np.uint64(10)
        out[k] = np.uint8(value - rest * np.uint64(10)) + np.uint8(ZERO)
        value = rest
    return i + width


# Writes a pretty timestamp at position i; nothing for 0 and the undefined time, as the vendor does. ``second`` and
# ``face`` keep the last second written and its 20 characters: neighbours mostly share them.
@compiled
def _put_timestamp(out, i, ns, second, face):
    if ns == np.uint64(UNDEF_TIMESTAMP) or ns == np.uint64(0):
        return i, second
    seconds = ns // NS
    if seconds != second:
        days = np.int64(seconds // np.uint64(86400))
        of_day = seconds % np.uint64(86400)
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
    i = _put_fixed(out, i + 20, ns - seconds * NS, 9)
    out[i] = 90
    return i + 1, second


# Writes a pretty price at position i; nothing for the undefined price.
@compiled
def _put_price(out, i, price):
    if price == UNDEF_PRICE:
        return i
    magnitude = np.uint64(price)
    if price < 0:
        out[i] = MINUS
        i += 1
        magnitude = np.uint64(0) - magnitude
    units = magnitude // NS
    i = _put(out, i, units)
    out[i] = DOT
    return _put_fixed(out, i + 1, magnitude - units * NS, 9)


# Writes a comma at position i. Returns the position behind it.
@inlined
def _comma(out, i):
    out[i] = COMMA
    return i + 1


# Writes records as pretty lines with the symbol, MAX_LINE_BYTES of room each. Returns the number of bytes written.
# face is room for the 20 characters of a time down to the second.
@compiled
def encode(records, ids, lengths, names, face, out):
    face[4] = face[7] = MINUS
    face[10] = 84
    face[13] = face[16] = 58
    face[19] = DOT
    second = U64_MAX
    i = 0
    for n in range(len(records)):
        record = records[n]
        i, second = _put_timestamp(out, i, record.ts_recv, second, face)
        i = _comma(out, i)
        i, second = _put_timestamp(out, i, record.ts_event, second, face)
        i = _comma(out, i)
        i = _comma(out, _put(out, i, np.uint64(record.rtype)))
        i = _comma(out, _put(out, i, np.uint64(record.publisher_id)))
        i = _comma(out, _put(out, i, np.uint64(record.instrument_id)))
        out[i] = record.action
        out[i + 1] = COMMA
        out[i + 2] = record.side
        i = _comma(out, i + 3)
        i = _comma(out, _put_price(out, i, record.price))
        i = _comma(out, _put(out, i, np.uint64(record.size)))
        i = _comma(out, _put(out, i, np.uint64(record.channel_id)))
        i = _comma(out, _put(out, i, record.order_id))
        i = _comma(out, _put(out, i, np.uint64(record.flags)))
        delta = np.int64(record.ts_in_delta)
        if delta < 0:
            out[i] = MINUS
            i += 1
            delta = -delta
        i = _comma(out, _put(out, i, np.uint64(delta)))
        i = _comma(out, _put(out, i, np.uint64(record.sequence)))
        instrument_id = np.int64(record.instrument_id)
        slot = _slot(ids, instrument_id)
        if ids[slot] == instrument_id:
            for k in range(lengths[slot]):
                out[i + k] = names[slot, k]
            i += lengths[slot]
        out[i] = NEWLINE
        i += 1
    return i
