"""One replay run: an immutable recording, and how far of it is out. The market clock. Floor 1.

Pure: the time comes in as an argument, nothing waits and nothing is sent here. A run publishes stretches, and each
client is a cursor into them; nothing is queued for anybody. Whoever follows does so:

    cursor = publication.join()                    # at once, so that the replay waits for it at ``max``
    ... show publication.picture(cursor.position)  # nothing when the position is 0: all books are empty there
    while True:
        match publication.next_move(cursor, block_records):
            case Send(begin, stop):  ... send recording.records[begin:stop];  cursor.position = stop
            case Jump() as jump:     cursor.jump(jump);  ... send publication.arrival(jump.position)
            case Wait():             ... wait until the clock has moved
            case Over():             break

Positions count records of the file. What was published is counted over all stretches and rounds.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from orderbook.book.mbo import BookKey, MboArray
from replay.feed.index import Index
from replay.feed.pacing import MILLION, SECOND_NS, MarketPacer, MaxPacer, Pacer, RatePacer
from replay.feed.positions import Unit, count
from replay.feed.raw_protocol import Buffer, Framing
from replay.feed.sources import Recording
from replay.streamer.arrivals import Arrivals
from replay.streamer.messages import Pace, PublicationStatus, ReplayState, StartCommand
from replay.streamer.meter import Meter
from replay.streamer.stretch import Cursor, Jump, Move, Over, Send, Stretch, Wait, Window

__all__ = ["WINDOW_RECORDS", "Publication", "Window"]

WINDOW_RECORDS: Final = 1 << 16
"""At ``max``: how far the fastest client may be ahead of the slowest."""

_NO_LIMIT: Final = 2**63 - 1
_ROUNDS_PER_STEP: Final = 8
"""Rounds begun at one moment: each costs every client an arrival, however few records it has."""

_CACHED_BLOCKS: Final = 16


class Publication:
    """The clock of one run. What is before ``released`` in the current stretch, and all of those before, may go out."""

    def __init__(
        self,
        command: StartCommand,
        recording: Recording,
        now_ns: int,
        index: Index | None = None,
        window: Window | None = None,
    ) -> None:
        """Begin a run now, where the command says; ``window`` is the whole recording unless it is given."""
        self.command = command
        self.recording = recording
        self.index = index
        self.window = window or Window(0, len(recording.records))
        self.pace: Pace = command["pace"]
        self.skip_idle_s = command["skip_idle_s"]
        self.state = ReplayState.PAUSED if command["paused"] else ReplayState.REPLAYING
        self.error = ""
        self.goes_on_elsewhere = False
        """Whether another streamer has it: then its end here is no end of it, and no client is told so."""
        self.loops = command["loops"]
        """Rounds that have ended. The end of a round belongs to it: its books stand until the next record is due."""
        start = self.window.begin if command["start_record"] is None else command["start_record"]
        start = min(max(start, self.window.begin), self.window.end)
        self.stretch = Stretch(start, command["published"], self.window)
        self.released = start
        self._limit = _NO_LIMIT if command["max_msgs"] < 0 else command["max_msgs"]
        self._go_by(self._make_pacer(now_ns), now_ns)
        self._arrivals = Arrivals(recording.records, index)
        self._blocks: OrderedDict[tuple[int, int], Buffer] = OrderedDict()
        self._meter = Meter(now_ns, self.published)

    @property
    def active(self) -> bool:
        """True until the run has ended."""
        return self.state in (ReplayState.REPLAYING, ReplayState.PAUSED)

    @property
    def published(self) -> int:
        """Records released since the run began, over all rounds and jumps."""
        return self.stretch.published(self.stretch.rounds, self.released)

    # The clock

    def advance(self, now_ns: int, slowest_published: int | None) -> bool:
        """Release what is due; at ``max`` as far as the window ahead of the slowest client allows, if there is one.

        Returns whether anything changed; the run is DONE when everything is out.
        """
        if self.state != ReplayState.REPLAYING:
            return False
        before = self.published
        room = self._room(slowest_published)
        for _ in range(_ROUNDS_PER_STEP):
            round_is_over = self._round_is_over()
            left = self.window.end - (self.window.begin if round_is_over else self.released)
            most = min(left, room + before - self.published)
            count = self._pacer.due(now_ns, most) if most > 0 else 0
            if not count:
                break
            if round_is_over:
                self.loops += 1
                self.stretch.rounds += 1
                self.released = self.window.begin
            self.released += count
            if self.released == self.window.end:
                self._pacer.begin_round(self.window.begin, now_ns)
        self._meter.note(now_ns, self.published)
        if self.published >= self._limit or self._is_at_its_end():
            self.finish(ReplayState.DONE)
        return self.published > before or not self.active

    def wait_ns(self, now_ns: int) -> int:
        """Return how long the clock may sleep while it runs; 0 at ``max``, where it waits for clients instead."""
        return self._pacer.wait_ns(now_ns)

    def pause(self, now_ns: int) -> None:
        """Stop the clock between two records."""
        if self.state == ReplayState.REPLAYING:
            self.state = ReplayState.PAUSED
            self._pacer.rest(now_ns)

    def resume(self, now_ns: int) -> None:
        """Let the clock run on as if it had not stood still."""
        if self.state == ReplayState.PAUSED:
            self.state = ReplayState.REPLAYING
            self._pacer.go_on(now_ns)
            self._meter = Meter(now_ns, self.published)

    def change_pace(self, pace: Pace, skip_idle_s: float | None, now_ns: int) -> None:
        """Go on at another pace from this moment: no record is late for it, and none goes out twice or early."""
        self.pace, self.skip_idle_s = pace, skip_idle_s
        times = _market_time(pace)
        if isinstance(self._pacer, MarketPacer) and times is not None:
            self._go_by(self._pacer.changed(times, self._skip_ns(), now_ns), now_ns)
        else:
            self._go_by(self._make_pacer(now_ns), now_ns)
        self._meter = Meter(now_ns, self.published)

    def seek(self, position: int, now_ns: int) -> None:
        """Go to a position of the window, running or paused as before; the next record goes out at once."""
        self.stretch.next = self.stretch = Stretch(position, self.published, self.window)
        self.released = position
        self._go_by(self._make_pacer(now_ns), now_ns)
        self._meter = Meter(now_ns, self.published)

    def step_to(self, position: int, now_ns: int) -> None:
        """Publish what lies between here and a later position of the window, as far as max_msgs allows."""
        self.released = min(max(position, self.released), self.released + self._limit - self.published)
        self._go_by(self._make_pacer(now_ns), now_ns)

    def finish(self, state: ReplayState, error: str = "") -> None:
        """End the run where it is: what was released is all there will be. ``error`` says why it FAILED."""
        self.state, self.error = state, error

    def abandon(self) -> None:
        """End the run here, because another streamer goes on with it."""
        self.goes_on_elsewhere = True
        self.finish(ReplayState.STOPPED)

    def achieved_per_s(self, now_ns: int) -> int:
        """Return the records per second of the last two seconds; 0 when nothing goes out any more."""
        return self._meter.per_s(now_ns, self.published) if self.state == ReplayState.REPLAYING else 0

    def status(self, now_ns: int) -> PublicationStatus:
        """Return what there is to tell of the run."""
        records, command = self.recording.records, self.command
        last = records[self.released - 1] if self.released else None
        return {
            "state": self.state,
            "replay_id": command["replay_id"],
            "generation": command["generation"],
            "dataset": command["dataset"],
            "pace": self.pace,
            "skip_idle_s": self.skip_idle_s,
            "achieved_records_per_s": self.achieved_per_s(now_ns),
            "position": self.released,
            "records": len(records),
            "published": self.published,
            "event": None if self.index is None else count(records, self.index, Unit.EVENT, self.released),
            "ts_event": "0" if last is None else str(last["ts_event"]),
            "ts_recv": "0" if last is None else str(last["ts_recv"]),
            "loops": self.loops,
            "window_from": self.window.begin,
            "window_to": self.window.end,
            "error": self.error,
        }

    # Those who follow

    def join(self) -> Cursor:
        """Return the place of a client that comes now."""
        return Cursor(self.stretch, self.released, self.stretch.rounds)

    def next_move(self, cursor: Cursor, block_records: int) -> Move:
        """Return what a client does next.

        Blocks end at multiples of ``block_records``, so that clients at the same place share what was encoded. What
        was abandoned is left at once, and a round that has ended when all of it is sent; of several jumps in a row only
        the last is made, but no round of a loop that has ended is left out.
        """
        stretch, position = cursor.stretch, cursor.position
        has_ended = cursor.round < stretch.rounds
        if not cursor.abandoned:
            stop = self.window.end if has_ended else self.released
            if position < stop:
                return Send(position, min(stop, (position // block_records + 1) * block_records))
            if not has_ended:
                return Wait() if self.active else Over()
        target = Jump(stretch, cursor.round + 1) if has_ended else Jump(stretch, cursor.round)
        while target.stretch.next is not None and target.round == target.stretch.rounds:
            target = Jump(target.stretch.next)
        return target

    def picture(self, position: int) -> MboArray:
        """Return the records that bring a new client's books to a position. On the painter's thread; see Arrivals."""
        return self._arrivals.picture(position)

    def arrival(self, position: int) -> MboArray:
        """Return the records that bring any client's books to a position. On the painter's thread; see Arrivals."""
        return self._arrivals.at(position)

    def find_books(self) -> None:
        """Find which books the recording has while the run lasts, so that no arrival need. On a thread of its own."""
        self._arrivals.find_books(lambda: self.active)

    def clears(self, keys: Sequence[BookKey]) -> MboArray:
        """Return a plain R for each book, at the time of the recording's first record: the past is gone."""
        return self._arrivals.clears(keys)

    def use_index(self, index: Index) -> None:
        """Take an index that was made after the run began."""
        self.index = index
        self._arrivals.use_index(index)

    def encoded(self, begin: int, stop: int, framing: Framing) -> Buffer:
        """Return a block as raw clients get it; those at the same place share it."""
        block = self._blocks.get((begin, stop))
        if block is None:
            block = framing.encode(self.recording.records[begin:stop], self.recording.symbols)
            self._blocks[begin, stop] = block
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def _room(self, slowest_published: int | None) -> int:
        """Return how many records may go out, were all of them due."""
        room = self._limit - self.published
        if self.pace == "max":
            ahead = self.published - slowest_published if slowest_published is not None else WINDOW_RECORDS
            room = min(room, WINDOW_RECORDS - ahead)
        return room

    def _round_is_over(self) -> bool:
        begin, end = self.window
        return self.command["loop"] and self.released == end > begin

    def _is_at_its_end(self) -> bool:
        return self.released == self.window.end and not self._round_is_over()

    def _go_by(self, pacer: Pacer, now_ns: int) -> None:
        """Go by another schedule; while the replay is paused, none runs."""
        self._pacer = pacer
        if self.state == ReplayState.PAUSED:
            pacer.rest(now_ns)

    def _make_pacer(self, now_ns: int) -> Pacer:
        match self.pace:
            case {"records_per_s": int(rate)}:
                return RatePacer(rate, now_ns)
            case "max":
                return MaxPacer()
        times = _market_time(self.pace)
        assert times is not None
        position = self.window.begin if self._round_is_over() else self.released
        return MarketPacer(self.recording.records, position, times, self._skip_ns(), now_ns)

    def _skip_ns(self) -> int | None:
        return None if self.skip_idle_s is None else int(self.skip_idle_s * SECOND_NS)


def _market_time(pace: Pace) -> int | None:
    """Return how many millionths as fast as recorded; None at another pace."""
    match pace:
        case {"market_time": int(times) | float(times)}:
            return round(times * MILLION)
    return None
