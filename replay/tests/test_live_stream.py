"""What one live client gets: how much at once, from where on, and what it shares with the others."""

import contextlib
import gc
import socket
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from orderbook.book.mbo import MBO, Action
from replay.feed.cram import Response
from replay.feed.live_messages import SCHEMAS, AuthRequest, SubscriptionRequest
from replay.streamer import live_stream
from replay.streamer.derived_feed import DerivedFeed
from replay.streamer.live_stream import LiveStream, find_starts
from replay.streamer.outlet import MAX_BUFFER_BYTES, Outlet
from replay.streamer.painter import PAINTER
from replay.streamer.publication import Publication, Window
from replay.streamer.selection import Selection
from replay.tests.recordings import command, recording, session

RECORDS = session(3000)
CLX5 = 432669


@pytest.fixture
def publication() -> Publication:
    return Publication(command(paused=True), recording(RECORDS), 0)


@contextlib.contextmanager
def stream_of(*requests: SubscriptionRequest, ts_out: bool = False) -> Iterator[tuple[LiveStream, socket.socket]]:
    """Yield the stream of a client, and the client."""
    request = AuthRequest(Response("", ""), "GLBX.MDP3", "dbn", "none", ts_out, False, False)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as ours,
    ):
        yield LiveStream(request, Outlet(ours), requests), client


def test_who_gets_nothing_of_a_block_lets_the_others_on_all_the_same(publication: Publication) -> None:
    feed = DerivedFeed(RECORDS, publication.picture, publication.arrival, PAINTER)
    with stream_of() as (stream, _):
        stream._selection.add("mbo", {99})
        block = stream.block(publication, 0, 1000, feed)
        block.send(None)  # StopIteration, were it done without a pause
        with pytest.raises(StopIteration) as done:
            block.send(None)
        assert done.value.value is False


@pytest.mark.parametrize("ts_out", [False, True])
@pytest.mark.parametrize("schemas", [["mbo"], ["trades"], ["mbo", "mbp-10"], list(SCHEMAS)])
def test_a_block_fits_into_a_buffer(schemas: list[str], ts_out: bool) -> None:
    with stream_of(ts_out=ts_out) as (stream, _):
        for schema in schemas:
            stream._selection.add(schema, None)
        row_bytes = sum(stream.encoder.row_bytes(schema) for schema in schemas)
        assert 1000 < stream.block_records <= MAX_BUFFER_BYTES // row_bytes


def test_starts_are_found_in_steps_and_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stream, "_SEARCH_RECORDS", 64)
    records = session(3000)
    rng = np.random.default_rng(1)
    for name in ("ts_event", "ts_recv"):
        records[name] += rng.integers(0, 10**6, len(records)).astype(np.uint64)  # times step back
    publication = Publication(command(), recording(records), 0, window=Window(100, 2900))
    for name in ("ts_event", "ts_recv"):
        times = {0, 2**64 - 1, *(int(time) + each for time in rng.choice(records[name], 40) for each in (0, 1))}
        found = find_starts(publication, {(name, time) for time in times})
        for time in times:
            later = np.flatnonzero(records[name][100:2900] >= np.uint64(time))
            assert found[name, time] == (100 + later[0] if len(later) else 2900)


def test_clients_at_one_place_share_a_picture_until_none_holds_it(publication: Publication) -> None:
    for draw in (publication.picture, publication.arrival):
        one, other = draw(1000), draw(2000)
        assert draw(1000) is one and draw(2000) is other
    gone = weakref.ref(publication.picture(1500))
    gc.collect()
    assert gone() is None


def test_a_client_has_a_copy_of_its_own_of_what_is_small_alone(
    publication: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, chosen = publication.arrival(2000), Selection()
    chosen.add("mbo", {CLX5})
    own, books = live_stream._own_part(chosen, Publication.arrival, publication, 2000)
    assert set(own["instrument_id"]) == {CLX5} == {key.instrument_id for key in books}
    monkeypatch.setattr(live_stream, "_OWN_BYTES", 10 * MBO.itemsize)
    shared, same = live_stream._own_part(chosen, Publication.arrival, publication, 2000)
    assert shared is picture and same == books


async def test_of_a_large_picture_only_what_was_asked_for_goes_out(
    publication: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_stream, "_OWN_BYTES", 0)
    monkeypatch.setattr(live_stream, "_FILTERED_BLOCK", 7)
    chosen = Selection()
    chosen.add("mbo", {CLX5})
    with stream_of() as (stream, client), client.makefile("rb") as data:
        await stream._show(chosen, Publication.arrival, publication, 2000)
        stream._outlet.close()
        got = np.frombuffer(data.read(), MBO)
    assert got.tobytes() == chosen.take("mbo", publication.arrival(2000)).tobytes()
    assert (got["action"] == Action.CLEAR).sum() == 1


def test_a_client_of_everything_takes_more_at_once_than_one_that_chooses() -> None:
    with stream_of() as (stream, _):
        stream._selection.add("mbo", None)
        assert stream.block_records == MAX_BUFFER_BYTES // MBO.itemsize
    with stream_of() as (stream, _):
        stream._selection.add("mbo", {CLX5})
        assert stream.block_records == live_stream._FILTERED_BLOCK
