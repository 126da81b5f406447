"""The compiled part of the CSV codec: lines of bytes <-> MBO records. Floor 1.

Self-contained: numba's cache does not notice a change in another file, so every code that is used here lives here,
and a test holds them equal to the public ones. Arrays in, numbers out, no exceptions. Unsigned 64-bit arithmetic
is kept apart from signed: numba turns a mixture into floats.

A timestamp in the pretty form is ``2025-09-24T19:30:00.001385399Z``, a pretty price has nine decimals.

Two readers: one for lines as the vendor writes them, which takes eight characters at a time as one 64-bit word and
gives up at anything else, and a careful one for all that is allowed, which also finds what is wrong.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated"

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

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
U32_MAX, U16_MAX, U8_MAX = np.uint64(2**32 - 1), np.uint64(2**16 - 1), np.uint64(2**8 - 1)
NS = np.uint64(1_000_000_000)
LAST_SECOND = (2**64 - 1) // 10**9  # in the year 2554; the undefined time lies in it

VENDOR_LINE_BYTES = 384  # the quick reader looks no further than this behind the start of a line
EPOCH = b"1970-01-01T00:00:00."
RECENT_SLOTS = 4  # the first 20 characters of a time, as the words at 0, 8 and 12, and the ns that they stand for
ACTIONS = np.uint64(sum(1 << (code - 65) for code in b"ACMRTFN"))
SIDES = np.uint64(sum(1 << (code - 65) for code in b"ABN"))
TENS = np.array([10**n for n in range(9)], np.uint64)
E8, E16 = np.uint64(10**8), np.uint64(10**16)
LAST_UNITS = np.uint64((2**63 - 1) // 10**9 - 1)  # whole units of a price that any nine decimals may follow


# Words: eight characters as one number, the first of them its lowest byte.


@intrinsic
def _word(_context, text, i):
    """Return the eight bytes of an array from place i on."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.uint64(text, types.int64), generate


@intrinsic
def _put_word(_context, out, i, word):
    """Write eight bytes into an array from place i on."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())
        builder.store(arguments[2], place, align=1)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.uint64), generate


@intrinsic
def _low_zeros(_context, word):
    """Return how many bits below the lowest that is set are not: 64 where none is."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.uint64(types.uint64), generate


ZEROS = np.uint64(0x3030303030303030)  # the word "00000000"
LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
ABOVE_NINE = np.uint64(0x7676767676767676)  # takes a byte above 9, and none below, to its highest bit
HIGH_BITS = np.uint64(0x8080808080808080)


# Counts the digits with which a word begins, whose bytes are characters less those of ZEROS.
@inlined
def _digits(word):
    others = (((word & LOW_BITS) + ABOVE_NINE) | word) & HIGH_BITS
    return np.int64(_low_zeros(others) >> np.uint64(3))


# Returns the number that the first n bytes of a word are the digits of; 1 <= n <= 8. Neighbours are put together three
# times: to four numbers below 100, two below 10,000, and one.
@inlined
def _number_of(word, n):
    word <<= np.uint64(64 - 8 * n)
    word = (word * np.uint64(10) + (word >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    word = (word * np.uint64(100) + (word >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return (word * np.uint64(10_000) + (word >> np.uint64(32))) & np.uint64(0xFFFFFFFF)


# Returns a word whose bytes are the eight digits of a number below 10^8: the same, backwards.
@inlined
def _digits_of(value):
    high = value // np.uint64(10_000)
    word = high | (value - high * np.uint64(10_000)) << np.uint64(32)
    high = ((word * np.uint64(10_486)) >> np.uint64(20)) & np.uint64(0x0000007F0000007F)
    word = high | (word - high * np.uint64(100)) << np.uint64(16)
    high = ((word * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F000F000F)
    return high | (word - high * np.uint64(10)) << np.uint64(8)


# The quick reader. Each part returns a value, the position behind it, and whether it is as expected; where it is not,
# the rest means nothing.


# Reads a number of at most fifteen digits.
@inlined
def _quick_number(text, i):
    word = _word(text, i) ^ ZEROS
    n = _digits(word)
    if n < 8:
        return _number_of(word, max(n, 1)), i + n, n > 0
    value = _number_of(word, 8)
    word = _word(text, i + 8) ^ ZEROS
    n = _digits(word)
    if n > 0:
        value = value * TENS[n] + _number_of(word, n)
    return value, i + 8 + n, n < 8


# Reads nine digits.
@inlined
def _quick_nine(text, i):
    word, last = _word(text, i) ^ ZEROS, np.uint64(text[i + 8]) - np.uint64(ZERO)
    return _number_of(word, 8) * np.uint64(10) + last, i + 9, (_digits(word) == 8) & (last <= np.uint64(9))


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
    if i + 20 >= end or _two(text, i) < 0 or _two(text, i + 2) < 0 or text[i + 4] != MINUS:  # all of them on this line
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


# Reads a time of the second that ``recent`` holds, or of another one, which it holds from then on.
@inlined
def _quick_time(text, i, end, recent):
    begin = i
    if _word(text, i) == recent[0] and _word(text, i + 8) == recent[1] and _word(text, i + 12) == recent[2]:
        fraction, i, is_good = _quick_nine(text, i + 20)
        return recent[3] + fraction, i + 1, is_good & (text[i] == 90)
    ns, i, status = _timestamp(text, i, end)
    is_good = status == OK and i == begin + 30 and text[i - 1] == 90
    if is_good:
        recent[0], recent[1], recent[2] = _word(text, begin), _word(text, begin + 8), _word(text, begin + 12)
        recent[3] = ns // NS * NS
    return ns, i, is_good


# Says whether a letter is one of a set.
@inlined
def _is_one_of(letters, code):
    place = np.uint64(code) - np.uint64(65)
    return (place < np.uint64(26)) & ((letters >> (place & np.uint64(63))) & np.uint64(1) != np.uint64(0))


# Reads a line as the vendor writes it, with the symbol that its instrument is known by, into a record. Returns the
# position behind it, or -1 where anything is otherwise: the careful reader then takes it from its start. Reads up to
# VENDOR_LINE_BYTES from i on.
@inlined
def _vendor_line(text, i, end, record, state, recent, ids, lengths, names):
    record.ts_recv, i, is_good = _quick_time(text, i, end, recent)
    is_good &= text[i] == COMMA
    record.ts_event, i, was_good = _quick_time(text, i + 1, end, recent)
    is_good &= was_good & (text[i] == COMMA)
    if not is_good:  # a time may end anywhere
        return np.int64(-1)
    rtype, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (rtype == np.uint64(MBO_RTYPE))
    publisher_id, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (publisher_id <= U16_MAX)
    instrument_id, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (instrument_id <= U32_MAX)
    action, side = text[i + 1], text[i + 3]
    is_good &= _is_one_of(ACTIONS, action) & (text[i + 2] == COMMA) & _is_one_of(SIDES, side) & (text[i + 4] == COMMA)
    is_negative = text[i + 5] == MINUS
    units, i, was_good = _quick_number(text, i + 5 + is_negative)
    is_good &= was_good & (text[i] == DOT) & (units <= LAST_UNITS)
    fraction, i, was_good = _quick_nine(text, i + 1)
    is_good &= was_good & (text[i] == COMMA)
    price = np.int64(units * NS + fraction)
    size, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (size <= U32_MAX)
    channel_id, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (channel_id <= U8_MAX)
    order_id, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA)
    flags, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (flags <= U8_MAX)
    is_before = text[i + 1] == MINUS
    delta, i, was_good = _quick_number(text, i + 1 + is_before)
    is_good &= was_good & (text[i] == COMMA) & (delta <= I32_MAX)
    sequence, i, was_good = _quick_number(text, i + 1)
    is_good &= was_good & (text[i] == COMMA) & (sequence <= U32_MAX)
    i += 1
    if not is_good:
        return np.int64(-1)
    slot = _slot(ids, np.int64(instrument_id))
    length = lengths[slot]
    for k in range(0, length, 8):
        differing = _word(text, i + k) ^ _word(names, slot * SYMBOL_BYTES + k)
        is_good &= differing << np.uint64(8 * max(8 - length + k, 0)) == np.uint64(0)
    i += length
    if not is_good or ids[slot] < 0 or text[i] != NEWLINE:
        return np.int64(-1)
    record.length = MBO_LENGTH
    record.rtype = MBO_RTYPE
    record.publisher_id = publisher_id
    record.instrument_id = instrument_id
    record.order_id = order_id
    record.price = -price if is_negative else price
    record.size = size
    record.flags = flags
    record.channel_id = channel_id
    record.action = action
    record.side = side
    record.ts_in_delta = -np.int64(delta) if is_before else np.int64(delta)
    record.sequence = sequence
    state[LINE] += 1
    state[PRICE_FORM] = PRETTY
    return i + 1


# Says whether the fields come as the vendor writes them, all of them.
@inlined
def _is_vendor_order(columns):
    is_vendor = len(columns) == SYMBOL + 1
    for field in range(len(columns)):
        is_vendor &= columns[field] == field
    return is_vendor


# Reads the whole lines of text[begin:end) into records, until the lines, the records or (strict) the first fault end
# it; otherwise a faulty line is counted in rejected. Returns how it ended, where, the number of records, and the fault.
# columns[k] is the column of field k. values and limits have a place for each column:
# the fields of a line, and the largest that fits. recent has the second of the last time. Cost: O(bytes).
@compiled
def decode(text, begin, end, columns, strict, records, state, rejected, values, limits, recent, ids, lengths, names):
    while end > begin and text[end - 1] != NEWLINE:
        end -= 1
    is_vendor = _is_vendor_order(columns)
    count = 0
    while begin < end and count < len(records):
        if is_vendor and state[PRICE_FORM] != RAW and begin + VENDOR_LINE_BYTES <= len(text):
            behind = _vendor_line(text, begin, end, records[count], state, recent, ids, lengths, names)
            if behind > 0:
                begin = behind
                count += 1
                continue
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


# Writes a number below 10^8 at position i. Returns the position behind it, up to seven bytes behind which are spoilt.
@inlined
def _put_short(out, i, value):
    word = _digits_of(value)
    zeros = min(_low_zeros(word) >> np.uint64(3), np.uint64(7))
    _put_word(out, i, (word | ZEROS) >> (zeros << np.uint64(3)))
    return i + 8 - np.int64(zeros)


# Writes eight digits at position i. Returns the position behind them.
@inlined
def _put_eight(out, i, value):
    _put_word(out, i, _digits_of(value) | ZEROS)
    return i + 8


# Writes a number in decimal at position i, as ``_put_short`` does.
@inlined
def _put(out, i, value):
    if value < E8:
        return _put_short(out, i, value)
    if value < E16:
        i = _put_short(out, i, value // E8)
    else:
        i = _put_short(out, i, value // E16)
        i = _put_eight(out, i, value // E8 % E8)
    return _put_eight(out, i, value % E8)


# Writes nine digits at position i. Returns the position behind them.
@inlined
def _put_nine(out, i, value):
    high = value // E8
    out[i] = np.uint8(high) + np.uint8(ZERO)
    return _put_eight(out, i + 1, value - high * E8)


# Writes a number with leading zeros at position i.
@inlined
def _put_fixed(out, i, value, width):
    for k in range(i + width - 1, i - 1, -1):
        rest = value // np.uint64(10)
        out[k] = np.uint8(value - rest * np.uint64(10)) + np.uint8(ZERO)
        value = rest


# Writes a pretty timestamp at position i; nothing for 0 and the undefined time, as the vendor does. ``second`` and
# ``face`` keep the last second written and its 20 characters: neighbours mostly share them.
@inlined
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
    for place in (0, 8, 12):  # twenty characters
        _put_word(out, i + place, _word(face, place))
    i = _put_nine(out, i + 20, ns - seconds * NS)
    out[i] = 90
    return i + 1, second


# Writes a pretty price at position i; nothing for the undefined price.
@inlined
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
    return _put_nine(out, i + 1, magnitude - units * NS)


# Writes a comma at position i. Returns the position behind it.
@inlined
def _comma(out, i):
    out[i] = COMMA
    return i + 1


# Writes records as pretty lines with the symbol, MAX_LINE_BYTES of room each, and eight bytes more. Returns the number
# of bytes written.
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
            for k in range(0, lengths[slot], 8):
                _put_word(out, i + k, _word(names, slot * SYMBOL_BYTES + k))
            i += lengths[slot]
        out[i] = NEWLINE
        i += 1
    return i
