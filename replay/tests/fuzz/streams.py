"""Streams of bytes that become records: DBN's metadata, DBN and CSV, in any pieces."""

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, UNDEF_TIMESTAMP, MboArray
from replay.feed.csv_codec import HEADER, CsvStreamDecoder, encode_csv, parse_header
from replay.feed.dbn_codec import DbnStreamDecoder
from replay.feed.dbn_metadata import PREFIX_BYTES, decode_metadata, encode_metadata, metadata_size
from replay.feed.stream import BUFFER_BYTES, MIN_BUFFER_BYTES, FeedError, StreamDecoder
from replay.tests.fuzz import csv_oracle
from replay.tests.fuzz.books import both_books_agree
from replay.tests.fuzz.mutations import split_plan

_READ_BYTES: Final = 1 << 16


class Outcome(NamedTuple):
    """What a decoder made of a stream. ``found`` of an error may show more or less of the same bytes."""

    records: bytes
    error: tuple[str, str] | None
    symbols: dict[int, str]
    rejected: dict[str, int]

    @property
    def array(self) -> MboArray:
        return np.frombuffer(self.records, MBO)


def drive(decoder: StreamDecoder, stream: bytes, sizes: Sequence[int] = (0,), bound: int = MIN_BUFFER_BYTES) -> Outcome:
    """Push a stream through a decoder in pieces of these sizes, again and again; 0 takes as much as there is room."""
    parts: list[bytes] = []
    error = None
    done = 0
    pieces = itertools.cycle(sizes)
    try:
        while done < len(stream):
            space = decoder.space()
            assert 0 < len(space) <= bound, f"room for {len(space)} bytes, the bound is {bound}"
            n = min(next(pieces) or len(stream), len(space), len(stream) - done)
            space[:n] = stream[done : done + n]
            records = decoder.received(n)
            assert records.flags.writeable and records.ctypes.data % 8 == 0
            assert (records["length"] == MBO_LENGTH).all() and (records["rtype"] == MBO_RTYPE).all()
            parts.append(records.tobytes())
            done += n
        decoder.finish()
    except FeedError as caught:
        error = caught.where, caught.expected
    return Outcome(b"".join(parts), error, decoder.symbols, decoder.rejected)


def agree(whole: Outcome, pieces: Outcome) -> None:
    """Pieces change nothing; only how many records came out before an error depends on them."""
    assert whole.error == pieces.error, f"{whole.error} as a whole, {pieces.error} in pieces"
    if whole.error is None:
        assert whole == pieces, f"{whole} as a whole, {pieces} in pieces"
    shorter = min(len(whole.records), len(pieces.records))
    assert whole.records[:shorter] == pieces.records[:shorter]


def fuzz_metadata(data: bytes) -> None:
    """DBN's metadata, with a length that is always right; the other targets see wrong ones."""
    if len(data) < PREFIX_BYTES:
        return
    data = data[:4] + (len(data) - PREFIX_BYTES).to_bytes(4, "little") + data[PREFIX_BYTES:]
    try:
        assert metadata_size(data[:PREFIX_BYTES]) == len(data)
        header = decode_metadata(data)
    except FeedError:
        return
    again = decode_metadata(encode_metadata(header.venue_dataset, 0, header.symbols))
    assert (again.venue_dataset, again.symbols) == (header.venue_dataset, header.symbols)


def fuzz_dbn(data: bytes) -> None:
    """A DBN stream of any records, in any pieces."""
    sizes, stream = split_plan(data)
    whole = drive(DbnStreamDecoder(_READ_BYTES), stream, bound=dbn_bound(stream, _READ_BYTES))
    pieces = drive(DbnStreamDecoder(MIN_BUFFER_BYTES), stream, sizes, bound=dbn_bound(stream, MIN_BUFFER_BYTES))
    agree(whole, pieces)
    assert len(whole.records) <= len(stream)
    if whole.error is None:
        again = drive(
            DbnStreamDecoder(), encode_metadata("X", 0, whole.symbols) + whole.records, bound=2 * BUFFER_BYTES
        )
        assert again == whole._replace(symbols=dict(sorted(whole.symbols.items())), rejected={})
    both_books_agree(whole.array)


def dbn_bound(stream: bytes, buffer_bytes: int) -> int:
    """A decoder's buffer holds the metadata that the stream announces, if that is allowed, and is never larger."""
    try:
        announced = metadata_size(stream[:PREFIX_BYTES]) if len(stream) >= PREFIX_BYTES else 0
    except FeedError:
        announced = 0
    return max(buffer_bytes, announced + 7)


def fuzz_csv(data: bytes) -> None:
    """A CSV stream in any pieces, strict and tolerant, against the slow reading of the same lines."""
    sizes, stream = split_plan(data)
    tolerant, strict = (drive(CsvStreamDecoder(MIN_BUFFER_BYTES, strict=strict), stream) for strict in (False, True))
    agree(tolerant, drive(CsvStreamDecoder(MIN_BUFFER_BYTES), stream, sizes))
    agree(strict, drive(CsvStreamDecoder(MIN_BUFFER_BYTES, strict=True), stream, sizes))
    if strict.error is None:
        assert strict == tolerant and not tolerant.rejected, f"{strict} when strict, {tolerant} when not"
    else:
        assert tolerant.error == strict.error or tolerant.rejected, f"{strict.error} when strict, nothing when not"
    _agree_with_oracle(tolerant, stream)
    if tolerant.error is None:
        _comes_back(tolerant)


def _agree_with_oracle(outcome: Outcome, stream: bytes) -> None:
    header, *lines = stream.split(b"\n")
    try:
        parse_header(header)
    except FeedError:
        assert outcome.error is not None and not outcome.records
        return
    columns = header.removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf").decode().split(",")
    # The last piece is no line yet, and a line that no buffer holds ends it.
    fits = itertools.takewhile(lambda line: len(line) < MIN_BUFFER_BYTES, lines[:-1])
    reading = csv_oracle.read(columns, list(fits))
    if outcome.error is None:
        assert outcome.records == reading.records.tobytes(), f"{outcome.array} decoded, {reading.records} expected"
        assert outcome.symbols == reading.symbols
        assert sum(outcome.rejected.values()) == reading.rejected
    else:
        assert reading.records.tobytes().startswith(outcome.records)


def _comes_back(outcome: Outcome) -> None:
    """What was decoded is decoded again from what it is encoded to; the vendor writes a time of 0 as none."""
    records = outcome.array.copy()
    for name in ("ts_event", "ts_recv"):
        records[name][records[name] == 0] = UNDEF_TIMESTAMP
    again = drive(CsvStreamDecoder(strict=True), HEADER + encode_csv(records, outcome.symbols), bound=2 * BUFFER_BYTES)
    assert (again.error, again.records) == (None, records.tobytes())
    present = {int(id_) for id_ in records["instrument_id"]}
    assert again.symbols == {id_: symbol for id_, symbol in outcome.symbols.items() if id_ in present}
