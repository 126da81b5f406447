"""DBN: metadata of all versions, and streams in any pieces and mixtures."""

import datetime as dt
from dataclasses import dataclass

import databento_dbn as dbn
import numpy as np
import pytest
from hypothesis import given, settings

from orderbook.book.mbo import MBO, MboArray
from replay.feed.dbn_codec import DbnStreamDecoder
from replay.feed.dbn_metadata import decode_metadata, encode_mapping, encode_metadata
from replay.feed.stream import FeedError
from replay.tests.feeds import SYMBOLS, edge_records, pieces, push, random_records

START = 1_758_742_200_000_000_000
HEAD = encode_metadata("GLBX.MDP3", START, SYMBOLS)
RECORDS = random_records(1, 40)


@dataclass
class Interval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass
class Mapping:
    raw_symbol: str
    intervals: list[Interval]


def metadata(
    version: int, *, ts_out: bool = False, schema: str | None = "mbo", stype_in: str = "raw_symbol", mapped: bool = True
) -> bytes:
    raw, other = ("CLX5", "432669") if stype_in == "raw_symbol" else ("432669", "CLX5")
    day = dt.date(2025, 9, 24)
    return dbn.Metadata(
        dataset="GLBX.MDP3",
        start=START,
        stype_in=dbn.SType(stype_in),
        stype_out=dbn.SType("instrument_id" if stype_in == "raw_symbol" else "raw_symbol"),
        schema=None if schema is None else dbn.Schema(schema),
        symbols=[raw],
        mappings=[Mapping(raw, [Interval(day, day + dt.timedelta(1), other)])] if mapped else [],
        ts_out=ts_out,
        version=version,
    ).encode()


def with_ts_out(records: MboArray) -> bytes:
    data = np.zeros((len(records), 64), np.uint8)
    data[:, :56] = records.view(np.uint8).reshape(-1, 56)
    data[:, 0] = 16
    return data.tobytes()


def system(text: str, code: dbn.SystemCode | None = None) -> bytes:
    return bytes(dbn.SystemMsg(START, text, code=code))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_metadata_of_every_version_is_read_and_gives_aligned_records(version: int) -> None:
    head = metadata(version)
    decoder = DbnStreamDecoder()
    assert (push(decoder, head + RECORDS.tobytes(), [len(head) + 100]) == RECORDS).all()
    decoder.finish()
    assert decoder.symbols == {432669: "CLX5"}
    assert decoder.header is not None and decoder.header[:3] == (version, "GLBX.MDP3", "mbo")


def test_mappings_asked_for_by_instrument_id_are_read_the_other_way_round() -> None:
    assert decode_metadata(metadata(3, stype_in="instrument_id")).symbols == {432669: "CLX5"}


def test_our_metadata_keeps_records_on_8_bytes_and_is_what_the_vendor_reads() -> None:
    assert len(HEAD) % 8 == 0
    read = dbn.Metadata.decode(HEAD)
    assert (read.version, read.dataset, str(read.schema), read.start) == (3, "GLBX.MDP3", "mbo", START)
    assert set(read.mappings) == set(SYMBOLS.values())
    assert decode_metadata(HEAD).symbols == SYMBOLS


def test_two_instruments_may_share_a_symbol() -> None:
    assert decode_metadata(encode_metadata("X", 0, {1: "CL", 2: "CL"})).symbols == {1: "CL", 2: "CL"}


def test_metadata_that_ends_where_the_vendors_reader_panics_is_refused() -> None:
    for size in range(108, 112):
        cut = metadata(3)[:4] + (size - 8).to_bytes(4, "little") + metadata(3)[8:size]
        with pytest.raises(FeedError, match=rf"bytes 8 to {size}: expected DBN metadata, found mid > len"):
            decode_metadata(cut)


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        (b"GLBX.MDP3\0\0", b"GLBX.MDP3\0X"),
        (b"GLBX.MDP3" + bytes(7), b"GLBX.MDP3ABCDEFG"),
        (b"CLX5\0\0", b"CL\0X5\0"),
        (b"CLX5\0\0", b"CL\nX5\0"),
        (b"CLX5\0\0", "CLÄ5".encode() + b"\0"),
        (b"CLX5" + bytes(67), b"S" * 71),
    ],
)
def test_a_name_that_could_not_be_written_again_is_refused(name: bytes, damaged: bytes) -> None:
    data = metadata(3).replace(name, damaged)
    assert data != metadata(3)
    with pytest.raises(
        FeedError, match="found '.*' where a name of at most (15|70) printable ASCII characters belongs"
    ):
        decode_metadata(data)


def test_a_number_that_no_instrument_has_names_none() -> None:
    assert decode_metadata(metadata(3).replace(b"432669" + bytes(65), b"4" * 71)).symbols == {}


@pytest.mark.parametrize("damaged", [b"CL\xff5", b"CL\0X", "CÄ5".encode(), b"\x1b[2J"])
def test_a_mapping_to_a_symbol_that_cannot_be_shown_is_refused(damaged: bytes) -> None:
    data = HEAD + RECORDS.tobytes() + encode_mapping(432669, "CLX5", START).replace(b"CLX5", damaged)
    decoder = DbnStreamDecoder()
    assert len(push(decoder, data)) == 40
    with pytest.raises(FeedError, match=f"byte {len(HEAD) + 40 * 56}: expected a mapping to a printable symbol"):
        decoder.finish()


@pytest.mark.parametrize(("dataset", "symbol"), [("X", ""), ("X", "S" * 71), ("D" * 17, "CLX5")])
def test_names_that_do_not_fit_are_refused(dataset: str, symbol: str) -> None:
    with pytest.raises(ValueError, match="expected a symbol|cannot be encoded"):
        encode_metadata(dataset, START, {1: symbol})


def test_records_are_views_of_the_receive_buffer_while_only_mbo_arrives() -> None:
    decoder = DbnStreamDecoder()
    space = decoder.space()
    data = HEAD + RECORDS.tobytes()
    space[: len(data)] = data
    records = decoder.received(len(data))
    assert np.shares_memory(records, np.frombuffer(space, np.uint8))


@settings(max_examples=60, deadline=None)
@given(pieces)
def test_any_split_of_a_mixed_stream_gives_the_same_records(sizes: list[int]) -> None:
    first, rest = RECORDS[:7], RECORDS[7:]
    stream = b"".join(
        [
            metadata(2, schema=None, mapped=False),
            system("ack", dbn.SystemCode.SUBSCRIPTION_ACK),
            encode_mapping(432669, "CLX5", START),
            first.tobytes(),
            with_ts_out(rest[:5]),
            bytes(dbn.ErrorMsg(START, "slow", code=dbn.ErrorCode.INTERNAL_ERROR)),
            encode_mapping(7001, "ESZ5", START),
            rest[5:].tobytes(),
        ]
    )
    decoder = DbnStreamDecoder(4096)
    assert (push(decoder, stream, sizes) == RECORDS).all()
    decoder.finish()
    assert decoder.symbols == SYMBOLS
    assert [(notice.is_error, notice.text) for notice in decoder.notices] == [(False, "ack"), (True, "slow")]
    assert decoder.rejected == {}


def test_ts_out_is_taken_off_every_record_and_every_message() -> None:
    mapping = bytearray(encode_mapping(432669, "CLX5", START) + bytes(8))
    mapping[0] += 2
    decoder = DbnStreamDecoder()
    assert (push(decoder, metadata(3, ts_out=True, mapped=False) + mapping + with_ts_out(RECORDS)) == RECORDS).all()
    assert decoder.symbols == {432669: "CLX5"}


def test_messages_of_version_1_are_shorter_and_understood() -> None:
    message = dbn.SystemMsgV1(START, "old heartbeat")
    decoder = DbnStreamDecoder()
    assert (push(decoder, metadata(1) + bytes(message) + RECORDS.tobytes()) == RECORDS).all()
    assert decoder.notices[0].text == "old heartbeat"


def test_records_of_other_schemas_are_counted_and_left_out() -> None:
    other = np.zeros(48, np.uint8)
    other[0], other[1] = 12, 0
    decoder = DbnStreamDecoder()
    data = metadata(3, schema=None) + other.tobytes() * 3 + RECORDS.tobytes() + other.tobytes()
    assert (push(decoder, data) == RECORDS).all()
    assert decoder.rejected == {"rtype 0": 4}


def test_records_and_messages_that_alternate_cost_no_more_than_their_number() -> None:
    message = encode_mapping(432669, "CLX5", START)
    data = HEAD + b"".join(RECORDS[n % 40 : n % 40 + 1].tobytes() + message for n in range(8000))
    assert len(push(DbnStreamDecoder(), data)) == 8000


def test_only_the_last_notices_are_kept_and_all_are_counted() -> None:
    decoder = DbnStreamDecoder()
    push(decoder, HEAD + b"".join(system(f"message {n}") for n in range(150)))
    assert (len(decoder.notices), decoder.notice_count) == (100, 150)
    assert decoder.notices[-1].text == "message 149"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 200", r"byte 0: expected b'DBN', found 'HTTP/1\.1'"),
        (b"H", "byte 0: expected b'DBN', found 'H'"),
        (b"DBN\x09" + bytes(8), "byte 3: expected DBN version 1, 2 or 3, found 9"),
        (b"DBN\x03\xff\xff\xff\xff", "byte 4: expected metadata of at most 67108864 bytes, found 4294967303 bytes"),
        (b"DBN\x03\x08\x00\x00\x00" + bytes(8), "bytes 8 to 16: expected DBN metadata, found .*length"),
        (HEAD + b"\x00\xa0", f"byte {len(HEAD)}: expected an MBO record of length 14 or 16, found length 0"),
        (HEAD + b"\x0e\x63", f"byte {len(HEAD)}: expected a DBN record, found rtype 99 with length 14"),
        (HEAD + b"\x03\x01", f"byte {len(HEAD)}: expected a DBN record, found rtype 1 with length 3"),
        (HEAD + RECORDS.tobytes() + b"\x0f\xa0", f"byte {len(HEAD) + 40 * 56}: expected an MBO record"),
    ],
)
def test_garbage_is_refused_with_the_byte_what_was_expected_and_what_was_found(data: bytes, message: str) -> None:
    decoder = DbnStreamDecoder()
    with pytest.raises(FeedError, match=message):
        push(decoder, data)
        decoder.finish()


@pytest.mark.parametrize("size", [50, 1000, 1 << 16])
def test_whole_records_come_out_before_the_fault_behind_them_however_they_arrive(size: int) -> None:
    data, decoder, found = HEAD + RECORDS.tobytes() + b"garbage", DbnStreamDecoder(), b""
    with pytest.raises(FeedError, match=f"byte {len(HEAD) + 40 * 56}: expected a DBN record, found rtype 97"):
        for begin in range(0, len(data), size):
            found += push(decoder, data[begin : begin + size]).tobytes()
        decoder.finish()
    assert found == RECORDS.tobytes()


@pytest.mark.parametrize("cut", [0, 3, 7, 8, 100, len(HEAD) - 1])
def test_a_stream_that_ends_inside_its_metadata_is_refused(cut: int) -> None:
    decoder = DbnStreamDecoder()
    push(decoder, HEAD[:cut])
    with pytest.raises(FeedError, match=f"byte {cut}: expected the rest of the DBN metadata"):
        decoder.finish()


def test_a_stream_that_ends_inside_a_record_is_refused() -> None:
    decoder = DbnStreamDecoder()
    assert len(push(decoder, HEAD + RECORDS.tobytes()[:-20])) == 39
    with pytest.raises(FeedError, match=rf"byte {len(HEAD) + 39 * 56}: expected a record of 56 bytes, .* after 36"):
        decoder.finish()


def test_metadata_larger_than_the_buffer_is_read_and_the_buffer_stays_bounded() -> None:
    symbols = {n: f"SYMBOL{n}" for n in range(1000)}
    decoder = DbnStreamDecoder(4096)
    assert (push(decoder, encode_metadata("X", START, symbols) + RECORDS.tobytes()) == RECORDS).all()
    assert decoder.symbols == symbols
    assert len(decoder.space()) < 400_000


def test_a_flipped_byte_anywhere_gives_records_or_the_declared_error() -> None:
    data = bytearray(HEAD + edge_records().tobytes())
    failed = 0
    for offset in range(len(data)):
        for flip in (0xFF, 0x01):
            data[offset] ^= flip
            decoder = DbnStreamDecoder(4096)
            try:
                push(decoder, bytes(data))
                decoder.finish()
            except FeedError:
                failed += 1
            data[offset] ^= flip
    assert 0 < failed < 2 * len(data)


def test_the_layout_is_the_vendors() -> None:
    vendor = np.dtype(dbn.MBOMsg._dtypes)
    assert vendor.itemsize == MBO.itemsize == 56
    assert vendor.names == MBO.names
    assert [vendor.fields[name][1] for name in vendor.names] == [MBO.fields[name][1] for name in MBO.names]
