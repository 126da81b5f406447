"""The compiled part of the market simulator: one instrument, its book, and the records it sends. Floor 1.

Self-contained, for the reasons that csv_kernel.py gives. All state lies in the arrays of ``Market``, so a session can
be made in pieces; every random number comes from the generator in it. The book here is what a market needs to decide
what happens next; it is neither the oracle nor the product (orderbook.book).
"""

# numba types these functions by the arrays that they are given.
# mypy: disable-error-code="no-untyped-def"

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

_njit: Any = njit  # its type does not know _nrt: no reference counts, because nothing here makes an array
compiled = _njit(cache=True, nogil=True, _nrt=False)

# Typed numbers where they are passed on: numba compiles a function anew for each plain constant that it is called with.
NIL, ONE = np.int64(0), np.int64(1)

# Codes of the record. Equal to orderbook.book.mbo by test.
ADD, CANCEL, MODIFY, CLEAR, TRADE, FILL = map(np.int64, b"ACMRTF")
SIDE_BID, SIDE_ASK, SIDE_NONE = 66, 65, 78
LAST, PICTURE = 0x80, 0x28  # SNAPSHOT | BAD_TS_RECV
MBO_LENGTH, MBO_RTYPE = 14, 160
UNDEF_PRICE = 2**63 - 1

BID, ASK = np.int64(0), np.int64(1)
NOBODY = np.int64(-1)

# Slots of ints.
RANDOM, CLOCK, RECEIVED, SEQUENCE, NEXT_ID, LIVE, FREE, PHASE, OUT, WANTED = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
OPEN_AT, LULL_FROM, LULL_TO, CENTRE, TICK, INSTRUMENT_ID, PUBLISHER_ID, CHANNEL_ID = 10, 11, 12, 13, 14, 15, 16, 17
CROSSING, CROSSING_MOST, PICTURED, BASE_PRICE = 18, 19, 20, 21
INT_SLOTS = 22

# Slots of floats.
EXCITEMENT, TILT, LIMIT_RATE, MARKET_RATE, CANCEL_RATE, UNIT_NS = 0, 1, 2, 3, 4, 5
FLOAT_SLOTS = 6

PICTURE_PHASE, PRE_OPEN, TRADING = 0, 1, 2

SWEEP_ORDERS = 24  # the most orders that one aggressor meets
EVENT_RECORDS = 3 * SWEEP_ORDERS + 2  # the longest event of trading: T, F and C for each, and the remainder
KEPT_ORDERS = 6  # a side never gets shorter

ORDER = np.dtype(
    [
        ("order_id", "<i8"),
        ("tick", "<i8"),
        ("size", "<i8"),
        ("side", "<i8"),
        ("next", "<i8"),  # behind it in the queue; next free one when free
        ("previous", "<i8"),
        ("place", "<i8"),  # in ``live``
    ],
    align=True,
)


class Market(NamedTuple):
    """Everything the simulation of one instrument knows."""

    ints: npt.NDArray[np.int64]
    floats: npt.NDArray[np.float64]
    heads: npt.NDArray[np.int64]  # [side, tick]: first order of the queue
    tails: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]  # [side]: tick
    resting: npt.NDArray[np.int64]  # [side]: orders
    orders: npt.NDArray[np.void]
    live: npt.NDArray[np.int64]
    arrivals: npt.NDArray[np.float64]  # cumulative, by distance - 1
    patience: npt.NDArray[np.float64]  # cancel rate relative to the largest, by distance
    fills: npt.NDArray[np.int64]  # [n, 2]: order and size, of the event in the making; room for all orders
    records: npt.NDArray[np.void]


# Returns a uniform number in [0, 1) of the splitmix64 sequence.
@compiled
def _uniform(m):
    state = np.uint64(m.ints[RANDOM]) + np.uint64(0x9E3779B97F4A7C15)
    m.ints[RANDOM] = np.int64(state)
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * 1.1102230246251565e-16


@compiled
def _exponential(m):
    return -np.log(1.0 - _uniform(m))


# Returns a whole number from 0 to below n (a float, see NIL).
@compiled
def _below(m, n):
    return np.int64(_uniform(m) * n)


# Returns an order size: mostly 1 to 3, now and then a round lot.
@compiled
def _size(m):
    u = _uniform(m)
    if u < 0.55:
        return ONE
    if u < 0.75:
        return np.int64(2)
    if u < 0.86:
        return np.int64(3)
    if u < 0.96:
        return 4 + _below(m, 5.0)
    return 10 * (1 + _below(m, 3.0))


# Returns a distance in ticks, from 1, drawn from the arrival intensities. Cost: O(distance).
@compiled
def _distance(m):
    u = _uniform(m) * m.arrivals[len(m.arrivals) - 1]
    i = 0
    while m.arrivals[i] < u:
        i += 1
    return i + 1


# Puts a new order at the end of its queue. Returns it.
@compiled
def _rest(m, side, tick, size, order_id):
    n = m.ints[FREE]
    order = m.orders[n]
    m.ints[FREE] = order.next
    order.order_id, order.side, order.size = order_id, side, size
    order.place = m.ints[LIVE]
    m.live[m.ints[LIVE]] = n
    m.ints[LIVE] += 1
    m.resting[side] += 1
    _enqueue(m, n, tick)
    return n


@compiled
def _enqueue(m, n, tick):
    order = m.orders[n]
    side = order.side
    order.tick = tick
    order.next = NOBODY
    order.previous = m.tails[side, tick]
    if order.previous == NOBODY:
        m.heads[side, tick] = n
        if (side == BID and tick > m.best[BID]) or (side == ASK and tick < m.best[ASK]):
            m.best[side] = tick
    else:
        m.orders[order.previous].next = n
    m.tails[side, tick] = n


# Takes an order out of its queue. Cost: O(1), and the gap to the next level when the best one becomes empty.
@compiled
def _dequeue(m, n):
    order = m.orders[n]
    side, tick = order.side, order.tick
    if order.previous == NOBODY:
        m.heads[side, tick] = order.next
    else:
        m.orders[order.previous].next = order.next
    if order.next == NOBODY:
        m.tails[side, tick] = order.previous
    else:
        m.orders[order.next].previous = order.previous
    step = -1 if side == BID else 1
    if tick == m.best[side]:
        while 0 <= tick < m.heads.shape[1] and m.heads[side, tick] == NOBODY:
            tick += step
        m.best[side] = tick


@compiled
def _leave(m, n):
    _dequeue(m, n)
    order = m.orders[n]
    m.resting[order.side] -= 1
    m.ints[LIVE] -= 1
    last = m.live[m.ints[LIVE]]
    m.live[order.place] = last
    m.orders[last].place = order.place
    order.next = m.ints[FREE]
    m.ints[FREE] = n


# Writes a record at the current time; its event goes on.
@compiled
def _send(m, action, side, tick, size, order_id):
    record = m.records[m.ints[OUT]]
    m.ints[OUT] += 1
    record.length, record.rtype = MBO_LENGTH, MBO_RTYPE
    record.publisher_id, record.instrument_id = m.ints[PUBLISHER_ID], m.ints[INSTRUMENT_ID]
    record.channel_id = m.ints[CHANNEL_ID]
    record.ts_event, record.ts_recv = m.ints[CLOCK], m.ints[RECEIVED]
    record.ts_in_delta = 13_000 + _below(m, 8_000.0)
    record.sequence = m.ints[SEQUENCE]
    record.action = action
    record.side = SIDE_NONE if side < 0 else (SIDE_BID if side == BID else SIDE_ASK)
    record.price = m.ints[BASE_PRICE] + tick * m.ints[TICK]
    record.size = size
    record.order_id = order_id
    record.flags = 0


# Starts a packet: its sequence number, and its time of capture, which never goes back.
@compiled
def _packet(m, sequence_step):
    m.ints[SEQUENCE] += sequence_step
    captured = m.ints[CLOCK] + 90_000 + np.int64(150_000.0 * _exponential(m))
    m.ints[RECEIVED] = max(captured, m.ints[RECEIVED] + 2_000)


@compiled
def _close(m):
    m.records[m.ints[OUT] - 1].flags |= LAST


@compiled
def _new_id(m):
    m.ints[NEXT_ID] += 1 + _below(m, 9.0)
    return m.ints[NEXT_ID]


# Sends the next resting order of the opening picture, or its clear first. The order entered some time before.
@compiled
def _picture(m):
    if m.ints[PICTURED] == 0:
        _send(m, CLEAR, NOBODY, NIL, NIL, NIL)
        record = m.records[m.ints[OUT] - 1]
        record.price, record.sequence = UNDEF_PRICE, 0
    else:
        order = m.orders[m.live[m.ints[PICTURED] - 1]]
        _send(m, ADD, order.side, order.tick, order.size, order.order_id)
        record = m.records[m.ints[OUT] - 1]
        record.ts_event -= 1_000_000 * (m.ints[LIVE] + 1 - m.ints[PICTURED])
        record.sequence -= m.ints[LIVE] + 1 - m.ints[PICTURED]
    record.flags = PICTURE
    m.ints[PICTURED] += 1
    if m.ints[PICTURED] == m.ints[LIVE] + 1:
        _close(m)
        m.ints[PHASE] = PRE_OPEN


# Returns the tick for an order that joins a side: behind the other side's best, or around the centre before the open.
@compiled
def _join_tick(m, side):
    towards = 1 if side == BID else -1
    if m.ints[PHASE] == TRADING:
        return m.best[1 - side] - towards * _distance(m)
    if m.ints[CROSSING] < m.ints[CROSSING_MOST] and _uniform(m) < 0.2:
        m.ints[CROSSING] += 1
        return m.ints[CENTRE] + towards * _below(m, 4.0)
    return m.ints[CENTRE] - towards * _distance(m)


# A limit order arrives. Returns whether there was room for it.
@compiled
def _arrival(m, side):
    tick = _join_tick(m, side)
    if m.ints[FREE] == NOBODY or not 0 < tick < m.heads.shape[1] - 1:
        return False
    n = _rest(m, side, tick, _size(m), _new_id(m))
    _packet(m, 1 + _below(m, 20.0))
    _send(m, ADD, side, tick, m.orders[n].size, m.orders[n].order_id)
    _close(m)
    return True


# Somebody reconsiders a resting order, less often the deeper it lies: cancels it, in part, or modifies it.
@compiled
def _reconsider(m):
    n = m.live[_below(m, np.float64(m.ints[LIVE]))]
    order = m.orders[n]
    side = order.side
    towards = 1 if side == BID else -1
    if m.ints[PHASE] == PRE_OPEN and towards * (order.tick - m.ints[CENTRE]) >= 0:
        return False  # who crosses before the open wants the opening
    away = towards * (m.best[1 - side] - order.tick)
    away = min(max(away, 1), len(m.patience) - 1)
    if _uniform(m) >= m.patience[away]:
        return False
    u = _uniform(m)
    if u >= 0.18 and m.resting[side] <= KEPT_ORDERS:
        return False
    _packet(m, 1 + _below(m, 20.0))
    if u < 0.08:  # a new price: to the end of another queue
        tick = _join_tick(m, side)
        if 0 < tick < m.heads.shape[1] - 1 and tick != order.tick:
            _dequeue(m, n)
            _enqueue(m, n, tick)
        else:
            _to_the_end(m, n, ONE)
        _send(m, MODIFY, side, order.tick, order.size, order.order_id)
    elif u < 0.12:  # more: to the end of the same queue
        _to_the_end(m, n, 1 + _below(m, 3.0))
        _send(m, MODIFY, side, order.tick, order.size, order.order_id)
    elif u < 0.18:  # less, or the same: keeps its place
        order.size -= _below(m, np.float64(order.size))
        _send(m, MODIFY, side, order.tick, order.size, order.order_id)
    elif u < 0.21 and order.size > 1:
        gone = 1 + _below(m, order.size - 1.0)
        order.size -= gone
        _send(m, CANCEL, side, order.tick, gone, order.order_id)
    else:
        _send(m, CANCEL, side, order.tick, order.size, order.order_id)
        _leave(m, n)
    _close(m)
    return True


@compiled
def _to_the_end(m, n, more):
    tick = m.orders[n].tick
    m.orders[n].size += more
    _dequeue(m, n)
    _enqueue(m, n, tick)


# Sends the C or M of each filled order, in the order of the fills.
@compiled
def _settle(m, count):
    for k in range(count):
        n, size = m.fills[k, 0], m.fills[k, 1]
        order = m.orders[n]
        if size == order.size:
            _send(m, CANCEL, order.side, order.tick, size, order.order_id)
            _leave(m, n)
        else:
            order.size -= size
            _send(m, MODIFY, order.side, order.tick, order.size, order.order_id)


# An aggressor takes what rests on the other side: one T for each price with its F's, then a C or M for each order.
# Now and then it has a limit and its remainder rests, announced before or after the others are gone.
@compiled
def _aggressor(m, side):
    other = 1 - side
    if m.resting[other] <= KEPT_ORDERS + SWEEP_ORDERS:
        return False
    wanted = _size(m) + (_below(m, 12.0) if _uniform(m) < 0.15 else 0)
    stays = m.ints[FREE] != NOBODY and _uniform(m) < 0.12
    order_id = _new_id(m)
    step = -1 if other == BID else 1
    tick, n = m.best[other], m.heads[other, m.best[other]]
    _packet(m, 1 + _below(m, 20.0))
    count = 0
    while wanted > 0 and count < SWEEP_ORDERS:
        trade = m.ints[OUT]
        _send(m, TRADE, side, tick, NIL, order_id)
        traded = 0
        while n != NOBODY and wanted > 0 and count < SWEEP_ORDERS:
            size = min(wanted, m.orders[n].size)
            _send(m, FILL, other, tick, size, m.orders[n].order_id)
            m.fills[count, 0], m.fills[count, 1] = n, size
            count += 1
            wanted -= size
            traded += size
            n = m.orders[n].next
        m.records[trade].size = traded
        if wanted > 0 and n == NOBODY:
            if stays:
                break
            tick += step
            while m.heads[other, tick] == NOBODY:
                tick += step
            n = m.heads[other, tick]
    _packet(m, ONE)
    early = _uniform(m) < 0.5
    rests = stays and wanted > 0 and n == NOBODY
    if rests and early:
        _send(m, ADD, side, tick, wanted, order_id)
    _settle(m, count)
    if rests:
        _rest(m, side, tick, wanted, order_id)
        if not early:
            _send(m, ADD, side, tick, wanted, order_id)
    _close(m)
    return True


# Opens the market: what crosses trades at one price, in one event. Both orders of a match were resting, so each has
# its F, and the T names no aggressor.
@compiled
def _opening(m):
    m.ints[PHASE] = TRADING
    if m.best[BID] < m.best[ASK]:
        return
    _packet(m, 1 + _below(m, 20.0))
    bid_tick, ask_tick = m.best[BID], m.best[ASK]
    bid, ask = m.heads[BID, bid_tick], m.heads[ASK, ask_tick]
    bid_left, ask_left = m.orders[bid].size, m.orders[ask].size
    price = (bid_tick + ask_tick) // 2
    count = 0
    while bid_tick >= ask_tick:
        size = min(bid_left, ask_left)
        _send(m, TRADE, NOBODY, price, size, NIL)
        _send(m, FILL, BID, price, size, m.orders[bid].order_id)
        _send(m, FILL, ASK, price, size, m.orders[ask].order_id)
        bid_left -= size
        ask_left -= size
        if bid_left == 0:
            m.fills[count, 0], m.fills[count, 1] = bid, m.orders[bid].size
            count += 1
            bid = m.orders[bid].next
            while bid == NOBODY and bid_tick > 0:
                bid_tick -= 1
                bid = m.heads[BID, bid_tick]
            bid_left = m.orders[bid].size
        if ask_left == 0:
            m.fills[count, 0], m.fills[count, 1] = ask, m.orders[ask].size
            count += 1
            ask = m.orders[ask].next
            while ask == NOBODY and ask_tick < m.heads.shape[1] - 1:
                ask_tick += 1
                ask = m.heads[ASK, ask_tick]
            ask_left = m.orders[ask].size
    for n, left in ((bid, bid_left), (ask, ask_left)):
        if left < m.orders[n].size:
            m.fills[count, 0], m.fills[count, 1] = n, m.orders[n].size - left
            count += 1
    _packet(m, ONE)
    _settle(m, count)
    _close(m)


# Moves the clock by the time to the next event that could happen, and lets the mood of the market drift. Nothing
# happens in the lull.
@compiled
def _wait(m, rate):
    f = m.floats
    wait_ns = f[UNIT_NS] * _exponential(m) / (rate * (0.55 + f[EXCITEMENT]))
    m.ints[CLOCK] += 1_000 + np.int64(wait_ns)
    if m.ints[LULL_FROM] <= m.ints[CLOCK] < m.ints[LULL_TO]:
        m.ints[CLOCK] += m.ints[LULL_TO] - m.ints[LULL_FROM]
    seconds = wait_ns * 1e-9
    f[EXCITEMENT] *= np.exp(-0.4 * seconds)
    if _uniform(m) < 0.002 * seconds:
        f[EXCITEMENT] += 40.0  # news: a burst of hundreds of events within a second
    half = m.heads.shape[1] // 2
    pull = (m.ints[CENTRE] - (m.best[BID] + m.best[ASK]) / 2) / half  # back to the middle of the grid
    f[TILT] += (0.6 * pull - 0.01 * f[TILT]) * seconds + 0.02 * np.sqrt(seconds) * (2.0 * _uniform(m) - 1.0)
    f[TILT] = min(max(f[TILT], -0.25), 0.25)


# Lets one event happen, or none (thinning: what was drawn too often is refused as often).
@compiled
def _step(m):
    room = m.ints[WANTED] - m.ints[OUT]
    if m.ints[PHASE] == PICTURE_PHASE:
        _picture(m)
        return
    limit, market = m.floats[LIMIT_RATE], m.floats[MARKET_RATE]
    rate = limit + market + m.floats[CANCEL_RATE] * m.ints[LIVE]
    _wait(m, rate)
    if m.ints[PHASE] == PRE_OPEN and m.ints[CLOCK] >= m.ints[OPEN_AT] and room > 4 * m.ints[LIVE]:
        _opening(m)
        return
    u = _uniform(m) * rate
    side = BID if _uniform(m) < 0.5 + m.floats[TILT] else ASK
    if u < limit:
        _arrival(m, side)
    elif u >= limit + market:
        _reconsider(m)
    elif m.ints[PHASE] == TRADING and room >= EVENT_RECORDS and _aggressor(m, side):
        m.floats[EXCITEMENT] = min(m.floats[EXCITEMENT] + 0.25, 80.0)


# Makes records until ``stop`` of the WANTED are there, or some more: the last one always closes its event. The room
# behind WANTED is never used. Cost: O(1) for each record.
@compiled
def run(m, stop):
    while m.ints[OUT] < stop:
        _step(m)
    return m.ints[OUT]


# Fills the book that the opening picture shows: orders of both sides, in the order of their arrival.
@compiled
def prepare(m, orders):
    m.ints[PHASE] = PRE_OPEN
    crossing, m.ints[CROSSING_MOST] = m.ints[CROSSING_MOST], 0
    for k in range(orders):
        side = k & 1
        _rest(m, side, _join_tick(m, side), _size(m), _new_id(m))
    m.ints[PHASE], m.ints[CROSSING_MOST] = PICTURE_PHASE, crossing
