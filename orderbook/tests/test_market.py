import numpy as np
import pytest

from orderbook.book.kernel_book import KernelBook
from orderbook.book.market import Market, make_book, split_by_book
from orderbook.book.mbo import MBO, BookKey
from orderbook.book.reference import ReferenceBook
from orderbook.tests.records import record, stream


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


def test_ids_of_all_widths_keep_their_books_apart() -> None:
    keys = [BookKey(0, 0), BookKey(0, 2**32 - 1), BookKey(1, 0), BookKey(65535, 2**32 - 1)]
    records = stream(
        *(record("A", "B", 100, 1, 1, publisher_id=key.publisher_id, instrument_id=key.instrument_id) for key in keys)
    )
    market = Market("reference")
    market.apply(records)
    assert list(market.books) == keys
    assert [len(book) for book in market.books.values()] == [1, 1, 1, 1]


def test_a_book_that_the_stream_has_not_named_is_empty_and_stays_the_same() -> None:
    market = Market("reference")
    book = market.book(BookKey(1, 2))
    assert len(book) == 0
    market.apply(stream(record("A", "B", 100, 1, 1, instrument_id=2)))
    assert market.book(BookKey(1, 2)) is book
    assert len(book) == 1


@pytest.mark.parametrize(("kind", "expected"), [("kernel", KernelBook), ("reference", ReferenceBook)])
def test_the_kind_names_the_book(kind: str, expected: type) -> None:
    assert type(make_book(kind)) is expected  # type: ignore[arg-type]


def test_the_fast_book_is_the_usual_one() -> None:
    assert Market().kind == "kernel"
