"""The engine's steps, called without a socket or a thread."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from engine_worker.naming import Registered
from engine_worker.run import key_of
from engine_worker.tests.builders import (
    TICK,
    Desk,
    blank,
    clear,
    interleaved,
    picture_of,
    pieces,
    reference_book,
    rows,
    session,
)  # fmt: skip
from orderbook.book.digest import market_hash
from orderbook.book.encoding import book_json
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import Action, BookKey, Flags, MboArray, Side
from orderbook.book.price import SCALE
from orderbook.book.snapshot import BookState
from replay.streamer.publication import Publication
from replay.tests.recordings import command, recording

NOTHING = blank(0)


def benchmarks(folder: Path) -> list[dict[str, object]]:
    path = folder / "benchmarks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def final_book(folder: Path, symbol: str = "CLX5") -> dict[str, list[dict[str, float]]]:
    return json.loads((folder / "final_books" / f"{symbol}.json").read_text())


def test_snapshots_show_the_reference_book_at_their_event_ends(tmp_path: Path) -> None:
    records = session(3000)
    desk = Desk(tmp_path)
    desk.feed(*pieces(records, 1))
    assert len(desk.snapshots) > 20
    for number, snapshot in enumerate(desk.snapshots, 1):
        assert records["flags"][snapshot.records - 1] & Flags.LAST
        book = reference_book(records[: snapshot.records])
        assert (snapshot.seq, snapshot.ts_event, snapshot.sequence) == (number, book.ts_event, book.sequence)
        assert (snapshot.symbol, snapshot.key, snapshot.tick) == ("CLX5", (1, 7), TICK)
        assert snapshot.bids.tolist() == book.levels(Side.BID, 10).tolist()
        assert snapshot.asks.tolist() == book.levels(Side.ASK, 10).tolist()


@pytest.mark.parametrize("kind", ["kernel", "reference"])
def test_how_the_stream_arrives_changes_no_snapshot(tmp_path: Path, kind: BookKind) -> None:
    one, other = session(3000), session(3000, seed=2, instrument_id=8)
    stream = interleaved(one, other)
    whole = Desk(tmp_path / "whole")
    whole.feed(stream)
    whole.engine.end()
    for seed in range(3):
        cut = Desk(tmp_path / "cut", book=kind)
        cut.feed(*pieces(stream, seed), wait_ms=seed)
        cut.engine.end()
        for symbol in ("CLX5", "ESZ5"):
            of_symbol = [s for s in cut.snapshots if s.symbol == symbol]
            assert rows(of_symbol) == rows([s for s in whole.snapshots if s.symbol == symbol])
            assert final_book(tmp_path / "cut", symbol) == final_book(tmp_path / "whole", symbol)


def test_the_books_of_a_mixed_stream_are_those_of_each_alone(tmp_path: Path) -> None:
    one, other = session(2000), session(2000, seed=2, instrument_id=8)
    mixed, alone = Desk(tmp_path), Desk(tmp_path)
    mixed.feed(*pieces(interleaved(one, other), 5))
    alone.feed(other)
    assert rows([s for s in mixed.snapshots if s.symbol == "ESZ5"]) == rows(alone.snapshots)


def test_the_end_leaves_a_last_snapshot_the_final_book_and_one_line(tmp_path: Path) -> None:
    records = session(1030)
    desk = Desk(tmp_path, snapshot_every=1000)
    desk.feed(records)
    desk.engine.end()
    assert [s.records for s in desk.snapshots][-1] == 1030
    book = reference_book(records)
    found = final_book(tmp_path)
    for name, side in (("bids", Side.BID), ("asks", Side.ASK)):
        assert [[level["px"], level["sz"], level["ct"]] for level in found[name]] == book.levels(side).tolist()
    [line] = benchmarks(tmp_path)
    assert (line["processed"], line["symbols"], line["run_id"]) == (1030, ["CLX5"], desk.snapshots[0].run_id)
    assert (line["framing"], line["book"], line["depth"]) == ("dbn", "kernel", 10)
    assert (line["snapshot_every"], line["max_msgs"], line["push_ms"]) == (1000, -1, 20)
    for name in ("elapsed_s", "throughput_msgs_per_s", "apply_p50_us", "snap_p50_ms"):
        assert line[name] > 0
    assert line["apply_p50_us"] <= line["apply_p95_us"] <= line["apply_p99_us"] <= line["apply_max_us"]
    assert line["snap_p50_ms"] <= line["snap_p95_ms"] <= line["snap_p99_ms"] <= line["snap_max_ms"]
    assert desk.books[-1].records == 1030


def test_a_snapshot_due_at_the_very_end_is_taken_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, snapshot_every=1)
    desk.feed(session(50))
    count = len(desk.snapshots)
    desk.engine.end()
    assert len(desk.snapshots) == count


def test_an_empty_connection_leaves_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.feed(session(500))
    desk.engine.end()
    before = final_book(tmp_path)
    desk.connect()
    desk.feed(NOTHING)
    desk.engine.end()
    assert len(benchmarks(tmp_path)) == 1
    assert final_book(tmp_path) == before


def test_a_book_that_ends_empty_does_not_replace_a_final_book(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.feed(session(500))
    desk.engine.end()
    before = final_book(tmp_path)
    desk.connect()
    desk.feed(session(500), clear(sequence=501))
    desk.engine.end()
    assert len(benchmarks(tmp_path)) == 2
    assert desk.snapshots[-1].state is BookState.EMPTY
    assert final_book(tmp_path) == before


def test_a_picture_alone_is_shown_but_is_no_replay(tmp_path: Path) -> None:
    records = session(500)
    desk = Desk(tmp_path)
    desk.feed(picture_of(records))
    desk.engine.end()
    assert benchmarks(tmp_path) == []
    assert desk.snapshots == []
    assert desk.books[-1].bids.tolist() == reference_book(records).levels(Side.BID).tolist()
    assert desk.engine.counters.runs == 0


def test_a_replay_that_follows_a_picture_is_a_run_of_its_own_with_the_same_snapshots(tmp_path: Path) -> None:
    records = session(2000)
    fresh = Desk(tmp_path / "fresh")
    fresh.feed(*pieces(records, 1))
    fresh.engine.end()
    for seed in range(3):
        again = Desk(tmp_path / "again")
        again.feed(picture_of(session(300, seed=9)))
        shown = again.books[-1].run_id
        again.feed(*pieces(np.concatenate((clear(), records)), seed))
        again.engine.end()
        assert rows(again.snapshots) == rows(fresh.snapshots)
        assert again.snapshots[0].run_id != shown
        assert benchmarks(tmp_path / "again")[-1]["processed"] == 2000
        assert final_book(tmp_path / "again") == final_book(tmp_path / "fresh")


def test_only_the_streamers_own_clears_are_left_out_of_the_count(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.feed(picture_of(session(300)), clear(), clear(), session(500))
    desk.engine.end()
    assert benchmarks(tmp_path)[0]["processed"] == 501
    assert desk.engine.counters.applied == desk.engine.counters.received


def test_another_days_instrument_takes_the_symbol_of_the_one_that_was_cleared(tmp_path: Path) -> None:
    records = session(500, instrument_id=9)
    desk = Desk(tmp_path, symbols={7: "CLX5", 9: "CLX5"})
    desk.feed(picture_of(session(300)), clear(), records)
    desk.engine.end()
    assert {s.symbol for s in desk.snapshots} == {"CLX5"}
    assert desk.books[-1].bids.tolist() == reference_book(records).levels(Side.BID).tolist()
    assert benchmarks(tmp_path)[0]["symbols"] == ["CLX5"]


def test_a_recording_that_opens_with_its_own_picture_is_counted_whole(tmp_path: Path) -> None:
    records = session(1000)
    opening = picture_of(records[:400])
    desk = Desk(tmp_path)
    desk.feed(*pieces(np.concatenate((opening, records[400:])), 1))
    desk.engine.end()
    assert benchmarks(tmp_path)[0]["processed"] == len(opening) + 600


def test_a_late_picture_and_the_rest_give_the_book_of_the_whole(tmp_path: Path) -> None:
    records = session(2000)
    middle = int(np.flatnonzero(records["flags"] & Flags.LAST)[500]) + 1
    desk = Desk(tmp_path)
    desk.feed(picture_of(records[:middle]), *pieces(records[middle:], 3))
    desk.engine.end()
    book = reference_book(records)
    assert desk.books[-1].bids.tolist() == book.levels(Side.BID).tolist()
    assert desk.books[-1].asks.tolist() == book.levels(Side.ASK).tolist()
    assert len(benchmarks(tmp_path)) == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_ends_the_run_at_exactly_that_record(tmp_path: Path, seed: int) -> None:
    records = session(2000)
    desk = Desk(tmp_path, max_msgs=1234)
    desk.feed(*pieces(records, seed))
    counters = desk.engine.counters
    assert (counters.received, counters.applied, counters.ignored) == (2000, 1234, 766)
    assert [line["processed"] for line in benchmarks(tmp_path)] == [1234]
    expected = reference_book(records[:1234]).levels(Side.BID)
    assert [level["px"] for level in final_book(tmp_path)["bids"]] == expected[:, 0].tolist()
    desk.engine.end()
    assert len(benchmarks(tmp_path)) == 1


def test_books_are_pushed_every_push_ms_and_only_when_they_changed(tmp_path: Path) -> None:
    records = session(300)
    records["flags"] = Flags.LAST
    desk = Desk(tmp_path, push_ms=20)
    desk.feed(*[records[i : i + 1] for i in range(100)], wait_ms=1)
    assert [s.records for s in desk.books] == [1, 21, 41, 61, 81]
    desk.feed(*[NOTHING] * 100, wait_ms=1)
    assert [s.records for s in desk.books] == [1, 21, 41, 61, 81, 100]
    assert [s.seq for s in desk.books] == sorted({s.seq for s in desk.books})


def test_the_engine_waits_for_records_no_longer_than_until_the_next_push(tmp_path: Path) -> None:
    desk = Desk(tmp_path, push_ms=20)
    assert desk.engine.wait_s() == 0.2
    desk.feed(session(100))
    desk.now += 5 * 10**6
    desk.engine.step(NOTHING)
    assert desk.engine.wait_s() == 0.2
    more = session(101)[100:]
    more["flags"] = Flags.LAST
    desk.feed(more)
    assert desk.engine.wait_s() == pytest.approx(0.015)


def test_nobody_sees_a_book_in_mid_event(tmp_path: Path) -> None:
    records = session(3000)
    desk = Desk(tmp_path, push_ms=1, snapshot_every=7)
    desk.feed(*[records[i : i + 1] for i in range(3000)], wait_ms=2)
    assert len(desk.books) > 1000
    for snapshot in [*desk.books, *desk.snapshots]:
        assert records["flags"][snapshot.records - 1] & Flags.LAST


def test_complete_books_go_out_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    records = session(3000)
    desk = Desk(tmp_path, depth=2)
    desk.feed(*[records[i : i + 10] for i in range(0, 3000, 10)], wait_ms=10)
    desk.engine.end()
    complete = [book.snapshot for book in desk.live if book.complete]
    assert len(complete) == 4
    assert complete[-1].bids.tolist() == reference_book(records).levels(Side.BID).tolist()


@pytest.mark.parametrize("symbols", [{7: "CLX5"}, {}])
@pytest.mark.parametrize("first", [1, 2])
def test_the_registered_publisher_has_the_bare_symbol_whoever_comes_first(
    tmp_path: Path, symbols: dict[int, str], first: int
) -> None:
    sessions = [session(500, publisher_id=publisher_id) for publisher_id in (first, 3 - first)]
    desk = Desk(tmp_path, symbols, symbol="CLX5", registered={"CLX5": Registered(BookKey(2, 7), TICK)})
    desk.feed(*sessions)
    assert {(s.key.publisher_id, s.symbol) for s in desk.snapshots} == {(2, "CLX5"), (1, "CLX5.1")}


@pytest.mark.parametrize("symbols", [{7: "CLX5"}, {}])
def test_where_nothing_is_registered_the_first_to_come_keeps_the_bare_symbol_in_later_connections(
    tmp_path: Path, symbols: dict[int, str]
) -> None:
    desk = Desk(tmp_path, symbols)
    desk.feed(session(300, publisher_id=2), session(300, publisher_id=1))
    desk.connect(symbols)
    desk.feed(session(300, publisher_id=1), session(300, publisher_id=2))
    assert {(s.key.publisher_id, s.symbol) for s in desk.snapshots} == {(2, "CLX5"), (1, "CLX5.1")}


def test_the_registered_instrument_has_the_default_symbol_whichever_nameless_one_comes_first(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols={}, symbol="GCZ5", registered={"GCZ5": Registered(BookKey(1, 8), TICK)})
    desk.feed(session(300), session(300, instrument_id=8))
    assert {(s.key.instrument_id, s.symbol) for s in desk.snapshots} == {(7, "7"), (8, "GCZ5")}


def test_two_instruments_that_the_feed_calls_the_same_are_told_apart(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols={7: "CLX5", 8: "CLX5"})
    desk.feed(session(300), session(300, instrument_id=8))
    assert {(s.key.instrument_id, s.symbol) for s in desk.snapshots} == {(7, "CLX5"), (8, "CLX5.8")}


def test_an_instrument_without_a_name_gets_the_default_symbol_and_the_next_one_its_number(tmp_path: Path) -> None:
    desk = Desk(tmp_path, symbols={}, symbol="GCZ5")
    desk.feed(session(300), session(300, instrument_id=8))
    assert {s.symbol for s in desk.snapshots} == {"GCZ5", "8"}


def test_a_known_tick_is_kept_and_an_unknown_one_is_found_in_the_book(tmp_path: Path) -> None:
    known, unknown = Desk(tmp_path, registered={"CLX5": Registered(BookKey(1, 7), 5)}), Desk(tmp_path)
    known.feed(session(500))
    unknown.feed(session(500))
    assert {s.tick for s in known.snapshots} == {5}
    assert {s.tick for s in unknown.snapshots} == {TICK}


def test_a_price_of_zero_tells_no_tick_and_spoils_none(tmp_path: Path) -> None:
    records = session(3)
    records["flags"], records["action"], records["side"] = Flags.LAST, Action.ADD, Side.BID
    records["price"] = [0, 5 * SCALE, -10 * SCALE]
    desk = Desk(tmp_path, snapshot_every=1, push_ms=1)
    desk.feed(*(records[i : i + 1] for i in range(3)), wait_ms=2)
    desk.engine.end()
    assert [s.tick for s in desk.snapshots] == [0, 5 * SCALE, 5 * SCALE]
    assert '"decimals":9,"tick":0.000000001' in book_json(desk.snapshots[0], 10)
    assert '"bids":[[5,' in book_json(desk.snapshots[1], 10)


def test_a_new_connection_starts_with_empty_books(tmp_path: Path) -> None:
    records = session(1000)
    desk = Desk(tmp_path)
    desk.feed(session(700, seed=3))
    desk.connect()
    desk.feed(records)
    desk.engine.end()
    assert desk.books[-1].bids.tolist() == reference_book(records).levels(Side.BID).tolist()


def test_results_that_cannot_be_written_are_said_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    desk = Desk(tmp_path, bench_log_path=tmp_path / "file" / "benchmarks.jsonl")
    desk.feed(session(300))
    desk.engine.end()
    assert "Not a directory" in desk.engine.fault or "exists" in desk.engine.fault
    desk.connect()
    desk.feed(session(300))
    assert len(desk.snapshots) == 6


def test_a_replay_stopped_in_mid_event_is_not_shown_half(tmp_path: Path) -> None:
    records: MboArray = session(500)
    records["flags"][-1] = 0
    desk = Desk(tmp_path, snapshot_every=10_000)
    desk.feed(records)
    desk.engine.end()
    assert desk.snapshots == []
    assert benchmarks(tmp_path)[0]["processed"] == 500


def stopped_desk(folder: Path, limit: int = 1000) -> Desk:
    """Return a desk whose replay of 2000 records stopped at MAX_MSGS, and has ended."""
    desk = Desk(folder, max_msgs=limit)
    desk.feed(*pieces(ended_events(2000), 1))
    desk.engine.end()
    return desk


def ended_events(records: int, **of: int) -> MboArray:
    """Return a session in which every record ends its event."""
    found = session(records, **of)
    found["flags"] = Flags.LAST
    return found


def test_a_picture_behind_a_run_that_stopped_at_the_limit_shows_nothing(tmp_path: Path) -> None:
    desk = stopped_desk(tmp_path)
    shown = len(desk.live)
    for _ in range(2):
        desk.connect()
        desk.feed(*pieces(picture_of(ended_events(2000)), 2), *[NOTHING] * 3, wait_ms=2000)
        assert desk.engine.wait_s() == 0.2
        desk.engine.end()
    assert len(desk.live) == shown
    assert desk.engine.pusher.newest["CLX5"] is desk.books[-1]
    assert (desk.books[-1].records, desk.engine.shown.records) == (1000, 1000)
    assert len(benchmarks(tmp_path)) == 1


def test_the_replay_after_one_that_stopped_at_the_limit_starts_afresh(tmp_path: Path) -> None:
    desk, other = stopped_desk(tmp_path), ended_events(1500, seed=4)
    before = desk.books[-1].run_id
    desk.connect()
    desk.feed(picture_of(ended_events(2000)), clear(), other)
    desk.engine.end()
    assert (desk.books[-1].records, [line["processed"] for line in benchmarks(tmp_path)]) == (1000, [1000, 1000])
    assert desk.books[-1].run_id != before
    assert desk.books[-1].bids.tolist() == reference_book(other[:1000]).levels(Side.BID).tolist()


@pytest.mark.parametrize("cleared", [(7, 8), (8, 7)])
def test_a_new_replay_is_known_whichever_of_the_pictured_books_it_clears_first(
    tmp_path: Path, cleared: tuple[int, int]
) -> None:
    pictures = [picture_of(ended_events(500)), picture_of(ended_events(500, instrument_id=8))]
    other = ended_events(50, seed=4)
    desk = stopped_desk(tmp_path, 10)
    desk.connect()
    desk.feed(np.concatenate(pictures), *(clear(instrument_id=number) for number in cleared), other)
    assert [line["processed"] for line in benchmarks(tmp_path)] == [10, 10]
    assert desk.books[-1].bids.tolist() == reference_book(other[:10]).levels(Side.BID).tolist()


def test_a_stopped_replay_whose_connection_broke_off_stays_stopped_in_the_next(tmp_path: Path) -> None:
    records = ended_events(2000)
    desk = Desk(tmp_path, max_msgs=1000)
    desk.feed(records[:1200])
    shown = len(desk.live)
    desk.connect()
    desk.feed(picture_of(records[:1300]), records[1300:])
    desk.engine.end()
    assert (len(desk.live), len(benchmarks(tmp_path)), desk.engine.counters.runs) == (shown, 1, 1)
    counters = desk.engine.counters
    assert counters.received == counters.applied + counters.ignored


def test_a_replay_joined_late_after_one_that_stopped_and_ended_is_another_one(tmp_path: Path) -> None:
    records = ended_events(800, seed=4)
    desk = stopped_desk(tmp_path)
    desk.connect()
    desk.feed(picture_of(records[:300]), records[300:])
    desk.engine.end()
    assert desk.books[-1].bids.tolist() == reference_book(records).levels(Side.BID).tolist()


def test_a_restarted_engine_with_a_limit_shows_the_picture_that_it_joins_with(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_msgs=1000)
    desk.feed(picture_of(ended_events(500)))
    assert desk.books[-1].bids.tolist() == reference_book(ended_events(500)).levels(Side.BID).tolist()


def test_the_picture_of_what_is_shown_is_not_pushed_again(tmp_path: Path) -> None:
    one, other = ended_events(500), ended_events(500, seed=2, instrument_id=8)
    desk = Desk(tmp_path)
    desk.feed(interleaved(one, other))
    desk.engine.end()
    shown, run_id = len(desk.live), desk.books[-1].run_id
    desk.connect()
    desk.feed(*pieces(np.concatenate((picture_of(one), picture_of(other))), 1))
    desk.engine.end()
    assert len(desk.live) == shown
    assert {s.symbol: (s.run_id, s.records) for s in desk.engine.pusher.newest.values()} == {
        "CLX5": (run_id, 500),
        "ESZ5": (run_id, 500),
    }


def test_of_a_picture_only_the_books_that_changed_meanwhile_are_pushed(tmp_path: Path) -> None:
    one, other = ended_events(600), ended_events(500, seed=2, instrument_id=8)
    desk = Desk(tmp_path)
    desk.feed(interleaved(one[:500], other))
    desk.engine.end()
    shown = len(desk.live)
    desk.connect()
    desk.feed(np.concatenate((picture_of(one), picture_of(other))))
    assert [(book.snapshot.symbol, book.complete) for book in desk.live[shown:]] == [("CLX5", False), ("CLX5", True)]
    assert set(desk.engine.pusher.newest) == {"CLX5", "ESZ5"}


@pytest.mark.parametrize("limit", [-1, 0])
def test_a_run_without_applied_records_leaves_no_line_and_no_final_book(tmp_path: Path, limit: int) -> None:
    desk = Desk(tmp_path, max_msgs=limit)
    desk.feed(picture_of(session(300)), clear())
    desk.engine.end()
    assert (desk.engine.counters.runs, benchmarks(tmp_path)) == (1, [])
    assert not (tmp_path / "final_books").exists()
    assert desk.engine.fault == ""


@pytest.mark.parametrize("seed", range(3))
def test_the_clears_between_the_rounds_of_a_loop_are_applied_but_no_records(tmp_path: Path, seed: int) -> None:
    one, other = ended_events(330), ended_events(330, seed=2, instrument_id=8)
    between = np.concatenate((clear(), clear(instrument_id=8)))
    between["ts_event"] = one["ts_event"][0]
    desk = Desk(tmp_path)
    desk.feed(*pieces(np.concatenate((interleaved(one, other), between, one[:40])), seed))
    desk.engine.end()
    assert benchmarks(tmp_path)[0]["processed"] == 330 + 330 + 40
    assert desk.engine.counters.applied == desk.engine.counters.received
    assert {s.state for s in desk.snapshots} == {BookState.OK}
    assert [(s.symbol, s.records) for s in desk.snapshots if s.records > 300] == [("CLX5", 370)]
    shown = {s.symbol: s for s in desk.books}
    assert shown["ESZ5"].state is BookState.EMPTY
    assert shown["CLX5"].bids.tolist() == reference_book(one[:40]).levels(Side.BID).tolist()


def test_the_clears_of_a_recording_count_in_every_round(tmp_path: Path) -> None:
    recording = np.concatenate((clear(), ended_events(100), clear(sequence=101), ended_events(50, seed=3)))
    desk = Desk(tmp_path)
    desk.feed(recording, clear(), recording, clear(), recording)
    desk.engine.end()
    assert benchmarks(tmp_path)[0]["processed"] == 3 * len(recording)


def test_the_clear_of_a_round_beyond_the_limit_is_ignored_and_within_it_takes_no_room(tmp_path: Path) -> None:
    records = ended_events(500)
    for limit, applied in ((500, 500), (600, 601)):
        desk = Desk(tmp_path / str(limit), max_msgs=limit)
        desk.feed(np.concatenate((records, clear(), records)))
        desk.engine.end()
        counters = desk.engine.counters
        assert (counters.received, counters.applied, counters.ignored) == (1001, applied, 1001 - applied)
        assert desk.books[-1].records == limit
        expected = reference_book(records[: limit % 500 or 500]).levels(Side.BID)
        assert [level["px"] for level in final_book(tmp_path / str(limit))["bids"]] == expected[:, 0].tolist()


def born_late(seed: int = 3) -> MboArray:
    """Return two instruments in events of several records, and a third one that is first named when half is over."""
    parts = [session(1500, seed=seed + number, instrument_id=7 + number) for number in range(3)]
    parts[2] = parts[2][:700]
    parts[2]["ts_event"] += np.uint64(800_001)
    parts[2]["ts_recv"] += np.uint64(800_001)
    return interleaved(*parts)


def publication_of(records: MboArray) -> Publication:
    """Return the streamer's side of a replay: it makes what jumps bring."""
    return Publication(command(), recording(records, {7: "CLX5", 8: "ESZ5", 9: "GCZ5"}), 0)


def hash_at(records: MboArray, position: int) -> str:
    """Return the state hash of the books behind so many records, without any jump."""
    market = make_market("reference")
    market.apply(records[:position])
    return market_hash(market.books.items())


def rows_at_event_ends(records: MboArray) -> set[tuple[object, ...]]:
    """Return the key and the best prices of every book behind each event: all that history may hold."""
    market, found = make_market("reference"), set()
    for index in range(len(records)):
        market.apply(records[index : index + 1])
        book = market.book(key := key_of(records[index]))
        if book.at_event_end:
            found.add((key.instrument_id, book.ts_event, book.sequence, *book.bbo()))
    return found


@pytest.mark.parametrize("kind", ["kernel", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_jumps_of_the_streamer_leave_the_books_of_an_uninterrupted_run(
    tmp_path: Path, seed: int, kind: BookKind
) -> None:
    records = born_late()
    publication, rnd = publication_of(records), random.Random(seed)
    desk = Desk(tmp_path, {7: "CLX5", 8: "ESZ5", 9: "GCZ5"}, book=kind, push_ms=1, snapshot_every=10)
    position = 0
    for target in [*(rnd.randrange(len(records)) for _ in range(12)), 0, 1, len(records) // 4, len(records) - 400]:
        stop = min(position + rnd.choice((1, 40, 600)), len(records))
        desk.feed(*pieces(records[position:stop], seed), wait_ms=2)
        assert market_hash(desk.engine._market.books.items()) == hash_at(records, stop)
        desk.feed(*pieces(publication.arrival(target), seed), wait_ms=2)
        assert market_hash(desk.engine._market.books.items()) == hash_at(records, target)
        position = target
    desk.feed(records[position:])
    desk.engine.end()
    assert market_hash(desk.engine._market.books.items()) == hash_at(records, len(records))
    possible = rows_at_event_ends(records)
    assert {(s.key.instrument_id, s.ts_event, s.sequence, *s.bbo) for s in desk.snapshots} <= possible
    empty = {s for s in desk.books if s.state is BookState.EMPTY}
    shown = {(s.key.instrument_id, s.ts_event, s.sequence, *s.bbo) for s in desk.books if s not in empty}
    assert len(desk.books) > 50 and shown <= possible
    assert len(benchmarks(tmp_path)) == 1 and desk.engine.counters.runs == 1
    counters = desk.engine.counters
    assert counters.received == counters.applied


def test_a_seek_back_to_before_a_book_was_born_shows_it_empty_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    records = born_late()
    birth = int((records["instrument_id"] == 9).argmax())
    desk = Desk(tmp_path, {7: "CLX5", 8: "ESZ5", 9: "GCZ5"}, snapshot_every=10_000)
    desk.feed(records, publication_of(records).arrival(birth - 100))
    assert {s.symbol: s.state for s in desk.books}["GCZ5"] is BookState.EMPTY
    desk.feed(records[birth - 100 : birth])
    desk.engine.end()
    assert {s.symbol for s in desk.snapshots} <= {"CLX5", "ESZ5"}


@pytest.mark.parametrize("position", [0, 500])
def test_books_that_no_record_has_named_yet_are_not_made_by_a_jump(tmp_path: Path, position: int) -> None:
    records = born_late()
    desk = Desk(tmp_path)
    desk.feed(records[:600], publication_of(records).arrival(position), records[position:600])
    desk.engine.end()
    assert {s.symbol for s in desk.snapshots + desk.books} == {"CLX5", "ESZ5"}


def test_a_jump_before_the_first_record_brings_no_book_that_is_not_there(tmp_path: Path) -> None:
    records = born_late()
    desk = Desk(tmp_path)
    desk.feed(publication_of(records).arrival(500), records[500:700])
    desk.engine.end()
    assert {s.symbol for s in desk.snapshots + desk.books} == {"CLX5", "ESZ5"}
    assert market_hash(desk.engine._market.books.items()) == hash_at(records, 700)


def test_a_jump_inside_an_event_is_shown_and_kept_when_the_event_ends(tmp_path: Path) -> None:
    records = session(2000)
    inside = next(i for i in range(500, 2000) if not records["flags"][i] & Flags.LAST)
    desk = Desk(tmp_path, snapshot_every=1, push_ms=1)
    ends = [index + 1 for index in range(2000) if records["flags"][index] & Flags.LAST]
    desk.feed(records[: ends[700]], wait_ms=2)
    kept, shown = len(desk.snapshots), len(desk.books)
    desk.feed(publication_of(records).arrival(inside + 1), *[NOTHING] * 3, wait_ms=2)
    assert (len(desk.snapshots), len(desk.books)) == (kept, shown)
    end = next(end for end in ends if end > inside)
    desk.feed(records[inside + 1 : end], wait_ms=2)
    assert (len(desk.snapshots), len(desk.books)) == (kept + 1, shown + 1)
    assert desk.books[-1].bids.tolist() == reference_book(records[:end]).levels(Side.BID, 200).tolist()
