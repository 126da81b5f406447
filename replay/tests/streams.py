"""Streams with everything in them that an index must carry over, and their indexes."""

import io
from pathlib import Path

import numpy as np

from orderbook.book.market import BookKind
from orderbook.book.mbo import BookKey, MboArray
from orderbook.tests.records import eventful_session, interleaved, renamed_book
from replay.feed.index import Index, Origin
from replay.feed.indexing import write_index
from replay.simulator import simulate

EVERY = 256
ORIGIN = Origin(7, 8)


def eventful(instruments: int, count: int = 6000, seed: int = 1) -> MboArray:
    """Return eventful sessions of so many instruments, mixed record by record: some always stand in mid-event.

    The last of them, unless it is alone, is first named when half is over.
    """
    keys = [BookKey(1 + number % 3, 7 + number // 2) for number in range(instruments)]
    size = count // instruments
    parts = [renamed_book(eventful_session([seed, n], size, ids=120, prices=20), key) for n, key in enumerate(keys)]
    if instruments == 1:
        return parts[0]
    early, late = interleaved(parts[:-1], seed), parts[-1]
    half = len(early) // 2
    records = np.concatenate([early[:half], interleaved([early[half:], late], seed)])
    records["ts_recv"] = np.sort(records["ts_recv"])
    return records


def session(instruments: int, count: int = 6000, seed: int = 1) -> MboArray:
    """Return a simulated session of so many instruments."""
    return simulate(max(count, 500 * instruments), [f"C{number}" for number in range(instruments)], seed)


def index_of(records: MboArray, kind: BookKind = "kernel", every: int = EVERY) -> Index:
    """Return the index of records, with a mark every so many of them."""
    return Index(np.frombuffer(index_bytes(records, kind, every), np.uint8), Path("made.index"))


def index_bytes(records: MboArray, kind: BookKind = "kernel", every: int = EVERY) -> bytes:
    """Return the bytes of the index of records."""
    file = io.BytesIO()
    write_index(file, records, ORIGIN, kind, every=every)
    return file.getvalue()


STREAMS = {
    **{f"eventful {n}": lambda n=n: eventful(n) for n in (1, 3, 50)},
    **{f"simulated {n}": lambda n=n: session(n) for n in (1, 3, 50)},
}
"""What makes each kind of stream, by its name."""
