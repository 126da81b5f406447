"""SIGTERM and SIGINT as something to wait for. Floor 3."""

import signal
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Takes both from now on. For the main thread.

    A handler may run while the main thread is inside anything, another handler included: it must take no lock that this
    thread may hold. An Event has one; of three hundred processes that were sent sixty signals each, 33 never ended.
    """

    def __init__(self) -> None:
        self._came: SimpleQueue[int] = SimpleQueue()  # whose put may be interrupted by itself
        for number in STOPPING:
            signal.signal(number, self._take)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first one. Returns whether it has come; once it has, that is not asked again."""
        try:
            self._came.get(timeout=timeout_s)
        except Empty:
            return False
        return True

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came.put(number)
