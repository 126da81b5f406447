import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from orderbook.book.encoding import (
    book_json,
    book_message,
    encode_levels,
    final_book_json,
    snapshot_row_json,
)
from orderbook.book.snapshot import BookSnapshot, Level
from orderbook.live import BookMessage, book_text

TS = 1_758_742_200_001_385_399


def levels(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 3)


def snapshot(**changes: object) -> BookSnapshot:
    values: dict[str, object] = {
        "symbol": "CLX5",
        "run_id": "r-1",
        "seq": 7,
        "records": 1000,
        "ts_event": TS,
        "ts_recv": TS + 1,
        "sequence": 94225061,
        "tick": 10_000_000,
        "bids": levels((64_830_000_000, 5, 4), (64_800_000_000, 1, 1)),
        "asks": levels((64_840_000_000, 2, 2)),
    }
    return BookSnapshot(**(values | changes))  # type: ignore[arg-type]


def row_of(symbol: str, bid: Level | None, ask: Level | None) -> dict[str, Any]:
    text = snapshot_row_json(symbol=symbol, ts_event=TS, sequence=9, bid=bid, ask=ask, decimals=2)
    return dict(json.loads(text))


def test_levels_are_written_with_exact_decimals() -> None:
    rows = levels((64_830_000_000, 5, 4), (64_800_000_000, 2**40, 1), (-10_000_000, 3, 0), (6_712_500, 1, 1))
    assert encode_levels(rows, 2) == ["[64.83,5,4]", f"[64.80,{2**40},1]", "[-0.01,3,0]", "[0.0067125,1,1]"]
    assert encode_levels(levels(), 2) == []


def test_a_book_line_is_one_json_object_with_prices_as_numbers() -> None:
    line = book_json(snapshot(), depth=50)
    assert "\n" not in line
    book = json.loads(line, parse_float=Decimal)
    assert book == {
        "type": "book",
        "symbol": "CLX5",
        "ts": "2025-09-24T19:30:00.001385399Z",
        "ts_ns": str(TS),
        "ts_recv_ns": str(TS + 1),
        "sequence": "94225061",
        "run_id": "r-1",
        "seq": 7,
        "records": 1000,
        "state": "ok",
        "decimals": 2,
        "tick": Decimal("0.01"),
        "depth": 50,
        "bids": [[Decimal("64.83"), 5, 4], [Decimal("64.80"), 1, 1]],
        "asks": [[Decimal("64.84"), 2, 2]],
    }


def test_a_book_line_is_cut_to_its_depth() -> None:
    assert json.loads(book_json(snapshot(), depth=1))["bids"] == [[64.83, 5, 4]]


def test_the_live_message_and_the_line_carry_the_same_book() -> None:
    whole = snapshot()
    parts = book_message(whole)
    message: BookMessage = {
        "type": "book.update",
        "symbol": whole.symbol,
        "run_id": whole.run_id,
        "seq": whole.seq,
        "head": parts.head,
        "bids": parts.bids,
        "asks": parts.asks,
    }
    line = json.loads(book_json(whole, depth=1))
    del line["depth"]
    assert json.loads(book_text(message, depth=1)) == line


@pytest.mark.parametrize("symbol", ['CL"X5', "ES\\Z5", "Ä\n", "</script>"])
def test_a_symbol_is_escaped_wherever_it_is_written(symbol: str) -> None:
    assert json.loads(book_json(snapshot(symbol=symbol), 1))["symbol"] == symbol
    assert json.loads(final_book_json(symbol, levels(), levels()))["symbol"] == symbol
    assert row_of(symbol=symbol, bid=None, ask=None)["symbol"] == symbol


@pytest.mark.parametrize(
    ("bid", "ask", "state"), [(64_850_000_000, 64_840_000_000, "crossed"), (64_840_000_000, 64_840_000_000, "locked")]
)
def test_the_state_of_the_market_is_told(bid: int, ask: int, state: str) -> None:
    crossed = snapshot(bids=levels((bid, 1, 1)), asks=levels((ask, 1, 1)))
    assert json.loads(book_json(crossed, 5))["state"] == state


def test_an_empty_book_is_two_empty_sides() -> None:
    empty = json.loads(book_json(snapshot(bids=levels(), asks=levels()), 5))
    assert (empty["bids"], empty["asks"], empty["state"]) == ([], [], "empty")


def test_the_final_book_has_every_level_in_units_and_as_a_number() -> None:
    text = final_book_json("CLX5", levels((64_790_000_000, 1, 1), (65_000_000_000, 7, 2)), levels((-1, 3, 1)))
    assert json.loads(text, parse_float=Decimal) == {
        "symbol": "CLX5",
        "bids": [
            {"px": 64_790_000_000, "px_f": Decimal("64.79"), "sz": 1, "ct": 1},
            {"px": 65_000_000_000, "px_f": 65, "sz": 7, "ct": 2},
        ],
        "asks": [{"px": -1, "px_f": Decimal("-0.000000001"), "sz": 3, "ct": 1}],
    }


def test_a_history_row_has_the_fixed_names_first() -> None:
    row = row_of(symbol="CLX5", bid=Level(75_250_000_000, 100, 9), ask=Level(75_300_000_000, 50, 8))
    assert list(row.items())[:8] == [
        ("ts", "2025-09-24T19:30:00.001385+00:00"),
        ("symbol", "CLX5"),
        ("best_bid_px", 75.25),
        ("best_bid_sz", 100),
        ("best_ask_px", 75.3),
        ("best_ask_sz", 50),
        ("mid", 75.275),
        ("spread", 0.05),
    ]
    assert (row["ts_ns"], row["sequence"]) == (str(TS), "9")
    assert (row["best_bid_ct"], row["best_ask_ct"], row["state"]) == (9, 8, "ok")


def test_the_text_of_a_history_row_keeps_every_digit() -> None:
    text = snapshot_row_json(
        symbol="X", ts_event=TS, sequence=9, bid=Level(-1, 1, 1), ask=Level(9_000_000_000_000_000_000, 1, 1), decimals=2
    )
    assert '"best_bid_px":-0.000000001,' in text
    assert '"best_ask_px":9000000000.00,' in text
    assert '"mid":4499999999.9999999995,' in text
    assert '"spread":9000000000.000000001,' in text


@pytest.mark.parametrize("missing", ["bid", "ask", "both"])
def test_a_side_without_orders_is_null_and_so_are_mid_and_spread(missing: str) -> None:
    level = Level(75_250_000_000, 100, 9)
    bid = level if missing == "ask" else None
    ask = level if missing == "bid" else None
    row = row_of(symbol="X", bid=bid, ask=ask)
    assert (row["mid"], row["spread"]) == (None, None)
    assert (row["best_bid_px"], row["best_ask_px"]) == (75.25 if bid else None, 75.25 if ask else None)
    assert (row["best_bid_sz"], row["best_ask_sz"]) == (100 if bid else 0, 100 if ask else 0)
    assert row["state"] == ("empty" if missing == "both" else "one_sided")
