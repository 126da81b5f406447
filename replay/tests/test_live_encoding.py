"""What goes out on the live port in every form, against the vendor's own library."""

import io
import json

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

from orderbook.book.mbo import MBO
from replay.feed import live_records
from replay.feed.cram import Response
from replay.feed.csv_codec import CsvStreamDecoder
from replay.feed.dbn_codec import DbnStreamDecoder
from replay.feed.dbn_metadata import encode_live_metadata
from replay.feed.derived import DTYPES
from replay.feed.live_encoding import PORTION_BYTES, LiveEncoder
from replay.feed.live_merging import Part
from replay.feed.live_messages import SCHEMAS, AuthRequest, Compression, Encoding
from replay.feed.live_symbology import Resolved
from replay.tests.feeds import edge_records, push, random_records
from replay.tests.test_csv_codec import vendor_csv

NOW = 1_758_742_200_000_000_000
RECORDS = np.concatenate([edge_records(), random_records(2, 200)])
ACK = live_records.system_message(NOW, live_records.SUBSCRIPTION_ACK, 'it "worked", well')
MAPPING = live_records.symbol_mapping(NOW, Resolved(432669, "CLX5", "CLX5"), "raw_symbol")
ERROR = live_records.error_message(NOW, live_records.INTERNAL_ERROR, "broken")


def encoder(
    encoding: Encoding = "dbn", compression: Compression = "none", *, ts_out: bool = False, pretty: bool = False
) -> LiveEncoder:
    return LiveEncoder(AuthRequest(Response("", ""), "GLBX.MDP3", encoding, compression, ts_out, pretty, pretty))


def stream(live: LiveEncoder) -> list[bytes]:
    """Return the pieces of a whole session."""
    return [
        bytes(live.opening("GLBX.MDP3", NOW)),
        bytes(live.messages([ACK, MAPPING], NOW + 1)),
        bytes(live.records(RECORDS[:100], "mbo", NOW + 2)),
        bytes(live.messages([ERROR], NOW + 3)),
        bytes(live.records(RECORDS[100:], "mbo", NOW + 4)),
        bytes(live.closing()),
    ]


def test_plain_dbn_is_metadata_and_the_records_as_they_lie_in_memory() -> None:
    records = [RECORDS[:100].tobytes(), ERROR, RECORDS[100:].tobytes()]
    assert b"".join(stream(encoder())) == encode_live_metadata("GLBX.MDP3", NOW) + ACK + MAPPING + b"".join(records)
    view = encoder().records(RECORDS, "mbo", NOW)
    assert isinstance(view, memoryview) and np.shares_memory(np.frombuffer(view, np.uint8), RECORDS)


def test_ts_out_stands_behind_every_record_with_its_time_of_sending() -> None:
    decoder = dbn.DBNDecoder()
    metadata, *records = decoder.write_and_decode(b"".join(stream(encoder(ts_out=True))))
    assert metadata.ts_out
    assert [record.ts_out - NOW for record in records] == [1, 1, *[2] * 100, 3, *[4] * (len(RECORDS) - 100)]
    mbo = [b"\x0e" + bytes(record)[1:56] for record in records if isinstance(record, dbn.MBOMsg)]
    assert b"".join(mbo) == RECORDS.tobytes()


@pytest.mark.parametrize("encoding", ["dbn", "json", "csv"])
def test_zstd_is_one_stream_whose_every_piece_can_be_read_when_it_arrives(encoding: Encoding) -> None:
    plain, packed = stream(encoder(encoding)), stream(encoder(encoding, "zstd"))
    unpacking = zstandard.ZstdDecompressor().decompressobj()
    assert [unpacking.decompress(piece) for piece in packed] == plain
    assert unpacking.eof and not unpacking.unused_data
    assert sum(map(len, packed)) < sum(map(len, plain))


def test_the_vendors_decoder_reads_our_zstd() -> None:
    decoder = dbn.DBNDecoder(compression=dbn.Compression("zstd"))
    read = [record for piece in stream(encoder(compression="zstd")) for record in decoder.write_and_decode(piece)]
    assert b"".join(bytes(record) for record in read if isinstance(record, dbn.MBOMsg)) == RECORDS.tobytes()


@pytest.mark.parametrize("pretty", [False, True])
def test_json_is_an_object_a_line_as_the_vendor_writes_it(pretty: bool) -> None:
    lines = b"".join(stream(encoder("json", pretty=pretty))).splitlines()
    out = io.BytesIO()
    writer = dbn.Transcoder(
        out,
        dbn.Encoding("json"),
        dbn.Compression("none"),
        pretty_px=pretty,
        pretty_ts=pretty,
        map_symbols=False,
        has_metadata=False,
        input_version=3,
    )
    writer.write(RECORDS.tobytes())
    writer.finish()
    assert lines[2:102] + lines[103:] == out.getvalue().splitlines()
    ack, mapping, error = (json.loads(lines[index]) for index in (0, 1, 102))
    assert (ack["hd"]["rtype"], ack["msg"], ack["code"]) == (23, 'it "worked", well', 1)
    assert (mapping["hd"]["instrument_id"], mapping["stype_out_symbol"]) == (432669, "CLX5")
    assert (error["hd"]["rtype"], error["err"], error["code"]) == (21, "broken", 6)


def test_json_shows_64_bits_as_text_and_an_undefined_price_as_null() -> None:
    record = RECORDS[4:5]  # its price is undefined
    [pretty, raw] = (
        json.loads(bytes(encoder("json", pretty=form).records(record, "mbo", NOW))) for form in (True, False)
    )
    assert pretty["price"] is None and raw["price"] == "9223372036854775807"
    assert pretty["hd"]["ts_event"].endswith("Z") and raw["hd"]["ts_event"] == str(record["ts_event"][0])
    assert pretty["order_id"] == str(record["order_id"][0]) and "symbol" not in pretty


def test_json_tells_the_time_of_sending_when_it_is_wanted() -> None:
    line = json.loads(bytes(encoder("json", ts_out=True).records(RECORDS[:1], "mbo", NOW + 9)))
    assert line["ts_out"] == str(NOW + 9)


@pytest.mark.parametrize("pretty", [False, True])
def test_csv_has_the_vendors_columns_and_a_header_before_each_kind_of_line(pretty: bool) -> None:
    lines = b"".join(stream(encoder("csv", pretty=pretty))).splitlines()
    expected = vendor_csv(RECORDS, pretty=pretty, symbol=False).splitlines()
    time = b"2025-09-24T19:30:00.000000000Z" if pretty else str(NOW).encode()
    assert lines[0] == b"ts_event,rtype,publisher_id,instrument_id,msg,code"
    assert lines[1] == time + b',23,0,0,"it ""worked"", well",1'
    assert lines[2] == (
        b"ts_event,rtype,publisher_id,instrument_id,stype_in,stype_in_symbol,stype_out,stype_out_symbol,start_ts,end_ts"
    )
    assert lines[3].startswith(time + b",22,0,432669,1,CLX5,1,CLX5,")
    assert lines[4:105] == expected[:101]
    assert lines[105:107] == [
        b"ts_event,rtype,publisher_id,instrument_id,err,code,is_last",
        time + b",21,0,0,broken,6,1",
    ]
    assert lines[107:] == expected[:1] + expected[101:]


def test_csv_of_one_schema_has_one_header_and_our_decoder_reads_it() -> None:
    live = encoder("csv", pretty=True)
    data = b"".join(
        bytes(live.records(RECORDS[begin : begin + 50], "mbo", NOW)) for begin in range(0, len(RECORDS), 50)
    )
    assert data.count(b"ts_recv") == 1
    readable = RECORDS.copy()
    assert (push(CsvStreamDecoder(strict=True), data) == readable).all()


def test_csv_of_several_messages_of_one_kind_has_one_header() -> None:
    lines = bytes(encoder("csv").messages([ACK, ACK, ERROR], NOW)).splitlines()
    assert [line.partition(b",")[0] == b"ts_event" for line in lines] == [True, False, False, True, False]


def test_a_client_that_wants_no_records_gets_none() -> None:
    for encoding in ("dbn", "json"):
        live = encoder(encoding)  # type: ignore[arg-type]
        assert not len(live.messages([], NOW)) and not len(live.records(np.empty(0, MBO), "mbo", NOW))


def test_our_decoder_reads_our_stream() -> None:
    decoder = DbnStreamDecoder()
    assert (push(decoder, b"".join(stream(encoder())), [1, 100, 130, 200]) == RECORDS).all()
    decoder.finish()
    assert decoder.symbols == {432669: "CLX5"} and not decoder.rejected
    assert [(notice.code, notice.text) for notice in decoder.notices] == [(1, 'it "worked", well'), (6, "broken")]


@pytest.mark.parametrize("ts_out", [False, True])
@pytest.mark.parametrize("schemas", [SCHEMAS, ["mbo"], ["bbo-1s"]])
def test_what_goes_out_at_once_is_bounded_however_many_rows_one_place_has(schemas: list[str], ts_out: bool) -> None:
    parts = []
    for schema in schemas:
        kind = MBO if schema == "mbo" else DTYPES[schema]
        rows = np.zeros(30_000, kind)
        rows["length"] = kind.itemsize // 4
        parts.append(Part(schema, np.arange(len(rows)) // 10_000, rows))
    live = encoder(ts_out=ts_out)
    pieces = [len(piece) for piece in live.parts(parts, NOW)]
    assert sum(pieces) == 30_000 * sum(live.row_bytes(schema) for schema in schemas)
    assert max(pieces) <= PORTION_BYTES and min(pieces[:-1]) > PORTION_BYTES * 0.8
