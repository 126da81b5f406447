"""Whether a stream's counters and clock go forward: steps back of a channel, and times without a record. Floor 1.

Works piece by piece on columns; what the next piece must know is the last row of each channel.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import UNDEF_TIMESTAMP, Flags, MboArray
from orderbook.book.timestamp import format_ns
from orderbook.quality.report import IdleReport, SequenceStep, StepsReport, TimeStep
from orderbook.quality.spans import Spans, make_spans

Column = npt.NDArray[np.uint64]
_SNAPSHOT: Final = int(Flags.SNAPSHOT)
_CHANNEL: Final = np.dtype([("channel", "<i8"), ("record", "<i8"), ("value", "<u8")])


class _Steps(NamedTuple):
    """How often a channel stepped back, and where first: at which record, from what to what."""

    times: int
    record: int
    before: int
    after: int


def sequence_step(steps: _Steps) -> SequenceStep:
    """Describe the first step back of a sequence."""
    return {"record": steps.record, "from": str(steps.before), "to": str(steps.after)}


def time_step(steps: _Steps) -> TimeStep:
    """Describe the first step back of the capture time."""
    return {
        "record": steps.record,
        "from_ts_recv": format_ns(steps.before),
        "from_ts_recv_ns": str(steps.before),
        "to_ts_recv": format_ns(steps.after),
        "to_ts_recv_ns": str(steps.after),
    }


class StepsBack:
    """Where one number of the records fell below that of the record before on the same channel."""

    def __init__(self) -> None:
        self._found: dict[int, _Steps] = {}
        self._last: npt.NDArray[np.void] = np.empty(0, _CHANNEL)

    def take(self, channels: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], values: Column) -> None:
        """Look at the next records: their channel, number in the stream, and value. Cost: O(n log n)."""
        if not len(channels):
            return
        order = np.argsort(np.concatenate([self._last["channel"], channels]), kind="stable")
        channels = np.concatenate([self._last["channel"], channels])[order]
        numbers = np.concatenate([self._last["record"], numbers])[order]
        values = np.concatenate([self._last["value"], values])[order]
        same = channels[1:] == channels[:-1]
        falls = np.flatnonzero(same & (values[1:] < values[:-1]))
        found, firsts, counts = np.unique(channels[falls], return_index=True, return_counts=True)
        for channel, first, count in zip(found.tolist(), falls[firsts].tolist(), counts.tolist(), strict=True):
            steps = _Steps(0, int(numbers[first + 1]), int(values[first]), int(values[first + 1]))
            known = self._found.get(channel, steps)
            self._found[channel] = known._replace(times=known.times + count)
        ends = np.append(~same, True)
        self._last = np.empty(np.count_nonzero(ends), _CHANNEL)
        self._last["channel"], self._last["record"], self._last["value"] = channels[ends], numbers[ends], values[ends]

    def report(self, first: Callable[[_Steps], SequenceStep | TimeStep]) -> StepsReport:
        """Return what was found as JSON."""
        return {
            "count": sum(steps.times for steps in self._found.values()),
            "channels": [
                {"publisher_id": tag >> 8, "channel_id": tag & 0xFF, "count": steps.times, "first": first(steps)}
                for tag, steps in sorted(self._found.items())
            ],
        }


class Continuity:
    """Steps back of the sequence and of the capture time, and idle gaps longer than ``idle_ns``."""

    def __init__(self, idle_ns: int) -> None:
        self.sequence = StepsBack()
        self.ts_recv = StepsBack()
        self._idle_ns = idle_ns
        self._idle = Spans()
        self._last_record: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._last_time: Column = np.empty(0, np.uint64)

    def take(self, records: MboArray, start: int) -> None:
        """Look at the next records, the first of which has this number in the stream."""
        channels = records["publisher_id"].astype(np.int64) << 8 | records["channel_id"]
        numbers = np.arange(start, start + len(records))
        # A picture's records carry the sequences of when its orders were added: they are no step.
        live = records["flags"] & _SNAPSHOT == 0
        self.sequence.take(channels[live], numbers[live], records["sequence"][live].astype(np.uint64))
        times = np.ascontiguousarray(records["ts_recv"])
        if (times == UNDEF_TIMESTAMP).any():  # no time is no step
            known = times != UNDEF_TIMESTAMP
            channels, numbers, times = channels[known], numbers[known], times[known]
        self.ts_recv.take(channels, numbers, times)
        self._take_idle(numbers, times)

    def _take_idle(self, numbers: npt.NDArray[np.int64], times: Column) -> None:
        numbers = np.concatenate([self._last_record, numbers])
        times = np.concatenate([self._last_time, times])
        before, after = times[:-1], times[1:]
        gaps = np.flatnonzero((before < after) & (after - before > self._idle_ns))
        self._idle.add(make_spans(numbers[gaps], numbers[gaps + 1], times[gaps], times[gaps + 1]))
        self._last_record, self._last_time = numbers[-1:], times[-1:]

    def idle_report(self) -> IdleReport:
        """Return the idle gaps as JSON."""
        return {"longer_than_ns": str(self._idle_ns), **self._idle.report()}
