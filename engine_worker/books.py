"""The books of one run: their names and grids, what of them is stored, and what is still to be shown. Floor 3.

Not the books' owner: a connection's market keeps them from run to run, and numbers them. What is noted of each is in
arrays by that number, so that a pass over the stream costs the same however many books it touched.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engine_worker.book_names import BookName, BookNames
from engine_worker.grids import ANY, learn
from engine_worker.naming import Names, Registered
from engine_worker.snapshot_log import SnapshotLog
from engine_worker.tracks import Flags, Numbers, SymbolOf, Track, Waiting, with_room
from orderbook.book.mbo import BookKey, MboArray, book_key, book_tags
from orderbook.book.protocol import Market
from orderbook.book.snapshot_tape import SnapshotTape


class RunBooks:
    """What one run knows of the books of a market."""

    def __init__(
        self,
        market: Market,
        tape: SnapshotTape,
        names: Names,
        registered: Mapping[str, Registered],
        symbol_of: SymbolOf,
    ) -> None:
        self.tracks: dict[BookKey, Track] = {}
        """In the order in which the stream named them."""
        self.unpushed = Waiting()
        self.incomplete = Waiting()
        """Books whose full form in Redis is old."""
        self._market = market
        self._tape = tape
        self._naming = names
        self._registered = registered
        self._symbol_of = symbol_of
        self._by_number: list[Track | None] = []
        self._known: Flags = np.zeros(0, np.bool_)  # of which there is a track
        self._called = BookNames()  # by number; without a symbol where no record has named the book
        self._names: tuple[BookName, ...] | None = ()
        self._standing: Flags = np.zeros(0, np.bool_)  # took something since the streamer last cleared them
        self._numbers: dict[BookKey, int] = {}
        self._symbols: set[str] = set()
        self._groups: dict[str, int] = {}
        self._watched: tuple[frozenset[str], int, Numbers] = (frozenset(), 0, np.zeros(0, np.int64))

    def track(self, number: int) -> Track:
        """Return a book of the run by its number."""
        track = self._by_number[number]
        assert track is not None
        return track

    def is_whole(self, number: int) -> bool:
        """Say whether a book may be looked at: it is not in mid-event."""
        return self.track(number).book.at_event_end

    def records(self, track: Track) -> int:
        """Return how many records a book has taken in the run."""
        return int(self._tape.book_records[track.number]) if track.number < len(self._tape.book_records) else 0

    def numbers_of(self, groups: frozenset[str]) -> Numbers:
        """Return the books of some groups. Cost: O(1) while neither groups nor books are others than last time."""
        seen, known, numbers = self._watched
        if seen is not groups or known != len(self._groups):
            numbers = np.array([self._groups[group] for group in groups if group in self._groups], np.int64)
            self._watched = groups, len(self._groups), numbers
        return numbers

    def stand_as_in(self, other: "RunBooks") -> None:
        """Take it that the books of another run stand, and may be cleared."""
        self._grow()
        standing = np.array([track is not None for track in other._by_number], np.bool_)
        self._standing[: len(standing)] = standing

    def stands(self, key: BookKey) -> bool:
        """Say whether a book took something since the streamer last cleared it."""
        number = self._number(key)
        return number is not None and bool(self._standing[number])

    def cleared(self, key: BookKey, now_ns: int) -> None:
        """Note that the streamer has emptied a book: that is to be shown, but nothing to keep."""
        number = self._number(key)
        if number is None:
            return
        self._standing[number] = False
        if key in self.tracks:
            self._tape.settle(number)
            only = np.zeros(len(self._standing), np.bool_)
            only[number] = True
            self._changed(only, now_ns)

    def admit(self, records: MboArray) -> None:
        """Name the books that a pass over records has touched and that the run did not know. Cost: 0.2 us mostly."""
        if len(self.tracks) == len(self._market.keys):
            return
        self._grow()
        new = self._touched() & ~self._known
        if new.any():
            self._admit(np.flatnonzero(new).tolist(), records)

    def took(self, now_ns: int) -> None:
        """Take note of the books that were touched since the last time, all of which are admitted."""
        touched = self._touched()
        self._standing |= touched
        self._changed(touched, now_ns)
        self._tape.touched[:] = False

    def admit_named(self, names: Sequence[BookName]) -> None:
        """Make a track for each book of these, by number, that has a name already; its tick may become finer still."""
        self._grow()
        for number, name in enumerate(names):
            if name.symbol:
                self._naming.keep(name.symbol, name.key)
                self._track(number, name)
        self._names = None

    def introduce(self, records: MboArray) -> None:
        """Name the books of records that are not applied: those of a picture beyond MAX_MSGS may be cleared too."""
        new = [key for key in _by_first_record(records) if key not in self.tracks]
        for key in new:
            self._market.book(key)
        self._grow()
        self._admit([self._numbers[key] for key in new], records)

    def follow_by(self, log: SnapshotLog, run_id: str) -> None:
        """Have a log follow what the market hands over from now on. Before each pass. Cost: 2 us mostly."""
        self._tape.reserve(1)
        log.follow(run_id, self._tape.block, self._called)

    def hand_over(self, log: SnapshotLog, run_id: str) -> None:
        """Hand over what the market did not: that of books whose grid it did not know. Behind each pass."""
        tape = self._tape
        written, begin = tape.unhanded, tape.handed
        if not len(written.rows):
            return
        log.follow(run_id, tape.block, self._called)  # what is left at the end of a run may lie in a new block
        for row, book, tick in learn(tape.grids, written):
            track = self.track(book)
            track.name = track.name._replace(tick=tick)
            if written.seqs[row] > 1:  # those before are called otherwise
                tape.hand_over(begin + row)
                self._called = self._called.with_name(book, track.name)
                log.follow(run_id, tape.block, self._called)
            else:
                self._called[book] = track.name
            self._names = None
        tape.hand_over()

    def _touched(self) -> Flags:
        return with_room(self._tape.touched, len(self._known))[: len(self._known)]

    def _number(self, key: BookKey) -> int | None:
        self._grow()
        return self._numbers.get(key)

    def _grow(self) -> None:
        """Make room for every book that the market has by now."""
        keys = self._market.keys
        known, books = len(self._by_number), len(keys)
        if books == known:
            return
        self._by_number += [None] * (books - known)
        self._called.extend(BookName("", 0, key) for key in keys[known:])
        self._numbers |= {key: number for number, key in enumerate(keys[known:], known)}
        self._known = with_room(self._known, books)
        self._standing = with_room(self._standing, books)
        self._tape.reserve_books(books)
        self.unpushed.grow(books)
        self.incomplete.grow(books)
        self._names = None

    def _changed(self, books: Flags, now_ns: int) -> None:
        self.unpushed.mark(books, now_ns)
        self.incomplete.mark(books, now_ns)

    def _admit(self, numbers: list[int], records: MboArray) -> None:
        """Make a track for each new book, in the order in which the stream names them."""
        if len(numbers) > 1:
            places = {key: place for place, key in enumerate(_by_first_record(records))}
            numbers = sorted(numbers, key=lambda number: places[self._market.keys[number]])
        for number in numbers:
            key = self._market.keys[number]
            self._track(number, BookName(self._name(key), 0, key))
        self._names = None

    def _track(self, number: int, name: BookName) -> None:
        """Make the track of a book, with the tick that is registered, if one is."""
        known = self._registered.get(name.symbol)
        if known is not None:
            name = name._replace(tick=known.tick)
        book = self._market.book(name.key)
        self._by_number[number] = self.tracks[name.key] = Track(number, name, book, is_inferred=known is None)
        self._symbols.add(name.symbol)
        self._groups[self.tracks[name.key].group] = number
        self._known[number] = True
        self._called[number] = name
        self._tape.grids[number] = name.tick if known is None else ANY

    def _name(self, key: BookKey) -> str:
        """Return a symbol that no other book of the run has, also where the feed calls two instruments the same."""
        symbol = self._naming.name(key, self._symbol_of(key.instrument_id))
        return f"{symbol}.{key.instrument_id}" if symbol in self._symbols else symbol

    @property
    def names(self) -> tuple[BookName, ...]:
        """What each book is called, by its number; those that no record has named have no symbol."""
        if self._names is None:
            self._names = tuple(self._called)
        return self._names


def _by_first_record(records: MboArray) -> list[BookKey]:
    """Return the books of records in the order in which these name them."""
    tags, firsts = np.unique(book_tags(records), return_index=True)
    return [book_key(tag) for tag in tags[firsts.argsort()].tolist()]
