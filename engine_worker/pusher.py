"""What the web sees, and when: the newest snapshot of each changed book, every PUSH_MS. Floor 3.

Independent of what is stored. A book is shown at event ends only; one that is in mid-event waits for the next look.
A picture is shown only where it tells something new: none does behind a run that stopped at MAX_MSGS.
"""

from typing import Final

import numpy as np

from engine_worker.run import Run
from engine_worker.sinks.base import Sink
from engine_worker.sinks.broadcast import LiveBook
from engine_worker.tracks import Track
from orderbook.book.mbo import Side
from orderbook.book.protocol import OrderBook
from orderbook.book.snapshot import BookSnapshot
from orderbook.live import LIVE_DEPTH

COMPLETE_EVERY_NS: Final = 10**9
NEVER: Final = 2**63 - 1


class Pusher:
    """Hands snapshots to the live sink. Times are ns of the caller's clock."""

    def __init__(self, live: Sink[LiveBook], push_ms: int) -> None:
        self.pushes = 0
        self.newest: dict[str, BookSnapshot] = {}
        """What is shown of each book of the run; replaced, never emptied, so that others may read it."""
        self._shown: dict[tuple[str, int | None], BookSnapshot] = {}  # by symbol and depth, over all runs
        self._live = live
        self._push_ns = push_ms * 10**6
        self._run_id = ""

    @property
    def complete(self) -> dict[str, BookSnapshot]:
        """Every level of each book of the run, at most a second old; any thread may ask."""
        shown = {symbol: snapshot for (symbol, depth), snapshot in self._shown.copy().items() if depth is None}
        return {symbol: shown[symbol] for symbol in self.newest.copy() if symbol in shown}

    def push(self, run: Run, now: int, *, everything: bool = False) -> None:
        """Push the changed books that are due, or all of them; none in mid-event."""
        if run.is_hidden:
            return
        if run.run_id != self._run_id and run.tracks:
            self._run_id, self.newest = run.run_id, {}
        for waiting, every_ns, depth in (
            (run.books.unpushed, self._push_ns, LIVE_DEPTH),
            (run.books.incomplete, COMPLETE_EVERY_NS, None),
        ):
            for number in waiting.due(NEVER if everything else now):
                track = run.books.track(number)
                if track.book.at_event_end:
                    since = waiting.shown(number, now + every_ns)
                    snapshot = self._show(run, track, depth, since)
                    if depth is not None:
                        self.newest[track.symbol] = snapshot

    def due(self, run: Run) -> int:
        """Return when the next push is due; NEVER when no book waits for one."""
        if run.is_hidden:
            return NEVER
        ready = (due for due, number in run.books.unpushed.dues() if run.books.track(number).book.at_event_end)
        return next(ready, NEVER)

    def _show(self, run: Run, track: Track, depth: int | None, since_ns: int) -> BookSnapshot:
        """Hand a book over, unless it is a picture of what is shown already. Returns what is shown from now on."""
        shown = self._shown.get((track.symbol, depth))
        if run.is_picture and shown is not None and _is_of(shown, track.book, depth):
            return shown
        snapshot = track.pushed_snapshot(run.run_id, run.books.records(track), depth)
        self._shown[track.symbol, depth] = snapshot
        if depth is None:
            self._live.offer(LiveBook(snapshot, complete=True))
        else:
            self._live.offer(LiveBook(snapshot, complete=False, traded=run.trades.take(track.key), since_ns=since_ns))
            self.pushes += 1
        return snapshot


def _is_of(snapshot: BookSnapshot, book: OrderBook, depth: int | None) -> bool:
    """Say whether a snapshot shows a book as it is; one time and sequence may have several events."""
    return (
        (snapshot.ts_event, snapshot.sequence) == (book.ts_event, book.sequence)
        and np.array_equal(snapshot.bids, book.levels(Side.BID, depth))
        and np.array_equal(snapshot.asks, book.levels(Side.ASK, depth))
    )
