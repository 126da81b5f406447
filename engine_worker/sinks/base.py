"""What an output of the engine is, and the thread that runs one. Floor 3.

The feed thread sees a `Sink`: it hands snapshots over, and neither waits nor does their I/O. Behind it a
`ThreadedSink` is a mailbox, a thread and a `Writer`; a new output is a new writer. A writer whose target is away keeps
its batch, is tried again with back-off for ever, and says why in ``degraded``; the other sinks and the feed go on.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from engine_worker.backoff import backoff
from engine_worker.histogram import LatencyHistogram
from engine_worker.mailbox import Mailbox, Progress
from engine_worker.metrics import SinkCounters

T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)

POLL_S: Final = 0.2
STALLED_AFTER_S: Final = 5.0
TELL_EVERY_S: Final = 1.0
_FIRST_RETRY_S: Final = 0.05
_GIVE_UP_S: Final = 0.5  # of the time to close: for a thread that only waits for its next try to see that it is over

log = logging.getLogger(__name__)


class SinkUnavailable(Exception):
    """The target cannot be written to now; the batch is kept and tried again."""


class Written(NamedTuple):
    """What became of a batch: the three add up to its snapshots."""

    written: int
    duplicates: int = 0
    dropped: int = 0


Write = Callable[[list[T]], Written]


class Writer(Protocol[T]):
    """The I/O of one output, without threads: tests call it directly."""

    target: str
    """What is written to, as the operator calls it."""
    encode_ns: int
    """What encoding one snapshot of the last batch took; 0 before the first."""

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
        """Hand snapshots over. Never waits: what finds no room is dropped and counted."""

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

    write_ns: LatencyHistogram
    """Of the batches that were written."""
    failures: int
    """Writes that failed; what they held was kept."""

    @property
    def encode_ns(self) -> int:
        """What encoding one snapshot of the last batch took, on the thread of the output; 0 before the first."""


class ThreadedSink(Generic[T]):
    """A mailbox, and the thread that writes what is in it.

    A write that takes longer than ``stalled_after_s`` is degraded, though not over. So is a sink that drops what it is
    offered, until it has dropped nothing for a second; the log says how much once a second.
    """

    def __init__(
        self,
        name: str,
        mailbox: Mailbox[T],
        writer: Writer[T],
        *,
        retry_cap_s: float = 1.0,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        self.name = name
        self.write_ns = LatencyHistogram()
        """Of the batches that were written."""
        self.failures = 0
        """Writes that the target refused or did not answer; the batch was kept."""
        self._mailbox = mailbox
        self._writer = writer
        self._write: Write[T] = lambda batch: self._writer.write(batch)
        self._retry_cap_s = retry_cap_s
        self._stalled_after_s = stalled_after_s
        self._fault = ""
        self._dropping = ""
        self._told = 0  # drops that the log has
        self._tell_at = 0.0
        self._telling = threading.Lock()
        self._writing_since: float | None = None
        self._abandon = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def write_through(self, wrap: Callable[[Write[T]], Write[T]]) -> None:
        """Put something around each write. To be called before the start."""
        self._write = wrap(self._writer.write)

    def start(self) -> None:
        self._thread.start()

    @property
    def degraded(self) -> str:
        return "; ".join(filter(None, (self._stalled() or self._fault, self._dropping)))

    @property
    def encode_ns(self) -> int:
        return self._writer.encode_ns

    def offer(self, item: T) -> None:
        self._mailbox.offer(item)

    def flush(self, timeout_s: float) -> bool:
        return _wait(lambda: not self.counters.pending, timeout_s)

    def finish(self) -> None:
        self._mailbox.close()

    def close(self, timeout_s: float) -> None:
        self.finish()
        self._end(timeout_s)
        if pending := self.counters.pending:
            why = self.degraded or "out of time"
            log.error("%s: %d not written at the end (%s)%s", self.name, pending, why, self._left())

    @property
    def counters(self) -> SinkCounters:
        return self._mailbox.counters

    @property
    def progress(self) -> Progress:
        return self._mailbox.progress

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def step(self, timeout_s: float) -> bool:
        """Write one batch. False when the target was away: the batch is the next one again."""
        self.tell_drops(time.monotonic())
        batch = self._mailbox.take(timeout_s)
        self._writing_since = begun = time.monotonic()
        try:
            done = self._write(batch)
        except SinkUnavailable as error:
            self.failures += 1
            self._mailbox.put_back()
            if not self._fault:
                log.warning("%s: degraded, keeps what it has and tries again: %s", self.name, error)
            self._fault = str(error)
            return False
        finally:
            self._writing_since = None
        if self._fault:
            log.info("%s: works again", self.name)
            self._fault = ""
        if batch:
            self.write_ns.add(round((time.monotonic() - begun) * 1e9))
        self._mailbox.settle(*done)
        return True

    def tell_drops(self, now_s: float) -> None:
        """Say what was dropped since the last time, at most once a second: not in the feed thread, as a log is I/O."""
        with self._telling:
            if now_s < self._tell_at:
                return
            told, self._told = self._told, self._mailbox.refused
            self._dropping = ""
            if self._told > told:
                self._tell_at = now_s + TELL_EVERY_S
                self._dropping = f"no room: {self._told} snapshots dropped so far"
                log.error("%s: dropped %d, %d so far (%s)", self.name, self._told - told, self._told, self._reason())

    def _end(self, timeout_s: float) -> None:
        """Wait for the thread, and tell it to give up shortly before the time is over."""
        deadline = time.monotonic() + timeout_s
        self._thread.join(max(timeout_s - _GIVE_UP_S, 0))
        self._abandon.set()
        self._thread.join(max(deadline - time.monotonic(), 0))  # one that is still blocked dies with the process

    def _left(self) -> str:
        """Say what becomes of what is not written at the end."""
        return ""

    def _reason(self) -> str:
        """Say why there was no room."""
        if self._mailbox.closed:
            return "offered after the end"
        return self._stalled() or self._fault or f"{self._writer.target} is slower than they come"

    def _stalled(self) -> str:
        since = self._writing_since
        if since is not None and (waited_s := time.monotonic() - since) > self._stalled_after_s:
            return f"{self._writer.target} has not answered for {waited_s:.0f} s"
        return ""

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


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
