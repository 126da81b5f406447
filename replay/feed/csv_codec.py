"""Databento's CSV of MBO: lines <-> records, exact to the last digit. Floor 1.

Decoding takes the pretty and the raw form, any order of columns, with or without the symbol; encoding writes the
vendor's pretty form with the symbol. Importing this module loads numba: web processes must not.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO, MboArray
from replay.feed import csv_kernel as kernel
from replay.feed.stream import BUFFER_BYTES, FeedError, receive_buffer, shown

COLUMNS: Final = (
    *("ts_recv", "ts_event", "rtype", "publisher_id", "instrument_id", "action", "side", "price", "size"),
    *("channel_id", "order_id", "flags", "ts_in_delta", "sequence", "symbol"),
)
HEADER: Final = ",".join(COLUMNS).encode() + b"\n"

_REQUIRED: Final = frozenset(COLUMNS) - {"symbol"}
_MIN_LINE_BYTES: Final = 2 * len(_REQUIRED) - 3  # fourteen commas and line ends, one digit each, three may be empty
_BITS: Final = {
    **{"ts_recv": 64, "ts_event": 64, "rtype": 8, "publisher_id": 16, "instrument_id": 32, "size": 32},
    **{"channel_id": 8, "order_id": 64, "flags": 8, "sequence": 32},
}
_TIME: Final = "UTC nanoseconds, an ISO time in UTC, or nothing"
_EXPECTED: Final = {
    **{name: f"a whole number below 2^{bits}" for name, bits in _BITS.items()},
    "ts_recv": _TIME,
    "ts_event": _TIME,
    "rtype": f"{kernel.MBO_RTYPE} (MBO)",
    "action": "one of A, C, M, R, T, F, N",
    "side": "one of A, B, N",
    "price": "a price with one to nine decimals, whole 1e-9 units, or nothing",
    "ts_in_delta": "a whole number from -2^31 to 2^31 - 1",
    "symbol": f"at most {kernel.SYMBOL_BYTES - 2} printable ASCII characters without quotes",
}
_LIMITS: Final = np.array([2 ** _BITS.get(name, 64) - 1 for name in COLUMNS], np.uint64)
_LIMITS[kernel.SYMBOL] = kernel.SYMBOL_BYTES - 2
_REASONS: Final = {
    kernel.TOO_FEW: "missing column",
    kernel.TOO_MANY: "extra column",
    kernel.NOT_A_VALUE: "bad value",
    kernel.OUT_OF_RANGE: "out of range",
    kernel.MIXED_FORMS: "mixed price forms",
}


def encode_csv(records: MboArray, symbols: Mapping[int, str]) -> bytes:
    """Return pretty lines with the symbol, without the header; an unknown instrument has an empty symbol."""
    return CsvEncoder(symbols).encode(records)


class CsvEncoder:
    """Write records as lines, with the table of symbols made once."""

    def __init__(self, symbols: Mapping[int, str]) -> None:
        self._table = _SymbolTable(symbols)

    def encode(self, records: MboArray) -> bytes:
        """Return pretty lines. Needs room for the longest possible ones: about 260 bytes for each record."""
        out = np.empty(len(records) * kernel.MAX_LINE_BYTES + 8, np.uint8)
        size: int = kernel.encode(_writable(records), *self._table.arrays, np.empty(20, np.uint8), out)
        return out[:size].tobytes()


class CsvStreamDecoder:
    """Turn a header and lines into records.

    Strict (files): the first line that is not a record ends it with FeedError. Tolerant (streams): such lines are
    counted in ``rejected`` by reason and left out. Lines must be shorter than the buffer, which is twice that of DBN: a
    record is 2.4 times as long here.
    """

    def __init__(self, buffer_bytes: int = 2 * BUFFER_BYTES, *, strict: bool = False) -> None:
        self.symbols: dict[int, str] = {}
        self._strict = strict
        self._text = receive_buffer(buffer_bytes)
        self._records = np.zeros(len(self._text) // _MIN_LINE_BYTES + 1, MBO)
        self._columns: npt.NDArray[np.int64] | None = None
        self._state = np.zeros(kernel.STATE_SLOTS, np.int64)
        self._rejected = np.zeros(kernel.REASONS, np.int64)
        self._values = np.zeros(len(COLUMNS), np.uint64)
        self._recent = np.zeros(kernel.RECENT_SLOTS, np.uint64)
        for slot, place in enumerate((0, 8, 12)):
            self._recent[slot] = int.from_bytes(kernel.EPOCH[place : place + 8], "little")
        self._table = _SymbolTable({})
        self._begin = self._end = 0

    @property
    def rejected(self) -> dict[str, int]:
        """Lines left out so far, by reason."""
        return {reason: int(count) for code, reason in _REASONS.items() if (count := self._rejected[code])}

    @property
    def lines(self) -> int:
        """Lines read so far, the header among them."""
        return int(self._state[kernel.LINE])

    @property
    def left(self) -> int:
        return self._end - self._begin

    def space(self) -> memoryview:
        """Return the free part of the buffer. The start of an unfinished line moves to the front."""
        left = self._end - self._begin
        if self._begin:
            self._text[:left] = self._text[self._begin : self._end]
            self._begin, self._end = 0, left
        return self._text.data[self._end :]

    def received(self, n: int) -> MboArray:
        """Return the records of the lines that ``n`` more bytes complete."""
        self._end += n
        if self._columns is None and not self._read_header():
            return self._records[:0]
        count = self._decode_lines()
        if self._end - self._begin == len(self._text):
            raise FeedError(f"line {self.lines + 1}", "a line end", f"none within {len(self._text)} bytes")
        return self._records[:count]

    def finish(self) -> None:
        """Raise FeedError when the stream ended before the header did, or inside a line."""
        left = bytes(self._text[self._begin : self._end])
        if self._columns is None:
            raise FeedError("line 1", "a header line", shown(left) if left else "the end of the stream")
        if left:
            raise FeedError(f"line {self.lines + 1}", "a line end", f"the end of the stream after {shown(left[-40:])}")

    def _read_header(self) -> bool:
        got = bytes(self._text[: self._end])
        line, newline, _ = got.partition(b"\n")
        if len(line) > len(HEADER) * 2:  # whether or not its end has arrived: pieces change nothing
            raise FeedError("line 1", "a header line", shown(line))
        if not newline:
            return False
        self._columns = parse_header(line)
        self._begin = len(line) + 1
        self._state[kernel.LINE] = 1
        return True

    def _decode_lines(self) -> int:
        assert self._columns is not None
        known = self._known()
        count = 0
        while True:
            end, self._begin, got, fault = kernel.decode(
                *(self._text, self._begin, self._end, self._columns, self._strict),
                *(self._records[count:], self._state, self._rejected, self._values, _LIMITS, self._recent),
                *self._table.arrays,
            )
            count += int(got)
            if end != kernel.SYMBOLS_FULL:
                break
            self._table = self._table.grown()
        if self._known() != known:
            self.symbols = self._table.symbols()
        if end == kernel.FAULT:
            raise self._fault(fault)
        return count

    def _known(self) -> list[int]:
        return [int(self._state[kernel.SYMBOLS]), int(self._state[kernel.RENAMED])]

    def _fault(self, reason: int) -> FeedError:
        assert self._columns is not None
        state = self._state
        column = COLUMNS[self._columns[state[kernel.FAULT_FIELD]]]
        found = shown(bytes(self._text[state[kernel.FAULT_BEGIN] : state[kernel.FAULT_END]]))
        fields = len(self._columns)
        if reason == kernel.TOO_FEW:
            expected, found = f"{fields} columns", f"{state[kernel.FAULT_FIELD] + 1}"
        elif reason == kernel.TOO_MANY:
            expected, found = f"{fields} columns", f"another one: {found}"
        elif reason == kernel.MIXED_FORMS:
            expected = "a price in the form of the lines above (decimals, or whole 1e-9 units)"
        else:
            expected = _EXPECTED[column]
        return FeedError(f"line {state[kernel.LINE]}, column {column}", expected, found)


def parse_header(line: bytes) -> npt.NDArray[np.int64]:
    """Return the column code of each field. Raises FeedError when columns are missing, unknown or repeated."""
    names = line.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split(",")
    unknown = [name for name in names if name not in COLUMNS]
    if unknown:
        raise FeedError("line 1", "the columns of an MBO file: " + ",".join(COLUMNS), shown(",".join(unknown).encode()))
    missing = sorted(_REQUIRED.difference(names))
    if missing:
        raise FeedError("line 1", f"column {', '.join(missing)}", "a header without")
    if len(set(names)) < len(names):
        raise FeedError("line 1", "each column once", shown(line))
    return np.array([COLUMNS.index(name) for name in names], np.int64)


def warm_up() -> None:
    """Load or compile the kernel now, at start, rather than at the first line. Cost: 0.1 s, 4 s the first time."""
    lines = HEADER + encode_csv(np.zeros(1, MBO), {})
    decoder = CsvStreamDecoder(1 << 12)
    decoder.space()[: len(lines)] = lines
    decoder.received(len(lines))


class _SymbolTable:
    """The kernel's open-addressing table of instrument -> symbol, at most half full."""

    def __init__(self, symbols: Mapping[int, str], slots: int = 16) -> None:
        while slots <= 2 * len(symbols):
            slots *= 2
        self._ids = np.full(slots, -1, np.int64)
        self._lengths = np.zeros(slots, np.int64)
        self._names = np.zeros((slots, kernel.SYMBOL_BYTES), np.uint8)
        for instrument_id, symbol in symbols.items():
            name = symbol.encode()
            if len(name) > kernel.SYMBOL_BYTES - 2:
                raise ValueError(f"expected a symbol of at most {kernel.SYMBOL_BYTES - 2} bytes, found {symbol!r}")
            slot = (instrument_id * 2654435761) & (slots - 1)
            while self._ids[slot] >= 0:
                slot = (slot + 1) & (slots - 1)
            self._ids[slot], self._lengths[slot] = instrument_id, len(name)
            self._names[slot, : len(name)] = np.frombuffer(name, np.uint8)

    @property
    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """What the kernel takes."""
        return self._ids, self._lengths, self._names

    def symbols(self) -> dict[int, str]:
        """Return what the table holds, by instrument id."""
        used = np.flatnonzero(self._ids >= 0)
        used = used[np.argsort(self._ids[used])]
        return {
            int(self._ids[slot]): bytes(self._names[slot, : self._lengths[slot]]).decode("utf-8", "replace")
            for slot in used
        }

    def grown(self) -> "_SymbolTable":
        """Return a table of twice the size with the same content."""
        return _SymbolTable(self.symbols(), 2 * len(self._ids))


def _writable(records: MboArray) -> MboArray:
    """Return the records as the kernel wants them: a read-only array would compile it a second time."""
    return records if records.flags.writeable and records.flags.aligned else records.copy()
