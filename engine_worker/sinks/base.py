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
STALLED_AFTER_S: Final = 5.0
_FIRST_RETRY_S: Final = 0.05
_GIVE_UP_S: Final = 0.5  # of the time to close: for a thread that only waits for its next try to see that it is over

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

    target: str
    """What is written to, as the operator calls it."""

    def write(self, batch: list[T]) -> Written:
        """Write a batch, or raise SinkUnavailable with nothing counted as written.

        Called with an empty batch every ``POLL_S`` when nothing arrives, for what is due by time.
        """

    def close(self) -> None:
        """Give connections and files back."""


class Sink(Protocol[Item]):
    """What the feed thread, the status and the shutdown need of an output."""

    name: str

    @property
    def degraded(self) -> str:
        """Why the target cannot be written to now; empty while it can."""

    def offer(self, item: Item) -> None:
        """Hand a snapshot over. May wait for room; never for I/O."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything offered is written. False when that took longer."""

    def finish(self) -> None:
        """Take nothing more, and end once what was taken is written."""

    def close(self, timeout_s: float) -> None:
        """Finish, wait for the end at most ``timeout_s``, and leave the rest, saying how much."""

    @property
    def counters(self) -> SinkCounters:
        """Counts since the start."""

    @property
    def alive(self) -> bool:
        """False when the thread died of a programming fault."""


class ThreadedSink(Generic[T]):
    """A mailbox, and the thread that writes what is in it.

    ``lossy_when_degraded``: while the target is away a full mailbox drops what is offered, counted and logged,
    instead of making the feed wait. A write that takes longer than ``stalled_after_s`` is degraded, though not over.
    """

    def __init__(
        self,
        name: str,
        mailbox: Mailbox[T],
        writer: Writer[T],
        *,
        lossy_when_degraded: bool = False,
        retry_cap_s: float = 1.0,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        self.name = name
        self._mailbox = mailbox
        self._writer = writer
        self._lossy = lossy_when_degraded
        self._retry_cap_s = retry_cap_s
        self._stalled_after_s = stalled_after_s
        self._fault = ""
        self._writing_since: float | None = None
        self._written = self._duplicates = self._dropped = 0  # changed under the mailbox's lock, as its own counts are
        self._abandon = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def degraded(self) -> str:
        since = self._writing_since
        if since is not None and (waited_s := time.monotonic() - since) > self._stalled_after_s:
            return f"{self._writer.target} has not answered for {waited_s:.0f} s"
        return self._fault

    def offer(self, item: T) -> None:
        if not self._mailbox.offer(item, self._may_wait):
            refused = self._mailbox.refused
            if refused.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
                log.error("%s: dropped %d so far (%s)", self.name, refused, self.degraded or "offered after the end")

    def flush(self, timeout_s: float) -> bool:
        return _wait(lambda: not self.counters.pending, timeout_s)

    def finish(self) -> None:
        self._mailbox.close()

    def close(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self.finish()
        self._thread.join(max(timeout_s - _GIVE_UP_S, 0))
        self._abandon.set()
        self._thread.join(max(deadline - time.monotonic(), 0))  # one that is still blocked dies with the process
        if pending := self.counters.pending:
            log.error("%s: %d not written at the end (%s)", self.name, pending, self.degraded or "out of time")

    @property
    def counters(self) -> SinkCounters:
        box = self._mailbox
        with box.lock:
            return SinkCounters(
                offered=box.offered,
                written=self._written,
                duplicates=self._duplicates,
                dropped=self._dropped + box.refused,
                conflated=box.conflated,
                pending=len(box) + box.taken,
                blocked=box.blocked,
                blocked_ns=box.blocked_ns,
            )

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _may_wait(self) -> bool:
        return self.alive and not (self._lossy and self.degraded)

    def _run(self) -> None:
        delays = backoff(_FIRST_RETRY_S, self._retry_cap_s)
        while not self._abandon.is_set():
            if self.step(POLL_S):
                delays = backoff(_FIRST_RETRY_S, self._retry_cap_s)
            else:
                self._abandon.wait(next(delays))
            if self._mailbox.closed and not self.counters.pending:
                break
        self._writer.close()

    def step(self, timeout_s: float) -> bool:
        """Write one batch. False when the target was away: the batch is back in the mailbox."""
        batch = self._mailbox.take(timeout_s)
        self._writing_since = time.monotonic()
        try:
            done = self._writer.write(batch)
        except SinkUnavailable as error:
            self._mailbox.put_back(batch)
            if not self._fault:
                log.warning("%s: degraded, keeps what it has and tries again: %s", self.name, error)
            self._fault = str(error)
            return False
        finally:
            self._writing_since = None
        if self._fault:
            log.info("%s: works again", self.name)
            self._fault = ""
        with self._mailbox.lock:
            self._mailbox.taken -= len(batch)
            self._written += done.written
            self._duplicates += done.duplicates
            self._dropped += done.dropped
        return True


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
