"""One book in a run as the web sees it, and the marks that say which books wait to be shown. Floor 3."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine_worker.book_names import BookName
from orderbook.book.mbo import BookKey, Side
from orderbook.book.price import infer_tick
from orderbook.book.protocol import OrderBook
from orderbook.book.snapshot import BookSnapshot
from orderbook.live import group_name

SymbolOf = Callable[[int], str | None]
"""instrument_id -> symbol, None where the feed has told none."""

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
"""Of books."""
Scalar = TypeVar("Scalar", bound=np.generic)


class Track:
    """One book in a run: its name, and what of it went to the web."""

    def __init__(self, number: int, name: BookName, book: OrderBook, *, is_inferred: bool) -> None:
        """``is_inferred`` says that the tick is what prices have told so far, and may become finer."""
        self.number = number
        self.name = name
        """Its tick is that of the stored snapshots; the web sees more levels, and may know a finer one."""
        self.book = book
        self.group = group_name(name.symbol)
        """Of the channel layer: who looks at the book is in it."""
        self._tick = name.tick
        self._inferred = is_inferred
        self._pushed = 0

    @property
    def key(self) -> BookKey:
        return self.name.key

    @property
    def symbol(self) -> str:
        return self.name.symbol

    def pushed_snapshot(self, run_id: str, records: int, depth: int | None) -> BookSnapshot:
        """Return the next snapshot for the web: ``depth`` levels a side, all without it."""
        self._pushed += 1
        book = self.book
        bids, asks = book.levels(Side.BID, depth), book.levels(Side.ASK, depth)
        if self._inferred:
            self._infer(np.concatenate((bids[:, 0], asks[:, 0])))
        return BookSnapshot(
            symbol=self.symbol,
            run_id=run_id,
            seq=self._pushed,
            records=records,
            ts_event=book.ts_event,
            ts_recv=book.ts_recv,
            sequence=book.sequence,
            tick=self._tick,
            bids=bids,
            asks=asks,
            key=self.key,
        )

    def _infer(self, prices: npt.NDArray[np.int64]) -> None:
        """Take the widest grid on which every price seen so far lies."""
        if not self._tick:  # the first look goes over the whole book, whatever the depth of the snapshot
            prices = np.concatenate([self.book.levels(side)[:, 0] for side in (Side.BID, Side.ASK)])
        self._tick = int(np.gcd(self._tick, infer_tick(prices)))


class Waiting:
    """Which books have changed since they were shown, and from when on each may be shown again, ns of any clock."""

    def __init__(self) -> None:
        self.changed: Flags = np.zeros(0, np.bool_)
        self._since = np.zeros(0, np.int64)
        self._not_before = np.zeros(0, np.int64)

    def grow(self, books: int) -> None:
        self.changed = with_room(self.changed, books)
        self._since, self._not_before = with_room(self._since, books), with_room(self._not_before, books)

    def mark(self, books: Flags, now_ns: int) -> None:
        """Note that books have changed."""
        fresh = books & ~self.changed
        self._since[fresh] = now_ns
        self.changed |= books

    def due(self, now_ns: int, among: Numbers | None = None) -> list[int]:
        """Return the numbers of the books that may be shown now, of all or of some; what waits longest first."""
        books = self._changed(among)
        books = books[self._not_before[books] <= now_ns]
        due: list[int] = books[self._since[books].argsort(kind="stable")].tolist()
        return due

    def shown(self, book: int, not_before_ns: int) -> int:
        """Note that a book is shown. Returns since when it had been waiting."""
        self.changed[book] = False
        self._not_before[book] = not_before_ns
        return int(self._since[book])

    def dues(self, among: Numbers | None = None) -> Iterator[tuple[int, int]]:
        """Return from when on each changed book may be shown, and its number, of all or of some; the earliest first."""
        books = self._changed(among)
        times = self._not_before[books]
        order = times.argsort(kind="stable")
        return zip(times[order].tolist(), books[order].tolist(), strict=True)

    def _changed(self, among: Numbers | None) -> Numbers:
        return np.flatnonzero(self.changed) if among is None else among[self.changed[among]]


def with_room(array: npt.NDArray[Scalar], length: int) -> npt.NDArray[Scalar]:
    """Return an array that is long enough, with zeros behind what there is."""
    if len(array) >= length:
        return array
    longer = np.zeros(length, array.dtype)
    longer[: len(array)] = array
    return longer
