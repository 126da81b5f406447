"""What an output of the engine is, and the thread that runs one. Floor 3.

The feed thread sees a `Sink`: it hands snapshots over and never does their I/O. Behind it a `ThreadedSink` is a
mailbox, a thread and a `Writer`; a new output is a new writer. A writer whose target is away keeps its batch,
is tried again with back-off for ever, and says why in ``degraded``; the other sinks and the feed go on.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from engine_worker.backoff import backoff
from engine_worker.mailbox import Mailbox
from engine_worker.metrics import SinkCounters

T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)

POLL_S: Final = 0.2
_FIRST_RETRY_S: Final = 0.05

log = logging.getLogger(__name__)


class SinkUnavailable(Exception):
    """The target cannot be written to now; the batch is kept and tried again."""


class Written(NamedTuple):
    """What became of a batch: the three add up to its length."""

    written: int
    duplicates: int = 0
    dropped: int = 0


class Writer(Protocol[T]):
    """The I/O of one output, without threads: tests call it directly."""

    def write(self, batch: list[T]) -> Written:
        """Write a batch, or raise SinkUnavailable with nothing counted as written.

        Called with an empty batch every ``POLL_S`` when nothing arrives, for what is due by time.
        """

    def close(self) -> None:
        """Give connections and files back."""


class Sink(Protocol[Item]):
    """What the feed thread, the status and the shutdown need of an output."""

    name: str
    degraded: str
    """Why the target cannot be written to now; empty while it can."""

    def offer(self, item: Item) -> None:
        """Hand a picture over. May wait for room; never for I/O."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything offered is written. False when that took longer."""

    def finish(self) -> None:
        """Take nothing more, and end once what was taken is written."""

    def close(self, timeout_s: float) -> None:
        """Finish, wait for the end, and after ``timeout_s`` leave the rest, saying how much."""

    @property
    def counters(self) -> SinkCounters:
        """Counts since the start."""

    @property
    def alive(self) -> bool:
        """False when the thread died of a programming fault."""


class ThreadedSink(Generic[T]):
    """A mailbox, and the thread that writes what is in it.

    ``lossy_when_degraded``: while the target is away a full mailbox drops what is offered, counted and logged,
    instead of making the feed wait.
    """

    def __init__(
        self,
        name: str,
        mailbox: Mailbox[T],
        writer: Writer[T],
        *,
        lossy_when_degraded: bool = False,
        retry_cap_s: float = 1.0,
    ) -> None:
        self.name = name
        self.degraded = ""
        self._mailbox = mailbox
        self._writer = writer
        self._lossy = lossy_when_degraded
        self._retry_cap_s = retry_cap_s
        self._offered = self._refused = 0  # written by the feed thread only
        self._in_flight = self._written = self._duplicates = self._dropped = 0  # written by the sink thread only
        self._abandon = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, item: T) -> None:
        self._offered += 1
        if not self._mailbox.offer(item, self._may_wait):
            self._refused += 1
            if self._refused.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
                log.error(
                    "%s: dropped %d so far (%s)", self.name, self._refused, self.degraded or "offered after the end"
                )

    def flush(self, timeout_s: float) -> bool:
        return _wait(lambda: not self._owed, timeout_s)

    def finish(self) -> None:
        self._mailbox.close()

    def close(self, timeout_s: float) -> None:
        self.finish()
        self._thread.join(timeout_s)
        self._abandon.set()
        self._thread.join(0.5)  # a retry that only waits ends at once; a frozen server is left to the daemon thread
        if self._pending:
            log.error("%s: %d not written at the end (%s)", self.name, self._pending, self.degraded or "out of time")

    @property
    def counters(self) -> SinkCounters:
        return SinkCounters(
            offered=self._offered,
            written=self._written,
            duplicates=self._duplicates,
            dropped=self._dropped + self._refused,
            conflated=self._mailbox.conflated,
            pending=self._pending,
            blocked=self._mailbox.blocked,
            blocked_ns=self._mailbox.blocked_ns,
        )

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def _pending(self) -> int:
        return len(self._mailbox) + self._in_flight

    @property
    def _owed(self) -> int:
        """Return what was taken and is not done: unlike ``_pending`` never 0 while a batch changes hands."""
        done = self._refused + self._mailbox.conflated + self._written + self._duplicates + self._dropped
        return self._offered - done

    def _may_wait(self) -> bool:
        return self.alive and not (self._lossy and self.degraded)

    def _run(self) -> None:
        delays = backoff(_FIRST_RETRY_S, self._retry_cap_s)
        while not self._abandon.is_set():
            if self.step(POLL_S):
                delays = backoff(_FIRST_RETRY_S, self._retry_cap_s)
            else:
                self._abandon.wait(next(delays))
            if self._mailbox.closed and not self._pending:
                break
        self._writer.close()

    def step(self, timeout_s: float) -> bool:
        """Write one batch. False when the target was away: the batch is back in the mailbox."""
        batch = self._mailbox.take(timeout_s)
        self._in_flight = len(batch)
        try:
            done = self._writer.write(batch)
        except SinkUnavailable as error:
            self._mailbox.put_back(batch)
            self._in_flight = 0
            if not self.degraded:
                log.warning("%s: degraded, keeps what it has and tries again: %s", self.name, error)
            self.degraded = str(error)
            return False
        self._written += done.written
        self._duplicates += done.duplicates
        self._dropped += done.dropped
        self._in_flight = 0
        if self.degraded:
            log.info("%s: works again", self.name)
            self.degraded = ""
        return True


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
