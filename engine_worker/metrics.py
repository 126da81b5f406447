"""What the engine counts of itself: what became of what arrived, and of what was offered to each sink. Floor 3.

Not an exporter: the numbers leave through the benchmark line, the status and exposition.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Flow(NamedTuple):
    """What became of what arrived: ``received = applied + ignored + sum(rejected.values())``."""

    received: int
    applied: int
    ignored: int
    rejected: Mapping[str, int]
    """By reason."""


@dataclass(slots=True)
class EngineCounters:
    """Counts since the process started. ``received = applied + ignored + rejected`` after every step."""

    received: int = 0
    applied: int = 0
    ignored: int = 0
    """Records beyond MAX_MSGS."""
    rejected: int = 0
    """What arrived whole and was no MBO record: a broken line, a record of another schema."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Of what was rejected. Replaced, never changed."""
    events: int = 0
    """Closed by what was applied."""
    notices: int = 0
    """What the feed said about itself: system and error records."""
    snapshots: int = 0
    connections: int = 0
    interruptions: int = 0
    partial_frames: int = 0
    """Interruptions that left a part of a record, or garbage, of which nothing was made."""
    runs: int = 0
    settled: Flow = Flow(0, 0, 0, {})
    """As it was behind the last step: for other threads, which see the rest in the middle of one."""

    def heard(self, rejected: Mapping[str, int], notices: int) -> None:
        """Count what arrived besides records."""
        self.notices += notices
        if rejected:
            count = sum(rejected.values())
            self.received += count
            self.rejected += count
            self.reasons = {
                reason: self.reasons.get(reason, 0) + rejected.get(reason, 0) for reason in {**self.reasons, **rejected}
            }

    def interrupted(self, left: int) -> None:
        """Count a connection that broke, with so many bytes of which no record was made."""
        self.interruptions += 1
        self.partial_frames += left > 0

    def settle(self) -> None:
        """Show the others where what arrived has gone. Cost: 0.3 us."""
        self.settled = Flow(self.received, self.applied, self.ignored, self.reasons)


@dataclass(frozen=True, slots=True)
class SinkCounters:
    """Counts of one sink: ``offered = written + duplicates + dropped + conflated + pending`` at every moment."""

    offered: int
    written: int
    duplicates: int
    """Already stored by an earlier replay of the same market."""
    dropped: int
    """Lost, each time with a reason in the log."""
    conflated: int
    """Replaced by a newer snapshot before they went out."""
    pending: int
    spilled: int = 0
    """Moved to the disk since the start, because the target was slow or away."""
    on_disk: int = 0
    """Part of what is pending."""
    queue_bytes: int = 0
    queue_capacity_bytes: int = 0
    """0: bounded by the number of books, and not by bytes."""
    disk_bytes: int = 0
    disk_capacity_bytes: int = 0
    """0: nothing goes to the disk."""
