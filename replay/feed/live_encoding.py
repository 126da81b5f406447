"""What goes out after ``start_session``, as the client wished it: DBN, CSV or JSON lines; plain or zstd. Floor 1.

Text is written by the vendor's own library (JSON: 1.2 to 2.5 million MBO records/s, CSV: 1.1 to 2.2 million). JSON
has one object a line for records of every kind. CSV is a table, so a header line stands before the first line of a
kind, and again whenever the kind changes. Text has no metadata in front, and no symbols in its lines: mappings
arrive as records. zstd is one stream from the first byte to the last, with a block flushed behind every write.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import databento_dbn as dbn
import numpy as np
import zstandard

from orderbook.book.mbo import MBO
from replay.feed.dbn_codec import TS_OUT_BYTES
from replay.feed.dbn_metadata import encode_live_metadata
from replay.feed.derived import DTYPES
from replay.feed.live_merging import Part, Rows, interleaved, portions, runs
from replay.feed.live_messages import AuthRequest
from replay.feed.live_records import message_with_ts_out, with_ts_out
from replay.feed.raw_protocol import Buffer

PIECE_BYTES: Final = 1 << 17
"""How much of the market is written as text at once: some 2 ms, in which nobody else is served. zstd is faster."""

PORTION_BYTES: Final = 1 << 20
"""How much of the market is written as DBN at once: 1 ms where it is put together of several schemas."""

ZSTD_LEVEL: Final = 1
"""8 million MBO records/s at 35 % of the size; level 3 has 6 million at 30 %."""

_VERSION: Final = 3
_WORD: Final = 4


class LiveEncoder:
    """Writes one client's stream. What it returns goes out in that order, each of it at once."""

    def __init__(self, request: AuthRequest) -> None:
        self._ts_out = request.ts_out
        self._text = None if request.encoding == "dbn" else _TEXTS[request.encoding](request)
        self._zstd = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj() if request.compression == "zstd" else None

    def opening(self, venue_dataset: str, start_ns: int) -> Buffer:
        """Return the metadata. Raises ValueError for a dataset that does not fit."""
        metadata = encode_live_metadata(venue_dataset, start_ns, self._ts_out)
        return self._packed(b"" if self._text else metadata)

    def messages(self, messages: Iterable[bytes], now_ns: int) -> Buffer:
        """Return records of live_records.py; ``now_ns`` is the time of sending."""
        data = b"".join(message_with_ts_out(one, now_ns) if self._ts_out else one for one in messages)
        return self._packed(self._text.messages(data) if self._text else data)

    def row_bytes(self, schema: str) -> int:
        """Return how many bytes a record of a schema is as DBN."""
        kind = MBO if schema == "mbo" else DTYPES[schema]
        return kind.itemsize + (TS_OUT_BYTES if self._ts_out else 0)

    def records(self, records: Rows, schema: str, now_ns: int) -> Buffer:
        """Return records of one schema: for plain DBN without ts_out a view of them, which must lie contiguous."""
        data = (self._stamped(records, now_ns) if self._ts_out else records).view(np.uint8).data
        return self._packed(self._text.records(bytes(data), schema) if self._text else data)

    def parts(self, parts: Sequence[Part], now_ns: int) -> Iterator[Buffer]:
        """Yield the records of several schemas in one order, in pieces: each is written when it is asked for.

        None has more than PORTION_BYTES before it becomes text or is compressed, with one record at least; a single
        part as plain DBN without ts_out is a view of its records.
        """
        parts = [part for part in parts if len(part.rows)]
        if not parts:
            return
        if self._text:
            for schema, rows in runs(parts, PIECE_BYTES):
                yield self.records(rows, schema, now_ns)
            return
        most = 4 * PIECE_BYTES if self._zstd else PORTION_BYTES
        if self._ts_out:  # which is not there yet
            most -= most * TS_OUT_BYTES // (min(part.rows.dtype.itemsize for part in parts) + TS_OUT_BYTES)
        for portion in portions(parts, most):
            if self._ts_out:
                portion = [part._replace(rows=self._stamped(part.rows, now_ns)) for part in portion]
            yield self._packed(interleaved(portion).data)

    def boundary(self, data: memoryview, offset: int) -> int:
        """Return the first place at or behind an offset where another record may go in between.

        Text and zstd have a state that covers all of a buffer: only its end will do. Cost: O(records of the buffer).
        """
        if self._text or self._zstd:
            return len(data)
        end = 0
        while end < offset:
            end += data[end] * _WORD
        return end

    def closing(self) -> Buffer:
        """Return what ends the stream; nothing may follow."""
        return b"" if self._zstd is None else self._zstd.flush()

    def _stamped(self, records: Rows, now_ns: int) -> Rows:
        """Return records with the time of sending behind each, as rows of bytes."""
        size = records.dtype.itemsize + TS_OUT_BYTES
        return with_ts_out(records, now_ns).view(np.dtype((np.void, size)))

    def _packed(self, data: Buffer) -> Buffer:
        if self._zstd is None or not data:
            return data
        return self._zstd.compress(data) + self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class _Lines:
    """The vendor's writer of text, with its output taken after every write."""

    def __init__(self, request: AuthRequest, encoding: dbn.Encoding, schema: dbn.Schema | None = None) -> None:
        self._out = io.BytesIO()
        self._writer = dbn.Transcoder(
            self._out,
            encoding,
            dbn.Compression("none"),
            pretty_px=request.pretty_px,
            pretty_ts=request.pretty_ts,
            map_symbols=False,
            has_metadata=False,
            ts_out=request.ts_out,
            schema=schema,
            input_version=_VERSION,
        )

    def write(self, data: bytes) -> bytes:
        """Return the lines of complete records."""
        self._writer.write(data)
        self._writer.flush()
        lines = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return lines


class _Json:
    """One object a line, whatever the record."""

    def __init__(self, request: AuthRequest) -> None:
        self._lines = _Lines(request, dbn.Encoding("json"))

    def messages(self, data: bytes) -> bytes:
        return self._lines.write(data)

    def records(self, data: bytes, schema: str) -> bytes:
        return self._lines.write(data)


class _Csv:
    """A table, and another one whenever the kind of record changes."""

    def __init__(self, request: AuthRequest) -> None:
        self._request = request
        self._objects = _Lines(request, dbn.Encoding("json"))
        self._rows: _Lines | None = None
        self._kind: object = None

    def messages(self, data: bytes) -> bytes:
        """Write the feed's own records, for which the library has no table, in the order of their fields."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for line in self._objects.write(data).splitlines():
            fields = json.loads(line)
            header = fields.pop("hd")
            values = header | fields
            if self._kind != values.keys():
                self._kind = values.keys()
                writer.writerow(values)
            writer.writerow(values.values())  # None, an undefined time, is an empty field
        return out.getvalue().encode()

    def records(self, data: bytes, schema: str) -> bytes:
        if self._kind != schema or self._rows is None:
            self._kind = schema
            self._rows = _Lines(self._request, dbn.Encoding("csv"), dbn.Schema(schema))
        return self._rows.write(data)


_TEXTS: Final[dict[str, type[_Csv] | type[_Json]]] = {"csv": _Csv, "json": _Json}
