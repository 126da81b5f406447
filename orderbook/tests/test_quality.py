"""The quality report: what a checked pass over records finds, and how it is told."""

import doctest
import importlib
import json
import pkgutil

import numpy as np
import pytest

import orderbook.quality
from orderbook.book.audit import Audit
from orderbook.book.digest import market_hash, state_hash
from orderbook.book.market import BookKind, ReferenceMarket, make_market
from orderbook.book.mbo import UNDEF_PRICE, UNDEF_TIMESTAMP, BookKey, MboArray
from orderbook.book.reference import Order, ReferenceBook
from orderbook.book.tape import Tape
from orderbook.quality import verification
from orderbook.quality.building import make_report
from orderbook.quality.expectation import differences, parse_expectation
from orderbook.quality.report import VERSION, Report, shortened
from orderbook.quality.tables import WIDTH, as_text, headline, tables
from orderbook.quality.verification import BookChoice, CheckOptions, RecordedFile, affordable_every, verify
from orderbook.tests.records import (
    FIRST_TS,
    KINDS,
    LAST,
    SNAPSHOT,
    Row,
    add,
    cancel,
    clear,
    modify,
    random_session,
    record,
    stream,
)

MODULES = [f"orderbook.quality.{module.name}" for module in pkgutil.iter_modules(orderbook.quality.__path__)]
SYMBOLS = {432669: "CLX5", 7001: "ESZ5"}
SECOND = 10**9


def report_of(records: MboArray, options: CheckOptions | None = None) -> Report:
    file = RecordedFile("made.dbn", "dbn", None, records, SYMBOLS)
    return make_report(verify(file, options or CheckOptions("reference")))


def timed(*rows: tuple[float, Row]) -> MboArray:
    """Return records captured at so many seconds."""
    records = stream(*(row for _, row in rows))
    records["ts_recv"] = FIRST_TS + np.array([int(seconds * SECOND) for seconds, _ in rows], np.uint64)
    return records


def interleaved(count: int = 3000) -> MboArray:
    """Return a faulty stream of two instruments, publishers and channels, whose clock and sequence step back.

    Its books are crossed and locked now and then.
    """
    rng = np.random.default_rng(40)
    records = random_session(4, count, ids=8)
    distance = rng.integers(-1, 6, count) * 10_000_000
    records["price"] = np.where(records["side"] == ord("B"), -distance, distance)
    records["instrument_id"] = rng.choice(list(SYMBOLS), count)
    records["publisher_id"] = rng.choice([1, 2], count)
    records["channel_id"] = rng.choice([7, 8], count)
    records["sequence"] = rng.integers(1, 2**32, count)
    records["ts_recv"] += rng.integers(0, 3_000, count).astype(np.uint64)
    return records


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_a_clean_stream_is_ok_and_everything_is_counted() -> None:
    report = report_of(
        stream(add("B", 100, 5, 1), add("A", 102, 3, 2, flags=0), add("A", 103, 1, 3), record("T", "B", 102, 2))
    )
    assert (report["version"], report["ok"], report["violation"]) == (VERSION, True, None)
    assert (report["records"], report["events"], report["bbo_changes"]) == (4, 3, 2)
    assert report["checks"] == {"book": "reference", "every": 1, "made": 3}
    assert report["trades"] == {"count": 1, "size": 2}
    assert report["anomaly_count"] == 0
    assert set(report["anomalies"]) > {"unknown_cancel", "bad_side"}
    assert all(found == {"count": 0, "first": None} for found in report["anomalies"].values())
    (found,) = report["instruments"]
    assert (found["publisher_id"], found["instrument_id"], found["symbol"]) == (1, 432669, "CLX5")
    assert (found["records"], found["orders"], found["levels"], found["state"]) == (4, 3, {"bid": 1, "ask": 2}, "ok")
    assert found["best_bid"] == {"px": "100", "px_f": "0.000000100", "sz": 5, "ct": 1}
    assert found["best_ask"] == {"px": "102", "px_f": "0.000000102", "sz": 3, "ct": 1}
    assert found["at_event_end"] is True


def test_the_hashes_are_those_of_the_books() -> None:
    records = interleaved()
    market = make_market("reference")
    market.apply(records)
    report = report_of(records)
    assert report["hash"] == market_hash(market.books.items())
    assert {
        BookKey(found["publisher_id"], found["instrument_id"]): found["hash"] for found in report["instruments"]
    } == {key: state_hash(book) for key, book in market.books.items()}


def test_an_anomaly_is_told_with_its_first_record() -> None:
    report = report_of(stream(add("B", 100, 5, 1), cancel("B", 100, 1, 2**64 - 1), cancel("B", 100, 1, 8)))
    assert report["anomaly_count"] == 2
    assert report["anomalies"]["unknown_cancel"] == {
        "count": 2,
        "first": {
            "record": 1,
            "order_id": "18446744073709551615",
            "sequence": "2",
            "ts_event": "2025-09-24T19:30:00.000002000Z",
            "ts_event_ns": str(FIRST_TS + 2000),
            "publisher_id": 1,
            "instrument_id": 432669,
            "symbol": "CLX5",
        },
    }


def test_a_sequence_that_falls_is_a_step_back_of_its_channel_and_publisher() -> None:
    records = stream(*(record("N") for _ in range(8)))
    records["channel_id"] = [1, 2, 1, 2, 1, 2, 1, 1]
    records["publisher_id"] = [1, 1, 1, 1, 1, 1, 9, 9]
    records["sequence"] = [10, 1, 11, 2, 9, 2, 8, 7]
    assert report_of(records)["sequence_steps_back"] == {
        "count": 2,
        "channels": [
            {"publisher_id": 1, "channel_id": 1, "count": 1, "first": {"record": 4, "from": "11", "to": "9"}},
            {"publisher_id": 9, "channel_id": 1, "count": 1, "first": {"record": 7, "from": "8", "to": "7"}},
        ],
    }


def test_the_old_sequences_of_a_picture_are_no_step_back() -> None:
    records = stream(add("B", 100, 1, 1), clear(SNAPSHOT), add("B", 99, 1, 2, SNAPSHOT | LAST), add("B", 98, 1, 3))
    records["sequence"] = [900, 5, 7, 901]
    assert report_of(records)["sequence_steps_back"]["count"] == 0
    records["flags"] = LAST
    assert report_of(records)["sequence_steps_back"]["count"] == 1


def test_a_capture_time_that_falls_is_a_step_back_and_none_at_all_is_not() -> None:
    records = timed((5, record("N")), (6, record("N")), (4, record("N")), (4, record("N")))
    records["ts_recv"][1] = UNDEF_TIMESTAMP
    assert report_of(records)["ts_recv_steps_back"] == {
        "count": 1,
        "channels": [
            {
                "publisher_id": 1,
                "channel_id": 0,
                "count": 1,
                "first": {
                    "record": 2,
                    "from_ts_recv": "2025-09-24T19:30:05.000000000Z",
                    "from_ts_recv_ns": str(FIRST_TS + 5 * SECOND),
                    "to_ts_recv": "2025-09-24T19:30:04.000000000Z",
                    "to_ts_recv_ns": str(FIRST_TS + 4 * SECOND),
                },
            }
        ],
    }


def test_a_gap_longer_than_the_threshold_is_idle_and_one_as_long_is_not() -> None:
    records = timed((0, record("N")), (60, record("N")), (120.5, record("N")), (121, record("N")))
    idle = report_of(records)["idle"]
    assert (idle["longer_than_ns"], idle["count"], idle["total_ns"]) == ("60000000000", 1, "60500000000")
    assert idle["first"] == idle["last"] == idle["longest"][0]
    assert idle["first"] == {
        "begin_record": 1,
        "end_record": 2,
        "begin_ts_recv": "2025-09-24T19:31:00.000000000Z",
        "begin_ts_recv_ns": str(FIRST_TS + 60 * SECOND),
        "end_ts_recv": "2025-09-24T19:32:00.500000000Z",
        "end_ts_recv_ns": str(FIRST_TS + 120 * SECOND + SECOND // 2),
        "ns": "60500000000",
        "open": False,
    }
    assert report_of(records, CheckOptions("reference", idle_ns=SECOND // 4))["idle"]["count"] == 3


def test_of_many_gaps_the_ten_longest_are_kept_the_earlier_first() -> None:
    lengths = [5, 1, 9, 5, 5, 5, 5, 5, 5, 5, 5, 5, 7]
    times = np.concatenate([[0], np.cumsum(lengths)])
    records = timed(*((float(seconds), record("N")) for seconds in times))
    for piece_records in (None, 2):
        idle = report_of(records, CheckOptions("reference", idle_ns=SECOND // 2, piece_records=piece_records))["idle"]
        assert (idle["count"], idle["total_ns"]) == (13, str(sum(lengths) * SECOND))
        assert [span["begin_record"] for span in idle["longest"]] == [2, 12, 0, 3, 4, 5, 6, 7, 8, 9]
        assert idle["first"] and idle["first"]["begin_record"] == 0
        assert idle["last"] and idle["last"]["begin_record"] == 12


def test_crossed_and_locked_intervals_are_those_at_event_ends() -> None:
    records = timed(
        (0, add("B", 100, 5, 1)),
        (1, add("A", 99, 5, 2, flags=0)),  # crossed within the event only
        (2, cancel("A", 99, 5, 2)),
        (3, add("A", 98, 5, 3)),
        (4, add("B", 101, 1, 4)),  # another best price, crossed still
        (9, cancel("A", 98, 5, 3)),
        (10, add("A", 101, 5, 5)),
        (11, cancel("B", 101, 1, 4)),
        (12, modify("A", 90, 5, 5)),
        (15, record("T")),
    )
    report = report_of(records)
    (found,) = report["instruments"]
    assert (report["crossed_count"], report["locked_count"], found["state"]) == (2, 1, "crossed")
    assert (found["crossed"]["count"], found["crossed"]["total_ns"]) == (2, str(9 * SECOND))
    first, last = found["crossed"]["first"], found["crossed"]["last"]
    assert first and (first["begin_record"], first["end_record"], first["open"]) == (3, 5, False)
    assert (first["begin_ts_recv_ns"], first["ns"]) == (str(FIRST_TS + 3 * SECOND), str(6 * SECOND))
    assert last and (last["begin_record"], last["end_record"], last["open"]) == (8, None, True)
    assert last["end_ts_recv_ns"] == str(FIRST_TS + 15 * SECOND)
    assert [span["begin_record"] for span in found["crossed"]["longest"]] == [3, 8]
    assert [(span["begin_record"], span["end_record"]) for span in found["locked"]["longest"]] == [(6, 7)]


def test_one_sided_and_empty_books_are_neither_crossed_nor_locked() -> None:
    report = report_of(stream(add("A", -5, 1, 1), cancel("A", -5, 1, 1), add("B", UNDEF_PRICE - 1, 1, 2)))
    assert (report["crossed_count"], report["locked_count"]) == (0, 0)
    assert report["instruments"][0]["state"] == "one_sided"


def test_every_instrument_has_its_own_intervals() -> None:
    rows = [add("B", 100, 5, 1), record("A", "B", 100, 5, 1, instrument_id=7001), add("A", 99, 5, 2)]
    report = report_of(stream(*rows, record("A", "A", 101, 5, 2, instrument_id=7001)))
    crossed = {found["symbol"]: found["crossed"]["count"] for found in report["instruments"]}
    assert crossed == {"ESZ5": 0, "CLX5": 1}


def test_any_pieces_give_the_same_report() -> None:
    records = interleaved(1500)
    whole = report_of(records, CheckOptions("reference", idle_ns=2_000))
    assert whole["crossed_count"] > 20 and whole["sequence_steps_back"]["count"] > 100 and whole["idle"]["count"] > 100
    assert len(whole["sequence_steps_back"]["channels"]) == 4
    for piece_records in (1, 7, 400):
        assert report_of(records, CheckOptions("reference", idle_ns=2_000, piece_records=piece_records)) == whole


def test_both_books_give_the_same_report() -> None:
    records = interleaved()
    reports = [report_of(records, CheckOptions(book)) for book in ("reference", "kernel", "both")]
    for report in reports:
        report["checks"]["book"] = "reference"
    assert reports[0]["ok"]
    assert reports[1] == reports[0]
    assert reports[2] == reports[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_all_books_share_is_checked_at_the_end(kind: BookKind, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []
    monkeypatch.setattr(type(make_market(kind)), "check", lambda market: checked.append(list(market.books)))
    report_of(interleaved(100), CheckOptions(kind))
    assert [len(books) for books in checked] == [4]


def test_checks_may_be_made_at_each_nth_event_end_only() -> None:
    records = random_session(3, 1000)
    every_one = report_of(records)
    assert every_one["checks"]["made"] == every_one["events"] > 300
    assert report_of(records, CheckOptions("reference", every=100))["checks"]["made"] == every_one["events"] // 100


def test_checks_are_made_as_often_as_a_number_of_orders_may_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*(add("B", 100, 5, number) for number in range(50)), *(record("N") for _ in range(150))]
    rows += [record("N", instrument_id=7001) for _ in range(100)]  # an empty book costs little
    options = CheckOptions("reference", every=None, piece_records=50)
    for most, every in ((10**6, 1), (10_300, 1), (10_299, 2), (1030, 10), (1, 10_300)):
        monkeypatch.setattr(verification, "MOST_VISITS", {"reference": most})
        assert affordable_every(stream(*rows), options) == every
    monkeypatch.setattr(verification, "MOST_VISITS", {"reference": 1030})
    assert report_of(stream(*rows), options)["checks"] == {"book": "reference", "every": 10, "made": 30}


def test_a_book_that_contradicts_itself_is_named_with_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_the_level(book: ReferenceBook, order: Order, size: int) -> None:
        order.size = size

    monkeypatch.setattr(ReferenceBook, "_resize", forget_the_level)
    rows = [add("B", 100, 5, 1), record("N", flags=0), cancel("B", 100, 2, 1), add("B", 99, 1, 2), add("B", 98, 1, 3)]
    for piece_records in (None, 1, 2):
        report = report_of(stream(*rows), CheckOptions("reference", piece_records=piece_records))
        violation = report["violation"]
        assert violation is not None and not report["ok"]
        assert (violation["book"], violation["kind"], violation["record"]) == ("reference", "invariant", 2)
        assert violation["text"] == f"level 100 says 5, holds 3 (sequence 3, ts_event {FIRST_TS + 3000})"
        assert (report["instruments"], report["hash"]) == ([], None)
        assert "the reference book contradicts itself at record 2: level 100" in headline(report)


@pytest.mark.parametrize("book", ["reference", "both"])
@pytest.mark.parametrize("piece_records", [None, 1, 3])
def test_after_a_violation_everything_is_counted_up_to_its_record(
    book: BookChoice, piece_records: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReferenceBook, "_cancel", lambda book, order: book._orders[1].__setattr__("size", 9))
    rows = [add("B", 100, 5, 1), add("B", 100, 5, 1, flags=0), record("T", "B", 100, 1), record("N")]
    rows += [cancel("B", 100, 1, 1), add("B", 101, 5, 1), record("T", "B", 100, 1), record("N", instrument_id=7001)]
    report = report_of(stream(*rows), CheckOptions(book, piece_records=piece_records))
    violation = report["violation"]
    assert violation is not None
    assert (violation["book"], violation["record"]) == ("reference", 4)
    assert (report["records"], report["events"], report["checks"]["made"]) == (5, 4, 4)
    assert (report["anomaly_count"], report["trades"]["count"], report["bbo_changes"]) == (1, 1, 1)
    assert (report["instrument_count"], report["instruments"]) == (1, [])


def test_after_a_difference_everything_is_counted_up_to_the_end_of_its_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    ignore_partial_cancels(monkeypatch)
    rows = [add("B", 100, 5, 1), cancel("B", 100, 9, 7), cancel("B", 100, 1, 1), *(record("T") for _ in range(5))]
    report = report_of(stream(*rows), CheckOptions("both", piece_records=4))
    assert not report["ok"]
    assert (report["records"], report["events"], report["checks"]["made"]) == (4, 4, 4)
    assert (report["anomaly_count"], report["trades"]["count"]) == (1, 1)


def test_a_book_that_is_broken_where_nobody_looked_is_found_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceBook, "_resize", lambda book, order, size: setattr(order, "size", size))
    violation = report_of(stream(add("B", 100, 5, 1), cancel("B", 100, 2, 1)), CheckOptions("reference", every=1000))[
        "violation"
    ]
    assert violation is not None
    assert (violation["kind"], violation["record"]) == ("invariant", None)


def ignore_partial_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the reference book another one than the kernel's."""
    monkeypatch.setattr(ReferenceBook, "_resize", lambda book, order, size: None)


def test_two_books_that_write_different_tapes_are_named_with_both_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    ignore_partial_cancels(monkeypatch)
    report = report_of(
        stream(add("B", 100, 5, 1), add("B", 101, 5, 2), cancel("B", 101, 2, 2), add("A", 105, 1, 3)),
        CheckOptions("both"),
    )
    violation = report["violation"]
    assert violation is not None and not report["ok"]
    assert (violation["book"], violation["kind"], violation["record"]) == ("both", "bbo", 2)
    kernel, reference = violation["kernel"], violation["reference"]
    assert kernel and (kernel["record"], kernel["bid_px"], kernel["bid_sz"]) == (2, "101", "3")
    assert reference and (reference["record"], reference["bid_sz"]) == (3, "5")
    shown = "\n\n".join(as_text(table) for table in tables(report, 20))
    assert "The first difference\nkernel     record 2," in shown


def test_two_books_that_differ_below_the_best_price_are_named_at_the_end_of_the_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ignore_partial_cancels(monkeypatch)
    rows = [add("B", 100, 5, 1), add("B", 99, 5, 2), add("A", 200, 1, 3), cancel("B", 99, 2, 2)]
    rows += [add("A", 201, 1, 4), cancel("B", 99, 5, 2), record("N")]  # the difference goes away again
    for piece_records, found_behind in ((1, 3), (2, 3), (5, 4)):
        report = report_of(stream(*rows), CheckOptions("both", piece_records=piece_records))
        violation = report["violation"]
        assert violation is not None
        assert (violation["book"], violation["kind"], violation["record"]) == ("both", "level", found_behind)
        text = "instrument 432669 of publisher 1: the bid level at 0.000000099 differs"
        assert violation["text"] == text
        assert f"the books differ at record {found_behind}: {text}" in headline(report)
        assert violation["kernel"] == {"px": "99", "sz": 3, "ct": 1}
        assert violation["reference"] == {"px": "99", "sz": 5, "ct": 1}


@pytest.mark.parametrize(("side", "name", "prices"), [("B", "bid", (100, 99, 98)), ("A", "ask", (100, 101, 102))])
def test_a_level_that_only_one_of_two_books_has_is_named_with_its_price(
    side: str, name: str, prices: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReferenceBook, "_remove", lambda book, order: None)
    rows = [*(add(side, price, 5, price) for price in prices), cancel(side, prices[1], 5, prices[1])]
    violation = report_of(stream(*rows), CheckOptions("both"))["violation"]
    assert violation is not None
    assert violation["text"].endswith(f": the {name} level at {prices[1] / 1e9:.9f} differs")
    assert (violation["kernel"], violation["reference"]) == (None, {"px": str(prices[1]), "sz": 5, "ct": 1})


def test_two_books_whose_queues_differ_are_named_with_the_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    append = ReferenceBook._append

    def jump_the_queue(book: ReferenceBook, order: Order) -> None:
        append(book, order)
        queue = book._level(order.side, order.price).orders
        last = queue.popitem()
        others = list(queue.items())
        queue.clear()
        queue.update([*others[:1], last, *others[1:]])

    monkeypatch.setattr(ReferenceBook, "_append", jump_the_queue)
    rows = [add("A", 105, 1, 8), add("A", 101, 2, 9), *(add("A", 105, size, size) for size in (2, 3))]
    violation = report_of(stream(*rows), CheckOptions("both"))["violation"]
    assert violation is not None
    assert (violation["kind"], violation["record"]) == ("order", 3)
    what = "order 1 in the queue of the ask level at 0.000000105 differs"
    assert violation["text"] == f"instrument 432669 of publisher 1: {what}"
    assert violation["kernel"] == {"order_id": "2", "price": "105", "size": 2, "side": ord("A")}
    assert violation["reference"] == {"order_id": "3", "price": "105", "size": 3, "side": ord("A")}


def test_a_book_that_the_records_of_another_one_damaged_is_found_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = ReferenceMarket.apply_audited

    def apply_and_damage(market: ReferenceMarket, records: MboArray, tape: Tape, audit: Audit) -> None:
        apply(market, records, tape, audit)
        if records["instrument_id"][-1] == 7001:
            market.books[BookKey(1, 432669)].clear()

    monkeypatch.setattr(ReferenceMarket, "apply_audited", apply_and_damage)
    records = stream(add("B", 100, 5, 1), record("N", instrument_id=7001))
    violation = report_of(records, CheckOptions("both", piece_records=1))["violation"]
    assert violation is not None
    assert (violation["kind"], violation["record"], violation["reference"]) == ("level", None, None)


def test_two_books_that_count_differently_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceBook, "_cancel", lambda book, order: None)
    violation = report_of(stream(add("B", 100, 5, 1), cancel("B", 100, 2, 9)), CheckOptions("both"))["violation"]
    assert violation is not None
    assert (violation["kind"], violation["record"]) == ("anomaly", 1)
    assert (violation["kernel"], violation["reference"]) == ({"anomaly": "unknown_cancel", "record": 1}, None)


def test_progress_is_told_of_every_record_and_may_end_the_pass() -> None:
    told: list[tuple[str, int]] = []
    file = RecordedFile("made.dbn", "dbn", None, random_session(1, 10), SYMBOLS)
    verify(file, CheckOptions("reference", every=None, piece_records=4), lambda *words: told.append(words))
    assert told == [("orders", 4), ("orders", 4), ("orders", 2), ("books", 4), ("books", 4), ("books", 2)]

    def stop(stage: str, n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(file, CheckOptions("reference", piece_records=4), stop)


def test_a_report_is_json_and_meets_its_own_expectation() -> None:
    report = report_of(interleaved(500), CheckOptions("reference", idle_ns=2_000))
    assert list(differences(parse_expectation(json.dumps(report)), report)) == []


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ('{"records": 3, "idle": {"count": 0}}', []),
        ('{"records": 4}', ["records: expected 4, found 3"]),
        ('{"ok": 1}', ["ok: expected 1, found true"]),
        (
            '{"idle": {"count": 1, "total_ns": 0}}',
            ["idle.count: expected 1, found 0", 'idle.total_ns: expected 0, found "0"'],
        ),
        ('{"instruments": []}', ["instruments: expected [], found a list of 1"]),
        ('{"instruments": [{"symbol": "ESZ5"}]}', ['instruments[0].symbol: expected "ESZ5", found "CLX5"']),
        ('{"idle": {"first": {"ns": "1"}}}', ['idle.first: expected {"ns": "1"}, found null']),
        ('{"trades": {"cuont": 0}}', ["trades.cuont: expected one of the report's keys (count, size), found another"]),
    ],
)
def test_any_part_of_a_report_may_be_expected(expected: str, told: list[str]) -> None:
    report = report_of(stream(add("B", 100, 5, 1), add("A", 102, 3, 2), add("A", 103, 1, 3)))
    assert list(differences(parse_expectation(expected), report)) == told


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "expected a JSON object, found a list of 1"), ('{"a": }', "found expecting value at line 1, column 7")],
)
def test_an_expectation_that_is_no_object_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_expectation(text)


def test_the_tables_fit_a_terminal_and_leave_out_what_did_not_happen() -> None:
    report = report_of(interleaved(), CheckOptions("reference", idle_ns=2_000))
    shown = "\n\n".join(as_text(table) for table in tables(report, 20))
    assert max(map(len, shown.splitlines())) <= WIDTH
    for title in (
        "Anomalies",
        "Sequence steps back",
        "Crossed and locked",
        "Longest crossed",
        "Longest idle gaps",
        "Hashes",
    ):
        assert title in shown
    calm = "\n\n".join(as_text(table) for table in tables(report_of(stream(record("N"))), 20))
    assert "Anomalies" not in calm and "Longest idle gaps" not in calm
    assert "anomalies                0" in calm


def test_a_list_of_instruments_is_cut_to_the_busiest() -> None:
    records = stream(*(record("N", instrument_id=100 + number // 3) for number in range(10)), record("N"))
    report = report_of(records)
    short = shortened(report, 2)
    assert [found["instrument_id"] for found in short["instruments"]] == [100, 101]
    assert short["instrument_count"] == len(report["instruments"]) == 5
    assert "Books at the end, 2 busiest of 5" in {table.title for table in tables(report, 2)}
    assert "Books at the end, 2 busiest of 5" in {table.title for table in tables(short, 20)}


def test_an_expectation_with_too_many_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="found more levels within each other than can be read"):
        parse_expectation('{"a":' * 200_000)
