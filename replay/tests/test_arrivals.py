"""Which books a recording has: found once, by whoever needs them, and no longer than they are of use."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from orderbook.book.mbo import MboArray
from replay.streamer import arrivals
from replay.streamer.arrivals import Arrivals, book_keys
from replay.streamer.messages import ReplayState
from replay.streamer.publication import Publication
from replay.tests.recordings import command, recording
from replay.tests.streams import STREAMS, index_of

Count = Callable[[], int]


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Count:
    """Return a function that says how many records were looked at, some 100 at a time."""
    looked: list[int] = []
    look = arrivals.book_tags_of
    monkeypatch.setattr(arrivals, "_KEYS_CHUNK", 100)
    monkeypatch.setattr(arrivals, "book_tags_of", lambda records: looked.append(len(records)) or look(records))
    return lambda: sum(looked)


@pytest.mark.parametrize("make", STREAMS.values(), ids=STREAMS)
def test_the_books_of_the_last_keyframe_and_of_what_follows_are_those_of_the_recording(
    make: Callable[[], MboArray], scanned: Count
) -> None:
    records = make()
    index = index_of(records)
    expected, before = book_keys(records), scanned()
    assert Arrivals(records, index).find_books() == expected
    assert scanned() - before == len(records) - index.positions[-1] < len(records)


def test_a_last_keyframe_that_is_damaged_or_missing_costs_a_scan_and_no_book(scanned: Count) -> None:
    records = STREAMS["eventful 3"]()
    index = index_of(records)
    index._data = index._data.copy()
    index._data[index._entries[-1]["at"] + 9] ^= 1
    none = index_of(records[:100])
    for each in (index, none, None):
        assert Arrivals(records, each).find_books() == sorted(book_keys(records))


def test_the_search_for_books_ends_with_the_run_and_is_completed_by_who_needs_them(scanned: Count) -> None:
    records = STREAMS["eventful 3"]()
    run = Publication(command({"records_per_s": 1}), recording(records), 0)
    is_over = iter([False, False, True])

    class Ending(Publication):
        @property
        def active(self) -> bool:
            return not next(is_over)

    run.__class__ = Ending
    run.find_books()
    assert scanned() == 200
    run.__class__ = Publication
    run.finish(ReplayState.STOPPED)
    run.find_books()
    assert scanned() == 200
    assert len(run.arrival(0)) == len(book_keys(records))


def test_several_threads_at_it_find_each_book_once() -> None:
    records = STREAMS["simulated 50"]()
    found = Arrivals(records, None)
    with ThreadPoolExecutor(4) as pool:
        all_of_them = [each.result() for each in [pool.submit(found.find_books) for _ in range(4)]]
    assert all_of_them == [book_keys(records)] * 4
