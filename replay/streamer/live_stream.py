"""What one live client gets once its session has started: metadata, mappings, pictures, records. Floor 1.

A subscription has a position from which on it counts: where the replay is, or where its start lies. The client's
cursor begins at the first of them. On the way it takes up those that it comes to, each with the picture of that place
if one was asked for; when it has come to the clock, what had a start is told to have caught up.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orderbook.book.mbo import MBO, Action, BookKey, Flags, MboArray
from replay.feed import live_records
from replay.feed.live_encoding import LiveEncoder
from replay.feed.live_merging import Part, Rows
from replay.feed.live_messages import AuthRequest, SubscriptionRequest
from replay.feed.live_symbology import resolve
from replay.streamer.arrivals import book_keys
from replay.streamer.derived_feed import DerivedFeed
from replay.streamer.messages import ReplayState
from replay.streamer.outlet import MAX_BUFFER_BYTES, Outlet
from replay.streamer.painter import paint
from replay.streamer.publication import Publication
from replay.streamer.selection import TIME_OF, Selection
from replay.streamer.stretch import Cursor

_MBO_BLOCK: Final = MAX_BUFFER_BYTES // MBO.itemsize
_FILTERED_BLOCK: Final = 1 << 13
"""Records of which some are chosen at once, by one of 20,000 instruments and its start: 1 ms."""
_DERIVED_BLOCK: Final = 1 << 11
"""Records at once for a client that gets more than mbo."""
_OWN_BYTES: Final = MAX_BUFFER_BYTES
"""Of a picture a client has a copy of its own, if that is so small; else all clients at one place share the whole."""
_MESSAGES_AT_ONCE: Final = 64
_SEARCH_RECORDS: Final = 1 << 20
_PLACES: Final = np.arange(_MBO_BLOCK)


_Start = tuple[str, int]
"""The name of a time of records, and what it shall be at least, ns."""

Draw = Callable[[Publication, int], MboArray]
"""Returns the records that show the books of a replay at a position. On the painter's thread."""


class _Wanted(NamedTuple):
    """A subscription that finds something in the recording."""

    schema: str
    ids: frozenset[int] | None  # None: every instrument
    since: int
    start_ns: int | None
    snapshot: bool


class LiveStream:
    """The stream of one client; its owner says when."""

    def __init__(self, request: AuthRequest, outlet: Outlet, requests: Sequence[SubscriptionRequest]) -> None:
        """``requests`` are the subscriptions so far, and grow."""
        self.encoder = LiveEncoder(request)
        self.catches_up = False
        """True from a start in the past until the clock is reached."""
        self._dataset = request.dataset
        self._outlet = outlet
        self._requests = requests
        self._selection = Selection()
        self._waiting: list[_Wanted] = []
        self._places_of: dict[_Start, int] = {}
        self._feed: DerivedFeed | None = None
        self._to_complete: list[str] = []  # schemas whose start is not told to have been caught up with
        self._pictured: Sequence[BookKey] = ()

    @property
    def block_records(self) -> int:
        """How many records to take at once: what they are in all schemas fits into a buffer, each told once."""
        row_bytes = sum(self.encoder.row_bytes(schema) for schema in self._selection.schemas)
        most = MAX_BUFFER_BYTES // max(row_bytes, MBO.itemsize)
        if self._selection.derived:
            # A power of two: clients with other schemas find blocks that begin and end where theirs do.
            return min(1 << most.bit_length() - 1, _DERIVED_BLOCK)
        return most if self._selection.has_all_of("mbo") else min(most, _FILTERED_BLOCK)

    @property
    def next_since(self) -> int | None:
        """The position at which the next subscription counts; ``take_up`` is due there."""
        return min((wanted.since for wanted in self._waiting), default=None)

    def has_starts(self, publication: Publication) -> bool:
        """Say whether anything was asked for from a time on."""
        return any(start_in(request, publication) is not None for request in self._requests)

    @property
    def has_to_complete(self) -> bool:
        """Whether a client that has reached the clock is to be told so."""
        return self.catches_up or bool(self._to_complete)

    async def open(self, publication: Publication | None) -> None:
        """Send the metadata, and acknowledge what was subscribed."""
        self._outlet.warning = self._warning
        self._outlet.farewell = self._farewell
        await self._outlet.send(self.encoder.opening(self._dataset, self._start_ns(publication)))
        now = time.time_ns()
        await self.tell(live_records.subscription_ack(now, request) for request in self._requests)

    async def acknowledge(self, request: SubscriptionRequest) -> None:
        await self.tell([live_records.subscription_ack(time.time_ns(), request)])

    async def introduce(self, request: SubscriptionRequest, publication: Publication) -> frozenset[int] | None:
        """Name the instruments that a subscription means, and say what is none; return their ids, None for all."""
        now, symbols = time.time_ns(), publication.recording.symbols
        found, missing = resolve(request, symbols)
        await self.tell(
            live_records.error_message(now, live_records.RESOLUTION_FAILED, unresolved.text) for unresolved in missing
        )
        await self.tell(live_records.symbol_mapping(now, each, request.stype_in) for each in found)
        await asyncio.sleep(0)
        return None if request.all_symbols else frozenset(each.instrument_id for each in found)

    async def join(self, publication: Publication, cursor: Cursor) -> None:
        """Begin to follow a replay with all subscriptions; the cursor may go back to the first of their starts."""
        here = cursor.position
        asked = [(TIME_OF[each.schema], start_in(each, publication)) for each in self._requests]
        starts = {(name, start_ns) for name, start_ns in asked if start_ns is not None}
        self._places_of = await asyncio.to_thread(find_starts, publication, starts) if starts else {}
        for request in self._requests:
            await self.want(request, publication, here)
        # Behind what is said of each symbol, of which a client keeps the last only; before the first record.
        if any(request.replay is not None for request in self._requests):
            await self.tell([live_records.replay_follows(time.time_ns(), publication.command["replay_id"])])
        await self._clear_pictured(publication)
        since = self.next_since
        if since is not None and since < here and not cursor.abandoned:
            cursor.position, self.catches_up = since, True

    async def want(self, request: SubscriptionRequest, publication: Publication, here: int) -> None:
        """Take a subscription on, to count from a position on or from where its start lies, which ``join`` found."""
        ids = await self.introduce(request, publication)
        since, start_ns = here, start_in(request, publication)
        if start_ns is not None:
            since = self._places_of[TIME_OF[request.schema], start_ns]
            if request.replay is None:
                self._to_complete.append(request.schema)
            else:  # it has been there, and the clock was set back since: it goes with the clock
                since = min(since, here)
        if ids is None or ids:
            wanted = _Wanted(request.schema, ids, since, start_ns, request.snapshot)
            self._waiting.append(wanted)

    async def look_at(self, publication: Publication, requests: Iterable[SubscriptionRequest]) -> None:
        """Show the books where a replay has ended to those of some subscriptions that have a snapshot."""
        chosen = Selection()
        for request in requests:
            ids = await self.introduce(request, publication)
            if request.snapshot:
                chosen.add("mbo", ids)
        if "mbo" in chosen:
            pictured = await self._show(chosen, _snapshot, publication, publication.released)
            self._pictured = sorted({*self._pictured, *pictured})

    async def take_up(self, publication: Publication, position: int) -> None:
        """Let the subscriptions count whose position has come, each with a picture if it was asked for."""
        due = [wanted for wanted in self._waiting if wanted.since <= position]
        self._waiting = [wanted for wanted in self._waiting if wanted.since > position]
        chosen = Selection()
        for wanted in due:
            if wanted.snapshot:
                chosen.add("mbo", wanted.ids)
        if "mbo" in chosen:
            await self._show(chosen, _snapshot, publication, position)
        self._count(due, self.catches_up)

    async def arrive(self, publication: Publication, position: int, derived: DerivedFeed) -> None:
        """Bring the client to another place: everything counts there, and nothing is too old for a start."""
        self._count(self._waiting, False)
        self._waiting = []
        self._selection.forget_starts()
        if "mbo" in self._selection:
            await self._show(self._selection, Publication.arrival, publication, position)
        if self._selection.derived:
            self._feed = derived
            arrived = await derived.arrival(position, self)
            for schema in self._selection.derived:
                await self._send_rows(self._selection, schema, arrived[schema])

    async def block(self, publication: Publication, begin: int, stop: int, derived: DerivedFeed) -> bool:
        """Send what the client gets of the records [begin:stop]; False when that is nothing."""
        selection, parts = self._selection, []
        if "mbo" in selection:
            records = publication.recording.records[begin:stop]
            parts.append(selection.part("mbo", _PLACES[: stop - begin], records))
        if selection.derived:
            self._feed = derived
            made = await derived.derived(begin, stop, self)
            parts += [selection.part(schema, *made.of(schema)) for schema in selection.derived]
        return await self._send(parts)

    def close(self) -> None:
        """Say that the client has left."""
        if self._feed is not None:
            self._feed.leave(self)

    async def caught_up(self) -> None:
        """Say of each schema with a start that the clock is reached, if that was not said."""
        schemas, self._to_complete, self.catches_up = self._to_complete, [], False
        self._selection.forget_starts()
        await self._complete(schemas)

    async def finish(self) -> None:
        """Say that the replay is over, and end the stream."""
        await self._complete([request.schema for request in self._requests])
        await self._outlet.send(self.encoder.closing())

    async def fail(self, code: int, text: str) -> None:
        """Send an error, and end the stream."""
        await self.tell([live_records.error_message(time.time_ns(), code, text)])
        await self._outlet.send(self.encoder.closing())

    async def tell(self, messages: Iterable[bytes]) -> None:
        """Send records of the feed about itself."""
        batch: list[bytes] = []
        for message in messages:
            batch.append(message)
            if len(batch) == _MESSAGES_AT_ONCE:
                await self._send_messages(batch)
                batch = []
                await asyncio.sleep(0)
        if batch:
            await self._send_messages(batch)

    def _count(self, wanted: Iterable[_Wanted], with_starts: bool) -> None:
        for schema, ids, _, start_ns, snapshot in wanted:
            # Behind a picture everything counts: a book that lacks one record, however old it says it is, is wrong.
            self._selection.add(schema, ids, start_ns or 0 if with_starts and not snapshot else 0)

    async def _complete(self, schemas: Sequence[str]) -> None:
        now = time.time_ns()
        await self.tell(live_records.replay_completed(now, schema) for schema in dict.fromkeys(schemas))

    async def _clear_pictured(self, publication: Publication) -> None:
        """Take back what was shown of a replay that had ended."""
        for begin in range(0, len(self._pictured), _MESSAGES_AT_ONCE):
            await self._send_whole("mbo", publication.clears(self._pictured[begin : begin + _MESSAGES_AT_ONCE]))
        self._pictured = ()

    async def _show(
        self, selection: Selection, draw: Draw, publication: Publication, position: int
    ) -> Sequence[BookKey]:
        """Send what a picture has of a selection; return which books that are."""
        picture, books = await paint(_own_part, selection, draw, publication, position)
        await self._send_rows(selection, "mbo", picture)
        return books

    async def _send_rows(self, selection: Selection, schema: str, rows: Rows) -> None:
        """Send what a selection has of any number of rows, chosen piece by piece: nobody has a copy of all."""
        step = min(MAX_BUFFER_BYTES // rows.dtype.itemsize, _FILTERED_BLOCK)
        for begin in range(0, len(rows), step):
            await self._send_whole(schema, selection.take(schema, rows[begin : begin + step]))

    async def _send_whole(self, schema: str, rows: Rows) -> None:
        await self._send([Part(schema, np.zeros(len(rows), np.int64), rows)])

    async def _send(self, parts: Sequence[Part]) -> bool:
        sent = False
        for piece in self.encoder.parts(parts, time.time_ns()):
            await self._outlet.send(piece, self.encoder.boundary)
            await asyncio.sleep(0)  # who takes everything at once must not keep the others waiting
            sent = True
        if not sent:
            await asyncio.sleep(0)  # who looks through records of which nothing is for it must not either
        return sent

    async def _send_messages(self, messages: Sequence[bytes]) -> None:
        await self._outlet.send(self.encoder.messages(messages, time.time_ns()), self.encoder.boundary)

    def _warning(self) -> bytes:
        text = "Slow reader: nothing was read for a while. The connection will be closed if that goes on."
        return self._aside(live_records.system_message(time.time_ns(), live_records.SLOW_READER_WARNING, text))

    def _farewell(self) -> bytes:
        text = "Slow reader: nothing was read for too long. What comes next is not sent any more."
        last = self._aside(live_records.error_message(time.time_ns(), live_records.SKIPPED_RECORDS, text))
        return last + bytes(self.encoder.closing())

    def _aside(self, message: bytes) -> bytes:
        return bytes(self.encoder.messages([message], time.time_ns()))

    def _start_ns(self, publication: Publication | None) -> int:
        """Return the time of the metadata: the earliest start asked for, or else the present of the replay."""
        starts = [each.start_ns if publication is None else start_in(each, publication) for each in self._requests]
        asked = [start_ns for start_ns in starts if start_ns is not None]
        first = min(asked, default=0)
        if first or publication is None or not len(publication.recording.records):
            return first if asked else time.time_ns()
        records = publication.recording.records
        place = publication.window.begin if asked else publication.released
        return int(records[min(place, len(records) - 1)]["ts_event"])


def start_in(request: SubscriptionRequest, publication: Publication) -> int | None:
    """Return from when on a client wants a replay; 0 is its beginning, None the present.

    Who knows another replay wants all of this one; of one that has failed there is no more than it had.
    """
    if request.replay and request.replay != publication.command["replay_id"]:
        return 0
    if request.replay and publication.state == ReplayState.FAILED:
        return None
    return request.start_ns


def find_starts(publication: Publication, starts: Iterable[_Start]) -> dict[_Start, int]:
    """Return for each start the position of the first record in the window at or after it; the end when none is.

    Cost: for all of them one pass over the records before the last, some 2 ns each, if they are of one kind; in steps,
    so that a file of any size takes no memory.
    """
    times_of: dict[str, list[int]] = {}
    for name, time_ns in sorted(starts):
        times_of.setdefault(name, []).append(time_ns)
    records, window = publication.recording.records, publication.window
    return {
        (name, time_ns): place
        for name, times in times_of.items()
        for time_ns, place in zip(times, _firsts_since(records[name], window.begin, window.end, times), strict=True)
    }


def _firsts_since(column: npt.NDArray[np.uint64], begin: int, end: int, times: Sequence[int]) -> list[int]:
    """Return the first place in [begin:end] at or after each of some times, which ascend."""
    places: list[int] = []
    for start in range(begin, end, _SEARCH_RECORDS):
        part = column[start : min(start + _SEARCH_RECORDS, end)]
        newest = int(part.max())
        due = [time_ns for time_ns in times[len(places) :] if time_ns <= newest]
        if due:
            places += (start + np.searchsorted(np.maximum.accumulate(part), np.array(due, np.uint64))).tolist()
        if len(places) == len(times):
            break
    return places + [end] * (len(times) - len(places))


def _snapshot(publication: Publication, position: int) -> MboArray:
    """Return the records that show every book of the recording at a position; one without orders is a clear alone."""
    picture = publication.arrival(position)
    if not position:  # where an arrival is the end of the past; who sees plain clears may take them for records
        picture = picture.copy()
        picture["flags"] |= np.uint8(Flags.SNAPSHOT)
    return picture


def _own_part(
    selection: Selection, draw: Draw, publication: Publication, position: int
) -> tuple[MboArray, Sequence[BookKey]]:
    """Draw, on the painter's thread; return the books of a selection, and their records alone if these are few."""
    picture = draw(publication, position)
    chosen = selection.take("mbo", picture)
    books = book_keys(chosen[chosen["action"] == np.uint8(Action.CLEAR)])
    return chosen if chosen.nbytes <= _OWN_BYTES else picture, books
