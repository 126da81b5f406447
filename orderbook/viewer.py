"""One client of the live books as the hub sees it: what it follows, whether it keeps up, and what is due. Floor 4.

Nothing is queued for a client. What it has not been sent is the difference between what a topic shows and what the
client has seen, and it is sent the newest as soon as it is due and the client takes it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from orderbook.outlet import Frame, Outlet
from orderbook.socket_counts import COUNTS
from orderbook.socket_protocol import Close, Wish
from orderbook.topic import Topic

RETRY_S: Final = 0.05
"""A client that did not take the last message is looked at again so soon, and at each push."""
MAX_UNREAD_BYTES: Final = 256 * 1024
EARLY_S: Final = 0.025
"""A message may go so much early, or half of its push_ms: pushes come with a jitter, and none is to wait for it."""
PACE: Final = 0.98
"""Of push_ms, the mean time between two messages at least: who was behind the pushes once catches up with them."""


class Viewer:
    """A client, and its way out."""

    def __init__(self, outlet: Outlet, patience_s: float) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.acks = 0
        """How many messages may be on their way unacknowledged; 0: any number."""
        self._outlet = outlet
        self._patience_s = patience_s
        self._unacked: deque[tuple[str, int]] = deque()  # symbol and seq, oldest first
        self._late_since: float | None = None
        self.is_closed = False

    @property
    def wishes(self) -> dict[str, Wish]:
        """What it follows, by symbol."""
        return {symbol: subscription.wish for symbol, subscription in self.subscriptions.items()}

    def say(self, text: str) -> None:
        """Answer at once; one that only asks and never reads is closed."""
        if self._outlet.unsent > MAX_UNREAD_BYTES:
            self.close(Close.TOO_SLOW, "too slow: it does not read its answers")
        elif not self.is_closed:
            self._outlet.send(Frame(text))

    def takes(self, now: float) -> bool:
        """Say whether it has taken what it was sent; one that has not for too long is closed."""
        if not self._outlet.unsent and not (0 < self.acks <= len(self._unacked)):
            self._late_since = None
            return True
        if self._late_since is None:
            self._late_since = now
        elif now - self._late_since > self._patience_s:
            what = f"{len(self._unacked)} messages unacknowledged" if not self._outlet.unsent else "nothing taken"
            self.close(Close.TOO_SLOW, f"too slow: {what} for {self._patience_s:g} s")
        return False

    def send(self, frame: Frame, symbol: str, seq: int) -> None:
        """Send a message of a channel; only to a client that takes it."""
        self._outlet.send(frame)
        COUNTS.sent += 1
        if self.acks:
            self._unacked.append((symbol, seq))

    def acknowledge(self, seq: int, symbol: str | None) -> None:
        """Note that it has everything up to a message. Of what it was not sent, or has told before, nothing follows."""
        for index in range(len(self._unacked) - 1, -1, -1):
            if self._unacked[index][1] == seq and symbol in (None, self._unacked[index][0]):
                for _ in range(index + 1):
                    self._unacked.popleft()
                return

    def want_acks(self, acks: int) -> None:
        """Begin a new window."""
        self.acks = acks
        self._unacked.clear()

    def close(self, code: int, reason: str) -> None:
        """End the connection. Its end is told by the server as that of any other."""
        if not self.is_closed:
            self.is_closed = True
            self._outlet.close(code, reason)


@dataclass(eq=False, slots=True)
class Subscription:
    """What one client is shown of one topic."""

    viewer: Viewer
    topic: Topic
    wish: Wish
    _due: float = 0.0
    _seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "status" not in self.wish.channels and self.topic.stale is None:
            self._seen["status"] = self.topic.changes["status"]  # news of it only

    def changed(self, wish: Wish) -> "Subscription":
        """Return what takes this one's place: it knows what the client has seen, and when the next is due.

        Of a book of another depth, and of a channel that is new, nothing has been seen yet.
        """
        new = Subscription(self.viewer, self.topic, wish)
        kept = set(self.wish.channels)
        if "status" not in wish.channels:
            kept.add("status")  # all are told of it
        if wish.depth != self.wish.depth:
            kept.discard("book")
        new._seen |= {name: seen for name, seen in self._seen.items() if name in kept}
        new._due = self._due + PACE * (wish.push_ms - self.wish.push_ms) / 1000
        return new

    def look(self, now: float) -> float | None:
        """Send what is new, if it is due and the client takes it. Returns when to look again; None: at a push."""
        changes, seen = self.topic.changes, self._seen
        news = [name for name in self.wish.channels if seen.get(name, 0) != changes[name] and name != "status"]
        wants_status = self.topic.is_judged and seen.get("status") != changes["status"]
        if self.viewer.is_closed or not (news or wants_status):
            return None
        push_s = self.wish.push_ms / 1000
        due = self._due - min(push_s / 2, EARLY_S)
        if now < due and not wants_status:
            return due
        if not self.viewer.takes(now):
            return now + RETRY_S
        if wants_status:
            seen["status"] = changes["status"]
            self._send(self.topic.status_frame())
        if not news:  # a status waits for nothing, and nothing waits for it
            return None
        if now < due:
            return due
        self._due = max(self._due, now) + PACE * push_s
        for name in news:
            self._show(name)
        return None

    def _show(self, channel: str) -> None:
        change, told = self.topic.changes[channel], self.topic.told(channel)
        missed = change - self._seen[channel] if channel in self._seen else told
        self._seen[channel] = change
        COUNTS.conflated += max(missed - told, 0)
        if missed:
            self._send(self.topic.frame(channel, self.wish.depth, missed))

    def _send(self, frame: Frame) -> None:
        newest = self.topic.newest
        self.viewer.send(frame, self.topic.symbol, newest["seq"] if newest is not None else 0)
