"""The snapshot tape: which snapshots fall due, what they hold, and that both markets write the same."""

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.book import kernel, snapshot_tape
from orderbook.book.kernel_market import warm_up_snapshots
from orderbook.book.market import BookKind, make_market, split_by_book
from orderbook.book.mbo import MBO, UNDEF_PRICE, UNDEF_TIMESTAMP, BookKey, MboArray, Side, book_tags
from orderbook.book.protocol import Market
from orderbook.book.snapshot_tape import MAX_DEPTH, SNAPSHOT_ROW, SnapshotRows, SnapshotRule, SnapshotTape
from orderbook.book.tape import BBO_ROW, TRADE_ROW, Tape
from orderbook.tests.records import (
    FIRST_TS,
    KINDS,
    LAST,
    SNAPSHOT,
    TOB,
    Row,
    add,
    cancel,
    clear,
    eventful_session,
    examples,
    interleaved,
    modify,
    picture,
    record,
    renamed_book,
    stream,
)
from replay.feed.picture import capture, picture_records

SECOND = 10**9
NEVER = snapshot_tape.MAX_EVERY
RULES = [
    SnapshotRule(1, 0, 5),
    SnapshotRule(3, 0, 1),
    SnapshotRule(1000, 0, MAX_DEPTH),
    SnapshotRule(0, 0, 3),
    SnapshotRule(NEVER, 7_000, 2),
    SnapshotRule(40, 13_000, 10),
    SnapshotRule(0, 9_000, 2),
]
ONE, TWO = BookKey(1, 7), BookKey(2, 7)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


@pytest.fixture
def market(kind: BookKind) -> Market:
    return make_market(kind)


def written(market: Market, records: MboArray, rule: SnapshotRule) -> SnapshotRows:
    """Return what a new tape has of these records."""
    tape = SnapshotTape(rule)
    market.apply_snapshots(records, tape)
    return tape.take()


def behind(market: Market, records: MboArray, every: int, every_ns: int = 0) -> list[int]:
    """Return the numbers of the records behind which a new tape has a snapshot."""
    numbers: list[int] = written(market, records, SnapshotRule(every, every_ns, 1)).rows["record"].tolist()
    return numbers


def at_times(*times: int) -> MboArray:
    """Return events of one record each, captured at these times."""
    records = stream(*(record("N") for _ in times))
    records["ts_recv"] = times
    return records


def of(key: BookKey, row: Row) -> Row:
    return (*row[:2], *key, *row[4:])


def levels_of(taken: SnapshotRows) -> list[tuple[object, object]]:
    """Return the written levels of each snapshot."""
    return [
        (bids[: row["bids"]].tolist(), asks[: row["asks"]].tolist())
        for row, bids, asks in zip(taken.rows, taken.bids, taken.asks, strict=True)
    ]


def busy_market(seed: int, books: int = 4) -> MboArray:
    """Return eventful sessions of several books in one stream; one of them has no event ends for a long time."""
    parts = [
        renamed_book(eventful_session(seed * 10 + number, 1500, ids=60, prices=8 + 40 * number), BookKey(1 + number, 7))
        for number in range(books)
    ]
    parts[-1]["flags"][200:1000] &= 0x7F
    mixed = interleaved(parts, seed)
    rng = np.random.default_rng(seed)
    mixed["ts_recv"] = FIRST_TS + rng.integers(0, 400, len(mixed)).cumsum()
    jitter = rng.random(len(mixed))
    mixed["ts_recv"][jitter < 0.01] -= np.uint64(3_000)
    mixed["ts_recv"][(jitter > 0.01) & (jitter < 0.02)] = UNDEF_TIMESTAMP
    mixed["ts_recv"][len(mixed) // 2 :] -= np.uint64(200_000)  # as when a replay is set back
    return mixed


# layout


def test_the_rows_lie_as_writers_expect_them() -> None:
    offsets = {name: SNAPSHOT_ROW.fields[name][1] for name in SNAPSHOT_ROW.names}  # type: ignore[union-attr,index]
    assert offsets == {
        "record": 0,
        "records": 8,
        "ts_event": 16,
        "ts_recv": 24,
        "bid_px": 32,
        "ask_px": 40,
        "bid_sz": 48,
        "ask_sz": 56,
        "bid_ct": 64,
        "ask_ct": 68,
        "sequence": 72,
        "book": 76,
        "bids": 80,
        "asks": 84,
    }
    assert SNAPSHOT_ROW.itemsize == 88
    assert SNAPSHOT_ROW.isalignedstruct


def test_the_columns_of_the_kernel_are_those_of_the_tape() -> None:
    names = ["SINCE", "NEXT_NS", "STORED", "BEST", "STATE_COLUMNS", "MAX_TS"]
    names += ["ROWS_USED", "TRADES_USED", "EVENTS_SEEN", "FIRST_ROW", "FIRST_TRADE", "HANDS_OVER", "SNAPS"]
    assert [getattr(kernel, name) for name in names] == [getattr(snapshot_tape, name) for name in names]
    assert (kernel.TAKEN, kernel.TAPED_COLUMNS) == (snapshot_tape.RECORDS, snapshot_tape.BEST_COLUMNS)
    assert snapshot_tape.BEST + snapshot_tape.BEST_COLUMNS <= snapshot_tape.STATE_COLUMNS


@pytest.mark.parametrize(
    ("rule", "evidence"),
    [
        (SnapshotRule(-1, 0, 1), "expected every of a snapshot rule from 0 to .*, found -1"),
        (SnapshotRule(2**62 + 1, 0, 1), "every .* found 4611686018427387905"),
        (SnapshotRule(1, -1, 1), "every_ns .* found -1"),
        (SnapshotRule(1, 10**18 + 1, 1), "every_ns .* to 1000000000000000000, found 1000000000000000001"),
        (SnapshotRule(1, 0, 0), "expected depth of a snapshot rule from 1 to 200, found 0"),
        (SnapshotRule(1, 0, 201), "depth .* found 201"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule: SnapshotRule, evidence: str) -> None:
    with pytest.raises(ValueError, match=evidence):
        SnapshotTape(rule)


def test_a_new_tape_is_empty() -> None:
    tape = SnapshotTape(SnapshotRule(1, 0, 4))
    taken = tape.take()
    assert [len(part) for part in (taken.rows, taken.bids, taken.asks, taken.trades)] == [0, 0, 0, 0]
    assert taken.events == 0
    assert (taken.rows.dtype, taken.trades.dtype, taken.bids.shape) == (SNAPSHOT_ROW, TRADE_ROW, (0, 4, 3))
    assert (tape.records, len(tape.book_records), len(tape.touched)) == (0, 0, 0)


# when a snapshot is due


@pytest.mark.parametrize(
    ("every", "ends", "expected"),
    [
        (1, "1011", [0, 2, 3]),
        (2, "100111", [3, 5]),  # due in mid-event: waits for the end, and counts anew from there
        (3, "111111", [2, 5]),
        (1, "0000", []),
        (9, "11111111", []),
        (NEVER, "11111111", []),
    ],
)
def test_a_snapshot_falls_due_by_count_at_event_ends(
    market: Market, every: int, ends: str, expected: list[int]
) -> None:
    records = stream(*(record("N", flags=LAST * int(end)) for end in ends))
    assert behind(market, records, every) == expected


def test_clears_and_pictures_do_not_count_but_end_events(market: Market) -> None:
    pictured = [add("B", 100, 1, 1, SNAPSHOT), add("B", 101, 1, 2, SNAPSHOT | LAST)]
    records = stream(clear(), *pictured, clear(), record("N"), record("N", flags=0), clear(), *pictured, record("N"))
    assert behind(market, records, 2) == [6]
    assert behind(market, stream(record("N", flags=0), *pictured), 1) == [2]


def test_by_best_prices_a_snapshot_falls_due_at_each_change_of_a_best_level(market: Market) -> None:
    records = stream(
        record("N"),  # a book begins as one without levels
        add("B", 100, 5, 1),  # 1
        add("B", 99, 5, 2),
        modify("B", 100, 4, 1),  # 3: the size
        add("A", 102, 1, 3, flags=0),
        record("N"),  # 5: an event ends
        add("B", 101, 1, 4, flags=0),
        cancel("B", 101, 1, 4),  # taken back within an event
        add("B", 100, 3, 5, flags=0),
        cancel("B", 100, 3, 1),  # 9: the size is as before, the count is not; 1 keeps 1
        clear(),  # 10
        clear(),
        add("B", 90, 1, 6, SNAPSHOT | LAST),  # 12: a picture that changes them
        add("A", 95, 1, 0, LAST | TOB),  # 13
        record("T", "B", 95, 1),
    )
    assert behind(market, records, 0) == [1, 3, 5, 9, 10, 12, 13]


@pytest.mark.parametrize("side", "BA")
@pytest.mark.parametrize(
    "rows",
    [
        [("A", 100, 1, 9)],  # size and count
        [("C", 100, 2, 1)],  # the size alone
        [("C", 100, 3, 1), ("A", 100, 3, 9)],  # the count alone
        [("M", 93, 8, 1), ("A", 93, 4, 9), ("C", 93, 4, 1)],  # the price alone
        [("R", 0, 0, 0)],
    ],
)
def test_by_best_prices_each_part_of_each_best_level_counts(
    market: Market, side: str, rows: list[tuple[str, int, int, int]]
) -> None:
    changes = [record(action, side, price, size, order_id, flags=0) for action, price, size, order_id in rows]
    records = stream(record("A", side, 100, 8, 1), *changes, record("N"), record("N"))
    assert behind(market, records, 0) == [0, len(rows) + 1]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 9, 10, 19, 20, 21, 29, 30], [2, 4, 7]),
        ([3, 9, 35, 36, 39, 40], [2, 5]),  # several intervals are one snapshot
        ([10, 19, 20], [2]),
        ([12, 20, 18, 20, 30], [1, 4]),  # a little back is not back
        ([52, 60, 11, 19, 20], [1, 4]),  # set back by intervals
        ([52, 60, 49, 60, 70], [1, 3, 4]),
        ([52, 60, 50, 60, 70], [1, 4]),
        ([1, UNDEF_TIMESTAMP, 9, 2**62, 10, UNDEF_TIMESTAMP, 19, 20], [4, 7]),
    ],
)
def test_by_time_a_snapshot_falls_due_at_each_interval(market: Market, times: list[int], expected: list[int]) -> None:
    assert behind(market, at_times(*times), NEVER, 10) == expected


def test_the_latest_times_and_the_longest_interval_do_not_overflow(market: Market) -> None:
    latest, longest = 2**62 - 1, snapshot_tape.MAX_EVERY_NS
    assert behind(market, at_times(5, latest - 10, latest, 5, longest - 1, longest), NEVER, longest) == [1, 5]


def test_by_time_a_snapshot_waits_for_the_end_of_an_event(market: Market) -> None:
    records = at_times(1, 10, 11, 29)
    records["flags"][1] = 0
    assert behind(market, records, NEVER, 10) == [2, 3]


def test_a_snapshot_for_one_reason_is_one_for_both(market: Market) -> None:
    #                 by count: 2       by time: 4, and the count begins anew       by count: 7
    times = (1, 2, 8, 9, 10, 11, 12, 19, 19)
    assert behind(market, at_times(*times), 3, 10) == [2, 4, 7]
    # The time begins anew, too: behind a snapshot at 20 the next interval is at 30.
    assert behind(market, at_times(1, 2, 20, 29, 30), 3, 10) == [2, 4]
    # One without a time leaves the interval as it is.
    assert behind(market, at_times(1, UNDEF_TIMESTAMP, 10, 19), 2, 10) == [1, 2]


def test_each_book_counts_for_itself(market: Market) -> None:
    rows = [of(ONE, record("N")), of(TWO, record("N", flags=0)), of(ONE, record("N")), of(TWO, record("N"))]
    taken = written(market, stream(*rows, *rows), SnapshotRule(2, 0, 1))
    assert taken.rows[["record", "book", "records"]].tolist() == [(2, 0, 2), (3, 1, 2), (6, 0, 4), (7, 1, 4)]


def cuts(records: MboArray, every: int) -> list[int]:
    """Return behind which records of one book a snapshot falls due by count: the rule by search, in numpy."""
    counted = np.cumsum(((records["flags"] & SNAPSHOT) == 0) & (records["action"] != ord("R")))
    ends = np.flatnonzero(records["flags"] & LAST)
    found, base = [], 0
    while (place := int(np.searchsorted(counted[ends], base + every))) < len(ends):
        found.append(int(ends[place]))
        base = int(counted[ends[place]])
    return found


@pytest.mark.parametrize("every", [1, 2, 7, 50, 1000])
def test_the_count_is_what_a_search_finds_in_the_records_of_each_book(kind: BookKind, every: int) -> None:
    records = busy_market(1)
    market = make_market(kind)
    rows = written(market, records, SnapshotRule(every, 0, 1)).rows
    for number, key in enumerate(market.keys):
        places = np.flatnonzero(book_tags(records) == key.publisher_id << 32 | key.instrument_id)
        assert rows["record"][rows["book"] == number].tolist() == places[cuts(records[places], every)].tolist()
    assert len(rows) >= 4


@pytest.mark.parametrize("seed", range(3))
def test_by_best_prices_the_snapshots_are_the_rows_of_the_tape(kind: BookKind, seed: int) -> None:
    records, tape = busy_market(seed), Tape()
    make_market(kind).apply(records, tape)
    taken = written(make_market(kind), records, SnapshotRule(0, 0, 3))
    both = [name for name in SNAPSHOT_ROW.names or () if name in (BBO_ROW.names or ())]
    assert taken.rows[both].tolist() == tape.bbos[both].tolist()
    assert taken.trades.tolist() == tape.trades.tolist()
    assert len(both) == 10
    assert len(taken.rows) > 300


# what it holds


def test_a_snapshot_tells_when_where_and_what(market: Market) -> None:
    most = 2**32 - 1
    records = stream(
        add("B", 100, 5, 1, flags=0),
        add("B", 100, most, 2, flags=0),
        add("B", -(2**63), most, 3, flags=0),
        add("A", 2**63 - 2, 7, 4, flags=0),
        add("A", 101, 2, 5),
        record("N"),
    )
    records["sequence"][4], records["ts_recv"][4] = most, UNDEF_TIMESTAMP
    tape = SnapshotTape(SnapshotRule(5, 0, 4))
    tape.records = 10**12
    market.apply_snapshots(records, tape)
    ts = FIRST_TS + 5000
    best = (100, 101, 5 + most, 2, 2, 1)
    assert tape.rows.tolist() == [(10**12 + 4, 5, ts, UNDEF_TIMESTAMP, *best, most, 0, 2, 2)]
    assert tape.bids[0, :2].tolist() == [[100, 5 + most, 2], [-(2**63), most, 1]]
    assert tape.asks[0, :2].tolist() == [[101, 2, 1], [2**63 - 2, 7, 1]]
    assert (tape.records, tape.book_records[0]) == (10**12 + 6, 6)


def test_an_empty_side_is_undefined_with_no_level(market: Market) -> None:
    taken = written(market, stream(record("N"), add("A", 101, 6, 2)), SnapshotRule(1, 0, 2))
    assert taken.rows[["bid_px", "bid_sz", "bid_ct", "bids"]].tolist() == [(UNDEF_PRICE, 0, 0, 0)] * 2
    assert taken.rows[["ask_px", "ask_sz", "ask_ct", "asks"]].tolist() == [(UNDEF_PRICE, 0, 0, 0), (101, 6, 1, 1)]


@pytest.mark.parametrize("depth", [1, 7, 50, MAX_DEPTH])
def test_levels_are_written_best_first_down_to_the_depth(market: Market, depth: int) -> None:
    rows = [add("BA"[n % 2], 1000 + n if n % 2 else 999 - n, 1 + n, n) for n in range(2 * MAX_DEPTH + 20)]
    taken = written(market, stream(*rows), SnapshotRule(len(rows), 0, depth))
    book = market.book(market.keys[0])
    assert taken.rows[["bids", "asks"]].tolist() == [(depth, depth)]
    assert taken.bids[0].tolist() == book.levels(Side.BID, depth).tolist()
    assert taken.asks[0].tolist() == book.levels(Side.ASK, depth).tolist()


def test_a_crossed_book_and_a_top_of_book_level_are_told_as_they_are(market: Market) -> None:
    taken = written(market, stream(add("B", 105, 1, 1), add("A", 100, 9, 0, LAST | TOB)), SnapshotRule(2, 0, 1))
    assert levels_of(taken) == [([[105, 1, 1]], [[100, 9, 0]])]
    assert taken.rows[["bid_px", "ask_px", "ask_sz", "ask_ct"]].tolist() == [(105, 100, 9, 0)]


def test_every_trade_is_told_where_it_comes(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(NEVER, 0, 1))
    market.apply_snapshots(stream(record("N")), tape)
    market.apply_snapshots(stream(record("T", "B", 101, 3, 2**64 - 1, flags=0), record("F", "A", 101, 3, 1)), tape)
    ts = FIRST_TS + 1000
    assert tape.trades.tolist() == [(1, ts, ts + 500, 101, 2**64 - 1, 3, 1, 432669, 1, ord("B"))]


# a run in batches


def test_the_books_are_numbered_in_the_order_of_their_first_record(kind: BookKind) -> None:
    rows = [of(BookKey(publisher, 7), record("N")) for publisher in (5, 3, 9, 3, 1)]
    market, applied = make_market(kind), make_market(kind)
    rows_written = written(market, stream(*rows), SnapshotRule(1, 0, 1)).rows
    assert rows_written["book"].tolist() == [0, 1, 2, 1, 3]
    assert [key.publisher_id for key in market.keys] == [5, 3, 9, 1]
    applied.apply(stream(*rows))
    assert applied.keys == market.keys == list(market.books)


def test_who_was_touched_is_told_until_it_is_set_back(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(NEVER, 0, 1))
    market.apply_snapshots(stream(of(ONE, record("N", flags=0)), of(TWO, record("N"))), tape)
    assert np.flatnonzero(tape.touched).tolist() == [0, 1]
    tape.touched[:] = False
    market.apply_snapshots(stream(of(TWO, record("N"))), tape)
    assert np.flatnonzero(tape.touched).tolist() == [1]
    assert tape.book_records[:2].tolist() == [1, 2]


def test_what_is_taken_is_not_written_to_again(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(1, 0, 2))
    market.apply_snapshots(stream(add("B", 100, 5, 1), record("T")), tape)
    taken = tape.take()
    arrays = (taken.rows, taken.bids, taken.asks, taken.trades)
    before = [each.tobytes() for each in arrays]
    assert len(tape.rows) == len(tape.trades) == len(tape.bids) == 0
    market.apply_snapshots(stream(add("B", 101, 6, 2), record("T")), tape)
    tape.set_back(tape.states.copy())
    market.apply_snapshots(stream(add("B", 102, 7, 3), record("T")), tape)
    assert [each.tobytes() for each in arrays] == before
    assert tape.rows["record"].tolist() == [4, 5]


def test_each_snapshot_tells_how_long_it_waited_from_the_end_of_its_event(market: Market) -> None:
    tape, before_ns = SnapshotTape(SnapshotRule(1, 0, 1)), time.monotonic_ns()
    market.apply_snapshots(stream(*(add("B", n, 1, n) for n in range(1, 41))), tape)
    market.apply_snapshots(stream(record("N", flags=0)), tape)
    time.sleep(0.01)
    ended_ns = tape.wait_space[:40].copy()
    tape.hand_over(30)
    waited_ns = tape.take().waited_ns
    assert (np.diff(ended_ns) >= 0).all() and before_ns <= ended_ns[0] and ended_ns[-1] <= time.monotonic_ns()
    assert (waited_ns[:30] >= 10**7).all() and (np.diff(waited_ns[:30]) <= 0).all()
    assert (waited_ns[30:] == ended_ns[30:]).all()  # those are not handed over


def test_event_ends_are_counted_from_one_taking_to_the_next(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(NEVER, 0, 1))
    market.apply_snapshots(stream(record("N"), record("T", flags=0), add("B", 100, 5, 1)), tape)
    assert [tape.take().events, tape.take().events] == [2, 0]
    market.apply_snapshots(stream(of(TWO, record("N"))), tape)
    assert tape.take().events == 1


def test_what_was_applied_without_the_tape_is_not_counted_but_seen(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(2, 0, 1))
    market.apply_snapshots(stream(add("B", 100, 5, 1)), tape)
    market.apply(stream(add("B", 101, 5, 2), add("B", 102, 5, 3)))
    market.apply_snapshots(stream(record("N")), tape)
    assert tape.rows[["record", "records", "bid_px"]].tolist() == [(1, 2, 102)]


def test_another_run_has_a_tape_of_its_own(market: Market) -> None:
    first, second = SnapshotTape(SnapshotRule(2, 0, 1)), SnapshotTape(SnapshotRule(0, 0, 1))
    market.apply_snapshots(stream(add("B", 100, 5, 1)), first)
    market.apply_snapshots(stream(record("N"), record("N")), second)
    assert (first.records, len(first.rows)) == (1, 0)
    assert second.rows[["record", "records", "bid_px"]].tolist() == [(0, 1, 100)]


def test_the_rest_of_a_run_is_what_no_snapshot_has_told(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(2, 0, 3))
    three, four, five = BookKey(3, 7), BookKey(4, 7), BookKey(5, 7)
    market.apply_snapshots(
        stream(
            *(of(ONE, add("B", 100, 1, 1)), of(ONE, add("B", 101, 1, 2)), of(ONE, add("B", 102, 1, 3))),
            *(of(TWO, add("A", 200, 1, 1)), of(TWO, add("A", 201, 1, 2))),  # told
            of(three, add("B", 300, 1, 1, flags=0)),  # in mid-event
            of(four, add("B", 400, 1, 1)),  # settled
            of(five, add("B", 500, 1, 1, SNAPSHOT | LAST)),
        ),
        tape,
    )
    market.book(BookKey(6, 7))  # took nothing
    tape.settle(3)
    tape.settle(99)
    tape.take()
    market.snap_rest(tape)
    rest = tape.take()
    assert rest.rows[["record", "book", "records", "bid_px"]].tolist() == [(7, 0, 3, 102), (7, 4, 1, 500)]
    assert levels_of(rest) == [([[102, 1, 1], [101, 1, 1], [100, 1, 1]], []), ([[500, 1, 1]], [])]
    market.snap_rest(tape)
    assert len(tape.rows) == 0
    market.apply_snapshots(stream(of(ONE, record("N")), of(four, record("N"))), tape)
    assert tape.rows["book"].tolist() == [3]  # the count of ONE began anew, that of a settled book goes on


def test_the_rest_of_more_books_than_there_is_room_for_is_written_whole(market: Market) -> None:
    tape = SnapshotTape(SnapshotRule(NEVER, 0, 1))
    market.apply_snapshots(stream(*(of(BookKey(1, n), add("B", n, 1, 1)) for n in range(300))), tape)
    market.snap_rest(tape)
    assert tape.rows["book"].tolist() == tape.rows["bid_px"].tolist() == list(range(300))


def test_the_times_tell_how_long_each_record_took(market: Market) -> None:
    records = stream(*(add("B", n, 1, n) for n in range(1, 301)))
    tape, times = SnapshotTape(SnapshotRule(1, 0, 50)), np.full(300, -1, np.int64)
    market.apply_snapshots(records, tape, times)
    assert (times > 0).all()
    assert tape.rows["record"].tolist() == list(range(300))
    market.apply_snapshots(records[:0], tape, times[:0])


def test_the_first_records_alone_may_be_timed(market: Market) -> None:
    records = stream(*(add("B", n, 1, n) for n in range(1, 31)))
    tape, times = SnapshotTape(SnapshotRule(1, 0, 5)), np.full(20, -1, np.int64)
    assert market.apply_snapshots(records, tape, times[:10]) == 30
    assert (times[:10] > 0).all() and (times[10:] == -1).all()
    assert len(tape.rows) == 30


@pytest.mark.parametrize("times", [np.zeros(3, np.int64), np.zeros(2, np.uint64), np.zeros(4, np.int64)[::2]])
def test_times_that_are_none_or_too_many_are_refused(market: Market, times: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected an array for at most 2 int64 times, found .*int64 of shape"):
        market.apply_snapshots(stream(record("N"), record("N")), SnapshotTape(SnapshotRule(1, 0, 1)), times)


def handing(rule: SnapshotRule, *grids: int) -> SnapshotTape:
    """Return a tape whose market hands over what lies on these grids, by number of the book."""
    tape = SnapshotTape(rule)
    tape.hands_over = True
    tape.reserve_books(len(grids))
    tape.grids[: len(grids)] = grids
    return tape


def test_a_market_that_hands_over_stops_behind_a_snapshot_of_a_book_without_a_grid(market: Market) -> None:
    records = stream(*(add("B", n, 1, n) for n in range(1, 11)))
    tape, found, done = handing(SnapshotRule(3, 0, 1)), [], 0
    while done < len(records):
        done += market.apply_snapshots(records[done:], tape)
        found.append((done, tape.handed, len(tape.unhanded.rows)))
        tape.hand_over()
        tape.take()
    assert found == [(3, 0, 1), (6, 1, 1), (9, 2, 1), (10, 3, 0)]
    assert tape.block.seqs[:3].tolist() == [1, 2, 3]


def test_the_compiled_market_hands_over_what_lies_on_the_grid_and_stops_at_what_does_not() -> None:
    market, tape = make_market(), handing(SnapshotRule(1, 0, 2), 5)
    prices = [("B", 10), ("B", 15), ("A", 25), ("A", 20), ("B", 17), ("B", 5)]
    records = stream(*(add(side, price, 1, n) for n, (side, price) in enumerate(prices)))
    assert market.apply_snapshots(records, tape) == 5
    assert (tape.handed, tape.unhanded.seqs.tolist()) == (4, [5])
    assert market.apply_snapshots(records[5:], tape) == 1  # nothing is handed over before what came first
    assert (tape.handed, tape.unhanded.seqs.tolist()) == (4, [5, 6])
    tape.hand_over(5)
    tape.grids[0] = 1
    tape.hand_over()
    assert market.apply_snapshots(stream(add("B", 4, 1, 9), add("B", UNDEF_PRICE - 1, 1, 10)), tape) == 2
    assert tape.handed == 8
    waited_ns = tape.take().waited_ns
    assert len(waited_ns) == 8 and (waited_ns > 0).all() and waited_ns.max() < 10**11


def test_what_does_not_change_is_not_on_the_grid_of_another_book() -> None:
    market, tape = make_market(), handing(SnapshotRule(1, 0, 2), 5, 3)
    records = stream(*(of(key, add("B", 15, 1, 1)) for key in (ONE, TWO)), of(TWO, add("B", 10, 1, 2)))
    assert market.apply_snapshots(records, tape) == 3
    assert (tape.handed, tape.unhanded.rows["book"].tolist()) == (2, [1])


def test_a_price_of_zero_and_none_at_all_lie_on_every_grid() -> None:
    market, tape = make_market(), handing(SnapshotRule(1, 0, 2), 5)
    assert market.apply_snapshots(stream(record("N"), add("B", 0, 1, 1)), tape) == 2
    assert tape.handed == 2


def test_a_market_that_hands_over_stops_behind_what_fills_the_block() -> None:
    market, tape = make_market(), handing(SnapshotRule(1, 0, 2), 1)
    tape.reserve(1)
    room = len(tape.block.rows)
    records = stream(*(add("B", n, 1, n) for n in range(1, 3 * room)))
    assert market.apply_snapshots(records, tape) == room == tape.handed
    first = tape.block
    tape.take()
    assert market.apply_snapshots(records[room:], tape) == 2 * room - 1
    assert (tape.block is first, tape.handed, tape.block.rows["record"][0]) == (False, 2 * room - 1, room)


def test_what_is_discarded_is_read_by_nobody_and_counts_for_nothing(market: Market) -> None:
    tape = handing(SnapshotRule(1, 0, 2))
    market.apply_snapshots(stream(add("B", 1, 1, 1)), tape)
    tape.hand_over()
    first, before = tape.block, tape.block.rows[:1].tobytes()
    tape.hands_over = False
    market.apply_snapshots(stream(add("B", 2, 1, 2), add("B", 3, 1, 3)), tape)
    tape.discard()
    tape.take()
    tape.hands_over = True
    market.apply_snapshots(stream(add("B", 4, 1, 4)), tape)
    assert (first.handed[0], first.rows[:1].tobytes()) == (1, before)
    assert (tape.unhanded.seqs.tolist(), tape.unhanded.rows["records"].tolist()) == ([2], [4])


def test_what_is_handed_over_and_not_taken_is_handed_over_in_the_next_block_too() -> None:
    market, tape = make_market(), handing(SnapshotRule(1, 0, 2), 1)
    market.apply_snapshots(stream(*(add("B", n, 1, n) for n in range(1, 6))), tape)
    tape.reserve(len(tape.block.rows))
    assert (tape.handed, tape.rows["record"].tolist()) == (5, [0, 1, 2, 3, 4])


# both markets, however the stream is cut


def pieces(kind: BookKind, parts: Sequence[MboArray], rule: SnapshotRule, take: bool) -> tuple[object, ...]:
    """Return all that a tape tells of a stream in pieces, taken after each piece or at the end."""
    market, tape = make_market(kind), SnapshotTape(rule)
    taken = []
    for part in parts:
        market.apply_snapshots(part, tape)
        if take:
            taken.append(tape.take())
    market.snap_rest(tape)
    taken.append(tape.take())
    books = len(market.keys)
    return (
        b"".join(each.rows.tobytes() for each in taken),
        b"".join(each.trades.tobytes() for each in taken),
        [levels for each in taken for levels in levels_of(each)],
        tape.states[:books, : snapshot_tape.BEST].tolist(),
        tape.touched[:books].tolist(),
        tape.records,
        [picture(market.book(key)) for key in market.keys],
    )


def handed_over(kind: BookKind, records: MboArray, rule: SnapshotRule, grid: int) -> bytes:
    """Return the snapshots that a market hands over in passes, itself or not, their levels left out."""
    market, tape = make_market(kind), handing(rule, *[grid] * 64)
    done, found = 0, b""
    while done < len(records):
        done += market.apply_snapshots(records[done:], tape)
        tape.hand_over()
        found += tape.take().rows.tobytes()
    market.snap_rest(tape)
    assert tape.used[snapshot_tape.ROWS_USED] - tape.handed == len(tape.rows)
    return found + tape.take().rows.tobytes()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_both_markets_write_the_same_bytes_in_pieces_of_any_size(rule: SnapshotRule) -> None:
    records = busy_market(rule.every % 97 + rule.depth)
    rng = np.random.default_rng(rule.depth)
    whole = pieces("reference", [records], rule, take=False)
    for cut in (0, 1, 7, 200):
        parts = np.split(records, np.sort(rng.integers(0, len(records), cut)))
        assert pieces("kernel", parts, rule, take=cut % 2 == 1) == whole
    assert pieces("reference", np.array_split(records, 3), rule, take=True) == whole
    for grid in (0, 1, 10):
        assert handed_over("kernel", records, rule, grid) == whole[0]
    assert handed_over("reference", records, rule, 1) == whole[0]
    assert len(whole[0]) // SNAPSHOT_ROW.itemsize >= 4  # type: ignore[arg-type]


def test_the_pieces_may_be_single_records() -> None:
    records = busy_market(5, books=2)[:900]
    for rule in RULES:
        assert pieces("kernel", np.split(records, len(records)), rule, take=True) == pieces(
            "reference", [records], rule, take=False
        )


ROWS = st.tuples(
    st.sampled_from("AACCMMTFNR?"),
    st.sampled_from("BAN"),
    st.integers(-3, 3) | st.sampled_from([UNDEF_PRICE, -(2**63), UNDEF_PRICE - 1]),
    st.integers(0, 4) | st.just(2**32 - 1),
    st.integers(0, 5),
    st.integers(0, 255),
)


@settings(max_examples=examples(80, 3000), deadline=None)
@given(
    rows=st.lists(st.tuples(ROWS, st.integers(0, 2), st.integers(0, 60)), max_size=60),
    rule=st.builds(SnapshotRule, st.sampled_from([0, 1, 2, 3, 9, NEVER]), st.integers(0, 40), st.integers(1, 4)),
    cut=st.integers(0, 60),
)
def test_both_markets_agree_on_any_records(
    rows: list[tuple[tuple[str, str, int, int, int, int], int, int]], rule: SnapshotRule, cut: int
) -> None:
    records = (
        stream(*(record(*row, publisher_id=publisher) for row, publisher, _ in rows)) if rows else np.zeros(0, MBO)
    )
    records["ts_recv"] = [time for _, _, time in rows]
    whole = pieces("reference", [records], rule, take=False)
    assert pieces("kernel", [records[:cut], records[cut:]], rule, take=True) == whole


@pytest.mark.parametrize(
    "rule", [SnapshotRule(50, 0, 5), SnapshotRule(NEVER, 9_000, 5), SnapshotRule(50, 9_000, 5)], ids=str
)
def test_behind_a_snapshot_they_are_the_same_for_one_who_begins_there_with_a_picture(
    kind: BookKind, rule: SnapshotRule
) -> None:
    """What lets an engine that restarts behind its last stored snapshot store the same ones."""
    records = busy_market(7, books=1)
    market = make_market(kind)
    begun = written(market, records, rule)
    start = int(begun.rows["record"][9]) + 1
    again, tape = make_market(kind), SnapshotTape(rule)
    shown = make_market("reference")
    shown.apply(records[:start])
    again.apply_snapshots(picture_records(capture(shown)), tape)
    assert len(tape.rows) == 0
    again.apply_snapshots(records[start:], tape)
    compared = [name for name in SNAPSHOT_ROW.names or () if name not in ("record", "records")]
    assert tape.rows[compared].tolist() == begun.rows[compared][10:].tolist()
    assert levels_of(tape.take()) == levels_of(begun)[10:]


def test_a_snapshot_shows_the_book_as_one_finds_it_there(kind: BookKind) -> None:
    records = busy_market(3)
    taken = written(make_market(kind), records, SnapshotRule(100, 5_000, 30))
    looked, done = make_market("reference"), 0
    for row, levels in zip(taken.rows, levels_of(taken), strict=True):
        looked.apply(records[done : row["record"] + 1])
        done = int(row["record"]) + 1
        book = looked.book(looked.keys[row["book"]])
        assert levels == (book.levels(Side.BID, 30).tolist(), book.levels(Side.ASK, 30).tolist())
        assert (row["ts_event"], row["ts_recv"], row["sequence"]) == (book.ts_event, book.ts_recv, book.sequence)
        assert book.at_event_end
    assert len(taken.rows) > 40
    assert all(before < after for before, after in pairwise(taken.rows["record"].tolist()))


def test_the_records_of_each_book_are_counted_with_clears_and_pictures() -> None:
    records = busy_market(4)
    market, tape = make_market(), SnapshotTape(SnapshotRule(10, 0, 1))
    market.apply_snapshots(records, tape)
    assert {market.keys[number]: count for number, count in enumerate(tape.book_records.tolist()) if count} == {
        key: len(part) for key, part in split_by_book(records)
    }


# the compiled kernel


def test_it_is_compiled_once_whatever_the_records_come_from() -> None:
    warm_up_snapshots()
    market, tape = make_market(), SnapshotTape(SnapshotRule(1, 0, 3))
    records = stream(add("B", 100, 1, 1), record("T"), add("B", 100, 1, 3))
    for source in (records, records[1:], records[::2], np.frombuffer(records.tobytes(), MBO), np.zeros(0, MBO)):
        market.apply_snapshots(source, tape)
        market.apply_snapshots(source, tape, np.zeros(len(source), np.int64))
        market.apply_snapshots(source[:1], tape, np.zeros(9, np.int64)[:1][: len(source[:1])])
        market.snap_rest(tape)
        tape.take()
    assert len(kernel.apply_snapshots.signatures) == len(kernel.snap_rest.signatures) == 1


def test_a_block_has_a_megabyte_or_twice_what_waits() -> None:
    market, tape = make_market(), SnapshotTape(SnapshotRule(1, 0, 50))
    for n in range(1, 200):
        market.apply_snapshots(stream(*(add("B", 100 + i, 1, n * 100 + i) for i in range(50))), tape)
        assert len(tape.take().rows) == 50
        assert len(tape.block.rows) == len(tape.block.bids) == len(tape.block.asks)
        assert sum(space.nbytes for space in (*tape.block, tape.wait_space)) <= (1 << 20) + 8
    market.apply_snapshots(stream(*(add("B", 100 + i, 1, 10**6 + i) for i in range(3000))), tape)
    assert 3000 <= len(tape.block.rows) <= 6000
