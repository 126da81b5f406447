"""Every number that is known of a real recording, from both books."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orderbook.book.market import BookKind, make_book
from orderbook.book.mbo import MBO, Flags, MboArray, Side
from orderbook.book.snapshot import Bbo

FOLDER = os.environ.get("REAL_DATA_DIR")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set REAL_DATA_DIR to the folder that holds CLX5_mbo.dbn")

KINDS: list[BookKind] = ["reference", "kernel"]


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


def test_both_books_list_the_same_queues_after_every_hundred_records(records: MboArray) -> None:
    reference, kernel = make_book("reference"), make_book("kernel")
    for start in range(0, len(records), 100):
        part = records[start : start + 100]
        reference.apply(part)
        kernel.apply(part)
        assert kernel.orders().tolist() == reference.orders().tolist()
