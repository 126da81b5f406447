"""How fast something goes, from counts at moments that come in as arguments. Floor 1."""

from collections import deque
from typing import Final

from replay.feed.pacing import SECOND_NS

_SAMPLES: Final = 20
_WINDOW_NS: Final = 2 * SECOND_NS
_SAMPLE_NS: Final = SECOND_NS // 10


class Meter:
    """The rate of the last two seconds."""

    def __init__(self, now_ns: int, count: int) -> None:
        self._samples = deque([(now_ns, count)], maxlen=_SAMPLES)

    def note(self, now_ns: int, count: int) -> None:
        """Take note of a count that grows."""
        if now_ns - self._samples[-1][0] >= _SAMPLE_NS:
            self._samples.append((now_ns, count))

    def per_s(self, now_ns: int, count: int) -> int:
        """Return how much came in each second."""
        # Samples are taken when the count grows: in a stall the newest one is older than two seconds, and tells 0.
        old = (sample for sample in reversed(self._samples) if now_ns - sample[0] >= _WINDOW_NS)
        since_ns, since = next(old, self._samples[0])
        return (count - since) * SECOND_NS // max(now_ns - since_ns, 1)
