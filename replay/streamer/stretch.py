"""Stretches: the runs of records that a replay is made of, and the place of one client in them. Floor 1.

A seek or a step back begins the next stretch, and the one before is abandoned. Stretches are linked forwards only: the
oldest one that is still held is that of the slowest client, and what lies before it is forgotten. The rounds of a loop
are counted and not linked: a client that reads slowly for days is any number of them behind.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Window(NamedTuple):
    """The part of a recording that is replayed, as positions."""

    begin: int
    end: int


@dataclass(slots=True, eq=False)
class Stretch:
    """An unbroken run of records of a recording; in a loop its end is followed by rounds of the whole window."""

    start: int
    """Position in the recording at which it begins."""
    offset: int
    """Records published before it, over all stretches."""
    window: Window
    rounds: int = 0
    """Rounds that were begun behind the run. What came before the newest of them has ended by itself."""
    next: "Stretch | None" = None

    @property
    def abandoned(self) -> bool:
        """Whether a seek ended it: what a client has not got of its newest round is not sent any more."""
        return self.next is not None

    def begin_of(self, round_: int) -> int:
        """Return the position at which a round begins; the run itself is number 0."""
        return self.window.begin if round_ else self.start

    def published(self, round_: int, position: int) -> int:
        """Return the records published up to a position of a round, over all stretches."""
        before = 0
        if round_:
            begin, end = self.window
            before = end - self.start + (round_ - 1) * (end - begin)
        return self.offset + before + position - self.begin_of(round_)


@dataclass(slots=True, eq=False)
class Cursor:
    """The place of one client: what lies before it was sent."""

    stretch: Stretch
    position: int
    round: int = 0

    @property
    def published(self) -> int:
        """Records published up to here, over all stretches."""
        return self.stretch.published(self.round, self.position)

    @property
    def abandoned(self) -> bool:
        """Whether what lies ahead of it in its round is not sent any more."""
        return self.stretch.abandoned and self.round == self.stretch.rounds

    def jump(self, to: "Jump") -> None:
        """Go to the beginning of a round."""
        self.stretch, self.round, self.position = to.stretch, to.round, to.position


class Send(NamedTuple):
    """The records [begin:stop] of the recording go out next; then the cursor's position is ``stop``."""

    begin: int
    stop: int


class Jump(NamedTuple):
    """The books are brought to the beginning of this round next (``Publication.arrival``); the cursor goes there."""

    stretch: Stretch
    round: int = 0

    @property
    def position(self) -> int:
        return self.stretch.begin_of(self.round)


class Wait(NamedTuple):
    """Nothing is due."""


class Over(NamedTuple):
    """The replay has ended, and all of it was sent."""


Move = Send | Jump | Wait | Over
"""What a client does next."""
