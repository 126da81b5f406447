"""What a depth tape is told of one ReferenceBook: the rules of depth.py, written to be read. Floor 0."""

from typing import Final, NamedTuple

import numpy as np

from orderbook.book.depth import DEPTH, MAX_UINT32, MBP10, MBP10_RTYPE, DepthTape, unwritten_rows
from orderbook.book.mbo import UNDEF_PRICE, Action, Flags, Side
from orderbook.book.reference import ReferenceBook
from orderbook.book.snapshot import Level
from orderbook.book.tape import NO_LEVEL

_ABOUT_THE_BOOK: Final = (Action.ADD, Action.CANCEL, Action.MODIFY, Action.CLEAR)
_OF_THE_RECORD: Final = ("publisher_id", "instrument_id", "ts_event", "flags", "ts_recv", "ts_in_delta", "sequence")

Levels = list[tuple[Level, Level]]
"""Bid and ask of the ten best levels."""


class Cause(NamedTuple):
    """What an event did, in the words of one of its records."""

    action: int
    side: int
    price: int
    size: int


_REPLACED: Final = Cause(Action.CLEAR, Side.NONE, UNDEF_PRICE, 0)
_NONE: Final = [(NO_LEVEL, NO_LEVEL)] * DEPTH


class ReferenceDepth:
    """Writes the depth rows of one book, whose number is that of its rows."""

    def __init__(self, number: int) -> None:
        self.newest = unwritten_rows(1)[0]
        """The newest row of an event end; its length is 0 while there is none."""
        self._number = number
        self._written = _NONE
        self._cause, self._cleared = _REPLACED, False

    def write(self, tape: DepthTape, number: int, record: np.void, book: ReferenceBook) -> None:
        """Write what a record that was just applied to the book means."""
        if record["action"] in _ABOUT_THE_BOOK:
            self._cause = _cause(record)
            self._cleared = self._cleared or record["action"] == Action.CLEAR
        if record["action"] == Action.TRADE:
            tape.write(number, self._number, _row(record, _cause(record), 0, self._written))
        if record["flags"] & Flags.LAST:
            self._end_event(tape, number, record, book)
            self._cause, self._cleared = _REPLACED, False

    def _end_event(self, tape: DepthTape, number: int, record: np.void, book: ReferenceBook) -> None:
        levels = _levels(book)
        changed = [level for level in range(DEPTH) if levels[level] != self._written[level]]
        if self._cleared:
            changed = [0]
        if changed:
            self._written = levels
            self.newest = _row(record, self._cause, changed[0], levels)
            tape.write(number, self._number, self.newest)


def _cause(record: np.void) -> Cause:
    return Cause(*(int(record[name]) for name in Cause._fields))


def _levels(book: ReferenceBook) -> Levels:
    bids, asks = (
        [Level(price, min(size, MAX_UINT32), count) for price, size, count in book.levels(side, DEPTH).tolist()]
        for side in (Side.BID, Side.ASK)
    )
    missing = [NO_LEVEL] * DEPTH
    return list(zip((bids + missing)[:DEPTH], (asks + missing)[:DEPTH], strict=True))


def _row(record: np.void, cause: Cause, depth: int, levels: Levels) -> np.void:
    row = np.zeros(1, MBP10)
    row["length"], row["rtype"], row["depth"] = MBP10.itemsize // 4, MBP10_RTYPE, depth
    for name in _OF_THE_RECORD:
        row[name] = record[name]
    row["action"], row["side"], row["price"], row["size"] = cause
    for number, (bid, ask) in enumerate(levels):
        row[f"bid_px_{number:02}"], row[f"bid_sz_{number:02}"], row[f"bid_ct_{number:02}"] = bid
        row[f"ask_px_{number:02}"], row[f"ask_sz_{number:02}"], row[f"ask_ct_{number:02}"] = ask
    made: np.void = row[0]
    return made
