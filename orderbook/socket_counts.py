"""What this web process has done for its WebSocket clients so far: counters that only grow. Floor 4."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(slots=True)
class SocketCounts:
    """Written by the event loop; any thread may read."""

    clients: int = 0
    """Connected now."""
    admitted: int = 0
    sent: int = 0
    """Messages of the channels, as they were given to the client's socket."""
    conflated: int = 0
    """Changes that a client was not told, because newer ones took their place; its push_ms may have asked for it."""
    refused: Counter[str] = field(default_factory=Counter)
    """Connections that were not let in, by reason."""
    closed: Counter[int] = field(default_factory=Counter)
    """Connections that have ended, by close code: ours if we closed, answered or not; 1006 where there was none."""


COUNTS: Final = SocketCounts()


def socket_counts() -> dict[str, Any]:
    """Return the counts of this process as plain values."""
    return {
        "clients": COUNTS.clients,
        "admitted": COUNTS.admitted,
        "sent": COUNTS.sent,
        "conflated": COUNTS.conflated,
        "refused": dict(COUNTS.refused),
        "closed": {str(code): many for code, many in sorted(COUNTS.closed.copy().items())},
    }
