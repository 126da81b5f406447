"""Snapshots by rule: at each change of the best prices, by market time, and where passes are cut."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_worker.tests.builders import Desk, blank, clear, interleaved, picture_of, pieces, reference_book, session
from orderbook.book import snapshot_tape
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import Action, Flags, MboArray, Side
from orderbook.book.price import SCALE
from orderbook.book.tape import Tape

Plain = list[tuple[Any, ...]]


def rows_of(desk: Desk) -> Plain:
    return [(s.symbol, s.seq, s.records, s.tick, s.bids.tolist(), s.asks.tolist()) for s in desk.snapshots]


def of(desk: Desk, symbol: str) -> Plain:
    return [row for row in rows_of(desk) if row[0] == symbol]


def due(records: MboArray, every: int) -> list[int]:
    """Return behind how many records a snapshot is due, found record by record."""
    since, found = 0, []
    for index, record in enumerate(records):
        since += record["action"] != Action.CLEAR and not record["flags"] & Flags.SNAPSHOT
        if record["flags"] & Flags.LAST and since >= every:
            found.append(index + 1)
            since = 0
    return found


@pytest.mark.parametrize("every", [1, 7, 100])
def test_snapshots_fall_where_counting_record_by_record_puts_them(tmp_path: Path, every: int) -> None:
    records = np.concatenate((session(1500), clear(sequence=5000), session(1500, seed=2)))
    desk = Desk(tmp_path, snapshot_every=every)
    desk.feed(*pieces(records, 4))
    assert [s.records for s in desk.snapshots] == due(records, every)


@pytest.mark.parametrize("kind", ["kernel", "reference"])
def test_every_change_of_the_best_prices_is_kept_and_nothing_else(tmp_path: Path, kind: BookKind) -> None:
    records, tape = session(3000), Tape()
    make_market("reference").apply(records, tape)
    desk = Desk(tmp_path, snapshot_every=0, book=kind)
    desk.feed(*pieces(records, 2))
    assert [s.records - 1 for s in desk.snapshots] == tape.bbos["record"].tolist()
    assert [s.seq for s in desk.snapshots] == list(range(1, len(tape.bbos) + 1))


def test_a_picture_is_not_kept_though_it_changes_the_best_prices(tmp_path: Path) -> None:
    records = session(2000)
    middle = int(np.flatnonzero(records["flags"] & Flags.LAST)[500]) + 1
    desk = Desk(tmp_path, snapshot_every=0)
    desk.feed(picture_of(records[:middle]))
    assert desk.snapshots == []
    tape, market = Tape(), make_market("reference")
    market.apply(records, tape)
    desk.feed(*pieces(records[middle:], 1))
    behind = tape.bbos[tape.bbos["record"] >= middle]
    assert [s.sequence for s in desk.snapshots] == behind["sequence"].tolist()


def test_market_time_makes_snapshots_due_too(tmp_path: Path) -> None:
    records = session(2000)  # 1 us from record to record
    records["ts_event"] *= np.uint64(1)
    records["ts_recv"] = records["ts_event"][0] + np.arange(2000, dtype=np.uint64) * np.uint64(100_000)
    desk = Desk(tmp_path, snapshot_every=10**9, snapshot_ms=10)
    desk.feed(*pieces(records, 3))
    times = np.array([s.ts_recv for s in desk.snapshots]) // 10**7
    assert len(times) >= 19 and (np.diff(times) >= 1).all()


@pytest.mark.parametrize("every", [0, 1, 13])
@pytest.mark.parametrize("kind", ["kernel", "reference"])
def test_where_a_pass_is_cut_changes_nothing(
    tmp_path: Path, kind: BookKind, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = interleaved(session(700), session(700, seed=2, instrument_id=8))
    desks = []
    for least_rows, block_bytes in ((16, 1 << 20), (1, 1), (3, 5000)):
        monkeypatch.setattr(snapshot_tape, "_LEAST_ROWS", least_rows)
        monkeypatch.setattr(snapshot_tape, "_BLOCK_BYTES", block_bytes)
        desk = Desk(tmp_path, snapshot_every=every, book=kind)
        desk.feed(stream)
        desk.engine.end()
        desks.append(desk)
    for symbol in ("CLX5", "ESZ5"):
        assert of(desks[0], symbol) == of(desks[1], symbol) == of(desks[2], symbol)
        assert [row[1] for row in of(desks[0], symbol)] == list(range(1, len(of(desks[0], symbol)) + 1))


def adds(prices: list[int], instrument_id: int = 7) -> MboArray:
    """Return bids at these prices, each an event."""
    records = blank(len(prices), instrument_id)
    records["action"], records["side"], records["flags"], records["size"] = Action.ADD, Side.BID, Flags.LAST, 1
    records["order_id"], records["price"] = np.arange(1, len(prices) + 1), prices
    records["sequence"] = np.arange(1, len(prices) + 1)
    return records


def test_each_snapshot_has_the_grid_of_the_prices_shown_so_far_however_the_stream_is_cut(tmp_path: Path) -> None:
    prices = [0, 30 * SCALE, 45 * SCALE, 60 * SCALE, 61 * SCALE, 5 * SCALE // 4, 70 * SCALE]
    ticks = [0, 30 * SCALE, 15 * SCALE, 15 * SCALE, SCALE, SCALE // 4, SCALE // 4]
    records = adds(prices)
    for parts in ([records], [records[i : i + 1] for i in range(len(records))], [records[:3], records[3:]]):
        desk = Desk(tmp_path, snapshot_every=1)
        desk.feed(*parts)
        assert [s.tick for s in desk.snapshots] == ticks


def test_the_grid_of_one_book_does_not_depend_on_that_of_another(tmp_path: Path) -> None:
    mixed = np.empty(6, session(1).dtype)
    mixed[0::2], mixed[1::2] = adds([SCALE, 2 * SCALE, SCALE // 2]), adds([4 * SCALE, 6 * SCALE, 8 * SCALE], 8)
    desk = Desk(tmp_path, snapshot_every=1)
    desk.feed(mixed)
    assert [s.tick for s in desk.snapshots if s.symbol == "CLX5"] == [SCALE, SCALE, SCALE // 2]
    assert [s.tick for s in desk.snapshots if s.symbol == "ESZ5"] == [4 * SCALE, 2 * SCALE, 2 * SCALE]


def test_the_last_snapshot_of_each_book_is_that_of_its_end(tmp_path: Path) -> None:
    one, other = session(1010), session(1207, seed=2, instrument_id=8)
    desk = Desk(tmp_path, snapshot_every=1000)
    desk.feed(interleaved(one, other))
    desk.engine.end()
    for symbol, records in (("CLX5", one), ("ESZ5", other)):
        last = [s for s in desk.snapshots if s.symbol == symbol][-1]
        assert last.records == len(records)
        assert last.bids.tolist() == reference_book(records).levels(Side.BID, 10).tolist()
    assert desk.engine.counters.snapshots == len(desk.snapshots) == desk.engine.shown.snapshots
