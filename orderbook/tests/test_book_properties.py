"""Both books agree after every record of any stream, and a stream's symmetries are those of the book."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.book.anomaly import Anomaly
from orderbook.book.market import BookKind, Market, make_book
from orderbook.book.mbo import UNDEF_PRICE, BookKey, MboArray
from orderbook.tests.records import LAST, MAYBE_BAD_BOOK, SNAPSHOT, TOB, picture, random_session, record, stream

KINDS: list[BookKind] = ["reference", "kernel"]

# Few ids and prices, so that records meet; rare values, so that the rules for faults meet them too.
ROWS = st.builds(
    record,
    st.sampled_from("AAAAAACCCMMMRTFNX"),
    st.sampled_from("BBBBAAAANX"),
    st.sampled_from([*range(-4, 5)] * 4 + [UNDEF_PRICE]),
    st.integers(0, 6),
    st.sampled_from([*range(1, 9), 2**63, 2**64 - 1]),
    st.sampled_from([0, LAST] * 6 + [TOB, TOB | LAST, SNAPSHOT, SNAPSHOT | LAST, MAYBE_BAD_BOOK]),
)
STREAMS = st.lists(ROWS, max_size=60).map(lambda rows: stream(*rows))
LONG_STREAMS = st.lists(ROWS, min_size=30, max_size=150).map(lambda rows: stream(*rows))


def built(kind: BookKind, records: MboArray) -> dict[str, object]:
    book = make_book(kind)
    book.apply(records)
    book.check()
    return picture(book)


@settings(max_examples=300, deadline=None)
@given(LONG_STREAMS)
def test_both_books_agree_after_every_record(records: MboArray) -> None:
    reference, kernel = make_book("reference"), make_book("kernel")
    for place in range(len(records)):
        reference.apply(records[place : place + 1])
        kernel.apply(records[place : place + 1])
        reference.check()
        kernel.check()
        assert picture(kernel) == picture(reference)
    assert set(reference.anomalies) <= {kind.value for kind in Anomaly}


@pytest.mark.parametrize("seed", range(4))
def test_both_books_agree_over_a_long_session(seed: int) -> None:
    records = random_session(seed, 12_000, ids=[40, 400, 3000, 12_000][seed], prices=[3, 60, 400, 2000][seed])
    reference, kernel = make_book("reference"), make_book("kernel")
    for part in np.array_split(records, 12):
        reference.apply(part)
        kernel.apply(part)
        reference.check()
        kernel.check()
        assert picture(kernel) == picture(reference)
    assert len(kernel) > 0


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS, cuts=st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=60, deadline=None)
def test_chunking_a_batch_does_not_matter(kind: BookKind, records: MboArray, cuts: list[int]) -> None:
    book = make_book(kind)
    for part in np.split(records, sorted(min(cut, len(records)) for cut in cuts)):
        book.apply(part)
    assert picture(book) == built(kind, records)


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(STREAMS, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_instruments_interleaved_equal_each_alone(kind: BookKind, parts: list[MboArray], order) -> None:  # type: ignore[no-untyped-def]
    # The same instrument id under two publishers, and the same order ids everywhere.
    keys = [BookKey(1, 7), BookKey(2, 7), BookKey(1, 8), BookKey(65535, 2**32 - 1)][: len(parts)]
    for key, part in zip(keys, parts, strict=True):
        part["publisher_id"], part["instrument_id"] = key
    turns = [number for number, part in enumerate(parts) for _ in range(len(part))]
    order.shuffle(turns)
    taken = [0] * len(parts)
    mixed = np.zeros(len(turns), parts[0].dtype)
    for place, number in enumerate(turns):
        mixed[place] = parts[number][taken[number]]
        taken[number] += 1
    market = Market(kind)
    half = len(mixed) // 2
    market.apply(mixed[:half])
    market.apply(mixed[half:])
    for key, part in zip(keys, parts, strict=True):
        assert picture(market.book(key)) == built(kind, part)


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS, mask=st.integers(1, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_renaming_the_orders_renames_them_and_nothing_else(kind: BookKind, records: MboArray, mask: int) -> None:
    renamed = records.copy()
    renamed["order_id"] ^= np.uint64(mask)
    expected = built(kind, records)
    expected["orders"] = [(order_id ^ mask, *rest) for order_id, *rest in expected["orders"]]  # type: ignore[attr-defined]
    assert built(kind, renamed) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS, shift=st.integers(-(10**12), 10**12))
@settings(max_examples=60, deadline=None)
def test_shifting_the_prices_shifts_the_book(kind: BookKind, records: MboArray, shift: int) -> None:
    shifted = records.copy()
    shifted["price"][records["price"] != UNDEF_PRICE] += shift
    plain, moved = make_book(kind), make_book(kind)
    plain.apply(records)
    moved.apply(shifted)
    expected = plain.orders()
    expected["price"] += shift
    assert moved.orders().tolist() == expected.tolist()
    assert moved.anomalies == plain.anomalies


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS)
@settings(max_examples=60, deadline=None)
def test_mirroring_the_sides_mirrors_the_book(kind: BookKind, records: MboArray) -> None:
    mirrored = records.copy()
    mirrored["side"][records["side"] == ord("B")] = ord("A")
    mirrored["side"][records["side"] == ord("A")] = ord("B")
    priced = records["price"] != UNDEF_PRICE
    mirrored["price"][priced] = -records["price"][priced]
    plain, turned = built(kind, records), built(kind, mirrored)
    assert turned["asks"] == [[-price, size, count] for price, size, count in plain["bids"]]  # type: ignore[attr-defined]
    assert turned["bids"] == [[-price, size, count] for price, size, count in plain["asks"]]  # type: ignore[attr-defined]
    assert turned["anomalies"] == plain["anomalies"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_orders_of_a_book_rebuild_it(kind: BookKind) -> None:
    book, rebuilt = make_book(kind), make_book(kind)
    book.apply(random_session(5, 3000))
    rows = [record("A", chr(side), price, size, order_id) for order_id, price, size, side in book.orders().tolist()]
    rebuilt.apply(stream(*rows))
    assert rebuilt.orders().tolist() == book.orders().tolist()
