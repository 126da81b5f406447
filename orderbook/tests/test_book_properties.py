"""Both books agree after every record of any stream, and a stream's symmetries are those of the book."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook.book.anomaly import Anomaly
from orderbook.book.digest import market_hash, state_hash
from orderbook.book.market import BookKind, make_book, make_market, split_by_book
from orderbook.book.mbo import UNDEF_PRICE, BookKey, MboArray
from orderbook.book.protocol import OrderBook
from orderbook.book.tape import Tape
from orderbook.tests.records import (
    KINDS,
    LAST,
    MAYBE_BAD_BOOK,
    SNAPSHOT,
    TOB,
    eventful_session,
    examples,
    interleaved,
    picture,
    random_session,
    record,
    renamed_book,
    retold,
    stream,
)

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
SEEDS = range(3)

# The same instrument id under two publishers, and the same order ids everywhere.
KEYS = [BookKey(1, 7), BookKey(2, 7), BookKey(1, 8), BookKey(65535, 2**32 - 1)]

some = settings(max_examples=examples(60, 5000), deadline=None)


def built(kind: BookKind, records: MboArray) -> OrderBook:
    book = make_book(kind)
    book.apply(records)
    book.check()
    return book


def outcome(kind: BookKind, parts: Sequence[MboArray]) -> dict[str, object]:
    """Return all that is left of a stream applied batch by batch: books, tape, anomalies."""
    market, tape = make_market(kind), Tape()
    for part in parts:
        market.apply(part, tape)
    return {
        "hash": market_hash(market.books.items()),
        "books": {key: picture(book) for key, book in market.books.items()},
        "bbos": tape.bbos.tolist(),
        "trades": tape.trades.tolist(),
        "records": tape.records,
    }


# two books


@settings(max_examples=examples(200, 20_000), deadline=None)
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


@pytest.mark.parametrize("session", [random_session, eventful_session])
@pytest.mark.parametrize(("ids", "prices"), [(40, 3), (400, 60), (3000, 400), (12_000, 2000)])
def test_both_books_agree_over_a_long_session(
    session: Callable[[int, int, int, int], MboArray], ids: int, prices: int
) -> None:
    records = session(ids, 12_000, ids, prices)
    reference, kernel = make_book("reference"), make_book("kernel")
    tapes = Tape(), Tape()
    for part in np.array_split(records, 12):
        reference.apply(part, tapes[0])
        kernel.apply(part, tapes[1])
        reference.check()
        kernel.check()
        assert picture(kernel) == picture(reference)
    assert len(kernel) > 0
    assert len(tapes[1].bbos) > 10
    assert tapes[1].bbos.tolist() == tapes[0].bbos.tolist()
    assert tapes[1].trades.tolist() == tapes[0].trades.tolist()


def test_both_markets_agree_over_a_long_session_of_many_books() -> None:
    keys = [BookKey(1 + number % 3, number // 3) for number in range(60)]
    parts = [renamed_book(eventful_session(number, 400, 50, 10), key) for number, key in enumerate(keys)]
    records = interleaved(parts, 1)
    assert outcome("kernel", np.array_split(records, 5)) == outcome("reference", [records])


# batches


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS, cuts=st.lists(st.integers(0, 60), max_size=6))
@some
def test_chunking_a_stream_does_not_matter(kind: BookKind, records: MboArray, cuts: list[int]) -> None:
    records["instrument_id"] = records["order_id"] % 2  # two books
    parts = np.split(records, sorted(min(cut, len(records)) for cut in cuts))  # equal cuts give empty batches
    assert outcome(kind, parts) == outcome(kind, [records])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_chunking_a_long_session_does_not_matter(kind: BookKind, seed: int) -> None:
    parts = [renamed_book(eventful_session(seed * 10 + number, 2500), KEYS[number]) for number in range(3)]
    records = interleaved(parts, seed)
    whole = outcome(kind, [records])
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(records), 200))
    assert outcome(kind, np.split(records, cuts)) == whole
    assert outcome(kind, [records[place : place + 1] for place in range(len(records))]) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_applying_through_the_market_is_applying_to_each_book(kind: BookKind) -> None:
    records = interleaved([renamed_book(eventful_session(n, 1500), key) for n, key in enumerate(KEYS)], 5)
    market = make_market(kind)
    market.apply(records)
    apart = make_market(kind)
    for key, part in split_by_book(records):
        apart.book(key).apply(part)
        assert picture(apart.book(key)) == picture(market.book(key)) == picture(built(kind, part))
    assert market_hash(apart.books.items()) == market_hash(market.books.items())


# instruments


def check_independence(kind: BookKind, parts: list[MboArray], seed: int) -> None:
    keys = KEYS[: len(parts)]
    parts = [renamed_book(part, key) for key, part in zip(keys, parts, strict=True)]
    market, tape = make_market(kind), Tape()
    for half in np.array_split(interleaved(parts, seed), 2):
        market.apply(half, tape)
    apart = make_market(kind)
    for key, part in zip(keys, parts, strict=True):
        alone, own_tape = make_book(kind), Tape()
        alone.apply(part, own_tape)
        assert picture(market.book(key)) == picture(alone)
        for together, own in ((tape.bbos, own_tape.bbos), (tape.trades, own_tape.trades)):
            mine = (together["publisher_id"] == key.publisher_id) & (together["instrument_id"] == key.instrument_id)
            # All but the number of the record on the tape.
            assert [row[1:] for row in together[mine].tolist()] == [row[1:] for row in own.tolist()]
        apart.apply(part)
    assert market_hash(market.books.items()) == market_hash(apart.books.items())
    assert (np.diff(tape.bbos["record"]) > 0).all()
    assert (np.diff(tape.trades["record"]) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
@given(parts=st.lists(STREAMS, min_size=1, max_size=4), seed=st.integers(0, 2**32))
@some
def test_instruments_interleaved_equal_each_alone(kind: BookKind, parts: list[MboArray], seed: int) -> None:
    check_independence(kind, parts, seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_instruments_of_a_long_session_equal_each_alone(kind: BookKind, seed: int) -> None:
    check_independence(kind, [eventful_session(seed * 10 + number, 2000) for number in range(4)], seed)


# symmetries: the changed stream gives the changed book, and changing that back gives the same hash


def check_renaming(kind: BookKind, records: MboArray, mask: int) -> None:
    renamed = records.copy()
    renamed["order_id"] ^= np.uint64(mask)
    plain, other = built(kind, records), built(kind, renamed)
    back = retold(other)
    back["order_id"][back["flags"] & TOB == 0] ^= np.uint64(mask)
    assert state_hash(built(kind, back)) == state_hash(plain)
    assert other.anomalies == plain.anomalies
    assert (state_hash(other) == state_hash(plain)) == (len(plain) == 0)


def check_shift(kind: BookKind, records: MboArray, shift: int) -> None:
    shifted = records.copy()
    shifted["price"][records["price"] != UNDEF_PRICE] += shift
    plain, other = built(kind, records), built(kind, shifted)
    back = retold(other)
    back["price"] -= shift
    assert state_hash(built(kind, back)) == state_hash(plain)
    assert other.anomalies == plain.anomalies


def mirrored(records: MboArray) -> MboArray:
    turned = records.copy()
    turned["side"][records["side"] == ord("B")] = ord("A")
    turned["side"][records["side"] == ord("A")] = ord("B")
    priced = records["price"] != UNDEF_PRICE
    turned["price"][priced] = -records["price"][priced]
    return turned


def check_mirror(kind: BookKind, records: MboArray) -> None:
    tapes = Tape(), Tape()
    plain, other = make_book(kind), make_book(kind)
    plain.apply(records, tapes[0])
    other.apply(mirrored(records), tapes[1])
    assert state_hash(built(kind, mirrored(retold(other)))) == state_hash(plain)
    assert other.anomalies == plain.anomalies
    for mine, yours in (("bid", "ask"), ("ask", "bid")):
        assert tapes[0].bbos[f"{mine}_sz"].tolist() == tapes[1].bbos[f"{yours}_sz"].tolist()
        assert tapes[0].bbos[f"{mine}_ct"].tolist() == tapes[1].bbos[f"{yours}_ct"].tolist()
        priced = tapes[0].bbos[f"{mine}_sz"] > 0
        assert (tapes[0].bbos[f"{mine}_px"][priced] == -tapes[1].bbos[f"{yours}_px"][priced]).all()


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS, mask=st.integers(1, 2**64 - 1))
@some
def test_renaming_the_orders_renames_them_and_nothing_else(kind: BookKind, records: MboArray, mask: int) -> None:
    check_renaming(kind, records, mask)


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS, shift=st.integers(-(10**12), 10**12))
@some
def test_shifting_the_prices_shifts_the_book(kind: BookKind, records: MboArray, shift: int) -> None:
    check_shift(kind, records, shift)


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS)
@some
def test_mirroring_the_sides_mirrors_the_book(kind: BookKind, records: MboArray) -> None:
    check_mirror(kind, records)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_symmetries_hold_over_a_long_session(kind: BookKind, seed: int) -> None:
    records = eventful_session(seed, 8000, ids=1000, prices=[3, 60, 400][seed])
    check_renaming(kind, records, 0x9E37_79B9_7F4A_7C15)
    check_shift(kind, records, -123_456_789_012)
    check_mirror(kind, records)


# pictures


@pytest.mark.parametrize("kind", KINDS)
@given(records=STREAMS)
@some
def test_what_a_book_shows_rebuilds_it(kind: BookKind, records: MboArray) -> None:
    book = built(kind, records)
    assert state_hash(built(kind, retold(book))) == state_hash(book)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_book_rebuilt_from_a_picture_goes_on_as_if_nothing_had_happened(kind: BookKind, seed: int) -> None:
    records = random_session(seed, 6000)
    rng = np.random.default_rng(seed)
    book = make_book(kind)
    for part in np.split(records, np.sort(rng.integers(0, len(records), 8))):
        book = built(kind, retold(book))  # as after a crash
        book.apply(part)
        book.check()
    assert state_hash(book) == state_hash(built(kind, records))
