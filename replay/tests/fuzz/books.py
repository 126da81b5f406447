"""Records of any content in both books."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from orderbook.book.audit import Audit
from orderbook.book.digest import market_hash
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import MBO, MBO_LENGTH, MBO_RTYPE, BookKey, MboArray
from orderbook.book.tape import Tape
from orderbook.tests.records import picture
from replay.tests.fuzz.mutations import split_plan


def fuzz_book(data: bytes) -> None:
    """Records of any content, applied in batches to both books."""
    sizes, content = split_plan(data)
    records = np.frombuffer(content, MBO, len(content) // MBO.itemsize).copy()
    records["length"], records["rtype"] = MBO_LENGTH, MBO_RTYPE
    both_books_agree(records, sizes)


class Rebuilt(NamedTuple):
    """What a market shows behind each batch, and at the end."""

    hashes: list[str]
    books: dict[BookKey, dict[str, object]]
    bbos: list[object]
    trades: list[object]
    audit: tuple[int, int, dict[str, int]]


def both_books_agree(records: MboArray, sizes: Sequence[int] = (0,)) -> None:
    """Neither book contradicts itself, and both show the same, however the records are cut into batches."""
    if not len(records):
        return
    fast, readable = _rebuilt("kernel", records, sizes), _rebuilt("reference", records, sizes)
    assert fast == readable, f"kernel {fast}, reference {readable}"
    kinds: list[BookKind] = ["kernel", "reference"]
    for kind in kinds:
        market, tape = make_market(kind), Tape()
        market.apply(records.copy(), tape)
        at_once = market_hash(market.books.items()), tape.bbos.tolist(), tape.trades.tolist()
        assert at_once == (fast.hashes[-1], fast.bbos, fast.trades), f"{kind} differs in one batch without checks"


def _rebuilt(kind: BookKind, records: MboArray, sizes: Sequence[int]) -> Rebuilt:
    """Rebuild the books in batches of these sizes, checked at every event end and after the last batch."""
    market, tape, audit = make_market(kind), Tape(), Audit()
    hashes: list[str] = []
    done = 0
    pieces = itertools.cycle(sizes)
    while done < len(records):
        n = next(pieces) or len(records)
        market.apply_audited(records[done : done + n].copy(), tape, audit)
        hashes.append(market_hash(market.books.items()))
        done += n
    for book in market.books.values():
        book.check()
    books = {key: picture(book) for key, book in market.books.items()}
    return Rebuilt(hashes, books, tape.bbos.tolist(), tape.trades.tolist(), (audit.events, audit.checks, audit.first))
