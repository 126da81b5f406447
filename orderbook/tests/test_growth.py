"""Very many live orders: the arrays grow without loss and stay within their bound.

``BOOK_ORDERS=10000000 pytest -s orderbook/tests/test_growth.py`` is the full size; it takes a minute and 2 GB.
"""

import hashlib
import os
from collections.abc import Iterator

import numpy as np
import pytest
from tqdm import tqdm

from orderbook.book.kernel_market import KernelMarket
from orderbook.book.market import make_market
from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, ORDER, Action, BookKey, Flags, MboArray, Side
from orderbook.book.protocol import QueuePosition, RestingOrder

ORDERS = int(os.environ.get("BOOK_ORDERS", "200000"))
BATCH = min(50_000, max(1, ORDERS // 200))  # small, so that the peaks behind each growth are seen
PRICES = 2_000  # on each side
BYTES_PER_ORDER = 120
KEYS = [BookKey(1, 7), BookKey(1, 8), BookKey(2, 7)]


def order_ids(numbers: np.ndarray) -> np.ndarray:
    """Return ids that differ and fill all 64 bits: an odd factor is a permutation of them."""
    return numbers.astype(np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)


def records_of(action: Action, numbers: np.ndarray, keys: list[BookKey]) -> MboArray:
    """Return one record for each number, which tells everything: id, side, price, size and book."""
    records = np.zeros(len(numbers), MBO)
    records["length"], records["rtype"], records["flags"] = MBO_LENGTH, MBO_RTYPE, Flags.LAST
    records["action"] = action
    records["order_id"] = order_ids(numbers)
    records["side"] = np.where(numbers % 2, Side.ASK, Side.BID)
    places = (numbers // 2 * 7919) % PRICES
    records["price"] = np.where(numbers % 2, PRICES + places, -places) * 10_000_000
    records["size"] = 1 + numbers % 9
    books = numbers % len(keys)
    records["publisher_id"] = np.array([key.publisher_id for key in keys])[books]
    records["instrument_id"] = np.array([key.instrument_id for key in keys])[books]
    records["sequence"] = numbers % 2**32
    return records


def batches(title: str, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the numbers in batches, with a bar on a terminal."""
    with tqdm(total=len(numbers), desc=title, unit="order", disable=None) as bar:
        for start in range(0, len(numbers), BATCH):
            yield numbers[start : start + BATCH]
            bar.update(min(BATCH, len(numbers) - start))


def expected_orders(numbers: np.ndarray, keys: list[BookKey], book: int) -> np.ndarray:
    """Return what a book must list: a stable sort by side and price of what came, in order of arrival."""
    records = records_of(Action.ADD, numbers[numbers % len(keys) == book], keys)
    is_ask = records["side"] == Side.ASK
    order = np.lexsort((np.where(is_ask, records["price"], -records["price"]), is_ask))
    listed = np.zeros(len(records), ORDER)
    for field in ("order_id", "price", "size", "side"):
        listed[field] = records[field][order]
    return listed


def digest(orders: np.ndarray) -> str:
    columns = (np.ascontiguousarray(orders[field]) for field in ("order_id", "price", "size", "side"))
    return hashlib.blake2b(b"".join(column.tobytes() for column in columns), digest_size=16).hexdigest()


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS], ids=["one book", "three books"])
def test_a_market_with_very_many_orders_loses_none_and_keeps_within_its_memory(keys: list[BookKey]) -> None:
    market = make_market("kernel")
    assert isinstance(market, KernelMarket)
    numbers = np.arange(ORDERS)
    worst = 0.0
    for part in batches("add", numbers):
        market.apply(records_of(Action.ADD, part, keys))
        resting = sum(len(book) for book in market.books.values())
        if resting > 20 * PRICES:  # fewer orders are mostly levels
            worst = max(worst, market.arena.nbytes / resting)
    assert worst <= BYTES_PER_ORDER
    print(
        f"{ORDERS:,} orders in {len(keys)} book(s): {market.arena.nbytes / ORDERS:.1f} bytes each, at most {worst:.1f}"
    )
    for place, key in enumerate(keys):
        book = market.book(key)
        book.check()
        assert book.anomalies == {}
        expected = expected_orders(numbers, keys, place)
        assert len(book) == len(expected)
        assert digest(book.orders()) == digest(expected)
        check_some_orders(market, key, expected)
        del expected

    # Every fifth order goes, in an order of its own; the rest keep their places.
    shuffled = np.random.default_rng(1).permutation(numbers)
    for part in batches("cancel a fifth", shuffled[shuffled % 5 == 1]):
        market.apply(records_of(Action.CANCEL, part, keys))
    for place, key in enumerate(keys):
        book = market.book(key)
        book.check()
        assert digest(book.orders()) == digest(expected_orders(numbers[numbers % 5 != 1], keys, place))

    for part in batches("cancel the rest", shuffled[shuffled % 5 != 1]):
        market.apply(records_of(Action.CANCEL, part, keys))
    for key in keys:
        book = market.book(key)
        book.check()
        assert (len(book), book.bbo(), book.anomalies) == (0, (None, None), {})

    # The room is used again.
    nbytes = market.arena.nbytes
    for part in batches("add again", numbers[: ORDERS // 2]):
        market.apply(records_of(Action.ADD, part, keys))
    assert market.arena.nbytes == nbytes
    for place, key in enumerate(keys):
        assert digest(market.book(key).orders()) == digest(expected_orders(numbers[: ORDERS // 2], keys, place))


def check_some_orders(market: KernelMarket, key: BookKey, expected: np.ndarray) -> None:
    book = market.book(key)
    for row in expected[:: max(1, len(expected) // 50)]:
        order_id, price, size, side = row.item()
        assert book.order(order_id) == RestingOrder(order_id, Side(side), price, size)
        level = expected[(expected["side"] == side) & (expected["price"] == price)]
        ahead = level[: int(np.flatnonzero(level["order_id"] == order_id)[0])]
        assert book.queue_position(order_id) == QueuePosition(len(ahead), int(ahead["size"].sum()))
        assert digest(book.queue(Side(side), price)) == digest(level)


def test_a_book_of_very_many_levels_loses_none() -> None:
    count = min(ORDERS // 10, 100_000)  # an insertion moves the levels that are better
    numbers = np.random.default_rng(2).permutation(count)
    book = make_market("kernel").book(KEYS[0])
    for part in batches("levels", numbers):
        records = records_of(Action.ADD, part, KEYS[:1])
        records["price"] = np.where(part % 2, part + count, -part)
        book.apply(records)
    book.check()
    odd, even = np.arange(1, count, 2), np.arange(0, count, 2)
    assert book.levels(Side.ASK).tolist() == [[n + count, 1 + n % 9, 1] for n in odd.tolist()]
    assert book.levels(Side.BID).tolist() == [[-n, 1 + n % 9, 1] for n in even.tolist()]
