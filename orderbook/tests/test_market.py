import numpy as np
import pytest

from orderbook.book.kernel_book import KernelBook
from orderbook.book.kernel_market import KernelMarket
from orderbook.book.market import BookKind, ReferenceMarket, make_book, make_market, split_by_book
from orderbook.book.mbo import MBO, BookKey, Side
from orderbook.book.protocol import RestingOrder
from orderbook.book.reference import ReferenceBook
from orderbook.book.snapshot import Level
from orderbook.book.tape import Tape
from orderbook.tests.records import KINDS, LAST, SNAPSHOT, Row, add, cancel, clear, modify, order_ids, record, stream


def test_a_batch_of_one_book_is_returned_without_a_copy() -> None:
    records = stream(record("A", "B", 100, 1, 1), record("A", "B", 100, 1, 2))
    [(key, part)] = split_by_book(records)
    assert key == BookKey(1, 432669)
    assert part is records


def test_an_empty_batch_belongs_to_nobody() -> None:
    assert split_by_book(np.zeros(0, MBO)) == []


def test_a_mixed_batch_is_split_in_stream_order() -> None:
    rng = np.random.default_rng(4)
    records = stream(
        *(
            record("A", "B", 100, 1, number, publisher_id=publisher, instrument_id=instrument)
            for number, (publisher, instrument) in enumerate(rng.integers([0, 0], [3, 5], (500, 2)).tolist())
        )
    )
    parts = split_by_book(records)
    assert [key for key, _ in parts] == sorted({(r["publisher_id"], r["instrument_id"]) for r in records})
    for key, part in parts:
        mine = (records["publisher_id"] == key.publisher_id) & (records["instrument_id"] == key.instrument_id)
        assert part.dtype == MBO
        assert part.tolist() == records[mine].tolist()
        assert part.flags.carray
        assert isinstance(key.publisher_id, int)


def test_a_strided_batch_is_split_too() -> None:
    records = stream(*(record("A", "B", 100, 1, n, instrument_id=n % 3) for n in range(12)))
    parts = split_by_book(records[::2])
    assert [(key.instrument_id, part["order_id"].tolist()) for key, part in parts] == [
        (0, [0, 6]),
        (1, [4, 10]),
        (2, [2, 8]),
    ]


def to(key: BookKey, row: Row) -> Row:
    return (*row[:2], *key, *row[4:])


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_all_widths_keep_their_books_apart(kind: BookKind) -> None:
    keys = [BookKey(0, 0), BookKey(0, 2**32 - 1), BookKey(1, 0), BookKey(65535, 2**32 - 1)]
    market = make_market(kind)
    market.apply(stream(*(to(key, add("B", 100, 1, 1)) for key in keys)))
    assert sorted(market.books) == keys
    assert all(isinstance(number, int) for key in market.books for number in key)
    assert [len(book) for book in market.books.values()] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_instrument_id_may_be_used_again_by_another_publisher(kind: BookKind) -> None:
    one, two = BookKey(1, 7), BookKey(2, 7)
    market = make_market(kind)
    market.apply(stream(to(one, add("B", 100, 5, 1)), to(two, add("A", 101, 6, 1)), to(one, clear())))
    assert market.book(one).bbo() == (None, None)
    assert market.book(two).bbo() == (None, Level(101, 6, 1))
    assert market.book(one).anomalies == market.book(two).anomalies == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order_id", [0, 1, 2**63, 2**64 - 1])
def test_an_order_id_may_rest_in_two_instruments_at_once(kind: BookKind, order_id: int) -> None:
    one, two = BookKey(1, 7), BookKey(1, 8)
    market = make_market(kind)
    market.apply(stream(to(one, add("B", 100, 5, order_id)), to(two, add("A", 200, 6, order_id))))
    assert market.book(one).order(order_id) == RestingOrder(order_id, Side.BID, 100, 5)
    assert market.book(two).order(order_id) == RestingOrder(order_id, Side.ASK, 200, 6)
    market.apply(stream(to(two, modify("A", 201, 7, order_id)), to(one, cancel("B", 100, 5, order_id))))
    assert market.book(one).order(order_id) is None
    assert market.book(two).order(order_id) == RestingOrder(order_id, Side.ASK, 201, 7)
    assert market.book(one).anomalies == market.book(two).anomalies == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_of_one_instrument_goes_on_behind_records_of_another(kind: BookKind) -> None:
    one, two = BookKey(1, 7), BookKey(1, 8)
    market = make_market(kind)
    market.apply(
        stream(
            to(one, add("B", 90, 1, 9)),
            to(two, add("B", 190, 1, 9)),
            to(one, add("B", 100, 1, 1, SNAPSHOT)),
            to(two, add("B", 200, 1, 1)),
            to(one, add("B", 101, 1, 2, SNAPSHOT | LAST)),
        )
    )
    assert order_ids(market.book(one)) == [2, 1]
    assert order_ids(market.book(two)) == [1, 9]
    assert market.book(one).anomalies == {"implicit_clear": 1}
    assert market.book(two).anomalies == {}


@pytest.mark.parametrize("kind", KINDS)
def test_each_book_knows_its_own_event_end_and_place_in_the_stream(kind: BookKind) -> None:
    one, two = BookKey(1, 7), BookKey(1, 8)
    market = make_market(kind)
    market.apply(stream(to(one, add("B", 100, 1, 1)), to(two, add("B", 100, 1, 1, flags=0))))
    first, second = market.book(one), market.book(two)
    assert (first.sequence, first.at_event_end) == (1, True)
    assert (second.sequence, second.at_event_end) == (2, False)
    assert second.ts_event == first.ts_event + 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_book_that_the_stream_has_not_named_is_empty_and_stays_the_same(kind: BookKind) -> None:
    market = make_market(kind)
    key = BookKey(1, 2)
    assert key not in market.books
    book = market.book(key)
    assert len(book) == 0
    market.apply(stream(to(key, add("B", 100, 1, 1))))
    assert market.book(key) is book is market.books[key]
    assert len(book) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_names_no_book(kind: BookKind) -> None:
    market, tape = make_market(kind), Tape()
    market.apply(np.zeros(0, MBO), tape)
    assert (dict(market.books), tape.records) == ({}, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_books_may_come_in_one_batch(kind: BookKind) -> None:
    keys = [BookKey(number % 7, number * 40_503) for number in range(700)]
    market = make_market(kind)
    market.apply(stream(*(to(key, add("B", number, 1, 5)) for number, key in enumerate(keys))))
    assert set(market.books) == set(keys)
    assert [market.books[key].bbo() for key in keys] == [(Level(number, 1, 1), None) for number in range(700)]


@pytest.mark.parametrize(
    ("kind", "book", "market"), [("kernel", KernelBook, KernelMarket), ("reference", ReferenceBook, ReferenceMarket)]
)
def test_the_kind_names_the_book_and_the_market(kind: BookKind, book: type, market: type) -> None:
    assert type(make_book(kind)) is book
    assert type(make_market(kind)) is market
    assert type(make_market(kind).book(BookKey(1, 1))) is book


def test_the_fast_market_is_the_usual_one() -> None:
    assert type(make_market()) is KernelMarket


def test_a_kind_that_does_not_exist_is_refused() -> None:
    for make in (make_book, make_market):
        with pytest.raises(ValueError, match="expected the kind of book kernel or reference, found 'fast'"):
            make("fast")  # type: ignore[arg-type]
