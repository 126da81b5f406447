"""Which books the web sees, and when, where there are more of them than can be shown at once."""

from pathlib import Path

import numpy as np
import pytest

from engine_worker.pusher import COMPLETE_FEW, CROWDED_NS
from engine_worker.sinks.broadcast import FEW
from engine_worker.tests.builders import Desk, blank, session
from orderbook.book.mbo import Flags, MboArray
from orderbook.live import group_name

BOOKS = 3 * FEW
CROWDED_MS = CROWDED_NS // 10**6
NOTHING = blank(0)


def round_of(number: int, books: int = BOOKS) -> MboArray:
    """Return one record for each book, which ends its event; no order is that of another round."""
    records = np.repeat(session(2)[:1], books)
    records["instrument_id"] = range(1, books + 1)
    records["order_id"] = np.arange(books) + number * 10**6
    records["flags"] = Flags.LAST
    return records


def desk_of(folder: Path, books: int = BOOKS) -> Desk:
    return Desk(folder, {number: f"I{number}" for number in range(1, books + 1)}, push_ms=20)


def shown(desk: Desk) -> list[str]:
    """Return the symbols of the books that were pushed since the last look, in that order."""
    symbols = [book.symbol for book in desk.books]
    desk.pushed.items.clear()
    return symbols


def symbols(first: int, last: int) -> list[str]:
    return [f"I{number}" for number in range(first, last + 1)]


def test_of_many_books_so_many_a_round_are_shown_those_first_that_have_waited_longest(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    desk.feed(round_of(1)[::-1].copy())
    first = shown(desk)
    assert len(first) == FEW
    desk.feed(round_of(2), NOTHING, wait_ms=9)
    assert shown(desk) == []
    rounds = []
    for _ in range(3):
        desk.feed(NOTHING, wait_ms=CROWDED_MS)
        rounds.append(shown(desk))
    assert [len(books) for books in rounds] == [FEW] * 3
    assert set(first + rounds[0] + rounds[1]) == set(symbols(1, BOOKS))  # each once, before any is shown again
    assert set(rounds[2]) == set(first)


def test_a_book_that_somebody_watches_is_shown_every_push_ms_whatever_waits_beside_it(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    desk.pushed.watched = frozenset({group_name(f"I{BOOKS}"), group_name("no book of ours")})
    desk.feed(round_of(1))
    assert [book.since_ns > 0 for book in desk.live if not book.complete] == [True] + [False] * FEW
    assert shown(desk) == [f"I{BOOKS}", *symbols(1, FEW)]
    seen = []
    for number in range(2, 5):  # 20, 40 and 60 ms later
        desk.feed(round_of(number), wait_ms=20)
        seen.append(shown(desk))
    assert [books[0] for books in seen] == [f"I{BOOKS}"] * 3
    assert [books[1:] for books in seen] == [[]] * 3  # the others had their turn at first
    desk.feed(round_of(9), wait_ms=CROWDED_MS)
    assert len(shown(desk)) == 1 + FEW


def test_who_begins_to_watch_sees_the_book_in_mid_round(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    desk.feed(round_of(1))
    shown(desk)
    desk.pushed.watched = frozenset({group_name(f"I{BOOKS}")})
    assert desk.engine.wait_s() <= 0
    desk.feed(NOTHING, wait_ms=1)
    assert shown(desk) == [f"I{BOOKS}"]
    assert desk.engine.wait_s() == pytest.approx(0.099)  # nobody else's turn is before the next round


def test_a_book_in_mid_event_takes_nobody_s_turn(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    records = round_of(1)
    records["flags"][:FEW] = 0
    desk.feed(records)
    assert shown(desk) == symbols(FEW + 1, 2 * FEW)


def test_a_few_books_are_all_shown_every_push_ms(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, FEW)
    for number in range(3):
        desk.feed(round_of(number, FEW), wait_ms=20)
        assert all(book.since_ns for book in desk.live if not book.complete)
        assert shown(desk) == symbols(1, FEW)


def test_the_end_of_a_replay_shows_every_book_in_both_forms(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    desk.feed(round_of(1), round_of(2))
    desk.pushed.items.clear()
    desk.engine.end()
    assert {book.symbol for book in desk.books} == set(symbols(1, BOOKS))
    assert {book.snapshot.symbol for book in desk.live if book.complete} == set(symbols(1, BOOKS))


def test_of_more_complete_books_than_a_second_is_for_the_rest_comes_in_the_next_one(tmp_path: Path) -> None:
    count = COMPLETE_FEW + 5
    desk = desk_of(tmp_path, count)
    desk.feed(round_of(1, count))
    assert len([book for book in desk.live if book.complete]) == COMPLETE_FEW
    desk.feed(NOTHING, wait_ms=1000)
    assert {book.snapshot.symbol for book in desk.live if book.complete} == set(symbols(1, count))
