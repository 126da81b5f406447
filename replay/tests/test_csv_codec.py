"""Databento's CSV: byte for byte what the vendor writes, and exact or refused when read."""

import io

import databento_dbn as dbn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.book import mbo
from orderbook.book.mbo import MBO, UNDEF_PRICE, UNDEF_TIMESTAMP, MboArray
from replay.feed import csv_kernel
from replay.feed.csv_codec import COLUMNS, HEADER, CsvEncoder, CsvStreamDecoder, encode_csv
from replay.feed.dbn_metadata import encode_metadata
from replay.feed.stream import FeedError
from replay.tests.feeds import SYMBOLS, edge_records, pieces, push, random_records

LINE = {
    "ts_recv": "2025-09-24T19:30:00.001385399Z",
    "ts_event": "1758742200000860311",
    "rtype": "160",
    "publisher_id": "1",
    "instrument_id": "432669",
    "action": "A",
    "side": "B",
    "price": "64.830000000",
    "size": "1",
    "channel_id": "26",
    "order_id": "8058566314544",
    "flags": "128",
    "ts_in_delta": "17528",
    "sequence": "94225061",
    "symbol": "CLX5",
}


def line(**changes: str) -> bytes:
    return ",".join({**LINE, **changes}.values()).encode() + b"\n"


def read(data: bytes) -> MboArray:
    decoder = CsvStreamDecoder(strict=True)
    records = push(decoder, data)
    decoder.finish()
    return records


def value_of(column: str, text: str) -> int:
    return int(read(HEADER + line(**{column: text}))[0][column])


def vendor_csv(records: MboArray, *, pretty: bool, symbol: bool) -> bytes:
    out = io.BytesIO()
    transcoder = dbn.Transcoder(
        out,
        dbn.Encoding.CSV,
        dbn.Compression.NONE,
        pretty_px=pretty,
        pretty_ts=pretty,
        map_symbols=symbol,
    )
    start = int(records["ts_recv"].min())
    transcoder.write(encode_metadata("GLBX.MDP3", start, SYMBOLS) + records.tobytes())
    transcoder.finish()
    return out.getvalue()


@pytest.mark.parametrize("records", [random_records(3, 500), edge_records()], ids=["random", "edges"])
def test_lines_are_the_vendors_byte_for_byte(records: MboArray) -> None:
    # The vendor names an instrument by the day of ts_recv: one without has no symbol there.
    records = records[records["ts_recv"] != UNDEF_TIMESTAMP]
    records = records[records["ts_recv"] > 10**18]
    assert HEADER + encode_csv(records, SYMBOLS) == vendor_csv(records, pretty=True, symbol=True)


@pytest.mark.parametrize("pretty", [True, False])
@pytest.mark.parametrize("symbol", [True, False])
def test_every_form_of_the_vendor_is_read_exactly(pretty: bool, symbol: bool) -> None:
    records = np.concatenate([edge_records(), random_records(5, 300)])
    decoder = CsvStreamDecoder(strict=True)
    assert (push(decoder, vendor_csv(records, pretty=pretty, symbol=symbol)) == records).all()
    assert decoder.symbols == (SYMBOLS if symbol else {})
    assert decoder.lines == len(records) + 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 2**63),
            st.integers(0, 2**64 - 1),
            st.integers(-(2**63) + 1, 2**63 - 1),
            st.integers(-(2**31), 2**31 - 1),
        ),
        max_size=20,
    )
)
def test_any_record_comes_back_as_it_went(rows: list[tuple[int, int, int, int]]) -> None:
    records = random_records(9, len(rows))
    for record, (ts, order_id, price, delta) in zip(records, rows, strict=True):
        record["ts_event"], record["order_id"], record["price"], record["ts_in_delta"] = ts, order_id, price, delta
    assert (read(HEADER + encode_csv(records, SYMBOLS)) == records).all()


@settings(max_examples=60, deadline=None)
@given(pieces)
def test_any_split_of_a_stream_gives_the_same_records(sizes: list[int]) -> None:
    records = edge_records()
    lines = encode_csv(records, SYMBOLS)
    decoder = CsvStreamDecoder(4096)
    assert (push(decoder, HEADER + lines + b"junk\n" + lines, sizes) == np.concatenate([records, records])).all()
    decoder.finish()
    assert decoder.rejected == {"bad value": 1}
    assert decoder.symbols == SYMBOLS


def test_columns_may_come_in_any_order_and_lines_may_end_as_on_windows() -> None:
    rng = np.random.default_rng(4)
    records = random_records(11, 50)
    rows = [row.split(b",") for row in encode_csv(records, SYMBOLS).splitlines()]
    order = rng.permutation(len(COLUMNS))
    names = [COLUMNS[n].encode() for n in order]
    data = b"".join(b",".join(row) + b"\r\n" for row in [names, *([row[n] for n in order] for row in rows)])
    assert (read(data) == records).all()


def test_an_unknown_instrument_has_an_empty_symbol() -> None:
    records = random_records(1, 1)
    assert encode_csv(records, {}).endswith(b",\n")


def test_read_only_records_can_be_encoded() -> None:
    records = random_records(1, 3)
    frozen = np.frombuffer(records.tobytes(), MBO)
    assert CsvEncoder(SYMBOLS).encode(frozen) == encode_csv(records, SYMBOLS)


def test_more_symbols_than_the_table_first_holds_are_all_kept() -> None:
    symbols = {n: f"SYM{n}" for n in range(1, 5001)}
    records = np.repeat(random_records(1, 1), 5000)
    records["instrument_id"] = list(symbols)
    decoder = CsvStreamDecoder(strict=True)
    assert (push(decoder, HEADER + encode_csv(records, symbols)) == records).all()
    assert decoder.symbols == symbols


def test_a_symbol_that_changes_is_noticed() -> None:
    decoder = CsvStreamDecoder()
    push(decoder, HEADER + line() + line(symbol="CLZ5"))
    assert decoder.symbols == {432669: "CLZ5"}


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("", UNDEF_PRICE),
        ("64.83", 64_830_000_000),
        ("-37.63", -37_630_000_000),
        ("-0.000000001", -1),
        ("0.0067125", 6_712_500),
        ("64830000000", 64_830_000_000),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036.854775808", -(2**63)),
        ("9223372036854775807", UNDEF_PRICE),
        ("9223372036.854775806", UNDEF_PRICE - 1),
    ],
)
def test_prices_are_exact(text: str, price: int) -> None:
    assert value_of("price", text) == price


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("", UNDEF_TIMESTAMP),
        ("0", 0),
        ("18446744073709551615", UNDEF_TIMESTAMP),
        ("1970-01-01T00:00:00Z", 0),
        ("2025-09-24T19:30:00.001385399Z", 1_758_742_200_001_385_399),
        ("2025-09-24 19:30:00.001385399+00:00", 1_758_742_200_001_385_399),
        ("2025-09-24T19:30:00.5Z", 1_758_742_200_500_000_000),
        ("2024-02-29T23:59:59.999999999Z", 1_709_251_199_999_999_999),
        ("2100-02-28T00:00:00Z", 4_107_456_000_000_000_000),
    ],
)
def test_times_are_exact(text: str, ns: int) -> None:
    assert value_of("ts_recv", text) == ns


def test_dates_are_written_and_read_as_the_calendar_says() -> None:
    days = np.arange(0, 584 * 365, 13)
    records = np.repeat(random_records(1, 1), len(days))
    records["ts_recv"] = (days.astype(np.uint64) * np.uint64(86_400) + np.uint64(1)) * np.uint64(10**9)
    lines = encode_csv(records, {})
    written = [row.split(b",")[0].decode() for row in lines.splitlines()]
    expected = np.datetime64(0, "s") + (days * 86_400 + 1).astype("m8[s]")
    assert written == [f"{second}.000000000Z" for second in expected.astype(str)]
    assert (read(HEADER + lines) == records).all()


BAD = [
    *[("price", text) for text in ("64.", ".5", "6a", "1e3", "--1", "-", "1.0000000001", " 1", "1 ", "+1", "nan")],
    *[("price", text) for text in ("9223372036854775808", "9223372036.854775808", "-9223372036854775809")],
    *[("ts_recv", text) for text in ("x", "2025-13-01T00:00:00Z", "2025-02-29T00:00:00Z", "2025-09-24T24:00:00Z")],
    *[
        ("ts_recv", text)
        for text in ("2025-09-24T19:30:00", "2025-09-24T19:30:00.Z", "2025-09-24T19:30:00.1234567890Z")
    ],
    *[
        ("ts_recv", text)
        for text in ("2025-09-24T19:30:00+02:00", "-1", "18446744073709551616", "2554-07-21T23:34:33.8Z")
    ],
    *[
        ("ts_event", text)
        for text in ("2025-09-24", "2025-09-24T19:30Z", "1969-12-31T23:59:59Z", "2025-09-24T19:3 :00Z")
    ],
    *[("rtype", text) for text in ("1", "", "256")],
    *[("action", text) for text in ("", "X", "AA", "65")],
    *[("side", text) for text in ("", "C", "b")],
    *[("size", text) for text in ("", "-1", "4294967296", "1.0")],
    *[("order_id", text) for text in ("", "18446744073709551616", "100000000000000000000", "-1")],
    *[("flags", "256"), ("channel_id", "256"), ("publisher_id", "65536"), ("instrument_id", "4294967296")],
    *[("ts_in_delta", "2147483648"), ("ts_in_delta", "-2147483649"), ("sequence", ""), ("sequence", "4294967296")],
    *[("symbol", "S" * 71), ("symbol", '"CL X5"'), ("symbol", "CL\x00")],
]


@pytest.mark.parametrize(("column", "text"), BAD)
def test_a_bad_value_stops_a_file_with_its_line_and_column(column: str, text: str) -> None:
    with pytest.raises(FeedError, match=rf"line 3, column {column}: expected .*, found ") as caught:
        read(HEADER + line() + line(**{column: text}) + line())
    assert repr(text)[:30].strip("'") in str(caught.value)


@pytest.mark.parametrize(("column", "text"), BAD)
def test_a_bad_value_in_a_stream_is_counted_and_the_next_line_is_read(column: str, text: str) -> None:
    decoder = CsvStreamDecoder()
    assert len(push(decoder, HEADER + line() + line(**{column: text}) + line())) == 2
    assert sum(decoder.rejected.values()) == 1


@pytest.mark.parametrize(
    ("bad", "message", "reason"),
    [
        (b"1,2,160\n", "line 2, column rtype: expected 15 columns, found 3", "missing column"),
        (b"\n", "line 2, column ts_recv: expected 15 columns, found 1", "missing column"),
        (line()[:-1] + b",9\n", "line 2, column symbol: expected 15 columns, found another one: '9'", "extra column"),
        (line()[:-5] + b"\r\n", "", ""),
        (line()[:-1] + b"\rX\n", "line 2, column symbol: expected at most 70", "bad value"),
    ],
)
def test_a_line_of_another_shape_is_a_fault(bad: bytes, message: str, reason: str) -> None:
    if not message:
        assert len(read(HEADER + bad)) == 1
        return
    with pytest.raises(FeedError, match=message):
        read(HEADER + bad)
    decoder = CsvStreamDecoder()
    assert len(push(decoder, HEADER + bad + line())) == 1
    assert decoder.rejected == {reason: 1}


def test_a_file_keeps_to_one_form_of_prices() -> None:
    with pytest.raises(FeedError, match="line 3, column price: expected a price in the form of the lines above"):
        read(HEADER + line(price="64.83") + line(price="65"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (HEADER.replace(b",price", b""), "line 1: expected column price, found a header without"),
        (HEADER.replace(b"price", b"size"), "line 1: expected column price"),
        (HEADER.replace(b"symbol", b"size"), "line 1: expected each column once"),
        (HEADER.replace(b"symbol", b"colour"), "line 1: expected the columns of an MBO file: .*, found 'colour'"),
        (b"x" * 1000, "line 1: expected a header line, found 'xxx"),
    ],
)
def test_a_header_without_the_columns_of_mbo_is_refused(header: bytes, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        push(CsvStreamDecoder(), header)


def test_a_header_that_is_too_long_is_the_same_fault_in_one_piece_and_in_many() -> None:
    for sizes in ([], [1] * 1000):
        with pytest.raises(FeedError, match="line 1: expected a header line, found 'xxx"):
            push(CsvStreamDecoder(), b"x" * 1000 + b"\n" + line(), sizes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: expected a header line, found the end of the stream"),
        (HEADER[:-1], "line 1: expected a header line"),
        (HEADER + line()[:-1], "line 2: expected a line end, found the end of the stream after '.*CLX5'"),
    ],
)
def test_a_cut_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        read(data)


def test_a_line_without_end_is_refused_within_the_bound_of_the_buffer() -> None:
    with pytest.raises(FeedError, match="line 2: expected a line end, found none within 4096 bytes"):
        push(CsvStreamDecoder(4096), HEADER + b"1" * 10_000)


def test_a_flipped_byte_anywhere_gives_records_or_the_declared_error() -> None:
    data = bytearray(HEADER + encode_csv(edge_records(), SYMBOLS))
    failed = 0
    for offset in range(len(data)):
        for flip in (0xFF, 0x01, 0x26):
            data[offset] ^= flip
            try:
                read(bytes(data))
            except FeedError:
                failed += 1
            decoder = CsvStreamDecoder(4096)
            if offset >= len(HEADER):
                kept = push(decoder, bytes(data))
                left_out = sum(decoder.rejected.values())
                assert len(kept) + left_out >= len(edge_records()) - 1
            data[offset] ^= flip
    assert failed > len(data)


def test_the_codes_of_the_kernel_are_the_public_ones() -> None:
    assert (csv_kernel.MBO_LENGTH, csv_kernel.MBO_RTYPE) == (mbo.MBO_LENGTH, mbo.MBO_RTYPE)
    assert (csv_kernel.UNDEF_PRICE, csv_kernel.UNDEF_TIMESTAMP) == (mbo.UNDEF_PRICE, mbo.UNDEF_TIMESTAMP)
    for code, name in enumerate(COLUMNS):
        assert getattr(csv_kernel, name.upper()) == code
    for code in range(256):
        if chr(code) in ",\n\r":
            continue
        for column, known in (("action", mbo.Action), ("side", mbo.Side)):
            decoder = CsvStreamDecoder()
            taken = len(push(decoder, HEADER + line().replace(b",A,B,", b",%b," % _pair(column, code))))
            assert taken == (code in [*known])


def _pair(column: str, code: int) -> bytes:
    return bytes([code]) + b",B" if column == "action" else b"A," + bytes([code])


def test_the_longest_line_fits_the_room_that_the_kernel_is_given() -> None:
    records = edge_records()[:1]
    for name in MBO.names or ():
        if name not in ("length", "rtype", "action", "side", "ts_event", "ts_recv", "price", "ts_in_delta"):
            records[name] = np.iinfo(MBO[name]).max
    records["ts_event"] = records["ts_recv"] = 2**63
    records["price"], records["ts_in_delta"] = -(2**63), -(2**31)
    longest = encode_csv(records, {2**32 - 1: "S" * 70})
    assert 240 < len(longest) <= csv_kernel.MAX_LINE_BYTES


# the quick reader and the careful one

VENDOR = {**LINE, "ts_event": "2025-09-24T19:30:00.000860311Z"}
_BUFFER = 4096


def read_at_the_start(text: bytes) -> tuple[bytes, dict[str, int], dict[int, str]]:
    """Return the records of some lines, what was left out, and the symbols; the quick reader has room for them."""
    decoder = CsvStreamDecoder(1 << 16)
    return push(decoder, HEADER + text).tobytes(), decoder.rejected, decoder.symbols


def read_at_the_end(text: bytes) -> tuple[bytes, dict[str, int], dict[int, str]]:
    """Return the same from the careful reader, line by line: the quick one has no room at the end of a buffer."""
    padding = b"x\n" * ((_BUFFER - csv_kernel.VENDOR_LINE_BYTES) // 2)
    decoder, found = CsvStreamDecoder(_BUFFER), b""
    push(decoder, HEADER)
    for part in text.split(b"\n")[:-1]:
        found += push(decoder, padding + part + b"\n").tobytes()
    rejected = decoder.rejected
    rejected["bad value"] -= text.count(b"\n") * len(padding) // 2
    return found, {reason: count for reason, count in rejected.items() if count}, decoder.symbols


def both(text: bytes) -> tuple[bytes, dict[str, int], dict[int, str]]:
    quick = read_at_the_start(text)
    assert quick == read_at_the_end(text)
    return quick


VALUES = {
    "ts_recv": ["", "0", "1969-12-31T23:59:59.999999999Z", "2025-09-24T19:30:00.00138539Z", "2025-09-24T19:30:00Z",
                "2025-09-24T19:30:01.999999999Z", "2025-09-24 19:30:00.001385399Z", "2025-02-29T19:30:00.001385399Z",
                "2025-09-24T19:30:00.001385399+00:00", "2025-09-24T19:30:00.0013853999Z",
                "2025-09-24T19:30:00,001385399Z",
                "2025-09-24T19:30:00.00138539:Z", "2025-09-24T19:30:00.001385399z"],
    "rtype": ["160", "161", "0160", ""],
    "publisher_id": ["0", "65535", "65536", "-1", "00000001"],
    "instrument_id": ["0", "1", "4294967295", "4294967296", "432670"],
    "action": list("ACMRTFNXa") + ["", "AA"],
    "side": list("BANX") + ["", "b"],
    "price": ["", "0.000000000", "-0.000000001", "-64.830000000", "9223372036.854775807", "9223372036.854775808",
              "9223372034.999999999", "9223372035.000000000", "64.83", "64.83000000a", "64.8300000000", "64830000000",
              "00000000064.830000000", "64..30000000", "123456789012345.000000000"],
    "size": ["0", "99999999", "100000000", "4294967295", "4294967296", "1.0"],
    "channel_id": ["0", "255", "256"],
    "order_id": ["0", "12345678", "123456789012345", "1234567890123456", "18446744073709551615",
                 "18446744073709551616"],
    "flags": ["0", "255", "256"],
    "ts_in_delta": ["0", "-1", "2147483647", "2147483648", "-2147483648", "-2147483649", "--1", "-"],
    "sequence": ["0", "4294967295", "4294967296", "1 "],
    "symbol": ["", "CLX5", "CLX", "CLX56", "A_SYMBOL_LONGER_THAN_A_WORD", "A_SYMBOL_LONGER_THAN_A_WORK", "S" * 70,
               "S" * 71],
}  # fmt: skip


@pytest.mark.parametrize("column", VALUES)
def test_both_readers_take_and_refuse_the_same_values(column: str) -> None:
    plain = ",".join(VENDOR.values()).encode() + b"\n"
    lines = [",".join({**VENDOR, column: value}.values()).encode() + b"\n" for value in VALUES[column]]
    for text in lines:
        both(plain + text + plain)
    both(b"".join(lines) + b"".join(reversed(lines)))


def test_the_quick_reader_reads_what_the_vendor_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be the careful one that the others are compared with."""
    plain = ",".join(VENDOR.values()).encode() + b"\n"
    decoder = CsvStreamDecoder(1 << 16)
    push(decoder, HEADER + plain)
    decoder._values[:] = 7  # where the careful reader puts what it reads
    assert len(push(decoder, plain)) == 1
    assert (decoder._values == 7).all() and decoder.lines == 3


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**31)), min_size=1, max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
)
def test_both_readers_agree_on_damaged_lines(rows: list[tuple[int, int]], changes: list[tuple[int, int]]) -> None:
    records = np.concatenate([random_records(seed, 1) for _, seed in rows])
    records["ts_event"] = [1_758_742_200_000_000_000 + ns % 3_000_000_000 for ns, _ in rows]
    records["ts_recv"] = records["ts_event"] + np.uint64(1000)
    text = bytearray(encode_csv(records, SYMBOLS))
    for place, byte in changes:
        text[place % len(text)] = byte
    both(bytes(text[:-1]) + b"\n")


def test_what_is_wrong_with_a_line_does_not_depend_on_what_comes_behind_it() -> None:
    assert both(b"2\n25-09-24T19:30:00.000001000Z\n")[1] == {"missing column": 1, "bad value": 1}


def test_bytes_like_an_unset_time_are_no_time() -> None:
    for blank in (bytes(20), b"\xff" * 20, csv_kernel.EPOCH):
        found, rejected, _ = both(blank + b"000000007Z," + ",".join([*VENDOR.values()][1:]).encode() + b"\n")
        assert (len(found) > 0) == (blank == csv_kernel.EPOCH) != bool(rejected)


def test_numbers_of_every_length_come_back() -> None:
    records = random_records(3, 400)
    records["order_id"] = [value for n in range(20) for value in [10**n - 1, 10**n] * 10]
    records["sequence"] = [value for n in range(10) for value in [10**n - 1, min(10**n, 2**32 - 1)] * 20]
    data = HEADER + encode_csv(records, SYMBOLS)
    assert [int(row.split(b",")[10]) for row in data.splitlines()[1:]] == records["order_id"].tolist()
    assert read(data).tobytes() == records.tobytes()
