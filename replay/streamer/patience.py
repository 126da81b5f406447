"""How long a client that takes nothing is waited for, and what happens to it meanwhile. Floor 1; no clock of its own.

Nothing taken for as long as the patience lasts, although something is to be sent: the client is warned. As long again:
it is told that it is given up, and has the grace to take that. MBO is never skipped, so there is nothing else to do for
a client that does not read, and at ``max`` it holds everybody up.
"""

from enum import Enum, auto
from typing import Final

PATIENCE_S: Final = 10.0
GRACE_S: Final = 5.0
_SECOND_NS: Final = 10**9


class Verdict(Enum):
    """What is to be done about a client that is waited for."""

    WAIT = auto()
    WARN = auto()
    GIVE_UP = auto()  # say so, and send nothing else any more
    CLOSE = auto()


class Patience:
    """Judges one wait after another by how much is still untaken; each verdict but WAIT is given once."""

    def __init__(self, patience_s: float = PATIENCE_S, grace_s: float = GRACE_S) -> None:
        self.look_again_s = min(patience_s, grace_s) / 10
        """How often ``look`` is worth calling."""
        self._patience_ns, self._grace_ns = int(patience_s * _SECOND_NS), int(grace_s * _SECOND_NS)
        self._taken = 0
        self._since_ns = 0
        self._warned = False
        self._given_up_ns: int | None = None

    def begin(self, taken: int, now_ns: int) -> None:
        """Say that from now on the client is waited for; ``taken`` is how many bytes it took in all."""
        self._note(taken, now_ns)

    def look(self, taken: int, now_ns: int) -> Verdict:
        """Judge a client that is waited for."""
        if self._given_up_ns is not None:
            return Verdict.CLOSE if now_ns - self._given_up_ns >= self._grace_ns else Verdict.WAIT
        if taken != self._taken:
            self._note(taken, now_ns)
        idle_ns = now_ns - self._since_ns
        if idle_ns >= 2 * self._patience_ns:
            self._given_up_ns = now_ns
            return Verdict.GIVE_UP
        if idle_ns >= self._patience_ns and not self._warned:
            self._warned = True
            return Verdict.WARN
        return Verdict.WAIT

    def _note(self, taken: int, now_ns: int) -> None:
        self._taken, self._since_ns, self._warned = taken, now_ns, False
