"""What a snapshot tape is told of a ReferenceBook: the rules of snapshot_tape.py, written to be read. Floor 0."""

import time

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import Action, Flags, Side
from orderbook.book.reference import ReferenceBook
from orderbook.book.snapshot_tape import (
    BEST,
    BEST_COLUMNS,
    EVENTS_SEEN,
    MAX_TS,
    NEXT_NS,
    RECORDS,
    ROWS_USED,
    SINCE,
    SNAPS,
    STORED,
    TRADES_USED,
    SnapshotTape,
)
from orderbook.book.tape import NO_LEVEL, TRADE_ROW

State = npt.NDArray[np.int64]
"""One row of ``SnapshotTape.states``."""


def write_record(tape: SnapshotTape, number: int, record: np.void, book: ReferenceBook, place: int) -> None:
    """Write what a record that was just applied to the book of number ``place`` means."""
    state = tape.states[place]
    tape.touched[place] = True
    state[RECORDS] += 1
    if not record["flags"] & Flags.SNAPSHOT and record["action"] != Action.CLEAR:
        state[SINCE] += 1
    if record["action"] == Action.TRADE:
        _write_trade(tape, number, record)
    if record["flags"] & Flags.LAST:
        tape.used[EVENTS_SEEN] += 1
        # Both are asked, because both remember what they saw.
        due = _best_changed(state, book) if tape.rule.every == 0 else bool(state[SINCE] >= tape.rule.every)
        if _time_has_come(state, book.ts_recv, tape.rule.every_ns) or due:
            write_snapshot(tape, number, book, place)


def write_snapshot(tape: SnapshotTape, number: int, book: ReferenceBook, place: int) -> None:
    """Write a book as it is behind a record; ``number`` counts from 0 in the current batch."""
    tape.reserve(1)
    tape.wait_space[tape.used[ROWS_USED]] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    at, state, depth = int(tape.used[ROWS_USED]), tape.states[place], tape.rule.depth
    row = tape.block.rows[at : at + 1]
    bids, asks = book.levels(Side.BID, depth), book.levels(Side.ASK, depth)
    bid, ask = (each or NO_LEVEL for each in book.bbo())
    row["record"], row["records"], row["book"] = tape.records + number, state[RECORDS], place
    row["ts_event"], row["ts_recv"], row["sequence"] = book.ts_event, book.ts_recv, book.sequence
    row["bid_px"], row["bid_sz"], row["bid_ct"] = bid
    row["ask_px"], row["ask_sz"], row["ask_ct"] = ask
    row["bids"], row["asks"] = len(bids), len(asks)
    tape.block.bids[at, : len(bids)], tape.block.asks[at, : len(asks)] = bids, asks
    state[SNAPS] += 1
    tape.block.seqs[at] = state[SNAPS]
    tape.used[ROWS_USED] += 1
    state[SINCE], state[STORED] = 0, state[RECORDS]
    if tape.rule.every_ns and book.ts_recv < MAX_TS:
        state[NEXT_NS] = _whole_interval(book.ts_recv, tape.rule.every_ns)


def _best_changed(state: State, book: ReferenceBook) -> bool:
    """Say whether the best levels are not as at the last look, and remember them."""
    bbo = book.bbo()
    seen = [value for level in bbo for value in (level or (0, 0, 0))]
    if seen == state[BEST : BEST + BEST_COLUMNS].tolist():
        return False
    state[BEST : BEST + BEST_COLUMNS] = seen
    return True


def _time_has_come(state: State, ts_recv: int, every_ns: int) -> bool:
    """Say whether market time is at or behind the next interval, which is set when there is none."""
    if not every_ns or ts_recv >= MAX_TS:
        return False
    due = int(state[NEXT_NS])
    if not due or ts_recv + 2 * every_ns < due:
        state[NEXT_NS] = _whole_interval(ts_recv, every_ns)
        return False
    return ts_recv >= due


def _whole_interval(ts: int, every_ns: int) -> int:
    """Return the first multiple of ``every_ns`` behind a time."""
    return (ts // every_ns + 1) * every_ns


def _write_trade(tape: SnapshotTape, number: int, record: np.void) -> None:
    tape.reserve(0, 1)
    row = tape.trade_space[tape.used[TRADES_USED] : tape.used[TRADES_USED] + 1]
    row["record"] = tape.records + number
    for field in (TRADE_ROW.names or ())[1:]:
        row[field] = record[field]
    tape.used[TRADES_USED] += 1
