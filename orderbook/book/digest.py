"""State hash: 128 bits that name the complete state of a book or of a market. Floor 0.

Two books have the same hash when they hold the same orders in the same queues and show the same top-of-book levels,
whichever book rebuilt them and however the stream was cut into batches. Where the stream stands (times, sequence,
anomalies) is no part of it: a book rebuilt from a picture equals one that saw every record.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import numpy as np

from orderbook.book.mbo import BookKey, Side
from orderbook.book.protocol import OrderBook

HASH_BYTES: Final = 16
_VERSION: Final = b"batonic book 1"


def state_hash(book: OrderBook) -> str:
    """Return the hash of a book, 32 hexadecimal digits. Cost: O(orders), about 140 ns each in a large book."""
    orders = book.orders()
    digest = hashlib.blake2b(_VERSION, digest_size=HASH_BYTES)
    digest.update(np.int64(len(orders)).tobytes())
    for field in ("order_id", "price", "size", "side"):  # by column: a record has padding bytes
        digest.update(orders[field].tobytes())
    for side in (Side.BID, Side.ASK):
        levels = book.levels(side)  # their sizes tell what top-of-book publishers show
        digest.update(np.int64(len(levels)).tobytes())
        digest.update(levels.tobytes())
    return digest.hexdigest()


def market_hash(books: Iterable[tuple[BookKey, OrderBook]]) -> str:
    """Return the hash of many books, 32 hexadecimal digits. An empty book is as one that never was."""
    digest = hashlib.blake2b(_VERSION, digest_size=HASH_BYTES)
    for key, book in sorted(books, key=lambda each: each[0]):
        if book.bbo() != (None, None):
            digest.update(f"{key.publisher_id}.{key.instrument_id}={state_hash(book)};".encode())
    return digest.hexdigest()
