"""The derived schemas: their layouts, each rule, and that they are what a naive reader of the book finds."""

import os
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from orderbook.book import kernel
from orderbook.book.mbo import MBO, UNDEF_PRICE, UNDEF_TIMESTAMP, Flags, MboArray
from orderbook.tests.records import (
    FIRST_TS,
    KINDS,
    LAST,
    SNAPSHOT,
    add,
    cancel,
    clear,
    examples,
    modify,
    record,
    stream,
)
from replay.feed import seconds_kernel
from replay.feed.derived import DTYPES, Deriver, warm_up
from replay.feed.sources import open_recording
from replay.streamer.shadow import Shadow
from replay.tests.naive_schemas import as_rows, naive_schemas
from replay.tests.streams import STREAMS, eventful, session

SECOND = 1_000_000_000
CLASSES = {
    "trades": dbn.TradeMsg,
    "tbbo": dbn.MBP1Msg,
    "mbp-1": dbn.MBP1Msg,
    "mbp-10": dbn.MBP10Msg,
    "bbo-1s": dbn.BBOMsg,
}
RTYPES = {"trades": 0, "tbbo": 1, "mbp-1": 1, "mbp-10": 10, "bbo-1s": 195}


def derived(records: MboArray, schema: str, cuts: int = 1) -> list[dict[str, int]]:
    deriver, rows, since = Deriver(), [], 0
    for part in np.array_split(records, cuts):
        rows += as_rows(deriver.derive(part).of, schema, since)
        since += len(part)
    return rows


def at_seconds(records: MboArray, *seconds: float) -> MboArray:
    """Give records capture times, in seconds after a full one."""
    start = FIRST_TS // SECOND * SECOND
    records["ts_recv"] = [start + round(second * SECOND) for second in seconds]
    return records


# layouts


@pytest.mark.parametrize("schema", DTYPES)
def test_the_layout_is_that_of_the_vendors_record(schema: str) -> None:
    ours, vendors = DTYPES[schema], np.dtype(CLASSES[schema]._dtypes)
    assert ours.itemsize == vendors.itemsize == CLASSES[schema].size_hint
    for name in vendors.names or ():
        mine = name.replace("_reserved", "reserved_")
        (kind, offset), (theirs, their_offset) = ours.fields[mine][:2], vendors.fields[name][:2]  # type: ignore[index]
        assert (offset, kind.itemsize) == (their_offset, theirs.itemsize)
        assert kind == theirs or theirs.kind == "S"


@pytest.mark.parametrize("schema", DTYPES)
def test_the_vendors_decoder_reads_what_is_derived(schema: str) -> None:
    records = session(2, 3000)
    _, rows = Deriver().derive(records).of(schema)
    assert len(rows)
    decoder = dbn.DBNDecoder(has_metadata=False, input_version=3)
    decoder.write(rows.tobytes())
    read = decoder.decode()
    assert len(read) == len(rows)
    assert {type(one) for one in read} == {CLASSES[schema]}
    for one, row in list(zip(read, rows, strict=True))[:: len(rows) // 20 + 1]:
        assert (int(one.rtype), one.instrument_id) == (RTYPES[schema], row["instrument_id"])
        assert (one.sequence, one.ts_recv, one.price) == (row["sequence"], row["ts_recv"], row["price"])
        if schema != "trades":
            assert (one.levels[0].bid_px, one.levels[0].ask_sz) == (row["bid_px_00"], row["ask_sz_00"])


def test_the_codes_of_the_seconds_are_the_public_codes() -> None:
    assert (ord("T"), ord("N")) == (seconds_kernel.TRADE, seconds_kernel.NONE)
    assert (seconds_kernel.UNDEF_PRICE, seconds_kernel.UNDEF_TIMESTAMP) == (UNDEF_PRICE, UNDEF_TIMESTAMP)
    assert DTYPES["bbo-1s"].itemsize == seconds_kernel.BBO_WORDS * 8
    for schema in ("bbo-1s", "mbp-10"):
        assert DTYPES[schema].fields["bid_px_00"][1] == seconds_kernel.HEAD_WORDS * 8  # type: ignore[index]


# the whole


@pytest.mark.parametrize("name", STREAMS)
def test_every_schema_is_what_a_naive_reader_finds(name: str) -> None:
    records = STREAMS[name]()[: examples(2500, 6000)]
    records["ts_recv"] += (np.arange(len(records), dtype=np.uint64) // np.uint64(7)) * np.uint64(SECOND // 10)
    expected = naive_schemas(records)
    for schema in DTYPES:
        assert len(expected[schema]) > 20 or name == "simulated 50"  # which begins without a trade
        assert derived(records, schema, cuts=5) == expected[schema]


@pytest.mark.skipif(
    not os.environ.get("REAL_DATA_DIR"), reason="set REAL_DATA_DIR to the folder that holds CLX5_mbo.dbn"
)
def test_every_schema_of_a_real_recording_is_what_a_naive_reader_finds() -> None:
    records = open_recording(Path(os.environ["REAL_DATA_DIR"]) / "CLX5_mbo.dbn").records
    expected = naive_schemas(records)
    deriver = Deriver()
    whole = deriver.derive(records)
    for schema in DTYPES:
        assert as_rows(whole.of, schema) == expected[schema]
    assert len(expected["trades"]) == len(expected["tbbo"]) == 1599
    at_the_touch = sum(row["price"] in (row["bid_px_00"], row["ask_px_00"]) for row in expected["tbbo"])
    assert at_the_touch == 1565


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_of_market_derive_the_same(kind: str) -> None:
    records = eventful(3, 1200)
    whole, other = Deriver("kernel").derive(records), Deriver(kind).derive(records)  # type: ignore[arg-type]
    for schema in DTYPES:
        assert whole.of(schema).records.tobytes() == other.of(schema).records.tobytes()
        assert whole.of(schema).positions.tolist() == other.of(schema).positions.tolist()


def test_records_that_nobody_may_write_to_are_derived_all_the_same() -> None:
    records = session(1, 600)
    expected = Deriver().derive(records).of("mbp-1").records
    records.flags.writeable = False
    assert Deriver().derive(records).of("mbp-1").records.tobytes() == expected.tobytes()


def test_the_kernels_are_compiled_once_wherever_the_records_come_from() -> None:
    warm_up()
    records = session(1, 600)
    frozen = np.frombuffer(records.tobytes(), MBO)
    for part in (records, records[7:], records[::2], records[:0], frozen):
        Deriver().derive(part).of("mbp-1")
    assert len(kernel.apply_depth.signatures) == len(seconds_kernel.sample.signatures) == 1


# trades, tbbo, mbp-1


def test_a_trade_shows_the_best_prices_before_its_event() -> None:
    records = stream(
        add("A", 101, 5, 1),
        record("T", "B", 101, 3, 9, flags=0),
        record("F", "A", 101, 3, 1, flags=0),
        modify("A", 101, 2, 1),
    )
    [trade] = derived(records, "tbbo")
    assert (trade["at"], trade["ask_px_00"], trade["ask_sz_00"], trade["price"], trade["size"]) == (1, 101, 5, 101, 3)
    assert [(row["at"], chr(row["action"]), row["ask_sz_00"]) for row in derived(records, "mbp-1")] == [
        (0, "A", 5),
        (1, "T", 5),
        (3, "M", 2),
    ]
    [trade] = derived(records, "trades")
    assert (trade["at"], chr(trade["action"]), chr(trade["side"]), trade["flags"], trade["depth"]) == (
        1,
        "T",
        "B",
        0,
        0,
    )


def test_a_change_below_the_best_level_is_for_ten_levels_only() -> None:
    records = stream(add("B", 100, 5, 1), add("B", 99, 5, 2), add("B", 101, 5, 3))
    assert [row["at"] for row in derived(records, "mbp-1")] == [0, 2]
    assert [(row["at"], row["depth"]) for row in derived(records, "mbp-10")] == [(0, 0), (1, 1), (2, 0)]


# bbo-1s


def test_a_second_is_told_behind_the_first_record_of_a_later_one() -> None:
    records = at_seconds(stream(add("B", 100, 5, 1), add("B", 101, 5, 2), record("N")), 0.1, 0.9, 3.5)
    [sample] = derived(records, "bbo-1s")
    assert (sample["at"], sample["bid_px_00"], sample["sequence"]) == (2, 101, 2)
    assert sample["ts_recv"] == FIRST_TS // SECOND * SECOND + SECOND
    assert (sample["price"], sample["size"], chr(sample["side"])) == (UNDEF_PRICE, 0, "N")
    assert sample["ts_event"] == UNDEF_TIMESTAMP


def test_a_second_without_a_change_is_not_told_and_the_last_sale_is_carried() -> None:
    records = stream(
        add("B", 100, 5, 1),
        record("T", "A", 99, 3),
        record("N"),
        add("B", 90, 1, 2),  # no best price
        add("B", 101, 2, 3),
        record("N"),
    )
    samples = derived(at_seconds(records, 0, 0.5, 1, 2, 3, 4), "bbo-1s")
    assert [(sample["at"], sample["bid_px_00"], sample["price"], chr(sample["side"])) for sample in samples] == [
        (2, 100, 99, "A"),
        (5, 101, 99, "A"),
    ]
    assert {sample["ts_event"] for sample in samples} == {FIRST_TS + 2000}


def test_a_trade_alone_is_told_with_the_best_prices_of_before() -> None:
    records = stream(add("B", 100, 5, 1), record("T", "A", 99, 3), record("N"))
    samples = derived(at_seconds(records, 0, 1, 2), "bbo-1s")
    assert [(sample["bid_px_00"], sample["price"]) for sample in samples] == [(100, UNDEF_PRICE), (100, 99)]


def test_times_that_step_back_or_are_missing_belong_to_the_second_under_way() -> None:
    records = at_seconds(
        stream(add("B", 100, 5, 1), add("B", 101, 5, 2), add("B", 102, 1, 3), record("N")), 1, 0.5, 0, 2
    )
    records["ts_recv"][2] = UNDEF_TIMESTAMP
    [sample] = derived(records, "bbo-1s")
    assert (sample["at"], sample["bid_px_00"]) == (3, 102)


# arrivals


def test_a_deriver_that_begins_at_a_picture_goes_on_as_one_that_saw_everything() -> None:
    records = session(3, 3000)
    ends = np.flatnonzero(records["flags"] & LAST != 0)
    position = int(ends[len(ends) // 2]) + 1
    saw = Deriver()
    saw.derive(records[:position])
    joined = Deriver()
    joined.begin(Shadow(records).picture(position))
    after = [deriver.derive(records[position:]) for deriver in (saw, joined)]
    for schema in ("trades", "tbbo", "mbp-1", "mbp-10"):
        assert as_rows(after[0].of, schema) == as_rows(after[1].of, schema)


def test_an_arrival_has_one_record_of_each_book_flagged_as_a_snapshot() -> None:
    records = session(3, 3000)
    deriver = Deriver()
    deriver.begin(Shadow(records).picture(len(records)))
    arrival = deriver.arrival()
    books = len(np.unique(records["instrument_id"]))
    assert {schema: len(rows) for schema, rows in arrival.items()} == {
        "trades": 0,
        "tbbo": 0,
        "mbp-1": books,
        "mbp-10": books,
        "bbo-1s": books,
    }
    newest = {row["instrument_id"]: row for row in naive_schemas(records)["mbp-10"] if chr(row["action"]) != "T"}
    for schema in ("mbp-1", "mbp-10", "bbo-1s"):
        for row in arrival[schema]:
            assert row["flags"] & (Flags.SNAPSHOT | Flags.LAST) == Flags.SNAPSHOT | Flags.LAST
            assert row["bid_px_00"] == newest[row["instrument_id"]]["bid_px_00"]
            assert row["ask_sz_00"] == newest[row["instrument_id"]]["ask_sz_00"]


def test_an_arrival_carries_the_last_sale() -> None:
    trade = stream(record("T", "A", 99, 3))
    deriver = Deriver()
    deriver.begin(stream(clear(SNAPSHOT), add("B", 100, 5, 1, SNAPSHOT | LAST)), trade)
    [sample] = deriver.arrival()["bbo-1s"]
    assert (sample["price"], sample["size"], sample["bid_px_00"]) == (99, 3, 100)
    assert sample["ts_recv"] == FIRST_TS // SECOND * SECOND


def test_what_a_picture_tells_is_no_change_of_the_second_under_way() -> None:
    deriver = Deriver()
    deriver.begin(at_seconds(stream(clear(SNAPSHOT), add("B", 100, 5, 1, SNAPSHOT | LAST)), 0.1, 0.1))
    quiet = deriver.derive(at_seconds(stream(record("N"), record("N")), 0.2, 1))
    assert len(quiet.of("bbo-1s").records) == 0
    told = deriver.derive(at_seconds(stream(add("B", 101, 5, 2), record("N")), 1.1, 2))
    assert told.of("bbo-1s").records["bid_px_00"].tolist() == [101]


def test_of_a_book_joined_inside_an_event_nothing_is_known_until_that_ends() -> None:
    deriver = Deriver()
    deriver.begin(stream(clear(SNAPSHOT), add("B", 100, 5, 1, SNAPSHOT)))
    assert len(deriver.arrival()["mbp-10"]) == 0
    rest = deriver.derive(stream(record("T", "A", 100, 1, flags=0), cancel("B", 100, 2, 1)))
    assert [(row["at"], chr(row["action"]), row["bid_sz_00"]) for row in as_rows(rest.of, "mbp-10")] == [
        (0, "T", 0),
        (1, "C", 3),
    ]
