"""A connection to PostgreSQL that never waits longer than it may. Floor 3.

A server that is frozen and not dead keeps its side of TCP alive: the kernel acknowledges for it, its own timeouts do
not run, and neither keepalives nor tcp_user_timeout end a wait for its answer. So the waiting itself has an end here.
"""

import time
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

import psycopg

T = TypeVar("T")

# A server that vanished without a word is noticed after 5 + 3 * 3 s, also while nothing is asked of it.
CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 14_000,  # ms: keepalives say nothing of bytes that were sent and not acknowledged
    "application_name": "batonic-engine",
}


class NoAnswer(psycopg.OperationalError):
    """The server did not answer in time, or nobody waits for it any more. The connection is of no more use."""


class DeadlineConnection(psycopg.Connection[Any]):
    """Every wait ends at ``deadline_s`` of the monotonic clock, and soon after ``abandoned()`` has become true.

    What the server makes of a statement that was left is not known: it must bear to be sent again.
    """

    deadline_s = float("inf")
    abandoned: Callable[[], bool] = staticmethod(lambda: False)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait as psycopg does, which resumes the generator at each event of the socket and ten times a second."""
        return super().wait(self._watched(gen), *args, **kwargs)

    def _watched(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        try:
            awaited = next(gen)
            while True:
                self._check()
                awaited = gen.send((yield awaited))
        except StopIteration as end:
            result: T = end.value
            return result

    def _check(self) -> None:
        if self.abandoned():
            raise NoAnswer("PostgreSQL had not answered when the engine ended")
        if time.monotonic() > self.deadline_s:
            raise NoAnswer("PostgreSQL does not answer")
