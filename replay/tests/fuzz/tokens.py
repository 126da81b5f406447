"""Values from the edges of what the targets read: what mutations put into fields."""

from typing import Final

from replay.feed.dbn_metadata import encode_mapping

_MAPPING: Final = encode_mapping(7001, "ESZ5", 1_758_742_200_000_000_000)

OTHER_RECORDS: Final = [bytes([12, 0]) + bytes(46), _MAPPING, _MAPPING.replace(b"ESZ5", b"\xff\xfe\xc3" * 3)]
"""Records of a DBN stream that are not MBO."""


def _around(bits: int) -> list[bytes]:
    return [str(value).encode() for value in (2**bits - 1, 2**bits, -(2**bits), 0)]


_TIMES: Final = [
    *(b"", b"0", b"18446744073709551615", b"18446744073709551616", b"1758742200000860311", b"2025-09-24"),
    *(
        b"2025-09-24T19:30:00.001385399Z",
        b"1970-01-01T00:00:00Z",
        b"1969-12-31T23:59:59Z",
        b"2024-02-29 23:59:59.5+00:00",
    ),
    *(b"2025-02-29T00:00:00Z", b"2000-02-29T12:00:00Z", b"2100-02-29T12:00:00Z", b"2200-03-01T00:00:00.000000001Z"),
    *(b"2554-07-21T23:34:32.999999999Z", b"2554-07-21T23:34:33.709551615Z", b"2025-09-24T19:30:00.1234567890Z"),
]
CSV_COLUMNS: Final = {
    **{"ts_recv": _TIMES, "ts_event": _TIMES, "rtype": [b"160", b"0160", b"16", b"416"]},
    **{"publisher_id": _around(16), "instrument_id": _around(32), "size": _around(32), "sequence": _around(32)},
    **{"channel_id": _around(8), "flags": _around(8), "ts_in_delta": [*_around(31), b"-0", b"-2147483649"]},
    "order_id": [*_around(64), b"00000000000000000001", b"000000000000000000001", b"99999999999999999999"],
    "action": [b"A", b"C", b"M", b"R", b"T", b"F", b"N", b"", b"X", b"AA"],
    "side": [b"A", b"B", b"N", b"", b"X"],
    "price": [
        *(
            b"",
            b"64.83",
            b"64.830000000",
            b"64.",
            b".5",
            b"-0.000000001",
            b"1.0000000001",
            b"64830000000",
            b"-0",
            b"+1",
        ),
        *(b"9223372036.854775807", b"9223372036.854775808", b"-9223372036.854775808", b"-9223372036.854775809"),
        *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809"),
    ],
    "symbol": [b"", b"CLX5", b"CLX5-CLZ5", b"S" * 70, b"S" * 71, b"S" * 300, b'"CL"', b" ", b"\x7f", b"\xc3\x84"],
}
"""For each column what may stand there, and what just may not."""

CSV: Final = [b"", b"0", b"-", b"1e3", b" 1", b'"1"', b"\r", b"\n", b"\r\n", b"symbol", b"price", b"X", b"\xef\xbb\xbf"]

VALUES: Final = [
    *(b"0", b"00", b"1", b"9" * 9, b"9" * 19, b"9223372036", b"854775807", b"-", b"+", b".", b"e5", b"_", b"\xd9\xa1"),
    *(b"2025", b"1970", b"2262", b"2261", b"0000", b"9999", b"02", b"29", b"30", b"60", b"24", b"Z", b"z", b"+14:59"),
]
JSON: Final = [
    *(b'"type"', b'"subscribe"', b'"update"', b'"unsubscribe"', b'"symbol"', b'"depth"', b'"push_ms"', b'"CLX5"'),
    *(b'"verb"', b'"args"', b'"start"', b'"stop"', b'"pace"', b'"status"', b'"max"', b'"records_per_s"', b'"path"'),
    *(b'"dataset"', b'"loop"', b'"replay_id"', b"null", b"true", b"NaN", b"-1", b"0", b"1", b"50", b"1e3", b"9" * 5000),
    *(b"[]", b"{}", b'""', b"[", b"]", b"{", b"}", b":", b",", b'"\\ud800"', b'"\\u0000"', b'"' + b"S" * 72 + b'"'),
    *(b"[" * depth + b"]" * depth for depth in (50, 900, 950, 990)),
]
LIVE: Final = [
    *(b"auth", b"dataset", b"encoding", b"compression", b"ts_out", b"pretty_px", b"pretty_ts", b"client", b"schema"),
    *(b"heartbeat_interval_s", b"slow_reader_behavior", b"stype_in", b"symbols", b"start", b"snapshot", b"id"),
    *(b"is_last", b"start_session", b"dbn", b"csv", b"json", b"none", b"zstd", b"warn", b"skip", b"mbo", b"trades"),
    *(
        b"mbp-10",
        b"bbo-1s",
        b"ohlcv-1s",
        b"raw_symbol",
        b"instrument_id",
        b"parent",
        b"ALL_SYMBOLS",
        b"CLX5",
        b"432669",
    ),
    *(
        b"",
        b"0",
        b"1",
        b"2",
        b"5",
        b"4",
        b"1800",
        b"1801",
        b"-1",
        b"\r",
        b"\n",
        b"|",
        b"=",
        b"A," * 499 + b"A",
        b"A," * 500,
    ),
    *(
        b"2025-09-24",
        b"2025-09-24T19:30:00",
        b"2025-02-30",
        b"9223372036854775807",
        b"9" * 20,
        b"9" * 5000,
        b"\xc3\x84",
    ),
]
"""Keys and values of control lines."""
