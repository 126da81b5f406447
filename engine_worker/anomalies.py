"""The anomalies of every book since the process started, by kind, for other threads to read. Floor 3.

Not the books' own counts, which end with the connection that brought the books.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from orderbook.book.protocol import Market

LOOK_EVERY_NS: Final = 10**9


class Anomalies:
    """Adds up the anomalies of one market after the other. Belongs to the thread that applies records."""

    def __init__(self) -> None:
        self.counts: Mapping[str, int] = {}
        """By kind, at most a second old. Replaced, never changed: any thread may read it."""
        self._before: Counter[str] = Counter()
        self._market: Market | None = None
        self._due_ns = 0

    def watch(self, market: Market) -> None:
        """Count another market from now on, besides what was counted."""
        if self._market is not None:
            self._before += Counter(self._market.anomalies)
        self._market = market
        self.counts = dict(self._before)

    def look(self, now_ns: int, *, at_once: bool = False) -> None:
        """Bring ``counts`` up to date, once a second, or at once. Cost: O(books), compiled for the compiled book."""
        if self._market is None or (now_ns < self._due_ns and not at_once):
            return
        self._due_ns = now_ns + LOOK_EVERY_NS
        self.counts = dict(self._before + Counter(self._market.anomalies))
