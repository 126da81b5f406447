"""The feed's own records and the ts_out of every record, as the vendor's library reads them; and what symbols mean."""

import databento_dbn as dbn
import numpy as np
import pytest

from orderbook.book.mbo import MBO, UNDEF_TIMESTAMP
from replay.feed import live_records
from replay.feed.dbn_codec import DbnStreamDecoder
from replay.feed.dbn_metadata import decode_metadata, encode_live_metadata
from replay.feed.live_messages import ALL_SYMBOLS, SubscriptionRequest
from replay.feed.live_symbology import Resolved, Unresolved, resolve
from replay.tests.feeds import SYMBOLS, edge_records, push, random_records

NOW = 1_758_742_200_000_000_000
REQUEST = SubscriptionRequest("mbo", ("CLX5",), id=3)


def read(data: bytes, *, ts_out: bool = False) -> list[object]:
    return list(dbn.DBNDecoder(has_metadata=False, ts_out=ts_out, input_version=3).write_and_decode(data))


def test_the_metadata_of_a_live_stream_is_exactly_128_bytes() -> None:
    data = encode_live_metadata("GLBX.MDP3", NOW)
    start = NOW.to_bytes(8, "little").hex()
    fixed = "44424e0378000000474c42582e4d44503300000000000000ffff" + start + "ff" * 8 + "00" * 8 + "ff00004700"
    assert data.hex() == fixed.ljust(256, "0")
    header = decode_metadata(data)
    assert (header.venue_dataset, header.schema, header.ts_out, header.symbols) == ("GLBX.MDP3", None, False, {})


def test_the_metadata_says_whether_every_record_carries_a_ts_out() -> None:
    assert decode_metadata(encode_live_metadata("GLBX.MDP3", NOW, ts_out=True)).ts_out
    assert len(encode_live_metadata("GLBX.MDP3", NOW, ts_out=True)) == 128


def test_a_dataset_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="metadata of 'XXXXXXXXXXXXXXXXX' cannot be encoded"):
        encode_live_metadata("X" * 17, NOW)


@pytest.mark.parametrize(
    ("record", "code", "text"),
    [
        (live_records.heartbeat(NOW), dbn.SystemCode.HEARTBEAT, "Heartbeat"),
        (
            live_records.subscription_ack(NOW, REQUEST),
            dbn.SystemCode.SUBSCRIPTION_ACK,
            "Subscription request 3 for mbo data succeeded",
        ),
        (
            live_records.subscription_ack(NOW, SubscriptionRequest("tbbo", ("A",))),
            dbn.SystemCode.SUBSCRIPTION_ACK,
            "Subscription request for tbbo data succeeded",
        ),
        (live_records.replay_completed(NOW, "mbo"), dbn.SystemCode.REPLAY_COMPLETED, "Finished mbo replay"),
        (
            live_records.system_message(NOW, live_records.SLOW_READER_WARNING, "slow"),
            dbn.SystemCode.SLOW_READER_WARNING,
            "slow",
        ),
    ],
)
def test_system_messages_have_the_code_and_the_text_that_clients_know(
    record: bytes, code: dbn.SystemCode, text: str
) -> None:
    assert len(record) == 320
    [message] = read(record)
    assert isinstance(message, dbn.SystemMsg)
    assert (message.code, message.msg, message.ts_event) == (code, text, NOW)
    assert message.is_heartbeat() is (code == dbn.SystemCode.HEARTBEAT)


def test_our_codes_are_the_vendors() -> None:
    ours = {
        "AUTH_FAILED": live_records.AUTH_FAILED,
        "API_KEY_DEACTIVATED": live_records.KEY_DEACTIVATED,
        "CONNECTION_LIMIT_EXCEEDED": live_records.CONNECTION_LIMIT,
        "SYMBOL_RESOLUTION_FAILED": live_records.RESOLUTION_FAILED,
        "INVALID_SUBSCRIPTION": live_records.INVALID_SUBSCRIPTION,
        "INTERNAL_ERROR": live_records.INTERNAL_ERROR,
        "SKIPPED_RECORDS_AFTER_SLOW_READING": live_records.SKIPPED_RECORDS,
        "REPLAY_DATA_AGED_OUT": live_records.DATA_AGED_OUT,
    }
    assert {name: getattr(dbn.ErrorCode, name) for name in ours} == {
        name: dbn.ErrorCode.from_int(code) for name, code in ours.items()
    }
    assert {1, 2, 3, 5, 6, 8} == live_records.FATAL_CODES


@pytest.mark.parametrize("code", live_records.ERROR_CODES)
def test_an_error_has_its_code_and_is_the_last(code: int) -> None:
    record = live_records.error_message(NOW, code, "why")
    [message] = read(record)
    assert len(record) == 320 and isinstance(message, dbn.ErrorMsg)
    assert (message.code, message.err, message.is_last) == (dbn.ErrorCode.from_int(code), "why", 1)


@pytest.mark.parametrize("text", ["x" * 5000, "Ä\0b" * 400])
def test_a_text_of_any_length_and_kind_fits(text: str) -> None:
    for record in (live_records.error_message(NOW, 6, text), live_records.system_message(NOW, 2, text)):
        [message] = read(record)
        shown = message.err if isinstance(message, dbn.ErrorMsg) else message.msg
        assert len(record) == 320 and len(shown) == 300 and shown.isascii()


def test_a_mapping_gives_the_raw_symbol_to_what_was_asked_for() -> None:
    record = live_records.symbol_mapping(NOW, Resolved(432669, "432669", "CLX5"), "instrument_id")
    [message] = read(record)
    assert len(record) == 176 and isinstance(message, dbn.SymbolMappingMsg)
    assert (message.instrument_id, message.publisher_id, message.ts_event) == (432669, 0, NOW)
    assert (message.stype_in_symbol, message.stype_out_symbol) == ("432669", "CLX5")
    assert (str(message.stype_in), str(message.stype_out)) == ("instrument_id", "raw_symbol")
    assert (message.start_ts, message.end_ts) == (UNDEF_TIMESTAMP, UNDEF_TIMESTAMP)


def test_our_decoder_names_an_instrument_by_the_answer_and_not_by_the_question() -> None:
    decoder = DbnStreamDecoder()
    asked = [
        live_records.symbol_mapping(NOW, Resolved(432669, "432669", "CLX5"), "instrument_id"),
        live_records.symbol_mapping(NOW, Resolved(7001, "ESZ5", "ESZ5"), "raw_symbol"),
    ]
    push(decoder, encode_live_metadata("GLBX.MDP3", NOW) + b"".join(asked))
    assert decoder.symbols == SYMBOLS


def test_ts_out_makes_every_mbo_record_8_bytes_longer_and_changes_nothing_else() -> None:
    records = np.concatenate([edge_records(), random_records(1, 100)])
    data = live_records.with_ts_out(records, NOW).tobytes()
    assert len(data) == 64 * len(records)
    read_back = [record for record in read(data, ts_out=True) if isinstance(record, dbn.MBOMsg)]
    assert {record.ts_out for record in read_back} == {NOW}
    assert {bytes(record)[0] for record in read_back} == {16}
    assert b"".join(b"\x0e" + bytes(record)[1:56] for record in read_back) == records.tobytes()
    assert records["length"].tolist() == [14] * len(records)  # its source is left alone


@pytest.mark.parametrize(
    "message",
    [
        live_records.heartbeat(NOW),
        live_records.error_message(NOW, 5, "why"),
        live_records.symbol_mapping(NOW, Resolved(1, "A", "A"), "raw_symbol"),
    ],
)
def test_ts_out_follows_the_feeds_own_records_too(message: bytes) -> None:
    data = live_records.message_with_ts_out(message, NOW + 5)
    [record] = read(data, ts_out=True)
    assert len(data) == len(message) + 8 and record.ts_out == NOW + 5
    assert bytes([len(message) // 4]) + bytes(record)[1 : len(message)] == message


@pytest.mark.parametrize("size", [48, 80, 368])
def test_ts_out_fits_behind_records_of_every_schema(size: int) -> None:
    kind = np.dtype([("length", "u1"), ("rest", f"V{size - 1}")])
    records = np.frombuffer(bytes([size // 4, *range(1, size)] * 3 if size < 256 else bytes(size) * 3), kind)
    data = live_records.with_ts_out(records, 7).reshape(3, size + 8)
    assert data[:, 0].tolist() == [(size + 8) // 4] * 3
    assert (data[:, 1:size] == records.view(np.uint8).reshape(3, size)[:, 1:]).all()
    assert data[:, size:].view(np.uint64).ravel().tolist() == [7, 7, 7]


def test_records_that_are_only_a_part_of_an_array_get_their_ts_out_too() -> None:
    records = random_records(1, 10)
    picked = live_records.with_ts_out(records[::3], 1)
    assert picked.tobytes() == live_records.with_ts_out(records[::3].copy(), 1).tobytes()
    assert live_records.with_ts_out(np.empty(0, MBO), 1).tobytes() == b""


def test_symbols_mean_the_instruments_that_carry_them() -> None:
    symbols = {1: "A", 2: "B", 3: "A"}
    assert resolve(SubscriptionRequest("mbo", ("A", "B", "A")), symbols) == (
        [Resolved(1, "A", "A"), Resolved(3, "A", "A"), Resolved(2, "B", "B")],
        [],
    )
    assert resolve(SubscriptionRequest("mbo", (ALL_SYMBOLS,)), symbols).found == [
        Resolved(1, "A", "A"),
        Resolved(2, "B", "B"),
        Resolved(3, "A", "A"),
    ]


def test_ids_mean_themselves_however_they_are_written() -> None:
    request = SubscriptionRequest("mbo", ("7001", "00432669"), "instrument_id")
    assert resolve(request, SYMBOLS).found == [Resolved(7001, "7001", "ESZ5"), Resolved(432669, "00432669", "CLX5")]
    assert resolve(SubscriptionRequest("mbo", (ALL_SYMBOLS,), "instrument_id"), SYMBOLS).missing == []


def test_what_does_not_exist_is_told_with_its_place() -> None:
    found, missing = resolve(SubscriptionRequest("mbo", ("CLX5", "NOPE", "NOPE", "X")), SYMBOLS)
    assert found == [Resolved(432669, "CLX5", "CLX5")]
    assert missing == [Unresolved(2, 4, "NOPE"), Unresolved(4, 4, "X")]
    assert missing[0].text == "Failed to resolve symbol 2/4: NOPE"
