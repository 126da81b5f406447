"""Which symbol a book has. Floor 3.

The stores tell markets apart by symbol alone, so a symbol must not depend on who comes first in a connection.
"""

from collections.abc import Mapping
from typing import NamedTuple

from orderbook.book.mbo import BookKey


class Registered(NamedTuple):
    """What is known of a symbol from earlier days: whose it is, and its grid."""

    key: BookKey
    tick: int
    """1e-9 units."""


class Names:
    """Names books, in every connection alike.

    A bare symbol belongs to the publisher that it is registered for; where nothing is registered, to the first to
    come, for as long as the engine lives (the database sink registers it for the next one).
    """

    def __init__(self, default: str, registered: Mapping[str, Registered]) -> None:
        self._default = default
        self._owners = {symbol: known.key for symbol, known in registered.items()}

    def name(self, key: BookKey, mapped: str | None) -> str:
        """Return what the feed calls it, else the default symbol or its number; with the publisher unless it owns that.

        >>> names = Names("CLX5", {"ESZ5": Registered(BookKey(1, 7), 250_000_000)})
        >>> [names.name(BookKey(publisher_id, 7), "ESZ5") for publisher_id in (2, 1)]
        ['ESZ5.2', 'ESZ5']
        >>> [names.name(BookKey(1, instrument_id), None) for instrument_id in (8, 9, 8)]
        ['CLX5', '9', 'CLX5']
        """
        symbol = mapped or self._unnamed(key)
        owner = self._owners.setdefault(symbol, key)
        return symbol if owner.publisher_id == key.publisher_id else f"{symbol}.{key.publisher_id}"

    def keep(self, symbol: str, key: BookKey) -> None:
        """Take it that a book was called so, by an engine before this one."""
        self._owners.setdefault(symbol, key)

    def _unnamed(self, key: BookKey) -> str:
        """Return the default symbol for the one instrument that has it, the number for any other."""
        owner = self._owners.setdefault(self._default, key)
        return self._default if owner.instrument_id == key.instrument_id else str(key.instrument_id)
