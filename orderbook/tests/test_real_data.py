"""Every number that is known of a real recording, from both books."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orderbook.book.audit import Audit
from orderbook.book.digest import market_hash, state_hash
from orderbook.book.market import BookKind, make_book, make_market
from orderbook.book.mbo import MBO, Action, BookKey, Flags, MboArray, Side
from orderbook.book.snapshot import Bbo, BookState, book_state
from orderbook.book.snapshot_tape import SnapshotRule, SnapshotTape
from orderbook.book.tape import Tape
from orderbook.tests.records import KINDS, picture

FOLDER = os.environ.get("REAL_DATA_DIR")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set REAL_DATA_DIR to the folder that holds CLX5_mbo.dbn")

KEY = BookKey(1, 432669)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    known: dict[str, Any] = json.loads((Path(FOLDER or "") / "CLX5_mbo.golden.json").read_text())
    return known


@pytest.fixture(scope="module")
def recording(golden: dict[str, Any]) -> bytearray:
    content = bytearray((Path(FOLDER or "") / golden["file"]).read_bytes())
    assert hashlib.sha256(content).hexdigest() == golden["sha256"]
    return content


@pytest.fixture(scope="module")
def records(recording: bytearray) -> MboArray:
    metadata_length = int.from_bytes(recording[4:8], "little")
    return np.frombuffer(recording, MBO, offset=8 + metadata_length)


def prices_and_sizes(bbo: Bbo) -> list[tuple[int, int] | None]:
    return [(level.price, level.size) if level else None for level in bbo]


def test_every_known_number_has_a_test_here(golden: dict[str, Any]) -> None:
    assert set(golden) == {
        "file",
        "sha256",
        "records",
        "events",
        "unknown_cancels",
        "unknown_modifies",
        "bbo_changes_per_record_price_size",
        "bbo_changes_at_event_ends_price_size_count",
        "checkpoints_after_record",
        "final",
    }
    assert set(golden["final"]) == {"orders", "bids", "asks"}
    assert len(golden["checkpoints_after_record"]) == 7


def test_the_recording_has_the_known_records_and_events(golden: dict[str, Any], records: MboArray) -> None:
    assert len(records) == golden["records"]
    assert int(((records["flags"] & Flags.LAST) != 0).sum()) == golden["events"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_final_book_is_the_known_one_on_every_level(
    kind: BookKind, golden: dict[str, Any], records: MboArray
) -> None:
    book = make_book(kind)
    book.apply(records)
    book.check()
    assert book.levels(Side.BID).tolist() == golden["final"]["bids"]
    assert book.levels(Side.ASK).tolist() == golden["final"]["asks"]
    assert len(book) == golden["final"]["orders"]
    assert book.anomalies == {
        "unknown_cancel": golden["unknown_cancels"],
        "unknown_modify": golden["unknown_modifies"],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_book_is_the_known_one_on_the_way(kind: BookKind, golden: dict[str, Any], records: MboArray) -> None:
    book = make_book(kind)
    applied = 0
    for after, expected in golden["checkpoints_after_record"].items():
        book.apply(records[applied : int(after)])
        applied = int(after)
        book.check()
        bbo = book.bbo()
        assert {
            "ts_event": book.ts_event,
            "flags": int(records[applied - 1]["flags"]),
            "best_bid": list(bbo.bid or ()),
            "best_ask": list(bbo.ask or ()),
            "bid_levels": len(book.levels(Side.BID)),
            "ask_levels": len(book.levels(Side.ASK)),
            "orders": len(book),
        } == expected
        assert book.at_event_end == bool(expected["flags"] & Flags.LAST)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_prices_change_as_often_as_is_known(kind: BookKind, golden: dict[str, Any], records: MboArray) -> None:
    book = make_book(kind)
    per_record = per_event = 0
    seen: list[tuple[int, int] | None] = [None, None]
    seen_at_end = Bbo(None, None)
    for place in range(len(records)):
        book.apply(records[place : place + 1])
        bbo = book.bbo()
        per_record += prices_and_sizes(bbo) != seen
        seen = prices_and_sizes(bbo)
        if book.at_event_end:
            per_event += bbo != seen_at_end
            seen_at_end = bbo
    assert per_record == golden["bbo_changes_per_record_price_size"]
    assert per_event == golden["bbo_changes_at_event_ends_price_size_count"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_at_each_change_of_the_best_prices_is_taken_as_often_as_is_known(
    kind: BookKind, golden: dict[str, Any], records: MboArray
) -> None:
    market, tape = make_market(kind), SnapshotTape(SnapshotRule(0, 0, 10))
    for part in np.array_split(records, 9):
        market.apply_snapshots(part, tape)
    assert len(tape.rows) == golden["bbo_changes_at_event_ends_price_size_count"]
    assert len(tape.trades) == np.count_nonzero(records["action"] == Action.TRADE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [97, 4096, 10**6])
def test_the_tape_holds_every_change_of_the_best_prices_and_every_trade(
    kind: BookKind, batch: int, golden: dict[str, Any], records: MboArray
) -> None:
    market, tape = make_market(kind), Tape()
    for start in range(0, len(records), batch):
        market.apply(records[start : start + batch], tape)
    assert len(tape.bbos) == golden["bbo_changes_at_event_ends_price_size_count"] == 17_222
    assert tape.records == golden["records"]
    traded = records[records["action"] == Action.TRADE]
    assert len(tape.trades) == len(traded) == 1_599
    for field in ("ts_event", "ts_recv", "price", "order_id", "size", "sequence", "instrument_id", "side"):
        assert tape.trades[field].tolist() == traded[field].tolist()
    ends = records[tape.bbos["record"]]
    assert (ends["flags"] & Flags.LAST > 0).all()
    for field in ("ts_event", "ts_recv", "sequence", "instrument_id", "publisher_id"):
        assert tape.bbos[field].tolist() == ends[field].tolist()
    last = tape.bbos[-1]
    assert [last["bid_px"], last["bid_sz"], last["bid_ct"]] == golden["final"]["bids"][0]
    assert [last["ask_px"], last["ask_sz"], last["ask_ct"]] == golden["final"]["asks"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checked_pass_finds_the_known_faults_and_no_contradiction(
    kind: BookKind, golden: dict[str, Any], records: MboArray
) -> None:
    every = 1 if kind == "kernel" else 40  # the readable book takes 23 s for a check at every event end
    market, tape, audit = make_market(kind), Tape(), Audit(every)
    market.apply_audited(records, tape, audit)
    assert (audit.events, audit.checks) == (golden["events"], golden["events"] // every)
    assert len(tape.bbos) == golden["bbo_changes_at_event_ends_price_size_count"]
    assert market.book(KEY).anomalies == {
        "unknown_cancel": golden["unknown_cancels"],
        "unknown_modify": golden["unknown_modifies"],
    }
    for name, action in (("unknown_cancel", Action.CANCEL), ("unknown_modify", Action.MODIFY)):
        first = records[audit.first[name]]
        assert first["action"] == action
        added_before = records[: audit.first[name]]["order_id"][records[: audit.first[name]]["action"] == Action.ADD]
        assert first["order_id"] not in added_before


@pytest.mark.parametrize("kind", KINDS)
def test_the_book_is_never_locked_or_crossed_while_trading_goes_on(kind: BookKind, records: MboArray) -> None:
    market, tape = make_market(kind), Tape()
    states: dict[BookState, int] = dict.fromkeys(BookState, 0)
    first_crossed = None
    ends = np.flatnonzero(records["flags"] & Flags.LAST) + 1
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        market.apply(records[start:end], tape)
        state = book_state(market.book(KEY).bbo())
        states[state] += 1
        if state == BookState.CROSSED and first_crossed is None:
            first_crossed = int(records[end - 1]["ts_event"])
    assert states == {
        BookState.OK: 31_856,
        BookState.LOCKED: 0,
        BookState.CROSSED: 172,
        BookState.ONE_SIDED: 25,
        BookState.EMPTY: 0,
    }
    assert first_crossed is not None
    assert first_crossed > 1_758_750_300 * 10**9  # 21:45 UTC, when the market takes orders and does not match them


def test_both_books_have_the_same_hash_however_the_recording_is_cut(records: MboArray) -> None:
    hashes = set()
    for kind in KINDS:
        for batch in (1, 1000, 10**6):
            book, market = make_book(kind), make_market(kind)
            for start in range(0, len(records), batch):
                book.apply(records[start : start + batch])
                market.apply(records[start : start + batch])
            assert picture(market.book(KEY)) == picture(book)
            hashes.add((state_hash(book), market_hash(market.books.items())))
    assert len(hashes) == 1


def test_both_books_list_the_same_queues_after_every_hundred_records(records: MboArray) -> None:
    reference, kernel = make_book("reference"), make_book("kernel")
    for start in range(0, len(records), 100):
        part = records[start : start + 100]
        reference.apply(part)
        kernel.apply(part)
        assert kernel.orders().tolist() == reference.orders().tolist()
