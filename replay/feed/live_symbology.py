"""Which instruments a subscription means: symbols or ids as asked for -> ids and raw symbols. Floor 1."""

from collections.abc import Mapping
from typing import NamedTuple

from replay.feed.live_messages import SubscriptionRequest


class Resolved(NamedTuple):
    """An instrument, and what the client called it."""

    instrument_id: int
    asked: str
    raw_symbol: str


class Unresolved(NamedTuple):
    """Something that was asked for and does not exist, with its place in the list."""

    number: int
    of: int
    asked: str

    @property
    def text(self) -> str:
        """What the client is told."""
        return f"Failed to resolve symbol {self.number}/{self.of}: {self.asked}"


class Resolution(NamedTuple):
    """What a subscription means."""

    found: list[Resolved]
    missing: list[Unresolved]


def resolve(request: SubscriptionRequest, symbols: Mapping[int, str]) -> Resolution:
    """Return the instruments that are meant, each once, and what is none. Cost: O(symbols of both)."""
    if request.all_symbols:
        return Resolution([Resolved(id_, symbol, symbol) for id_, symbol in symbols.items()], [])
    ids_of: dict[str, list[int]] = {}
    for id_, symbol in symbols.items():
        name = symbol if request.stype_in == "raw_symbol" else str(id_)
        ids_of.setdefault(name, []).append(id_)  # a venue may give a symbol away again
    found: dict[int, Resolved] = {}
    missing: dict[str, Unresolved] = {}
    for number, asked in enumerate(request.symbols, 1):
        name = asked if request.stype_in == "raw_symbol" else str(int(asked))
        if name not in ids_of:
            missing.setdefault(asked, Unresolved(number, len(request.symbols), asked))
        for id_ in ids_of.get(name, ()):
            found.setdefault(id_, Resolved(id_, asked, symbols[id_]))
    return Resolution(list(found.values()), list(missing.values()))
