"""Books and snapshots -> the JSON that the outside world reads. Floor 0. The only owner of its field names.

Prices become JSON numbers with the instrument's decimals, written digit by digit from integers; 64-bit
times and sequences become strings, because a JSON number loses digits beyond 2**53.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from orderbook.book.price import SCALE_DIGITS, decimals_of, format_price, format_units
from orderbook.book.snapshot import Bbo, BookSnapshot, BookState, Level, Levels, book_state
from orderbook.book.snapshot_tape import SNAPSHOT_ROW, DepthLevels
from orderbook.book.tape import Rows
from orderbook.book.timestamp import format_iso_us, format_ns

Array = TypeVar("Array", bound=npt.NDArray[Any])


class BookParts(NamedTuple):
    """A book as text in pieces: any depth of it is a join away."""

    head: str  # a JSON object left open
    bids: list[str]
    asks: list[str]


def encode_levels(levels: Levels, decimals: int) -> list[str]:
    """Write each level as ``[price,size,count]``, best first. Cost: about 0.3 us a level.

    >>> import numpy as np
    >>> encode_levels(np.array([[64_830_000_000, 5, 4], [64_800_000_000, 1, 1]]), 2)
    ['[64.83,5,4]', '[64.80,1,1]']
    """
    return [f"[{format_price(price, decimals)},{size},{count}]" for price, size, count in levels.tolist()]


def encode_trades(trades: Rows, decimals: int) -> list[str]:
    """Write each trade (dtype TRADE_ROW) as ``[price,size,aggressor's side,ts_event in ns]``. Cost: about 1 us a trade.

    >>> import numpy as np
    >>> from orderbook.book.tape import TRADE_ROW
    >>> trade = np.zeros(1, TRADE_ROW)
    >>> trade["price"], trade["size"], trade["side"], trade["ts_event"] = 64_830_000_000, 5, ord("B"), 7
    >>> encode_trades(trade, 2)
    ['[64.83,5,"B","7"]']
    """
    columns = (trades[name].tolist() for name in ("price", "size", "side", "ts_event"))
    return [
        f'[{format_price(price, decimals)},{size},"{chr(side)}","{ts_event}"]'
        for price, size, side, ts_event in zip(*columns, strict=True)
    ]


def book_head(snapshot: BookSnapshot, decimals: int) -> str:
    """Write everything of a book but its levels, as a JSON object left open."""
    return (
        f'{{"type":"book","symbol":{json.dumps(snapshot.symbol)},"ts":"{format_ns(snapshot.ts_event)}",'
        f'"ts_ns":"{snapshot.ts_event}","ts_recv_ns":"{snapshot.ts_recv}","sequence":"{snapshot.sequence}",'
        f'"run_id":{json.dumps(snapshot.run_id)},"seq":{snapshot.seq},"records":{snapshot.records},'
        f'"state":"{snapshot.state}","decimals":{decimals},"tick":{format_price(snapshot.tick or 1, decimals)}'
    )


def book_message(snapshot: BookSnapshot) -> BookParts:
    """Write a book once for every depth that may be asked for."""
    decimals = snapshot.decimals
    return BookParts(
        book_head(snapshot, decimals),
        encode_levels(snapshot.bids, decimals),
        encode_levels(snapshot.asks, decimals),
    )


def book_json(snapshot: BookSnapshot, depth: int) -> str:
    """Write the top ``depth`` levels of a book as one line, without the newline: what the feed file holds."""
    decimals = snapshot.decimals
    bids = ",".join(encode_levels(snapshot.bids[:depth], decimals))
    asks = ",".join(encode_levels(snapshot.asks[:depth], decimals))
    return f'{book_head(snapshot, decimals)},"depth":{depth},"bids":[{bids}],"asks":[{asks}]}}'


class NamedBook(Protocol):
    """What the outside world calls a book, and its grid in 1e-9 units, 0 while it is not known. Immutable."""

    @property
    def symbol(self) -> str: ...
    @property
    def tick(self) -> int: ...


class SnapshotArrays(Protocol):
    """Snapshots of the books of one run, as `snapshot_tape.SnapshotTape` writes them, and what belongs to them."""

    @property
    def run_id(self) -> str: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def bids(self) -> DepthLevels: ...
    @property
    def asks(self) -> DepthLevels: ...
    @property
    def seqs(self) -> npt.NDArray[np.int64]: ...
    @property
    def names(self) -> Sequence[NamedBook]: ...


class LineEncoder:
    """Write snapshots as the lines of `book_json`, by compiled code without the GIL, into one buffer.

    Not shared between threads. Cost: 1.7 us a line of 50 levels a side, which takes `book_json` 31, and 12 us a batch.
    """

    def __init__(self, depth: int, buffer_bytes: int = 1 << 20) -> None:
        """Load the kernel: 0.15 s, 3 s the first time. It takes numba, which web processes go without."""
        from orderbook.book import json_kernel  # here: whoever wants only the functions above goes without it

        self._kernel = json_kernel
        self._depth = depth
        self._out = np.empty(buffer_bytes, np.uint8)
        self._face = np.empty(20, np.uint8)
        self._pieces = _pieces_of("", (), depth)
        no_levels, no_numbers = np.empty((0, depth, 3), np.int64), np.empty(0, np.int64)
        self._fill(_Arrays(np.empty(0, SNAPSHOT_ROW), no_levels, no_levels, no_numbers, no_numbers), 0, depth, 0)

    def encode(self, batches: Iterable[SnapshotArrays]) -> Iterator[memoryview]:
        """Yield whole lines with their newlines, by the buffer, which is written over when the next are asked for.

        Lines of several small batches come together. A buffer that is too short for one line grows.
        Raises ValueError where a row is of a book without a name.
        """
        used = 0
        for batch in batches:
            books = self._name(batch)
            arrays = _Arrays(_plain(batch.rows), _plain(batch.bids), _plain(batch.asks), _plain(batch.seqs), books)
            levels = min(self._depth, arrays.bids.shape[1])
            line_bytes = self._line_bytes(levels)
            done = 0
            while done < len(arrays.rows):
                if used and used + line_bytes > len(self._out):
                    yield self._out.data[:used]
                    used = 0
                if line_bytes > len(self._out):
                    self._out = np.empty(line_bytes, np.uint8)
                done, used = self._fill(arrays, done, levels, used)
        if used:
            yield self._out.data[:used]

    def _name(self, batch: SnapshotArrays) -> npt.NDArray[np.int64]:
        """Take the names of the books that a batch has, mostly those of the last one. Returns whose each row is.

        The cost is that of the books in the batch: it may be one row among the names of thousands.
        """
        numbers, books = np.unique(batch.rows["book"], return_inverse=True)
        if len(numbers) and numbers[-1] >= len(batch.names):  # the kernel does not look
            raise ValueError(f"expected the name of book {numbers[-1]}, found {len(batch.names)} names")
        names = tuple(batch.names[number] for number in numbers.tolist())
        if (batch.run_id, names) != (self._pieces.run_id, self._pieces.names):
            self._pieces = _pieces_of(batch.run_id, names, self._depth)
        return books

    def _line_bytes(self, levels: int) -> int:
        """Return the most that a line of so many levels a side takes."""
        kernel = self._kernel
        needed: int = self._pieces.line_bytes + kernel.NUMBERS_BYTES + 2 * levels * kernel.LEVEL_BYTES
        return needed

    def _fill(self, arrays: "_Arrays", first: int, levels: int, used: int) -> tuple[int, int]:
        """Write lines behind what is used of the buffer. Returns the first row not written, and what is used then."""
        pieces = self._pieces
        stopped: tuple[int, int] = self._kernel.encode(
            *(*arrays, first, levels, pieces.texts, pieces.begins, pieces.line_bytes, pieces.decimals),
            *(self._face, self._out, used),
        )
        return stopped


class _Arrays(NamedTuple):
    """The arrays of a batch as the kernel takes them."""

    rows: Rows
    bids: DepthLevels
    asks: DepthLevels
    seqs: npt.NDArray[np.int64]
    books: npt.NDArray[np.int64]
    """Of the pieces."""


def _plain(array: Array) -> Array:
    """Return an array, copied where it is cut out of another or read-only: else the kernel is compiled anew for it."""
    return array if array.flags.carray else array.copy()


class _Pieces(NamedTuple):
    """The text between the numbers of a line, as json_kernel takes it, and what it was made of."""

    run_id: str
    names: tuple[NamedBook, ...]
    texts: npt.NDArray[np.uint8]
    begins: npt.NDArray[np.int64]  # one more than there are pieces
    line_bytes: int  # the most that those of one line take
    decimals: npt.NDArray[np.int64]  # by book


def _pieces_of(run_id: str, names: tuple[NamedBook, ...], depth: int) -> _Pieces:
    shared = [
        *('","ts_ns":"', '","ts_recv_ns":"', '","sequence":"', f'","run_id":{json.dumps(run_id)},"seq":'),
        *(',"records":', ',"state":"', '],"asks":[', "]}\n"),
    ]
    of_books = [_book_pieces(name.symbol, name.tick or 1, depth) for name in names]
    texts = [text.encode() for text in (*shared, *BookState)]
    texts += [text for pieces in of_books for text in pieces[:2]]
    lengths = np.array([len(text) for text in texts], np.int64)
    longest = [part.max(initial=0) for part in np.split(lengths, [len(shared), len(shared) + len(BookState)])]
    return _Pieces(
        run_id,
        names,
        texts=np.frombuffer(bytearray(b"".join(texts)), np.uint8),
        begins=np.append(0, lengths.cumsum()),
        line_bytes=int(longest[0] * len(shared) + longest[1] + 2 * longest[2]),
        decimals=np.array([pieces.decimals for pieces in of_books], np.int64),
    )


class _BookPieces(NamedTuple):
    """What is the same in all lines of a book on one grid."""

    begin: bytes
    grid: bytes
    """What stands between its state and its bids."""
    decimals: int


@lru_cache(maxsize=1 << 16)
def _book_pieces(symbol: str, tick: int, depth: int) -> _BookPieces:
    decimals = decimals_of(tick)
    grid = f'"decimals":{decimals},"tick":{format_price(tick, decimals)}'
    begin = f'{{"type":"book","symbol":{json.dumps(symbol)},"ts":"'
    return _BookPieces(begin.encode(), f'",{grid},"depth":{depth},"bids":['.encode(), decimals)


def final_book_json(symbol: str, bids: Levels, asks: Levels) -> str:
    """Write every level of a book: ``px`` is the price in 1e-9 units, ``px_f`` the same as a decimal number."""
    return f'{{"symbol":{json.dumps(symbol)},"bids":{_final_side(bids)},"asks":{_final_side(asks)}}}'


def _final_side(levels: Levels) -> str:
    rows = (
        f'{{"px":{price},"px_f":{format_price(price, 0)},"sz":{size},"ct":{count}}}'
        for price, size, count in levels.tolist()
    )
    return f"[{','.join(rows)}]"


def snapshot_row_json(
    *, symbol: str, ts_event: int, sequence: int, bid: Level | None, ask: Level | None, decimals: int
) -> str:
    """Write one row of the history with exact prices; ``mid`` has the one digit more that a half tick needs."""
    mid = spread = "null"
    if bid is not None and ask is not None:
        mid = format_units((bid.price + ask.price) * 5, SCALE_DIGITS + 1, decimals)
        spread = format_price(ask.price - bid.price, decimals)
    bid_px, bid_sz, bid_ct = _best_texts(bid, decimals)
    ask_px, ask_sz, ask_ct = _best_texts(ask, decimals)
    return (
        f'{{"ts":"{format_iso_us(ts_event)}","symbol":{json.dumps(symbol)},'
        f'"best_bid_px":{bid_px},"best_bid_sz":{bid_sz},"best_ask_px":{ask_px},"best_ask_sz":{ask_sz},'
        f'"mid":{mid},"spread":{spread},"ts_ns":"{ts_event}","sequence":"{sequence}",'
        f'"best_bid_ct":{bid_ct},"best_ask_ct":{ask_ct},"state":"{book_state(Bbo(bid, ask))}"}}'
    )


def _best_texts(level: Level | None, decimals: int) -> tuple[str, int, int]:
    if level is None:
        return "null", 0, 0
    return format_price(level.price, decimals), level.size, level.count
