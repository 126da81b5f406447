"""The metadata of DBN, and the records that announce an instrument later: bytes <-> what matters here. Floor 1.

Through databento_dbn, which knows every version. Not a decoder of the records that follow (dbn_codec.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import databento_dbn as dbn
from databento_dbn.metadata import MappingInterval

from orderbook.book.mbo import UNDEF_TIMESTAMP
from replay.feed.stream import FeedError, shown

PREFIX_BYTES: Final = 8  # "DBN", version, length of the rest
SYMBOL_BYTES: Final = dbn.SYMBOL_CSTR_LEN - 1
MAX_METADATA_BYTES: Final = 64 << 20  # every symbol of the largest venue fits four times

_RAW_SYMBOL, _INSTRUMENT_ID = dbn.SType("raw_symbol"), dbn.SType("instrument_id")
_MBO_SCHEMA: Final = dbn.Schema("mbo")
_MAX_ID: Final = 2**32 - 1
_DATASET_BYTES: Final = 15
_PANIC: Final = "PanicException"


class Header(NamedTuple):
    """What the metadata of a stream or file says that matters here."""

    version: int
    venue_dataset: str
    schema: str | None  # None: a mixed stream
    ts_out: bool
    symbols: dict[int, str]
    size: int  # bytes before the first record


def encode_metadata(venue_dataset: str, start_ns: int, symbols: Mapping[int, str], end_ns: int | None = None) -> bytes:
    """Return version 3 metadata of schema mbo whose length is a multiple of 8: the records behind it lie aligned.

    Without an end the mappings hold for a year. Raises ValueError for a symbol or dataset that does not fit.
    """
    first = _day(start_ns)
    after = first + timedelta(days=366) if end_ns is None else max(_day(end_ns), first) + timedelta(days=1)
    ids_of: dict[str, list[int]] = {}
    for instrument_id, symbol in sorted(symbols.items()):
        if not symbol or len(symbol.encode()) > SYMBOL_BYTES:
            raise ValueError(f"expected a symbol of 1 to {SYMBOL_BYTES} bytes, found {symbol!r}")
        ids_of.setdefault(symbol, []).append(instrument_id)
    mappings = [_Mapping(symbol, [_Interval(first, after, str(id_)) for id_ in ids]) for symbol, ids in ids_of.items()]
    return _encode(
        dataset=venue_dataset,
        start=start_ns,
        end=end_ns,
        stype_in=_RAW_SYMBOL,
        stype_out=_INSTRUMENT_ID,
        schema=_MBO_SCHEMA,
        symbols=list(ids_of),
        mappings=mappings,
    )


def encode_live_metadata(venue_dataset: str, start_ns: int, ts_out: bool = False) -> bytes:
    """Return version 3 metadata of a live stream, 128 bytes: of any schema, and naming no instrument.

    Raises ValueError for a dataset that does not fit.
    """
    return _encode(
        dataset=venue_dataset, start=start_ns, stype_in=None, stype_out=_INSTRUMENT_ID, schema=None, ts_out=ts_out
    )


def _encode(**fields: Any) -> bytes:
    try:
        return dbn.Metadata(version=3, **fields).encode()
    except dbn.DBNError as error:
        raise ValueError(f"metadata of {fields['dataset']!r} cannot be encoded: {error}") from error


@dataclass(slots=True)
class _Interval:
    start_date: date
    end_date: date
    symbol: str


@dataclass(slots=True)
class _Mapping:
    raw_symbol: str
    intervals: Sequence[MappingInterval]


def _day(ns: int) -> date:
    return datetime.fromtimestamp(ns // 10**9, UTC).date()


def encode_mapping(instrument_id: int, symbol: str, ts_event: int, publisher_id: int = 0) -> bytes:
    """Return a symbol mapping record, which announces an instrument in the middle of a stream."""
    return bytes(
        dbn.SymbolMappingMsg(
            publisher_id=publisher_id,
            instrument_id=instrument_id,
            ts_event=ts_event,
            stype_in=_RAW_SYMBOL,
            stype_in_symbol=symbol,
            stype_out=_INSTRUMENT_ID,
            stype_out_symbol=str(instrument_id),
            start_ts=UNDEF_TIMESTAMP,
            end_ts=UNDEF_TIMESTAMP,
        )
    )


def metadata_size(prefix: bytes) -> int:
    """Return the number of bytes before the first record, from the first eight. Raises FeedError."""
    if prefix[:3] != b"DBN":
        raise FeedError("byte 0", "b'DBN'", shown(prefix[:PREFIX_BYTES]))
    if prefix[3] not in (1, 2, 3):
        raise FeedError("byte 3", "DBN version 1, 2 or 3", str(prefix[3]))
    size = PREFIX_BYTES + int.from_bytes(prefix[4:PREFIX_BYTES], "little")
    if size > MAX_METADATA_BYTES:
        raise FeedError("byte 4", f"metadata of at most {MAX_METADATA_BYTES} bytes", f"{size} bytes")
    return size


def decode_metadata(data: bytes) -> Header:
    """Read complete metadata (``metadata_size`` bytes) of version 1, 2 or 3, of MBO or a mixed stream.

    Raises FeedError.
    """
    try:
        metadata = dbn.Metadata.decode(data)
        schema = None if metadata.schema is None else str(metadata.schema)
        dataset = checked_name(metadata.dataset, _DATASET_BYTES)
        header = Header(data[3], dataset, schema, bool(metadata.ts_out), _symbols(metadata), len(data))
    except BaseException as error:
        # Where the vendor's reader trips over its own feet it raises pyo3's PanicException, which is no Exception
        # and which no module exports.
        if not isinstance(error, dbn.DBNError | ValueError | OverflowError) and type(error).__name__ != _PANIC:
            raise
        # The reader's message says which field; the offset inside the metadata is not known to it.
        raise FeedError("bytes 8 to " + str(len(data)), "DBN metadata", str(error)) from error
    if schema not in ("mbo", None):
        raise FeedError("byte 24", "schema mbo", schema)
    return header


def checked_name(name: str, most_bytes: int) -> str:
    """Return a name that can be shown, stored and encoded again. Raises ValueError for any other."""
    if not (name.isascii() and name.isprintable() and len(name) <= most_bytes):
        raise ValueError(f"{name!r} where a name of at most {most_bytes} printable ASCII characters belongs")
    return name


def _symbols(metadata: dbn.Metadata) -> dict[int, str]:
    """Read the mappings in whichever direction they were asked for."""
    symbols: dict[int, str] = {}
    for raw_symbol, intervals in metadata.mappings.items():
        for interval in intervals:
            name, number = raw_symbol, interval["symbol"]
            if metadata.stype_in == _INSTRUMENT_ID:
                name, number = number, name
            if name and number.isascii() and number.isdigit() and int(number) <= _MAX_ID:
                symbols[int(number)] = checked_name(name, SYMBOL_BYTES)
    return dict(sorted(symbols.items()))  # the reader's order is a hash's
