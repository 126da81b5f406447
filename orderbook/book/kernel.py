"""The compiled order book: flat arrays and the functions that read and change them. Floor 0.

The only numba file of the book. It imports no code of its own project, and every constant it uses is written
here: numba's cache does not see a change in another file. A test compares the codes with the public ones.

One *arena* of arrays holds any number of books, so that books of many instruments can share one pass:

- ``nodes``: one order each, linked to its neighbours in the queue of its level. Free nodes form a list.
- ``index``: open-addressing table from (book, order id) to a node, linear probing, at most half full.
  An entry is 32 bits of hash beside 32 bits of node number + 1, and zero is empty: probing and moving
  entries touch no node, except the one whose hash agrees. A deletion shifts the entries behind it back.
- ``levels``: one price of one side each, with its totals and the ends of its queue. Free ones form a list.
- ``ladder``: for each side of each book a segment of (key, level), sorted, the best price last. Most changes
  are near the best price, where finding costs a few compares and inserting moves a few rows.
- ``books``: one row of counters a book; ``pool``: the counters of the arena.

The key of a price is the price for bids and its complement (-price - 1, which cannot overflow) for asks, so
that one code serves both sides. No function allocates or raises: when an array could overflow, ``apply``
stops, says which in ``pool[SHORT]``, and goes on from there when it is called with longer arrays.
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def"

from typing import Any, Final

import numpy as np
from numba import njit, types

# Codes of the record. Equal to orderbook.book.mbo by test.
ADD: Final = 65
CANCEL: Final = 67
MODIFY: Final = 77
CLEAR: Final = 82
TRADE: Final = 84
FILL: Final = 70
NONE: Final = 78
SIDE_BID: Final = 66
SIDE_ASK: Final = 65
TOB: Final = 0x40
SNAPSHOT: Final = 0x20
MAYBE_BAD_BOOK: Final = 0x04
UNDEF_PRICE: Final = 2**63 - 1

# Sides inside the arena.
BID: Final = 0
ASK: Final = 1

NODE: Final = np.dtype(
    [
        ("order_id", "<u8"),
        ("size", "<u4"),
        ("next", "<i4"),  # towards the back of the queue; next free node when free
        ("previous", "<i4"),
        ("level", "<i4"),
        ("book", "<i4"),
    ],
    align=True,
)
LEVEL: Final = np.dtype(
    [
        ("key", "<i8"),
        ("size", "<i8"),  # of all orders, and top_size
        ("count", "<i4"),
        ("first", "<i4"),  # front of the queue; next free level when free
        ("last", "<i4"),
        ("top_size", "<u4"),  # what a top-of-book publisher shows here: no order
        ("side", "<i4"),
    ],
    align=True,
)

NO: Final = -1
"""End of a list."""

# Columns of ``ladder``.
KEY: Final = 0
AT: Final = 1

# Counters in ``pool``.
FREE_NODE: Final = 0  # heads of the free lists
FREE_LEVEL: Final = 1
LIVE_NODES: Final = 2
LIVE_LEVELS: Final = 3
LADDER_USED: Final = 4
INDEX_SHIFT: Final = 5  # 32 - log2(len(index))
SHORT: Final = 6
POOL_COLUMNS: Final = 8

# Values of pool[SHORT].
SHORT_OF_NODES: Final = 1
SHORT_OF_LEVELS: Final = 2
SHORT_OF_LADDER: Final = 3

# Columns of ``books``.
TS_EVENT: Final = 0
TS_RECV: Final = 1
SEQUENCE: Final = 2
FLAGS: Final = 3  # of the last record
ORDERS: Final = 4
SEGMENTS: Final = 5  # start, count and capacity of the bids, then of the asks
START: Final = 0
COUNT: Final = 1
CAPACITY: Final = 2
SEGMENT_COLUMNS: Final = 3
ANOMALIES: Final = 11
# Kinds of anomaly. Equal to the order of orderbook.book.anomaly.Anomaly by test.
UNKNOWN_CANCEL: Final = 0
UNKNOWN_MODIFY: Final = 1
DUPLICATE_ADD: Final = 2
OVER_CANCEL: Final = 3
CANCEL_MISMATCH: Final = 4
SIDE_CHANGE: Final = 5
ZERO_SIZE: Final = 6
UNDEFINED_PRICE: Final = 7
IMPLICIT_CLEAR: Final = 8
BAD_BOOK: Final = 9
BAD_ACTION: Final = 10
BAD_SIDE: Final = 11
BOOK_COLUMNS: Final = 24

MIN_SEGMENT: Final = 64
MIN_ROOM: Final = 32
"""Fewer free places than this, and ``apply`` asks for longer arrays rather than look again at every record.

At most half of MIN_SEGMENT, so that a side that ``_room`` has just widened never asks.
"""

LINEAR_STEPS: Final = 12
"""Compares from the best price on before a search turns binary."""

_MIX: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads consecutive ids evenly
_BOOK_MIX: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_EMPTY: Final = np.uint64(0)
_ONE: Final = np.uint64(1)

_CLOCK_MONOTONIC: Final = 1
# By name and not through ctypes: an address would keep the compiled code out of the cache.
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.intc(types.intc, types.voidptr))

# Without numba's reference counts: they would be atomic, a dozen a record, and cost six sevenths of the speed
# (5 against 37 million records/s). The caller holds every array while a kernel runs, and no kernel makes one.
_njit: Any = njit
_inner = _njit(cache=True, nogil=True, forceinline=True, _nrt=False)
_outer = _njit(cache=True, nogil=True, _nrt=False)


@_inner
def _tag(order_id, book):
    """Return the upper 32 bits of the hash of an order id in a book. Cost: one multiplication."""
    mixed = order_id ^ (np.uint64(book) * _BOOK_MIX)
    mixed ^= mixed >> _HALF
    return (mixed * _MIX) >> _HALF


@_inner
def _find(pool, nodes, index, book, order_id):
    """Return the place of an order in the index and its node, or the empty place it would take and NO."""
    mask = len(index) - 1
    tag = _tag(order_id, book)
    place = np.int64(tag >> np.uint64(pool[INDEX_SHIFT]))
    while True:
        entry = index[place]
        if entry == _EMPTY:
            return place, np.int64(NO)
        if entry >> _HALF == tag:
            node = np.int64(entry & _LOW) - 1
            if nodes[node].order_id == order_id and nodes[node].book == book:
                return place, node
        place = (place + 1) & mask


@_inner
def _forget(pool, index, place):
    """Empty a place of the index and shift back what probing could no longer reach. Cost: O(1) expected."""
    mask = len(index) - 1
    shift = np.uint64(pool[INDEX_SHIFT]) + _HALF
    hole = place
    while True:
        place = (place + 1) & mask
        entry = index[place]
        if entry == _EMPTY:
            break
        home = np.int64(entry >> shift)
        if ((place - home) & mask) >= ((place - hole) & mask):
            index[hole] = entry
            hole = place
    index[hole] = _EMPTY


@_inner
def _rank(books, ladder, book, side, key):
    """Return the last row of a side's segment whose key is not better than ``key``; start - 1 when none is.

    Cost: O(1) near the best price, O(log levels) far from it.
    """
    segment = SEGMENTS + side * SEGMENT_COLUMNS
    start = books[book, segment + START]
    row = start + books[book, segment + COUNT] - 1
    near = max(start, row - LINEAR_STEPS)
    while row >= near:
        if ladder[row, KEY] <= key:
            return row
        row -= 1
    low = start
    high = row  # the answer lies in [start - 1, row]
    while low <= high:
        middle = (low + high) >> 1
        if ladder[middle, KEY] <= key:
            low = middle + 1
        else:
            high = middle - 1
    return high


@_inner
def _level(pool, books, levels, ladder, book, side, key):
    """Return the level of a key, made when there is none. Writes the ladder only then."""
    segment = SEGMENTS + side * SEGMENT_COLUMNS
    start = books[book, segment + START]
    row = _rank(books, ladder, book, side, key)
    if row >= start and ladder[row, KEY] == key:
        return ladder[row, AT]
    end = start + books[book, segment + COUNT]
    books[book, segment + COUNT] += 1
    while end > row + 1:
        ladder[end, KEY] = ladder[end - 1, KEY]
        ladder[end, AT] = ladder[end - 1, AT]
        end -= 1
    level = pool[FREE_LEVEL]
    pool[FREE_LEVEL] = levels[level].first
    pool[LIVE_LEVELS] += 1
    ladder[end, KEY] = key
    ladder[end, AT] = level
    fresh = levels[level]
    fresh.key = key
    fresh.size = 0
    fresh.count = 0
    fresh.first = NO
    fresh.last = NO
    fresh.top_size = 0
    fresh.side = side
    return level


@_inner
def _drop_level(pool, books, levels, ladder, book, level):
    """Take an empty level out of the ladder and free it. Cost: the rows better than it."""
    segment = SEGMENTS + levels[level].side * SEGMENT_COLUMNS
    row = _rank(books, ladder, book, levels[level].side, levels[level].key)
    books[book, segment + COUNT] -= 1
    end = books[book, segment + START] + books[book, segment + COUNT]
    while row < end:
        ladder[row, KEY] = ladder[row + 1, KEY]
        ladder[row, AT] = ladder[row + 1, AT]
        row += 1
    levels[level].first = pool[FREE_LEVEL]
    pool[FREE_LEVEL] = level
    pool[LIVE_LEVELS] -= 1


@_inner
def _append(nodes, levels, level, node):
    """Put a node at the back of a level's queue and into its totals. Cost: O(1)."""
    into = levels[level]
    order = nodes[node]
    order.level = level
    order.next = NO
    order.previous = into.last
    if into.last == NO:
        into.first = node
    else:
        nodes[into.last].next = node
    into.last = node
    into.count += 1
    into.size += order.size


@_inner
def _unlink(pool, books, nodes, levels, ladder, book, node):
    """Take a node out of its level's queue and totals, and the level away when it was the last. O(1) mostly."""
    order = nodes[node]
    level = np.int64(order.level)
    out_of = levels[level]
    if order.previous == NO:
        out_of.first = order.next
    else:
        nodes[order.previous].next = order.next
    if order.next == NO:
        out_of.last = order.previous
    else:
        nodes[order.next].previous = order.previous
    out_of.count -= 1
    out_of.size -= order.size
    if out_of.size == 0:
        _drop_level(pool, books, levels, ladder, book, level)


@_inner
def _free(pool, books, nodes, book, node):
    """Give a node back. Cost: O(1)."""
    nodes[node].next = pool[FREE_NODE]
    pool[FREE_NODE] = node
    pool[LIVE_NODES] -= 1
    books[book, ORDERS] -= 1


@_outer
def _clear_side(pool, books, nodes, index, levels, ladder, book, side):
    """Free every order and level of one side of a book. Cost: O(its orders)."""
    segment = SEGMENTS + side * SEGMENT_COLUMNS
    start = books[book, segment + START]
    for row in range(start, start + books[book, segment + COUNT]):
        level = ladder[row, AT]
        node = np.int64(levels[level].first)
        while node != NO:
            after = np.int64(nodes[node].next)
            place, _ = _find(pool, nodes, index, book, nodes[node].order_id)
            _forget(pool, index, place)
            _free(pool, books, nodes, book, node)
            node = after
        levels[level].first = pool[FREE_LEVEL]
        pool[FREE_LEVEL] = level
        pool[LIVE_LEVELS] -= 1
    books[book, segment + COUNT] = 0


@_outer
def clear(pool, books, nodes, index, levels, ladder, book):
    """Free every order and level of a book. Cost: O(its orders)."""
    _clear_side(pool, books, nodes, index, levels, ladder, book, BID)
    _clear_side(pool, books, nodes, index, levels, ladder, book, ASK)


@_outer
def _set_top(pool, books, nodes, index, levels, ladder, book, side, key, size):
    """Make one level of a top-of-book publisher the whole side; only clear it when ``key`` is undefined."""
    _clear_side(pool, books, nodes, index, levels, ladder, book, side)
    if size == 0:
        books[book, ANOMALIES + ZERO_SIZE] += 1
        return
    level = _level(pool, books, levels, ladder, book, side, key)
    levels[level].size = size
    levels[level].top_size = size


@_inner
def _add(pool, books, nodes, index, levels, ladder, book, record, side, key, place, node):
    """Add the record's order; ``place`` and ``node`` are what _find said of its id."""
    if record.flags & TOB:
        _set_top(pool, books, nodes, index, levels, ladder, book, side, key, record.size)
        return
    if record.size == 0:
        books[book, ANOMALIES + ZERO_SIZE] += 1
        return
    if node != NO:
        # The newest word on an order is the best known: its entry of the index stays.
        books[book, ANOMALIES + DUPLICATE_ADD] += 1
        _unlink(pool, books, nodes, levels, ladder, book, node)
    else:
        node = pool[FREE_NODE]
        pool[FREE_NODE] = nodes[node].next
        pool[LIVE_NODES] += 1
        books[book, ORDERS] += 1
        nodes[node].order_id = record.order_id
        nodes[node].book = book
        index[place] = (_tag(record.order_id, book) << _HALF) | (np.uint64(node) + _ONE)
    nodes[node].size = record.size
    _append(nodes, levels, _level(pool, books, levels, ladder, book, side, key), node)


@_inner
def _remove(pool, books, nodes, index, levels, ladder, book, place, node):
    """Remove an order. Cost: O(1) but for a level that goes with it."""
    _unlink(pool, books, nodes, levels, ladder, book, node)
    _forget(pool, index, place)
    _free(pool, books, nodes, book, node)


@_inner
def _cancel(pool, books, nodes, index, levels, ladder, book, record, side, key):
    """Take the record's size from its order; an order of which nothing is left goes."""
    place, node = _find(pool, nodes, index, book, record.order_id)
    if node == NO:
        books[book, ANOMALIES + UNKNOWN_CANCEL] += 1
        return
    level = np.int64(nodes[node].level)
    rests = np.int64(nodes[node].size)
    gone = np.int64(record.size)
    if levels[level].key != key or levels[level].side != side:
        books[book, ANOMALIES + CANCEL_MISMATCH] += 1
    if gone == 0:
        books[book, ANOMALIES + ZERO_SIZE] += 1
    if gone >= rests:
        if gone > rests:
            books[book, ANOMALIES + OVER_CANCEL] += 1
        _remove(pool, books, nodes, index, levels, ladder, book, place, node)
    else:
        nodes[node].size = rests - gone
        levels[level].size -= gone


@_inner
def _modify(pool, books, nodes, index, levels, ladder, book, record, side, key):
    """Give an order its new price and size; it keeps its place only at the same price and no greater size."""
    place, node = _find(pool, nodes, index, book, record.order_id)
    if node == NO:
        books[book, ANOMALIES + UNKNOWN_MODIFY] += 1
        _add(pool, books, nodes, index, levels, ladder, book, record, side, key, place, node)
        return
    level = np.int64(nodes[node].level)
    rests = np.int64(nodes[node].size)
    size = np.int64(record.size)
    if levels[level].side != side:
        books[book, ANOMALIES + SIDE_CHANGE] += 1
        _remove(pool, books, nodes, index, levels, ladder, book, place, node)
        place, node = _find(pool, nodes, index, book, record.order_id)
        _add(pool, books, nodes, index, levels, ladder, book, record, side, key, place, node)
    elif size == 0:
        books[book, ANOMALIES + ZERO_SIZE] += 1
        _remove(pool, books, nodes, index, levels, ladder, book, place, node)
    elif levels[level].key != key or size > rests:
        _unlink(pool, books, nodes, levels, ladder, book, node)
        nodes[node].size = size
        _append(nodes, levels, _level(pool, books, levels, ladder, book, side, key), node)
    else:
        nodes[node].size = size
        levels[level].size -= rests - size


@_inner
def _apply_record(pool, books, nodes, index, levels, ladder, book, record, flags_before):
    """Apply one record to one book. Everything that ``_room`` promised must be there."""
    flags = record.flags
    if (flags & (SNAPSHOT | MAYBE_BAD_BOOK)) != 0:
        if flags & MAYBE_BAD_BOOK:
            books[book, ANOMALIES + BAD_BOOK] += 1
        begins = (flags & SNAPSHOT) != 0 and (flags_before & SNAPSHOT) == 0
        if begins and record.action != CLEAR:
            bids = books[book, SEGMENTS + COUNT]
            asks = books[book, SEGMENTS + SEGMENT_COLUMNS + COUNT]
            if bids + asks > 0:
                books[book, ANOMALIES + IMPLICIT_CLEAR] += 1
                clear(pool, books, nodes, index, levels, ladder, book)

    action = record.action
    if action in (TRADE, FILL, NONE):
        return
    if action == CLEAR:
        clear(pool, books, nodes, index, levels, ladder, book)
        return
    if action != ADD and action != CANCEL and action != MODIFY:
        books[book, ANOMALIES + BAD_ACTION] += 1
        return
    if record.side == SIDE_BID:
        side = np.int64(BID)
        key = record.price
    elif record.side == SIDE_ASK:
        side = np.int64(ASK)
        key = ~record.price
    else:
        books[book, ANOMALIES + BAD_SIDE] += 1
        return
    if record.price == UNDEF_PRICE and (flags & TOB) != 0:
        _clear_side(pool, books, nodes, index, levels, ladder, book, side)
    elif action == CANCEL:
        _cancel(pool, books, nodes, index, levels, ladder, book, record, side, key)
    elif record.price == UNDEF_PRICE:
        books[book, ANOMALIES + UNDEFINED_PRICE] += 1
    elif action == ADD:
        place, node = _find(pool, nodes, index, book, record.order_id)
        _add(pool, books, nodes, index, levels, ladder, book, record, side, key, place, node)
    else:
        _modify(pool, books, nodes, index, levels, ladder, book, record, side, key)


@_outer
def _room(pool, books, nodes, levels, ladder, book):
    """Return how many records of a book surely fit: each takes at most one node, one level, one ladder row.

    Moves a side that is more than half full to a wider segment. Writes pool[SHORT] when an array is short.
    """
    room = len(nodes) - pool[LIVE_NODES]
    pool[SHORT] = SHORT_OF_NODES
    if len(levels) - pool[LIVE_LEVELS] < room:
        room = len(levels) - pool[LIVE_LEVELS]
        pool[SHORT] = SHORT_OF_LEVELS
    for side in range(2):
        segment = SEGMENTS + side * SEGMENT_COLUMNS
        start = books[book, segment + START]
        count = books[book, segment + COUNT]
        capacity = books[book, segment + CAPACITY]
        if 2 * count >= capacity:
            wider = max(MIN_SEGMENT, 2 * capacity)
            target = pool[LADDER_USED]
            if target + wider > len(ladder):
                pool[SHORT] = SHORT_OF_LADDER
                return 0
            for row in range(count):
                ladder[target + row, KEY] = ladder[start + row, KEY]
                ladder[target + row, AT] = ladder[start + row, AT]
            books[book, segment + START] = target
            books[book, segment + CAPACITY] = wider
            pool[LADDER_USED] = target + wider
            capacity = wider
        room = min(room, capacity - count)
    return room


@_inner
def _remember(books, book, record):
    """Note when and where the stream of a book stands."""
    books[book, TS_EVENT] = np.int64(record.ts_event)
    books[book, TS_RECV] = np.int64(record.ts_recv)
    books[book, SEQUENCE] = record.sequence
    books[book, FLAGS] = record.flags


@_outer
def apply(pool, books, nodes, index, levels, ladder, book, records, start):
    """Apply records[start:] to one book; return the first record that was not applied for want of room.

    Reads the records, writes everything else. Cost: about 30 ns a record.
    """
    position = start
    while position < len(records):
        room = _room(pool, books, nodes, levels, ladder, book)
        stop = min(len(records), position + room)
        if stop < len(records) and room < MIN_ROOM:
            break
        flags_before = books[book, FLAGS]
        for place in range(position, stop):
            _apply_record(pool, books, nodes, index, levels, ladder, book, records[place], flags_before)
            flags_before = np.int64(records[place].flags)
        if stop > position:
            _remember(books, book, records[stop - 1])
        position = stop
    return position


@_outer
def now_ns(timespec):
    """Return the monotonic clock, ns. ``timespec`` is two int64 of scratch. Cost: about 25 ns."""
    _clock_gettime(_CLOCK_MONOTONIC, timespec.ctypes)
    return timespec[0] * 1_000_000_000 + timespec[1]


@_outer
def apply_timed(pool, books, nodes, index, levels, ladder, book, records, start, timespec, spent):
    """As ``apply``, and write into ``spent`` how long each record took, ns, one reading of the clock included."""
    position = start
    while position < len(records):
        room = _room(pool, books, nodes, levels, ladder, book)
        stop = min(len(records), position + room)
        if stop < len(records) and room < MIN_ROOM:
            break
        flags_before = books[book, FLAGS]
        before = now_ns(timespec)
        for place in range(position, stop):
            _apply_record(pool, books, nodes, index, levels, ladder, book, records[place], flags_before)
            flags_before = np.int64(records[place].flags)
            after = now_ns(timespec)
            spent[place] = after - before
            before = after
        if stop > position:
            _remember(books, book, records[stop - 1])
        position = stop
    return position


@_outer
def find(pool, nodes, index, book, order_id):
    """Return the place of an order in the index and its node, which is NO when it does not rest. O(1)."""
    return _find(pool, nodes, index, book, order_id)


@_outer
def copy_levels(books, levels, ladder, book, side, into):
    """Copy the best len(into) levels of a side as (price, size, count); there must be as many. O(len(into))."""
    segment = SEGMENTS + side * SEGMENT_COLUMNS
    best = books[book, segment + START] + books[book, segment + COUNT] - 1
    for rank in range(len(into)):
        key = ladder[best - rank, KEY]
        level = ladder[best - rank, AT]
        into[rank, 0] = key if side == BID else ~key
        into[rank, 1] = levels[level].size
        into[rank, 2] = levels[level].count


@_outer
def copy_orders(books, nodes, levels, ladder, book, into):
    """Copy every order of a book: bids, then asks, best level first, in queue order. O(orders)."""
    place = 0
    for side in range(2):
        segment = SEGMENTS + side * SEGMENT_COLUMNS
        start = books[book, segment + START]
        for rank in range(books[book, segment + COUNT]):
            row = start + books[book, segment + COUNT] - 1 - rank
            key = ladder[row, KEY]
            node = np.int64(levels[ladder[row, AT]].first)
            while node != NO:
                order = into[place]
                order.order_id = nodes[node].order_id
                order.price = key if side == BID else ~key
                order.size = nodes[node].size
                order.side = SIDE_BID if side == BID else SIDE_ASK
                place += 1
                node = np.int64(nodes[node].next)


@_outer
def reindex(index, longer, shift):
    """Enter everything of one index into a longer, empty one. Cost: O(len(index))."""
    mask = len(longer) - 1
    for entry in index:
        if entry != _EMPTY:
            place = np.int64(entry >> (np.uint64(shift) + _HALF))
            while longer[place] != _EMPTY:
                place = (place + 1) & mask
            longer[place] = entry
