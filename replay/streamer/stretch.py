"""Stretches: the unbroken runs of records that a replay is made of, and the place of one client in them. Floor 1.

A seek, a step back or the next round of a loop begins the next stretch. Stretches are linked forwards only: the
oldest one that is still held is that of the slowest client, and what lies before it is forgotten.
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class Stretch:
    """An unbroken run of records of a recording."""

    start: int
    """Position in the recording at which it begins."""
    offset: int
    """Records published before it, over all stretches."""
    end: int | None = None
    """Where it ended by itself; None while it is the current one, or when it was abandoned."""
    next: "Stretch | None" = None
    abandoned: bool = False
    """A seek ended it: what a client has not got of it is not sent any more."""


@dataclass(slots=True, eq=False)
class Cursor:
    """The place of one client: what lies before it was sent."""

    stretch: Stretch
    position: int

    @property
    def published(self) -> int:
        """Records published up to here, over all stretches."""
        return self.stretch.offset + self.position - self.stretch.start

    def jump(self, stretch: Stretch) -> None:
        """Go to the beginning of a stretch."""
        self.stretch, self.position = stretch, stretch.start


class Send(NamedTuple):
    """The records [begin:stop] of the recording go out next; then the cursor's position is ``stop``."""

    begin: int
    stop: int


class Jump(NamedTuple):
    """The books are brought to the beginning of this stretch next (``Publication.arrival``); the cursor goes there."""

    stretch: Stretch


class Wait(NamedTuple):
    """Nothing is due."""


class Over(NamedTuple):
    """The replay has ended, and all of it was sent."""


Move = Send | Jump | Wait | Over
"""What a client does next."""
