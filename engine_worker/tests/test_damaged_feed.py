"""A feed that is cut off, flooded with garbage, or changed on the way: what an engine makes of it, byte by byte.

DAMAGE=all (``make faults``) cuts at every byte of 4 KB and changes every byte of 1,000 records; the suite takes each
13th and each 211th, which meet every byte of a record. The live protocol is cut in test_broken_live_feed.
"""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from engine_worker.connection import FeedInterrupted
from engine_worker.raw_feed import raw_feed
from engine_worker.tests.builders import Desk, csv_bytes, dbn_bytes, picture_of, reference_book, session
from orderbook.book.digest import market_hash, state_hash
from orderbook.book.mbo import MBO, Flags, MboArray
from replay.feed.stream import FramingName

Encode = Callable[[MboArray], bytes]

ALL = os.environ.get("DAMAGE") == "all"
WINDOW = 4096
FRAMINGS: list[tuple[FramingName, Encode]] = [("dbn", dbn_bytes), ("csv", csv_bytes)]
DBN_HEADER = len(dbn_bytes(np.empty(0, MBO)))
FRAME = {"length", "rtype"}
"""The fields of a record by which a stream is cut into records."""
UNPROTECTED = {"order_id", "price", "size", "side", "action", "flags", "sequence", "ts_event", "channel_id"}
"""Fields that nothing in DBN lets anybody check: a changed one may give another book, and nobody can tell."""
GARBAGE = {
    "text": b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "random bytes": random.Random(3).randbytes(4096),
    "the header again": dbn_bytes(np.empty(0, MBO)),
    "a record of length 0": bytes([0, 160]) + bytes(54),
    "a record of 1020 bytes": bytes([255, 160]) + bytes(1018),
}


def carried(desk: Desk, data: bytes, framing: FramingName = "dbn") -> str:
    """Let an engine follow one connection that brings these bytes and closes. Returns why it broke, empty at an end."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
    connection = raw_feed(framing)(ours, Event())
    desk.engine.begin(connection.symbol)
    try:
        desk.engine.follow(connection, Event())
    except FeedInterrupted as error:
        desk.engine.counters.interrupted(connection.left)
        return str(error)
    finally:
        connection.close()
    return ""


def whole_events(count: int) -> MboArray:
    """Return records that each end an event: a book may be looked at, and pictured, behind every one."""
    records = session(count)
    records["flags"] |= int(Flags.LAST)
    return records


def picture_and_rest(records: MboArray, begin: int) -> MboArray:
    """Return what a streamer sends to whoever comes after so many records."""
    return np.concatenate((picture_of(records[:begin]), records[begin:]))


def kept(desk: Desk) -> list[tuple[object, ...]]:
    """Return what an engine has stored, without what counts from run to run."""
    return [(s.symbol, s.ts_event, s.sequence, s.bids.tobytes(), s.asks.tobytes()) for s in desk.snapshots]


def books_of(desk: Desk) -> str:
    return market_hash(desk.engine._market.books.items())


def closes(desk: Desk) -> bool:
    """Say whether everything that arrived went somewhere."""
    counters = desk.engine.counters
    return counters.received == counters.applied + counters.ignored + counters.rejected


def last_whole(data: bytes, framing: FramingName) -> int:
    """Return how many records are whole at the beginning of a stream."""
    return data.count(b"\n") - 1 if framing == "csv" else (len(data) - DBN_HEADER) // MBO.itemsize


def field_at(offset: int) -> str:
    """Return the field of a record in which a byte lies."""
    return max((place, name) for name, (_, place) in MBO.fields.items() if place <= offset % MBO.itemsize)[1]


@pytest.mark.parametrize(("framing", "encode"), FRAMINGS)
def test_a_feed_cut_at_any_byte_applies_whole_records_only_and_the_next_connection_goes_on(
    fast_folder: Path, framing: FramingName, encode: Encode
) -> None:
    records = whole_events(200)
    data, clean = encode(records), Desk(fast_folder / "clean", snapshot_every=1)
    assert carried(clean, data, framing) == ""
    expected = kept(clean)
    begin = len(encode(records[:90]))
    for cut in range(begin, begin + WINDOW, 1 if ALL else 13):
        desk = Desk(fast_folder / "cut", snapshot_every=1)
        why, whole = carried(desk, data[:cut], framing), last_whole(data[:cut], framing)
        assert (desk.engine.counters.applied, desk.engine.counters.rejected) == (whole, 0), cut
        assert bool(why) == desk.engine.counters.partial_frames == (len(encode(records[:whole])) != cut), cut
        [book] = desk.engine._market.books.values()
        assert state_hash(book) == state_hash(reference_book(records[:whole])), cut
        assert carried(desk, encode(picture_and_rest(records, whole)), framing) == "", cut
        assert kept(desk) == expected, cut
        assert books_of(desk) == books_of(clean) and closes(desk), cut


@pytest.mark.parametrize(("framing", "encode"), FRAMINGS)
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_between_records_breaks_the_connection_or_is_rejected_and_counted(
    fast_folder: Path, framing: FramingName, encode: Encode, kind: str
) -> None:
    records = whole_events(1000)
    clean, desk = Desk(fast_folder / "clean", snapshot_every=1), Desk(fast_folder / "garbled", snapshot_every=1)
    assert carried(clean, encode(records), framing) == ""
    cut = len(encode(records[:500]))
    why = carried(desk, encode(records)[:cut] + GARBAGE[kind] + b"\n" + encode(records)[cut:], framing)
    counters = desk.engine.counters
    assert why or counters.rejected
    assert closes(desk)
    if why:
        assert counters.applied == 500
        assert carried(desk, encode(picture_and_rest(records, 500)), framing) == ""
    assert kept(desk) == kept(clean)
    assert books_of(desk) == books_of(clean)


def test_a_changed_byte_of_dbn_is_never_a_crash_and_where_the_frame_has_it_always_told(fast_folder: Path) -> None:
    records = session(1000)
    data, clean = dbn_bytes(records), Desk(fast_folder)
    assert carried(clean, data) == ""
    rnd, silent = random.Random(5), set()
    for offset in range(DBN_HEADER, len(data), 1 if ALL else 211):
        changed, field = bytearray(data), field_at(offset - DBN_HEADER)
        changed[offset] ^= rnd.randrange(1, 256)
        desk = Desk(fast_folder)
        told = carried(desk, bytes(changed)) or desk.engine.counters.rejected
        books = desk.engine._market.books
        assert closes(desk), offset
        assert told or field not in FRAME, offset
        if not told and len(books) == 1 and not any(book.anomalies for book in books.values()):
            silent |= {field} if books_of(desk) != books_of(clean) else set()
    assert silent
    assert silent <= UNPROTECTED
