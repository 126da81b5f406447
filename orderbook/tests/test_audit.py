"""A checked pass: every event end counted, every damage found, every kind of fault with its first record."""

from typing import Any

import numpy as np
import pytest

from orderbook.book.anomaly import Anomaly
from orderbook.book.audit import Audit
from orderbook.book.errors import InvariantError
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, UNDEF_PRICE, BookKey, MboArray
from orderbook.book.protocol import Market
from orderbook.book.tape import Tape
from orderbook.tests.records import (
    KINDS,
    LAST,
    MAYBE_BAD_BOOK,
    SNAPSHOT,
    Row,
    add,
    cancel,
    eventful_session,
    modify,
    picture,
    record,
    stream,
)

KEY = BookKey(1, 432669)
OTHER = BookKey(2, 432669)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> BookKind:
    kind: BookKind = request.param
    return kind


@pytest.fixture
def market(kind: BookKind) -> Market:
    return make_market(kind)


def audited(market: Market, *batches: MboArray, every: int = 1) -> Audit:
    tape, audit = Tape(), Audit(every)
    for batch in batches:
        market.apply_audited(batch, tape, audit)
    return audit


def other(row: Row) -> Row:
    return (*row[:2], *OTHER, *row[4:])


def damage(market: Any, kind: BookKind) -> None:
    """Make an order of the first book one larger than its level knows."""
    if kind == "reference":
        market.books[KEY]._orders[1].size += 1
    else:
        market.arena.arrays.nodes["size"][0] += 1


def test_every_event_end_is_counted_and_checked(market: Market) -> None:
    audit = audited(market, stream(add("B", 100, 5, 1, flags=0), record("N"), add("B", 99, 5, 2), record("T", flags=0)))
    assert (audit.events, audit.checks, audit.first) == (2, 2, {})


@pytest.mark.parametrize(("every", "checks"), [(1, 10), (2, 5), (3, 3), (10, 1), (11, 0)])
def test_checks_may_be_made_seldom(market: Market, every: int, checks: int) -> None:
    rows = [add("B", 100, 5, number) for number in range(10)]
    audit = audited(market, stream(*rows[:4]), np.zeros(0, MBO), stream(*rows[4:]), every=every)
    assert (audit.events, audit.checks) == (10, checks)


@pytest.mark.parametrize("every", [0, -1])
def test_checking_less_than_never_is_refused(every: int) -> None:
    with pytest.raises(ValueError, match=f"expected to check at every 1 or more event ends, found {every}"):
        Audit(every)


def test_each_kind_of_fault_is_noted_where_it_came_first(market: Market) -> None:
    faults: list[tuple[Anomaly, Row]] = [
        (Anomaly.UNKNOWN_CANCEL, cancel("B", 100, 5, 99)),
        (Anomaly.UNKNOWN_MODIFY, modify("B", 100, 5, 98)),
        (Anomaly.DUPLICATE_ADD, add("B", 100, 5, 98)),
        (Anomaly.OVER_CANCEL, cancel("B", 100, 6, 98)),
        (Anomaly.CANCEL_MISMATCH, cancel("B", 101, 1, 1)),
        (Anomaly.SIDE_CHANGE, modify("A", 101, 5, 2)),
        (Anomaly.ZERO_SIZE, add("B", 100, 0, 97)),
        (Anomaly.UNDEF_PRICE, add("B", UNDEF_PRICE, 5, 97)),
        (Anomaly.IMPLICIT_CLEAR, add("B", 100, 5, 97, SNAPSHOT | LAST)),
        (Anomaly.MAYBE_BAD_BOOK, record("N", flags=MAYBE_BAD_BOOK)),
        (Anomaly.BAD_ACTION, record("?", "B")),
        (Anomaly.BAD_SIDE, add("N", 100, 5, 96)),
    ]
    assert [kind for kind, _ in faults] == list(Anomaly)
    rows = [add("B", 100, 5, 1), add("B", 100, 5, 2)]
    for _, row in faults:
        rows += [row, record("N")]
    again = [cancel("B", 100, 5, 99), record("?", "B")]
    audit = audited(market, stream(*rows[:9]), stream(*rows[9:], *again))
    assert audit.first == {kind: 2 + 2 * place for place, (kind, _) in enumerate(faults)}


def test_faults_of_all_books_are_noted_under_the_numbers_of_the_stream(market: Market) -> None:
    audit = audited(
        market,
        stream(add("B", 100, 5, 1), other(cancel("B", 100, 5, 1))),
        stream(add("B", 100, 5, 1), cancel("B", 100, 5, 9)),
    )
    assert audit.first == {"unknown_cancel": 1, "duplicate_add": 2}


def test_one_record_may_have_two_faults(market: Market) -> None:
    audit = audited(market, stream(record("N"), modify("B", 100, 0, 9, LAST | MAYBE_BAD_BOOK)))
    assert audit.first == {"unknown_modify": 1, "zero_size": 1, "maybe_bad_book": 1}


def test_an_audited_pass_leaves_the_same_books_and_the_same_tape(kind: BookKind) -> None:
    records = eventful_session(3, 4000)
    records["publisher_id"] = np.random.default_rng(3).integers(1, 4, len(records))
    plain, checked = make_market(kind), make_market(kind)
    tapes = Tape(), Tape()
    audit = Audit(every=3)
    for part in np.array_split(records, 9):
        plain.apply(part, tapes[0])
        checked.apply_audited(part, tapes[1], audit)
    assert {key: picture(book) for key, book in checked.books.items()} == {
        key: picture(book) for key, book in plain.books.items()
    }
    assert tapes[1].bbos.tolist() == tapes[0].bbos.tolist()
    assert tapes[1].trades.tolist() == tapes[0].trades.tolist()
    assert tapes[1].records == tapes[0].records == len(records)
    assert audit.events == int((records["flags"] & LAST > 0).sum())
    assert audit.checks == audit.events // 3


@pytest.mark.parametrize("seed", range(3))
def test_both_markets_find_the_same_in_a_long_session(seed: int) -> None:
    records = eventful_session(seed, 3000)
    records["instrument_id"] = np.random.default_rng(seed).integers(0, 3, len(records))
    found = [audited(make_market(kind), *np.array_split(records, 3 + place)) for place, kind in enumerate(KINDS)]
    assert found[0].first == found[1].first
    assert len(found[0].first) == len(Anomaly)
    assert (found[0].events, found[0].checks) == (found[1].events, found[1].checks)


def test_a_book_that_contradicts_itself_stops_the_pass_at_its_event_end(market: Market, kind: BookKind) -> None:
    audited(market, stream(add("B", 100, 5, 1), other(add("B", 100, 5, 1))))
    damage(market, kind)
    tape, audit = Tape(), Audit()
    rest = stream(
        other(add("B", 99, 5, 2)),  # an event end of the sound book
        add("B", 98, 5, 7, flags=0),
        other(add("B", 98, 5, 3)),
        add("B", 99, 5, 7),
        record("N"),
    )
    rest["sequence"] += 1000
    with pytest.raises(InvariantError, match=r"says .*5.* holds 6.*sequence 1004, ts_event 1758"):
        market.apply_audited(rest, tape, audit)
    assert audit.events == 3


def test_a_damage_is_found_at_the_next_check_and_not_before(market: Market, kind: BookKind) -> None:
    tape, audit = Tape(), Audit(every=3)
    market.apply_audited(stream(add("B", 100, 5, 1)), tape, audit)
    damage(market, kind)
    market.apply_audited(stream(record("N")), tape, audit)
    assert (audit.events, audit.checks) == (2, 0)
    with pytest.raises(InvariantError):
        market.apply_audited(stream(record("N")), tape, audit)
