"""What the books of a run are called, by their numbers: one name can change without a copy of all. Floor 3."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple, overload

from orderbook.book.mbo import BookKey

_PAGE: Final = 256


class BookName(NamedTuple):
    """What a book is called, and its grid."""

    symbol: str
    tick: int
    """1e-9 units; 0 while no price has told any."""
    key: BookKey


class BookNames(Sequence[BookName]):
    """Names in pages, which one list shares with the next. Snapshots by the thousand may each have a list of their own.

    The thread that owns the last list adds names to it, and may change one that nothing was called by so far.
    """

    def __init__(self, names: Iterable[BookName] = ()) -> None:
        self._pages: list[list[BookName]] = []
        self._length = 0
        self.extend(names)

    def extend(self, names: Iterable[BookName]) -> None:
        """Add names behind the last one."""
        for name in names:
            if self._length % _PAGE == 0:
                self._pages.append([])
            self._pages[-1].append(name)
            self._length += 1

    def with_name(self, number: int, name: BookName) -> "BookNames":
        """Return these names but for one. Cost: 1 us, of 20,000 too, and 2 to 3 KB."""
        other = BookNames()
        other._pages, other._length = self._pages.copy(), self._length
        page = other._pages[number // _PAGE] = other._pages[number // _PAGE].copy()
        page[number % _PAGE] = name
        return other

    def __setitem__(self, number: int, name: BookName) -> None:
        """Call a book so, also in the lists that were made before."""
        self._pages[number // _PAGE][number % _PAGE] = name

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[BookName]:
        return islice(chain.from_iterable(self._pages), self._length)  # the last page may have names of a later list

    @overload
    def __getitem__(self, number: int) -> BookName: ...
    @overload
    def __getitem__(self, number: slice) -> list[BookName]: ...
    def __getitem__(self, number: int | slice) -> BookName | list[BookName]:
        place = range(self._length)[number]
        if isinstance(place, range):
            return [self[one] for one in place]
        return self._pages[place // _PAGE][place % _PAGE]
