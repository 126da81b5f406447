"""What one live client gets once its session has started: metadata, mappings, pictures, records. Floor 1.

A subscription has a position from which on it counts: where the replay is, or where its start lies. The client's
cursor begins at the first of them. On the way it takes up those that it comes to, each with the picture of that place
if one was asked for; when it has come to the clock, what had a start is told to have caught up.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from orderbook.book.mbo import MBO, Action, BookKey
from replay.feed import live_records
from replay.feed.live_encoding import LiveEncoder
from replay.feed.live_merging import Part, Rows
from replay.feed.live_messages import AuthRequest, SubscriptionRequest
from replay.feed.live_symbology import resolve
from replay.streamer.arrivals import book_keys
from replay.streamer.derived_feed import DerivedFeed
from replay.streamer.outlet import MAX_BUFFER_BYTES, Outlet
from replay.streamer.painter import paint
from replay.streamer.publication import Publication
from replay.streamer.selection import Selection
from replay.streamer.stretch import Cursor

_MBO_BLOCK: Final = MAX_BUFFER_BYTES // MBO.itemsize
_DERIVED_BLOCK: Final = 2048
"""Records at once for a client that gets more than mbo: one of them can become 712 bytes in all six schemas."""
_MESSAGES_AT_ONCE: Final = 256
_SEARCH_RECORDS: Final = 1 << 20
_PLACES: Final = np.arange(_MBO_BLOCK)


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
        self._to_complete: list[str] = []  # schemas whose start is not told to have been caught up with
        self._pictured: Sequence[BookKey] = ()

    @property
    def block_records(self) -> int:
        """How many records to take at once."""
        return _DERIVED_BLOCK if self._selection.derived else _MBO_BLOCK

    @property
    def next_since(self) -> int | None:
        """The position at which the next subscription counts; ``take_up`` is due there."""
        return min((wanted.since for wanted in self._waiting), default=None)

    @property
    def has_to_complete(self) -> bool:
        """Whether a client that has reached the clock is to be told so."""
        return self.catches_up or bool(self._to_complete)

    async def open(self, publication: Publication | None) -> None:
        """Send the metadata, and acknowledge what was subscribed."""
        self._outlet.warning = self._warning
        self._outlet.farewell = self._farewell
        await self._outlet.send(self.encoder.opening(self._dataset, self._start_ns(publication)))
        for request in self._requests:
            await self.acknowledge(request)

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
        return None if request.all_symbols else frozenset(each.instrument_id for each in found)

    async def join(self, publication: Publication, cursor: Cursor) -> None:
        """Begin to follow a replay with all subscriptions; the cursor may go back to the first of their starts."""
        here = cursor.position
        await self._clear_pictured(publication)
        for request in self._requests:
            await self.want(request, publication, here)
        since = self.next_since
        if since is not None and since < here and not cursor.stretch.abandoned:
            cursor.position, self.catches_up = since, True

    async def want(self, request: SubscriptionRequest, publication: Publication, here: int) -> None:
        """Take a subscription on, to count from a position on or from where its start lies."""
        ids = await self.introduce(request, publication)
        since = here
        if request.start_ns is not None:
            since = await asyncio.to_thread(_first_since, publication, request.start_ns)
            self._to_complete.append(request.schema)
        if ids is None or ids:
            wanted = _Wanted(request.schema, ids, since, request.start_ns, request.snapshot)
            self._waiting.append(wanted)

    async def look_at(self, publication: Publication) -> None:
        """Show the books where a replay has ended to subscriptions with a snapshot."""
        chosen = Selection()
        for request in self._requests:
            ids = await self.introduce(request, publication)
            if request.snapshot:
                chosen.add("mbo", ids)
        picture = chosen.take("mbo", await paint(publication.picture, publication.released))
        await self._send_rows("mbo", picture)
        self._pictured = book_keys(picture[picture["action"] == np.uint8(Action.CLEAR)])

    async def take_up(self, publication: Publication, position: int) -> None:
        """Let the subscriptions count whose position has come, each with a picture if it was asked for."""
        due = [wanted for wanted in self._waiting if wanted.since <= position]
        self._waiting = [wanted for wanted in self._waiting if wanted.since > position]
        chosen = Selection()
        for wanted in due:
            if wanted.snapshot:
                chosen.add("mbo", wanted.ids)
        if "mbo" in chosen and position:
            await self._send_rows("mbo", chosen.take("mbo", await paint(publication.picture, position)))
        self._count(due, self.catches_up)

    async def arrive(self, publication: Publication, position: int, derived: DerivedFeed) -> None:
        """Bring the client to another place: everything counts there, and nothing is too old for a start."""
        self._count(self._waiting, False)
        self._waiting = []
        self._selection.forget_starts()
        if "mbo" in self._selection:
            await self._send_rows("mbo", self._selection.take("mbo", await paint(publication.arrival, position)))
        if self._selection.derived:
            arrived = await derived.arrival(position)
            for schema in self._selection.derived:
                await self._send_rows(schema, self._selection.take(schema, arrived[schema]))

    async def block(self, publication: Publication, begin: int, stop: int, derived: DerivedFeed) -> bool:
        """Send what the client gets of the records [begin:stop]; False when that is nothing."""
        selection, parts = self._selection, []
        if "mbo" in selection:
            records = publication.recording.records[begin:stop]
            parts.append(selection.part("mbo", _PLACES[: stop - begin], records))
        if selection.derived:
            made = await derived.derived(begin, stop)
            parts += [selection.part(schema, *made.of(schema)) for schema in selection.derived]
        return await self._send(parts)

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
        for schema, ids, _, start_ns, _ in wanted:
            self._selection.add(schema, ids, start_ns or 0 if with_starts else 0)

    async def _complete(self, schemas: Sequence[str]) -> None:
        now = time.time_ns()
        await self.tell(live_records.replay_completed(now, schema) for schema in dict.fromkeys(schemas))

    async def _clear_pictured(self, publication: Publication) -> None:
        """Take back what was shown of a replay that had ended."""
        await self._send_rows("mbo", publication.clears(self._pictured))
        self._pictured = ()

    async def _send_rows(self, schema: str, rows: Rows) -> None:
        """Send any number of rows of one schema."""
        step = MAX_BUFFER_BYTES // rows.dtype.itemsize
        for begin in range(0, len(rows), step):
            piece = rows[begin : begin + step]
            await self._send([Part(schema, np.zeros(len(piece), np.int64), piece)])

    async def _send(self, parts: Sequence[Part]) -> bool:
        sent = False
        for piece in self.encoder.parts(parts, time.time_ns()):
            await self._outlet.send(piece, self.encoder.boundary)
            await asyncio.sleep(0)  # who takes everything at once must not keep the others waiting
            sent = True
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
        asked = [request.start_ns for request in self._requests if request.start_ns is not None]
        first = min(asked, default=0)
        if first or publication is None or not len(publication.recording.records):
            return first if asked else time.time_ns()
        records = publication.recording.records
        place = publication.window.begin if asked else publication.released
        return int(records[min(place, len(records) - 1)]["ts_event"])


def _first_since(publication: Publication, start_ns: int) -> int:
    """Return the position of the first record in the window at or after a time (ts_event, ns); the end when none is.

    Cost: some 2 ns for each record before it; in steps, so that a file of any size takes no memory.
    """
    begin, end = publication.window
    if start_ns <= 0:
        return begin
    times = publication.recording.records["ts_event"]
    for start in range(begin, end, _SEARCH_RECORDS):
        later = times[start : min(start + _SEARCH_RECORDS, end)] >= np.uint64(start_ns)
        if later.any():
            return start + int(later.argmax())
    return end
