"""Looking back in a recording: where seconds and open events began, and the last trades."""

import numpy as np
import pytest

from orderbook.book.mbo import MBO, UNDEF_TIMESTAMP, Action, MboArray, book_tags
from orderbook.tests.records import FIRST_TS, LAST, SNAPSHOT, add, clear, record, stream
from replay.feed import lookback
from replay.feed.lookback import events_begin, last_trades, open_books, second_begin
from replay.tests.streams import eventful

SECOND = 1_000_000_000
ONE = np.array([(1 << 32) + 432669])
TWO = np.array([(1 << 32) + 432669, (1 << 32) + 432670])


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> int:
    """A reach of 8 records, looked at 2, 4 and 8 at a time."""
    for name, value in (("REACH", 8), ("TRADE_REACH", 8), ("_FIRST", 2)):
        monkeypatch.setattr(lookback, name, value)
    return 8


def at_seconds(*seconds: float) -> MboArray:
    records = np.zeros(len(seconds), MBO)
    records["ts_recv"] = [FIRST_TS // SECOND * SECOND + round(second * SECOND) for second in seconds]
    return records


@pytest.mark.parametrize(
    ("seconds", "begin"),
    [
        ([], 0),
        ([1.5], 0),
        ([0.5, 0.9, 1, 1.1], 2),
        ([0.5, 0.9, 2.5, 2.9, 2.1], 2),
        ([0, 0, 0, 0, 1, 0.5, 0.2, 1.1], 4),  # what steps back belongs to the second under way
        ([0, 1, 1, 1, 1, 1, 1, 1], 1),
        ([0, *[1] * 20], 13),  # out of reach
    ],
)
def test_a_second_begins_at_its_first_record(reach: int, seconds: list[float], begin: int) -> None:
    assert second_begin(at_seconds(*seconds), len(seconds)) == begin


def test_a_record_without_a_time_begins_no_second(reach: int) -> None:
    records = at_seconds(0, 1, 1, 1)
    records["ts_recv"][3] = UNDEF_TIMESTAMP
    assert second_begin(records, 4) == 1


def test_an_open_event_begins_behind_the_end_of_the_last_one(reach: int) -> None:
    records = stream(*(record("N", flags=LAST if n == 2 else 0) for n in range(9)))
    assert events_begin(records, 9, ONE) == 3


def test_an_event_whose_beginning_is_out_of_reach_is_looked_for_no_further(reach: int) -> None:
    records = stream(record("N"), *(record("N", flags=0) for _ in range(20)))
    assert events_begin(records, 21, ONE) == 13
    assert events_begin(records, 5, ONE) == 1
    assert events_begin(records[1:], 5, ONE) == 0


def test_of_several_open_events_the_earliest_counts(reach: int) -> None:
    other = record("N", flags=LAST, instrument_id=432670)
    inside = record("N", flags=0)
    records = stream(inside, record("N"), other, inside, (*other[:8], 0, *other[9:]))
    assert events_begin(records, 5, TWO) == 2
    assert events_begin(records, 5, TWO[1:]) == 3


def test_a_picture_tells_which_books_it_leaves_inside_an_event() -> None:
    other = record("R", flags=SNAPSHOT, instrument_id=432670)
    assert open_books(stream(clear(SNAPSHOT), add("B", 100, 1, 1, SNAPSHOT | LAST), other)).tolist() == [TWO[1]]
    assert open_books(np.zeros(0, MBO)).tolist() == []


def test_the_last_trade_of_each_book_is_found_within_the_reach(reach: int) -> None:
    other = record("T", "A", 7, 1, instrument_id=432670)
    records = stream(record("T", "B", 1, 1), other, record("T", "B", 2, 1), *(record("N") for _ in range(6)))
    assert sorted(last_trades(records, 9, TWO)["price"].tolist()) == [2, 7]
    assert last_trades(records, 2, ONE)["price"].tolist() == [1]
    assert len(last_trades(records, 9, np.array([5]))) == 0
    more = np.concatenate([records, stream(record("N"), record("N"))])
    assert last_trades(more, 11, TWO)["price"].tolist() == []


@pytest.mark.parametrize("position", [1, 777, 3000, 6000])
def test_what_is_found_is_what_a_look_at_every_record_finds(position: int) -> None:
    records = eventful(3)
    before = records[:position]
    tags = np.unique(book_tags(before))
    newest = {
        tag: row for tag, row in zip(book_tags(before).tolist(), before, strict=True) if row["action"] == Action.TRADE
    }
    found = last_trades(records, position, tags)
    assert dict(zip(book_tags(found).tolist(), found.tolist(), strict=True)) == {
        t: r.tolist() for t, r in newest.items()
    }
    ends = {
        tag: at + 1
        for at, (tag, row) in enumerate(zip(book_tags(before).tolist(), before, strict=True))
        if row["flags"] & LAST
    }
    if len(ends) == len(tags):
        assert events_begin(records, position, tags) == min(ends.values())
