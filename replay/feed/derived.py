"""The schemas that are derived from market-by-order records: trades, tbbo, mbp-1, mbp-10, bbo-1s. Floor 1.

All come of one pass over the records with a depth tape, whose rules are in orderbook.book.depth:

- mbp-10 is the tape itself.
- mbp-1 are those of its rows that change the best prices, and the trades, with one level.
- tbbo are its trades: the best prices before each.
- trades are the records with action T, whatever a book knows of them.
- bbo-1s is mbp-1 sampled once a second; see seconds.py.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.depth import MBP10, WORD, DepthTape, row_words
from orderbook.book.kernel_book import usable
from orderbook.book.kernel_market import KernelMarket
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, UNDEF_PRICE, Action, BookKey, Flags, MboArray, Side
from replay.feed.seconds import BBO, Placed, Seconds

_NAMES: Final = MBP10.names or ()
_KINDS: Final = {name: kind for name, (kind, *_) in (MBP10.fields or {}).items()}

TRADE: Final = np.dtype([(name, _KINDS[name]) for name in _NAMES[: _NAMES.index("bid_px_00")]], align=True)
"""DBN's TradeMsg, 48 bytes: the head of an MBP record."""

MBP1: Final = np.dtype([(name, _KINDS[name]) for name in _NAMES[: _NAMES.index("ask_ct_00") + 1]], align=True)
"""DBN's Mbp1Msg, 80 bytes: a head and one level."""

DTYPES: Final[Mapping[str, np.dtype[np.void]]] = {
    "trades": TRADE,
    "tbbo": MBP1,
    "mbp-1": MBP1,
    "mbp-10": MBP10,
    "bbo-1s": BBO,
}
"""The schemas, and what their records look like. A size is a multiple of 8 in each."""

_TRADE_RTYPE: Final = 0
_MBP1_RTYPE: Final = 1
_TRADE: Final = np.uint8(Action.TRADE)
_ARRIVAL: Final = np.uint8(Flags.SNAPSHOT | Flags.LAST)
_NO_RECORDS: Final = np.empty(0, MBO)


class Derived:
    """What a block of records is in each schema; made when it is asked for, and kept."""

    def __init__(self, records: MboArray, tape: DepthTape, samples: Placed) -> None:
        """Take the tape that was written of these records, and the samples of the seconds that end among them."""
        self._records = records
        self._tape = tape
        self._made = {"mbp-10": Placed(tape.numbers, tape.rows), "bbo-1s": samples}

    def of(self, schema: str) -> Placed:
        """Return the records of a schema of DTYPES. They are shared: nobody may write to them.

        Cost: none for mbp-10 and bbo-1s; for the others once, some 15 ns a row of mbp-1 and 100 ns a trade.
        """
        if schema not in self._made:
            self._made[schema] = _MAKERS[schema](self._records, self._tape)
        return self._made[schema]

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps alive, or will. Cost: O(1)."""
        return self._tape.row_space.nbytes * (MBP10.itemsize + 2 * MBP1.itemsize) // MBP10.itemsize


class Deriver:
    """Derives from one stream of records, block by block. Not shared between threads."""

    def __init__(self, kind: BookKind = "kernel") -> None:
        """Begin before the first record of a stream."""
        self._market = make_market(kind)
        self._seconds = Seconds()

    def begin(self, picture: MboArray, trades: MboArray = _NO_RECORDS) -> None:
        """Begin where a picture of all books was taken instead; ``trades`` is the last one of each book before it.

        Of a book that the picture leaves in the middle of an event nothing is known until that ends; it is told then.
        Cost: O(records).
        """
        for records in (trades, picture):
            self.derive(records)
        self._seconds.forget_changes()

    def derive(self, records: MboArray) -> Derived:
        """Return what the next records of the stream are. Cost: 80 to 100 ns a record."""
        records, tape = usable(records), DepthTape()
        self._market.apply_depth(records, tape)
        return Derived(records, tape, self._seconds.take(records, tape))

    @property
    def second_ns(self) -> int:
        """The end of the last full second of the stream (ts_recv, ns); 0 before the first record."""
        return self._seconds.end_ns

    @property
    def nbytes(self) -> int:
        """Bytes that the books take; 0 for readable ones, which nobody counts. Cost: O(1)."""
        return self._market.arena.nbytes if isinstance(self._market, KernelMarket) else 0

    def arrival(self) -> dict[str, npt.NDArray[np.void]]:
        """Return by schema what tells a client that comes here where each book stands: one record a book.

        It is a clear (R) with the levels of the last event that ended, the times and sequence of the book's last
        record, and the flags SNAPSHOT and LAST; of bbo-1s a sample with the last sale, dated at the end of the last
        second. There is none of trades and tbbo: what is past is past. Cost: O(books), some 3 us each.
        """
        depth, samples = self._market.newest_depth(), self._seconds.newest()
        stands = {key: (book.ts_event, book.ts_recv, book.sequence) for key, book in self._market.books.items()}
        depth["action"], depth["side"], depth["price"], depth["size"] = Action.CLEAR, Side.NONE, UNDEF_PRICE, 0
        depth["flags"], depth["depth"], depth["ts_in_delta"] = _ARRIVAL, 0, 0
        samples["flags"] = _ARRIVAL
        for row in depth:
            row["ts_event"], row["ts_recv"], row["sequence"] = stands[_key_of(row)]
        for row in samples:
            _, _, row["sequence"] = stands[_key_of(row)]
        return {
            "trades": np.empty(0, TRADE),
            "tbbo": np.empty(0, MBP1),
            "mbp-1": _one_level(depth),
            "mbp-10": depth,
            "bbo-1s": samples,
        }


def warm_up() -> None:
    """Load or compile the kernels now, rather than at the first block. Cost: 0.1 s, some 10 s the first time."""
    Deriver().derive(np.zeros(1, MBO))


def _key_of(row: np.void) -> BookKey:
    return BookKey(int(row["publisher_id"]), int(row["instrument_id"]))


def _trades(records: MboArray, tape: DepthTape) -> Placed:
    positions = np.flatnonzero(records["action"] == _TRADE)
    found = records[positions]
    made = np.zeros(len(found), TRADE)
    for name in MBO.names or ():
        if name in _KINDS:
            made[name] = found[name]
    made["length"], made["rtype"] = TRADE.itemsize // 4, _TRADE_RTYPE
    return Placed(positions, made)


def _tbbo(records: MboArray, tape: DepthTape) -> Placed:
    chosen = np.flatnonzero(tape.rows["action"] == _TRADE)
    return Placed(tape.numbers[chosen], _one_level(tape.rows, chosen))


def _mbp1(records: MboArray, tape: DepthTape) -> Placed:
    chosen = np.flatnonzero(tape.rows["depth"] == 0)  # trades too
    return Placed(tape.numbers[chosen], _one_level(tape.rows, chosen))


def _one_level(rows: npt.NDArray[np.void], chosen: npt.NDArray[np.int64] | slice = slice(None)) -> npt.NDArray[np.void]:
    """Return chosen rows of ten levels with the best one alone; a copy, always."""
    # By 64 bits: numpy copies records with named fields many times slower.
    words = row_words(rows)[:, : MBP1.itemsize // WORD.itemsize]
    made = np.array(words[chosen], order="C").view(MBP1).reshape(-1)
    made["length"], made["rtype"], made["depth"] = MBP1.itemsize // 4, _MBP1_RTYPE, 0
    return made


_MAKERS: Final = {"trades": _trades, "tbbo": _tbbo, "mbp-1": _mbp1}
