"""What a replay is in the derived schemas, computed once for all who follow it, wherever they are. Floor 1.

Blocks are kept for those who come next, up to a bound of bytes. A deriver stands at each place where a client goes on;
one that comes anywhere else costs a picture. What comes out is the same in each case: a deriver that begins in
mid-stream begins so far back that it knows what one that saw everything knows (within the reach of lookback.py).

Everything is computed on the one thread of the executor that is given, which the pictures belong to as well.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Executor
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.market import BookKind
from orderbook.book.mbo import Action, Flags, MboArray, book_tags
from replay.feed.derived import DTYPES, Derived, Deriver
from replay.feed.lookback import events_begin, last_trades, open_books, second_begin
from replay.feed.seconds import Placed

CACHED_BYTES: Final = 32 << 20
"""Blocks that are kept, together: the newest one always, some 70,000 records of mbp-10."""

CACHED_BLOCKS: Final = 64
"""A slow replay makes blocks of a few records: so many that a client which is some moments late finds them."""

DERIVERS: Final = 64
"""Places in the recording from which deriving goes on at once: as many as there may be clients."""

DERIVERS_BYTES: Final = 512 << 20
"""What their books may take together; of more, those that rested longest are made anew when their clients go on."""

_STEP_RECORDS: Final = 1 << 14

Painter = Callable[[int], MboArray]
"""Returns the records that bring books to a position."""


class DerivedFeed:
    """The derived schemas of one recording. Its coroutines belong to one event loop."""

    def __init__(
        self, records: MboArray, picture: Painter, arrival: Painter, executor: Executor, kind: BookKind = "kernel"
    ) -> None:
        """Derive from ``records``; ``picture`` tells every book of a position, ``arrival`` every book of the recording.

        Both are called on the thread of the executor, which must have one thread only.
        """
        self._records = records
        self._picture = picture
        self._arrival = arrival
        self._executor = executor
        self._kind: BookKind = kind
        self._blocks = _Blocks()
        self._derivers: OrderedDict[int, Deriver] = OrderedDict()
        self._places: dict[object, tuple[int, int]] = {}  # of each client: where it is, and where it goes

    async def derived(self, begin: int, stop: int, client: object = None) -> "Excerpt":
        """Return what the records [begin:stop] are. Cost: some 100 ns a record, once for all clients.

        ``client`` is who goes on from ``stop`` until it goes on elsewhere or leaves.
        """
        self._places[client] = begin, stop
        found = self._find(begin, stop)
        if found is None:
            found = await asyncio.get_running_loop().run_in_executor(
                self._executor, self._derive, begin, stop, self._followed()
            )
        return found

    def leave(self, client: object) -> None:
        """Forget a client, and what was kept for it alone."""
        if self._places.pop(client, None) is not None:
            self._executor.submit(self._drop, self._followed())

    async def arrival(self, position: int, client: object = None) -> dict[str, npt.NDArray[np.void]]:
        """Return by schema what tells a client that jumps to a position where every book stands; see Deriver.arrival.

        Of every book of the recording, in order of their keys: also of those that are not there yet. Cost: that of a
        picture, and of what lookback.py finds: some 4 ms in a recording of one instrument with an index.
        """
        self._places[client] = position, position
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._arrive, position, self._followed()
        )

    def _followed(self) -> frozenset[int]:
        """Return the places at which a client is, or to which it goes now."""
        return frozenset(place for places in self._places.values() for place in places)

    def _find(self, begin: int, stop: int) -> "Excerpt | None":
        """Return [begin:stop] from the blocks that are kept; None when any of it is missing."""
        parts, place = [], begin
        while place < stop:
            block = self._blocks.covering(place)
            if block is None:
                return None
            parts.append(Part(block, place, min(stop, block.stop)))
            place = parts[-1].stop
        return Excerpt(begin, parts)

    # On the thread of the executor

    def _derive(self, begin: int, stop: int, followed: Set[int]) -> "Excerpt":
        """Return [begin:stop], of which what no block holds is derived now."""
        parts, place = [], begin
        while place < stop:
            block = self._blocks.covering(place) or self._made(place, stop, followed)
            parts.append(Part(block, place, min(stop, block.stop)))
            place = parts[-1].stop
        return Excerpt(begin, parts)

    def _made(self, begin: int, stop: int, followed: Set[int]) -> "Block":
        deriver = self._derivers.pop(begin, None) or self._new_deriver(begin)
        block = Block(begin, stop, deriver.derive(self._records[begin:stop]))
        self._blocks.add(block)
        self._keep(stop, deriver, followed)
        return block

    def _arrive(self, position: int, followed: Set[int]) -> dict[str, npt.NDArray[np.void]]:
        deriver = self._derivers.pop(position, None) or self._new_deriver(position)
        self._keep(position, deriver, followed)
        clears = self._arrival(position)
        clears = clears[clears["action"] == np.uint8(Action.CLEAR)]
        clears["flags"] |= np.uint8(Flags.LAST)
        empty = Deriver(self._kind)
        empty.begin(clears)
        arrived, unknown = deriver.arrival(), empty.arrival()
        if position:
            unknown["bbo-1s"]["ts_recv"] = deriver.second_ns
        return {schema: _completed(records, unknown[schema]) for schema, records in arrived.items()}

    def _keep(self, position: int, deriver: Deriver, followed: Set[int]) -> None:
        """Let a deriver stand at a position, and those go that nobody needs, or that are too much."""
        self._drop(followed)
        self._derivers[position] = deriver
        self._derivers.move_to_end(position)
        nbytes = sum(each.nbytes for each in self._derivers.values())
        while len(self._derivers) > 1 and (len(self._derivers) > DERIVERS or nbytes > DERIVERS_BYTES):
            _, gone = self._derivers.popitem(last=False)
            nbytes -= gone.nbytes

    def _drop(self, followed: Set[int]) -> None:
        for place in self._derivers.keys() - followed:
            del self._derivers[place]

    def _new_deriver(self, position: int) -> Deriver:
        """Return a deriver that knows at a position what one that saw everything knows."""
        deriver = Deriver(self._kind)
        start = second_begin(self._records, position)
        picture = self._picture(start)
        inside = open_books(picture)
        if len(inside):
            start = events_begin(self._records, start, inside)
            picture = self._picture(start)
        books = np.unique(book_tags(picture))
        deriver.begin(picture, last_trades(self._records, start, books))
        for begin in range(start, position, _STEP_RECORDS):
            deriver.derive(self._records[begin : min(begin + _STEP_RECORDS, position)])
        return deriver


def _completed(records: npt.NDArray[np.void], of_all_books: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return records of some books and, of the others, those of all books; in order of the books."""
    both = np.concatenate([records, of_all_books[~np.isin(book_tags(of_all_books), book_tags(records))]])
    completed: npt.NDArray[np.void] = both[np.argsort(book_tags(both), kind="stable")]
    return completed


class Block(NamedTuple):
    """What the records [begin:stop] of the recording are."""

    begin: int
    stop: int
    derived: Derived


class Part(NamedTuple):
    """The records [begin:stop] of a block that has more."""

    block: Block
    begin: int
    stop: int

    def of(self, schema: str, since: int) -> Placed:
        """Return its derived records, the places counted from a position of the recording."""
        positions, records = self.block.derived.of(schema)
        first, last = np.searchsorted(positions, [self.begin - self.block.begin, self.stop - self.block.begin])
        return Placed(positions[first:last] + (self.block.begin - since), records[first:last])


class Excerpt:
    """What a run of records is in each schema, from one block or several."""

    def __init__(self, begin: int, parts: Sequence[Part]) -> None:
        self._begin = begin
        self._parts = parts

    def of(self, schema: str) -> Placed:
        """Return the records of a schema of derived.DTYPES; a view of what is shared, never to be written to.

        Their places count from the beginning of the run. Cost: that of Derived.of, and a copy where there are several
        blocks.
        """
        found = [part.of(schema, self._begin) for part in self._parts]
        if len(found) == 1:
            return found[0]
        if not found:
            return Placed(np.empty(0, np.int64), np.empty(0, DTYPES[schema]))
        return Placed(
            np.concatenate([each.positions for each in found]), np.concatenate([each.records for each in found])
        )


class _Blocks:
    """The blocks that are kept. Shared by the event loop, which looks, and the executor's thread, which adds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._nbytes = 0

    def covering(self, place: int) -> Block | None:
        """Return the block that has the record at a place. Cost: O(blocks)."""
        with self._lock:
            for block in reversed(self._blocks.values()):
                if block.begin <= place < block.stop:
                    self._blocks.move_to_end(block.begin)
                    return block
        return None

    def add(self, block: Block) -> None:
        """Keep a block, and let the longest unused ones go that are too much; the new one stays."""
        with self._lock:
            old = self._blocks.pop(block.begin, None)
            self._nbytes += block.derived.nbytes - (old.derived.nbytes if old else 0)
            self._blocks[block.begin] = block
            while len(self._blocks) > 1 and (self._nbytes > CACHED_BYTES or len(self._blocks) > CACHED_BLOCKS):
                _, gone = self._blocks.popitem(last=False)
                self._nbytes -= gone.derived.nbytes
