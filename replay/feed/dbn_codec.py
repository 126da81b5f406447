"""Databento Binary Encoding: a stream of bytes becomes records as they lie in memory. Floor 1.

Not a reader of files (sources.py) or of metadata (dbn_metadata.py), and not a decoder of other schemas: records
that are not MBO are either messages of the feed itself (mappings, system and error texts) or counted in ``rejected``.
"""

from collections import deque
from typing import Any, Final, NamedTuple

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, MboArray
from replay.feed.dbn_metadata import (
    PREFIX_BYTES,
    SYMBOL_BYTES,
    Header,
    checked_name,
    decode_metadata,
    metadata_size,
)
from replay.feed.stream import BUFFER_BYTES, FeedError, receive_buffer, shown

TS_OUT_BYTES: Final = 8

_HEADER: Final = np.dtype(
    [("length", "u1"), ("rtype", "u1"), ("publisher_id", "<u2"), ("instrument_id", "<u4"), ("ts_event", "<u8")]
)
_MBO_HEAD: Final = MBO_LENGTH | MBO_RTYPE << 8  # the first two bytes of a record, as one little-endian number
_TS_OUT_HEAD: Final = _MBO_HEAD + TS_OUT_BYTES // 4
_ERROR, _MAPPING, _SYSTEM = 21, 22, 23
# Every other rtype that a DBN stream can carry: trades, books by price, bars, definitions, statistics, status.
_OTHER_RTYPES: Final = frozenset({0, 1, 10, 17, 18, 19, 20, 24, 32, 33, 34, 35, 36, 177, 192, 193, 194, 195, 196})
_NOTICES_KEPT: Final = 100


class Notice(NamedTuple):
    """A text that the feed sent about itself."""

    ts_event: int
    is_error: bool
    code: int
    text: str


def foreign_record(records: MboArray) -> int | None:
    """Return the index of the first record whose length or rtype is not that of MBO. Cost: one pass, 2 bytes each."""
    count = _leading(_heads(records.view(np.uint8), MBO.itemsize), _MBO_HEAD)
    return None if count == len(records) else count


def _heads(data: npt.NDArray[np.uint8], stride: int) -> npt.NDArray[np.uint16]:
    """View the first two bytes of each record of a fixed size."""
    return np.ndarray(len(data) // stride, np.dtype("<u2"), data.data, 0, (stride,))


def _leading(heads: npt.NDArray[np.uint16], head: int) -> int:
    """Count how many records at the front have this head. Cost: O(answer), whatever lies behind."""
    count, step = 0, 256
    while count < len(heads):
        part = heads[count : count + step]
        differs = part != head
        first = int(differs.argmax())
        if differs[first]:
            return count + first
        count += len(part)
        step *= 4
    return count


class DbnStreamDecoder:
    """Turn a DBN stream (metadata, then records of any kind) into MBO records, without a copy where it can.

    While only MBO arrives, the arrays handed out are views of the receive buffer. Records of other kinds, and
    MBO with a ts_out behind it, cost a copy of the piece they arrive in.
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.header: Header | None = None
        self.symbols: dict[int, str] = {}
        self.rejected: dict[str, int] = {}
        self.notices: deque[Notice] = deque(maxlen=_NOTICES_KEPT)
        self.notice_count = 0
        self._buffer = receive_buffer(buffer_bytes)
        self._begin = 0  # first byte not consumed
        self._end = 0
        self._offset = 0  # bytes of the stream before _begin

    @property
    def left(self) -> int:
        return self._end - self._begin

    def space(self) -> memoryview:
        """Return the free part of the buffer. What is left over, less than one record, moves to the front."""
        left = self._end - self._begin
        if self._begin:
            self._buffer[:left] = self._buffer[self._begin : self._end]
            self._begin, self._end = 0, left
        return self._buffer.data[self._end :]

    def received(self, n: int) -> MboArray:
        """Return the MBO records that ``n`` more bytes complete; a fault behind them is raised by the next call."""
        self._end += n
        if self.header is None and not self._read_metadata():
            return np.empty(0, MBO)
        runs: list[MboArray] = []
        while True:
            run = self._take_mbo()
            if len(run):
                runs.append(run)
                continue
            try:
                if not self._take_other():
                    return _joined(runs)
            except FeedError:
                if not runs:
                    raise
                return _joined(runs)  # these arrived whole; what is wrong stays at the front

    def finish(self) -> None:
        """Raise FeedError when the stream ended before its first record could, inside a record, or behind a fault."""
        self.received(0)
        left = self._end - self._begin
        if self.header is None:
            raise FeedError(f"byte {self._offset + left}", "the rest of the DBN metadata", "the end of the stream")
        if left:
            size = int(self._buffer[self._begin]) * 4
            where = f"byte {self._offset}"
            raise FeedError(where, f"a record of {size} bytes", f"the end of the stream after {left} of them")

    def _consume(self, size: int) -> None:
        self._begin += size
        self._offset += size

    def _read_metadata(self) -> bool:
        """Read the metadata once it is complete. Returns whether records may follow."""
        got = self._buffer[: self._end]
        if len(got) < PREFIX_BYTES:
            if not b"DBN".startswith(prefix := bytes(got[:3])):
                raise FeedError("byte 0", "b'DBN'", shown(prefix))
            return False
        size = metadata_size(bytes(got[:PREFIX_BYTES]))
        if len(got) < size:
            if size > len(self._buffer):
                grown = receive_buffer(size)
                grown[: len(got)] = got
                self._buffer = grown
            return False
        self.header = decode_metadata(bytes(got[:size]))
        self.symbols = self.header.symbols
        self._consume(size)
        return True

    def _take_mbo(self) -> MboArray:
        """Consume the complete MBO records at the front; all of one length."""
        data = self._buffer[self._begin : self._end]
        if len(data) < 2:
            return np.empty(0, MBO)
        head = int(data[0]) | int(data[1]) << 8
        if head == _MBO_HEAD:
            size = MBO.itemsize * _leading(_heads(data, MBO.itemsize), head)
            run: MboArray = data[:size].view(MBO)
        elif head == _TS_OUT_HEAD:
            stride = MBO.itemsize + TS_OUT_BYTES
            size = stride * _leading(_heads(data, stride), head)
            run = data[:size].reshape(-1, stride)[:, : MBO.itemsize].copy().reshape(-1).view(MBO)
            run["length"] = MBO_LENGTH
        else:
            return np.empty(0, MBO)
        self._consume(size)
        return run

    def _take_other(self) -> bool:
        """Consume one record that is not MBO. Returns False when the front holds no complete record."""
        data = self._buffer[self._begin : self._end]
        if len(data) < 2:
            return False
        size, rtype = int(data[0]) * 4, int(data[1])
        where = f"byte {self._offset}"
        if rtype == MBO_RTYPE:
            if size not in (MBO.itemsize, MBO.itemsize + TS_OUT_BYTES):
                raise FeedError(
                    where, f"an MBO record of length {MBO_LENGTH} or {MBO_LENGTH + 2}", f"length {size // 4}"
                )
            return False  # an incomplete one
        feed_message = _LAYOUTS.get((rtype, size)) or _LAYOUTS.get((rtype, size - TS_OUT_BYTES))
        if feed_message is None and (rtype not in _OTHER_RTYPES or size < _HEADER.itemsize):
            raise FeedError(where, "a DBN record", f"rtype {rtype} with length {size // 4}")
        if len(data) < size:
            return False
        if feed_message is None:
            reason = f"rtype {rtype}"
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
        else:
            self._note(data[: feed_message.itemsize].view(feed_message)[0])
        self._consume(size)
        return True

    def _note(self, message: np.void) -> None:
        if message["rtype"] == _MAPPING:
            self._note_symbol(int(message["instrument_id"]), message["stype_in_symbol"], message["stype_out_symbol"])
            return
        is_error = message["rtype"] == _ERROR
        code = int(message["code"]) if "code" in (message.dtype.names or ()) else 255
        text = _text(message["err" if is_error else "msg"])
        self.notices.append(Notice(int(message["ts_event"]), is_error, code, text))
        self.notice_count += 1

    def _note_symbol(self, instrument_id: int, asked: bytes, answer: bytes) -> None:
        """Keep the raw symbol: the answer to what was asked for, unless the answer is the id itself."""
        field = asked if answer == str(instrument_id).encode() else answer or asked
        try:
            symbol = checked_name(field.decode(), SYMBOL_BYTES)
        except ValueError as error:
            raise FeedError(f"byte {self._offset}", "a mapping to a printable symbol", shown(field)) from error
        if symbol:
            self.symbols[instrument_id] = symbol


def _text(field: bytes) -> str:
    return field.decode("utf-8", "replace")


def _joined(runs: list[MboArray]) -> MboArray:
    """Return one run as it is, several as one array; as bytes, because numpy copies named fields one by one.

    A run is misaligned behind metadata of versions 1 and 2, which is not padded, until the next ``space()``.
    """
    if len(runs) == 1 and runs[0].flags.aligned:
        return runs[0]
    return np.concatenate([run.view(np.uint8) for run in runs]).view(MBO) if runs else np.empty(0, MBO)


_MESSAGES: Final[list[tuple[int, Any]]] = [
    (_MAPPING, dbn.SymbolMappingMsg),
    (_MAPPING, dbn.SymbolMappingMsgV1),
    (_SYSTEM, dbn.SystemMsg),
    (_SYSTEM, dbn.SystemMsgV1),
    (_ERROR, dbn.ErrorMsg),
    (_ERROR, dbn.ErrorMsgV1),
]
# What a feed sends about itself, by rtype and size: the messages of version 1 are shorter.
_LAYOUTS: Final = {
    (rtype, layout.itemsize): layout for rtype, message in _MESSAGES for layout in [np.dtype(message._dtypes)]
}
