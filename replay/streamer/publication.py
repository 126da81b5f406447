"""One replay run: an immutable recording, and how far of it is out. The market clock. Floor 1.

Positions are absolute: records published since the start of the run, over all rounds of a loop. Clients are
cursors into this; nothing is queued for anybody. The time comes in as an argument.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from orderbook.book.mbo import MBO, BookKey, MboArray
from replay.feed.index import Index
from replay.feed.pacing import NO_LIMIT, SECOND_NS, Pacer
from replay.feed.raw_protocol import Buffer, Framing, clear_record
from replay.feed.sources import Recording
from replay.streamer.messages import Pace, ReplayState, StartCommand
from replay.streamer.shadow import Shadow

WINDOW_RECORDS: Final = 1 << 16
"""At ``max``: how far the fastest client may be ahead of the slowest."""

_CACHED_BLOCKS: Final = 16
_RATE_SAMPLES: Final = 20
_RATE_WINDOW_NS: Final = 2 * SECOND_NS
_RATE_SAMPLE_NS: Final = SECOND_NS // 10


class Publication:
    """The clock of one run; ``released`` only grows, and everything before it may go out."""

    def __init__(
        self,
        command: StartCommand,
        recording: Recording,
        books: Sequence[BookKey],
        now_ns: int,
        index: Index | None = None,
    ) -> None:
        """Begin a run now; ``books`` are those of the whole recording, to be cleared between rounds."""
        self.command = command
        self.recording = recording
        self.pace: Pace = command["pace"]
        self.state = ReplayState.REPLAYING
        self.error = ""
        self.round_length = len(recording.records)
        limit = NO_LIMIT if command["max_msgs"] < 0 else command["max_msgs"]
        self.loops = command["loop"] and self.round_length > 0
        self.end = limit if self.loops else min(self.round_length, limit)
        self.round_records = self.round_length if self.loops else self.end
        self.start = self.released = min(max(command["start_record"], 0), self.end)
        self._books = books
        self._pacer = Pacer(records_per_s(self.pace), now_ns, self.start)
        self._shadow = Shadow(recording.records, index=index)
        self._blocks: OrderedDict[tuple[int, int], Buffer] = OrderedDict()
        self._samples = deque([(now_ns, self.start)], maxlen=_RATE_SAMPLES)

    @property
    def running(self) -> bool:
        return self.state == ReplayState.REPLAYING

    def advance(self, now_ns: int, slowest: int | None) -> bool:
        """Release what is due; at ``max`` as far as the window ahead of the slowest client allows, if there is one.

        Returns whether anything changed; the run is DONE when everything is out.
        """
        limit = self._pacer.due(now_ns)
        if limit == NO_LIMIT:
            limit = self.released if slowest is None else slowest + WINDOW_RECORDS
        before = self.released
        self.released = max(before, min(limit, self.end))
        if now_ns - self._samples[-1][0] >= _RATE_SAMPLE_NS:
            self._samples.append((now_ns, self.released))
        if self.released == self.end:
            self.finish(ReplayState.DONE)
        return self.released > before or not self.running

    def wait_ns(self, now_ns: int) -> int:
        """Return how long the clock may sleep; 0 at ``max``, where it waits for clients instead."""
        return self._pacer.wait_ns(now_ns)

    def change_pace(self, pace: Pace, now_ns: int) -> None:
        """Go on at another pace from the very position."""
        self.pace = pace
        self._pacer.change(records_per_s(pace), now_ns, self.released)
        self._samples = deque([(now_ns, self.released)], maxlen=_RATE_SAMPLES)

    def finish(self, state: ReplayState, error: str = "") -> None:
        """End the run where it is: what was released is all there will be. ``error`` says why it FAILED."""
        self.state, self.error = state, error
        self.end = self.released

    def achieved_per_s(self, now_ns: int) -> int:
        """Return the records per second of the last two seconds; 0 when the run has ended."""
        # Samples are taken when records go out: in a stall the newest one is older than two seconds, and tells 0.
        old = (sample for sample in reversed(self._samples) if now_ns - sample[0] >= _RATE_WINDOW_NS)
        since_ns, since = next(old, self._samples[0])
        return (self.released - since) * SECOND_NS // max(now_ns - since_ns, 1) if self.running else 0

    def place(self, position: int) -> tuple[int, int]:
        """Return the full rounds before an absolute position, and the records of its own round up to it.

        The end of a round belongs to that round: its books are still standing.
        """
        if not self.loops or position == 0:
            return 0, position
        rounds, offset = divmod(position - 1, self.round_length)
        return rounds, offset + 1

    def picture(self, position: int) -> MboArray:
        """Return the records that bring a client's books to an absolute position. Cost: see Shadow.picture.

        Always called on the same thread, which need not be that of the clock: the shadow belongs to it.
        """
        return self._shadow.picture(self.place(position)[1])

    def clears(self, keys: Sequence[BookKey]) -> MboArray:
        """Return a plain R for each book, at the time of the recording's first record: the past is gone."""
        if not keys or not self.round_length:
            return np.empty(0, MBO)
        first = self.recording.records[0]
        return np.concatenate([clear_record(key, int(first["ts_event"]), int(first["ts_recv"])) for key in keys])

    def next_block(self, cursor: int, framing: Framing) -> tuple[list[Buffer], int]:
        """Return what goes out from a cursor on, and the cursor behind it; nothing when all that is due is out.

        Blocks end at fixed positions, so that clients at the same place share one encoding. Each later round
        begins with a clear of every book.
        """
        if cursor >= self.released:
            return [], cursor
        begin = cursor % self.round_length
        size = framing.block_records
        stop = min(self.released, cursor - begin + self.round_length, (cursor // size + 1) * size)
        buffers = [self._encoded(cursor, stop, framing)]
        if begin == 0 and cursor > 0:
            buffers.insert(0, framing.encode(self.clears(self._books), self.recording.symbols))
        return buffers, stop

    def _encoded(self, cursor: int, stop: int, framing: Framing) -> Buffer:
        block = self._blocks.get((cursor, stop))
        if block is None:
            begin = cursor % self.round_length
            records = self.recording.records[begin : begin + stop - cursor]
            block = self._blocks[cursor, stop] = framing.encode(records, self.recording.symbols)
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block


def records_per_s(pace: Pace) -> int | None:
    """Return the rate of a constant pace; None at ``max``."""
    return None if pace == "max" else pace["records_per_s"]


def book_keys(records: MboArray) -> list[BookKey]:
    """Return which books records belong to, sorted. Cost: O(n)."""
    tags = np.unique(records["publisher_id"].astype(np.int64) << 32 | records["instrument_id"])
    return [BookKey(tag >> 32, tag & 0xFFFF_FFFF) for tag in tags.tolist()]
