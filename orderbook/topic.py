"""What is known of one symbol in a web process, and the messages that tell it. Floor 4.

A message is made once, for all clients that want the same: of a push those of one channel and depth that have missed as
many changes. Nothing here waits.
"""

import json
from collections import deque
from typing import Final

from orderbook.live import BookMessage, book_tail, group_name, head_as
from orderbook.outlet import Frame

KEPT_TRADES: Final = 50
_MOST_FRAMES: Final = 256
"""Kept of one push. Beyond that they are made anew: one has some kilobytes, and there are 200 depths."""
_STATUS: Final = ("status", 0, 0)

Staleness = tuple[str, str] | None
"""Why a book may be old, as a word for programs and a sentence for people; None while it is fresh."""


class Topic:
    """The newest book of a symbol, its best prices, its trades, and whether they are fresh."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.group = group_name(symbol)
        self.newest: BookMessage | None = None
        self.stale: Staleness = None
        self.is_judged = False
        """Whether anybody has looked if it is fresh. Before that no status is told."""
        self.changes: dict[str, int] = {"book": 0, "bbo": 0, "trades": 0, "status": 0}
        """By channel, how often what it shows has changed; of trades, how many there were. 0: nothing to show yet."""
        self._bbo: object = None
        self._trades: deque[str] = deque(maxlen=KEPT_TRADES)
        self._frames: dict[tuple[str, int, int], Frame] = {}
        self._tails: dict[int, str] = {}

    @property
    def taken(self) -> int:
        """Books taken so far."""
        return self.changes["book"]

    def take(self, book: BookMessage) -> bool:
        """Make a book the newest one; return False where it is none: ``seq`` only grows within a run.

        Raises KeyError where it lacks a field; then everything is as it was.
        """
        run_id, seq, _ = book["run_id"], book["seq"], book["head"]
        bbo = (book["bids"][:1], book["asks"][:1])
        before = self.newest if self.newest is not None and self.newest["run_id"] == run_id else None
        if before is not None and seq <= before["seq"]:
            return False
        self._take_trades(book, before)
        self.newest = book
        self.changes["book"] += 1
        if before is None or bbo != self._bbo:
            self._bbo = bbo
            self.changes["bbo"] += 1
        self._frames.clear()
        self._tails.clear()
        return True

    def _take_trades(self, book: BookMessage, before: BookMessage | None) -> None:
        """Add what is new. What was lost on the way is counted as well, and what came before it is told no more."""
        new = book.get("trades", [])
        since = len(new)
        if before is not None:
            since = max(book.get("trade_count", 0) - before.get("trade_count", 0), 0)
            new = new[max(len(new) - since, 0) :]  # a book that repairs may bring trades that are there already
        if before is None or since > len(new):
            self._trades.clear()
        self.changes["trades"] += since
        self._trades.extend(new)

    def tell(self, stale: Staleness) -> bool:
        """Note whether the book is fresh; return whether that is news, as the first time always."""
        was_judged, self.is_judged = self.is_judged, True
        if stale == self.stale:
            return not was_judged
        self.stale = stale
        self.changes["status"] += 1
        self._frames.pop(_STATUS, None)
        return True

    def frame(self, channel: str, depth: int, missed: int) -> Frame:
        """Return what a channel shows now to a client that has not seen so many of its changes, at least one."""
        key = (channel, depth if channel == "book" else 0, missed)
        frame = self._frames.get(key)
        if frame is None:
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            frame = self._frames[key] = Frame(self._text(channel, depth, missed))
        return frame

    def told(self, channel: str) -> int:
        """Return how many changes a message tells at most: those before have been written over."""
        return len(self._trades) if channel == "trades" else 1

    def status_frame(self) -> Frame:
        """Return what tells whether the book is fresh; made once, too."""
        frame = self._frames.get(_STATUS)
        if frame is None:
            reason, detail = self.stale or (None, None)
            told = {"status": "stale" if reason else "live", "reason": reason, "detail": detail}
            frame = self._frames[_STATUS] = Frame(f"{self._head('status')},{json.dumps(told)[1:]}")
        return frame

    def _text(self, channel: str, depth: int, missed: int) -> str:
        book = self.newest
        if book is None:
            raise LookupError(f"no book of {self.symbol} yet")
        head = f'{self._head(channel)},"conflated":{max(missed - self.told(channel), 0)}'
        if channel == "bbo":
            bid, ask = ((book[side] or ["null"])[0] for side in ("bids", "asks"))
            return f'{head},"bid":{bid},"ask":{ask}}}'
        if channel == "trades":
            newest = list(self._trades)[-missed:]
            return f'{head},"trades":[{",".join(newest)}],"trade_count":{book.get("trade_count", 0)}}}'
        tail = self._tails.get(depth)
        if tail is None:
            tail = self._tails[depth] = book_tail(book, depth)
        return head + tail

    def _head(self, channel: str) -> str:
        if self.newest is not None:
            return head_as(self.newest, channel)
        nothing = dict.fromkeys(("ts", "ts_ns", "run_id", "seq"))
        return json.dumps({"type": channel, "symbol": self.symbol, **nothing})[:-1]
