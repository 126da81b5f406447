"""The raw feed (port 9000), sans-I/O: the bytes that open, introduce and carry a replay in each framing. Floor 1.

A connection carries at most one replay. CSV opens with the header line at once; DBN opens with metadata as
soon as a dataset is known, and announces instruments that come later with mapping records. What the records
are, and when they go out, is decided elsewhere.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from orderbook.book.mbo import (
    MBO,
    MBO_LENGTH,
    MBO_RTYPE,
    UNDEF_CHANNEL,
    UNDEF_PRICE,
    Action,
    BookKey,
    Flags,
    MboArray,
    Side,
)
from replay.feed.csv_codec import HEADER, CsvEncoder
from replay.feed.dbn_metadata import encode_mapping, encode_metadata
from replay.feed.stream import FramingName

Buffer = bytes | memoryview
Symbols = Mapping[int, str]


class Framing(Protocol):
    """One connection's side of the protocol."""

    block_records: int
    """Records to encode at once: larger blocks cost memory, smaller ones calls."""

    def opening(self) -> bytes:
        """Return what goes out on connect."""

    def introduction(self, venue_dataset: str, start_ns: int, symbols: Symbols) -> bytes:
        """Return what makes the instruments of a dataset known; called before its first record."""

    def encode(self, records: MboArray, symbols: Symbols) -> Buffer:
        """Return records as they travel. DBN is a view of them, without a copy."""


class CsvFraming:
    """Lines as Databento writes them; every line carries its symbol, so no introduction is needed."""

    block_records = 4096

    def __init__(self) -> None:
        self._symbols: Symbols | None = None
        self._encoder = CsvEncoder({})

    def opening(self) -> bytes:
        return HEADER

    def introduction(self, venue_dataset: str, start_ns: int, symbols: Symbols) -> bytes:
        return b""

    def encode(self, records: MboArray, symbols: Symbols) -> Buffer:
        if symbols is not self._symbols:
            self._symbols, self._encoder = symbols, CsvEncoder(symbols)
        return self._encoder.encode(records)


class DbnFraming:
    """Records as they lie in memory."""

    block_records = (1 << 20) // MBO.itemsize

    def __init__(self) -> None:
        self._known: dict[int, str] | None = None

    def opening(self) -> bytes:
        return b""

    def introduction(self, venue_dataset: str, start_ns: int, symbols: Symbols) -> bytes:
        if self._known is None:
            self._known = dict(symbols)
            return encode_metadata(venue_dataset, start_ns, symbols)
        news = {id_: symbol for id_, symbol in symbols.items() if self._known.get(id_) != symbol}
        self._known |= news
        return b"".join(encode_mapping(id_, symbol, start_ns) for id_, symbol in news.items())

    def encode(self, records: MboArray, symbols: Symbols) -> Buffer:
        return records.view(np.uint8).data


def make_framing(name: FramingName) -> Framing:
    """Return the state of a new connection."""
    return CsvFraming() if name == "csv" else DbnFraming()


def clear_record(key: BookKey, ts_event: int, ts_recv: int, sequence: int = 0, flags: int = Flags.LAST) -> MboArray:
    """Return one R record: everything that rests in this book goes."""
    record = np.zeros(1, MBO)
    record["length"], record["rtype"] = MBO_LENGTH, MBO_RTYPE
    record["publisher_id"], record["instrument_id"] = key
    record["ts_event"], record["ts_recv"], record["sequence"] = ts_event, ts_recv, sequence
    record["price"], record["channel_id"] = UNDEF_PRICE, UNDEF_CHANNEL
    record["action"], record["side"], record["flags"] = Action.CLEAR, Side.NONE, flags
    return record
