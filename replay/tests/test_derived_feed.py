"""The shared feed of derived schemas: the same records wherever one begins, computed once, within bounds."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from orderbook.book.mbo import UNDEF_PRICE, BookKey, Flags, MboArray
from orderbook.tests.records import FIRST_TS, LAST, add, record, renamed_book, stream
from replay.feed.derived import DTYPES, Derived, Deriver
from replay.feed.index import Index
from replay.streamer import derived_feed
from replay.streamer.arrivals import Arrivals
from replay.streamer.derived_feed import DerivedFeed
from replay.tests.naive_schemas import Row, as_rows, naive_schemas
from replay.tests.streams import STREAMS, index_of, session

SECOND = 1_000_000_000


@pytest.fixture
def painter() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Feed(DerivedFeed):
    """A feed that counts what it asks for."""

    def __init__(self, records: MboArray, painter: ThreadPoolExecutor, index: Index | None = None) -> None:
        self.pictures: list[int] = []
        self.arrivals = Arrivals(records, index)
        super().__init__(records, self.drawn, self.arrivals.at, painter)

    def drawn(self, position: int) -> MboArray:
        self.pictures.append(position)
        return self.arrivals.picture(position)


@pytest.fixture
async def feed(painter: ThreadPoolExecutor) -> AsyncIterator[Feed]:
    yield Feed(in_seconds(session(3, 5000)), painter)


def in_seconds(records: MboArray) -> MboArray:
    """Return the records, captured some 50 a second."""
    records["ts_recv"] = FIRST_TS + np.arange(len(records), dtype=np.uint64) * np.uint64(SECOND // 50)
    return records


def between(derived: Derived, schema: str, begin: int, stop: int) -> list[Row]:
    return [row for row in as_rows(derived.of, schema) if begin <= row["at"] < stop]


@pytest.mark.parametrize("name", STREAMS)
async def test_it_is_the_same_wherever_one_begins(name: str, painter: ThreadPoolExecutor) -> None:
    records = in_seconds(STREAMS[name]())
    whole = Deriver().derive(records)
    expected = {schema: as_rows(whole.of, schema) for schema in DTYPES}
    rng = np.random.default_rng(5)
    for begin in [0, *rng.integers(0, len(records), 8).tolist()]:
        feed = Feed(records, painter, index_of(records))  # which knows nothing yet
        stop = min(begin + int(rng.integers(1, 1500)), len(records))
        made = await feed.derived(begin, stop)
        for schema in DTYPES:
            wanted = [row for row in expected[schema] if begin <= row["at"] < stop]
            assert as_rows(made.of, schema, begin) == wanted


async def test_many_clients_at_many_places_get_the_same_as_one(feed: Feed) -> None:
    whole = Deriver().derive(feed._records)
    rng = np.random.default_rng(6)
    places = rng.integers(0, 3000, 7).tolist()
    for _ in range(60):
        client = int(rng.integers(len(places)))
        begin = places[client]
        stop = places[client] = min(begin + int(rng.integers(1, 300)), len(feed._records))
        made = await feed.derived(begin, stop, client)
        for schema in ("mbp-1", "bbo-1s"):
            assert as_rows(made.of, schema, begin) == between(whole, schema, begin, stop)
        assert len(feed._derivers) <= len(places)


async def test_a_client_that_goes_on_costs_no_picture_however_many_there_are(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived_feed, "CACHED_BYTES", 1)
    places = {client: 100 + 70 * client for client in range(64)}
    drawn = []
    for _ in range(3):
        for client, begin in places.items():
            await feed.derived(begin, begin + 10, client)
            places[client] = begin + 10
        drawn.append(len(feed.pictures))
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(feed._derivers) == len(places)


async def test_what_was_kept_for_a_client_alone_goes_with_it(feed: Feed) -> None:
    for client in ("one", "other"):
        await feed.derived(1000, 1100, client)
    await feed.derived(2000, 2100, "third")
    for client, left in (("one", {1100, 2100}), ("other", {2100}), ("third", set()), ("third", set())):
        feed.leave(client)
        await asyncio.wrap_future(feed._executor.submit(lambda: None))
        assert feed._derivers.keys() == left


async def test_the_books_of_all_derivers_are_bounded_and_the_result_is_the_same(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Deriver().derive(feed._records)
    monkeypatch.setattr(derived_feed, "CACHED_BYTES", 1)
    await feed.derived(100, 110, 0)
    [deriver] = feed._derivers.values()
    assert deriver.nbytes > 1000
    monkeypatch.setattr(derived_feed, "DERIVERS_BYTES", 3 * deriver.nbytes)
    for begin in (120, 130):
        for client in range(8):
            made = await feed.derived(begin + 100 * client, begin + 100 * client + 10, client)
            expected = between(whole, "mbp-10", begin + 100 * client, begin + 100 * client + 10)
            assert as_rows(made.of, "mbp-10", begin + 100 * client) == expected
            assert 1 <= len(feed._derivers) <= 3


async def test_a_block_is_computed_once_for_all(feed: Feed) -> None:
    made = await asyncio.gather(*(feed.derived(1000, 2000) for _ in range(5)))
    again = await feed.derived(1000, 2000)
    assert len(feed.pictures) == 1
    for schema in ("mbp-10", "mbp-1"):
        assert all(np.shares_memory(one.of(schema).records, again.of(schema).records) for one in made)


async def test_who_goes_on_costs_no_picture_and_who_cuts_otherwise_neither(feed: Feed) -> None:
    whole = Deriver().derive(feed._records)
    for begin in range(1000, 2000, 100):
        await feed.derived(begin, begin + 100)
    assert len(feed.pictures) == 1
    for begin, stop in ((1000, 2000), (1050, 1060), (1099, 1301), (1950, 2100)):
        made = await feed.derived(begin, stop)
        for schema in DTYPES:
            assert as_rows(made.of, schema, begin) == between(whole, schema, begin, stop)
    assert len(feed.pictures) == 1


async def test_what_is_kept_is_bounded(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived_feed, "CACHED_BYTES", 1 << 19)
    for begin in range(0, 5000, 500):
        await feed.derived(begin, begin + 500)
        assert 0 < feed._blocks._nbytes <= 1 << 19
        assert feed._blocks._nbytes == sum(block.derived.nbytes for block in feed._blocks._blocks.values())
    monkeypatch.setattr(derived_feed, "CACHED_BLOCKS", 3)
    for begin in range(0, 400, 50):
        await feed.derived(begin, begin + 50)
    assert len(feed._blocks._blocks) == 3
    monkeypatch.setattr(derived_feed, "CACHED_BYTES", 1)
    assert len((await feed.derived(0, 1000)).of("mbp-10").records)
    assert len(feed._blocks._blocks) == 1


async def test_nothing_is_nothing(feed: Feed, painter: ThreadPoolExecutor) -> None:
    for schema, kind in DTYPES.items():
        made = (await feed.derived(7, 7)).of(schema)
        assert (len(made.positions), len(made.records), made.records.dtype) == (0, 0, kind)
    empty = Feed(feed._records[:0], painter)
    assert {len(rows) for rows in (await empty.arrival(0)).values()} == {0}


# arrivals


@pytest.mark.parametrize("position", [1, 2500, 4999, 5000])
async def test_an_arrival_tells_of_every_book_what_an_uninterrupted_client_has(feed: Feed, position: int) -> None:
    arrived = await feed.arrival(position)
    naive = naive_schemas(feed._records[:position])["mbp-10"]
    newest = {row["instrument_id"]: row for row in naive if chr(row["action"]) != "T"}
    ids = np.unique(feed._records["instrument_id"]).tolist()
    for schema in ("mbp-1", "mbp-10", "bbo-1s"):
        assert sorted(arrived[schema]["instrument_id"].tolist()) == ids
        assert (arrived[schema]["flags"] & 0xA0 == 0xA0).all()
    for row in arrived["mbp-10"]:
        known = newest.get(row["instrument_id"])
        if known is None:
            assert (chr(row["action"]), row["bid_ct_00"], row["ask_ct_00"]) == ("R", 0, 0)
            continue
        for name in row.dtype.names[14:]:
            assert row[name] == known[name]
    made = await feed.derived(position, 5000)
    whole = Deriver().derive(feed._records)
    assert as_rows(made.of, "mbp-10", position) == between(whole, "mbp-10", position, 5000)


@pytest.mark.parametrize("name", STREAMS)
async def test_an_arrival_is_the_same_whoever_was_there_before(name: str, painter: ThreadPoolExecutor) -> None:
    records = in_seconds(STREAMS[name]())
    followed = Feed(records, painter, index_of(records))
    position = 0
    for part in np.array_split(records, 12):
        stop = position + len(part)
        await followed.derived(position, stop)
        position = stop
        arrived = await followed.arrival(position)
        alone = await Feed(records, painter, index_of(records)).arrival(position)
        for schema in DTYPES:
            assert arrived[schema].tobytes() == alone[schema].tobytes(), (schema, position)


async def test_an_arrival_is_a_clear_with_the_times_of_the_book(painter: ThreadPoolExecutor) -> None:
    records = in_seconds(stream(add("B", 100, 5, 1), record("T", "A", 100, 2), record("N"), add("B", 99, 1, 2)))
    arrived = await Feed(records, painter).arrival(3)
    for schema in ("mbp-1", "mbp-10"):
        [row] = arrived[schema]
        assert (chr(row["action"]), chr(row["side"]), row["price"], row["size"]) == ("R", "N", UNDEF_PRICE, 0)
        assert (row["flags"], row["depth"], row["bid_px_00"]) == (Flags.SNAPSHOT | Flags.LAST, 0, 100)
        for field in ("ts_event", "ts_recv", "sequence"):
            assert row[field] == records[2][field]


async def test_an_arrival_inside_an_event_tells_the_book_of_before_it(painter: ThreadPoolExecutor) -> None:
    records = stream(add("B", 100, 5, 1), add("B", 101, 5, 2, flags=0), add("B", 102, 5, 3), record("N"))
    feed = Feed(records, painter)
    assert (await feed.arrival(2))["mbp-1"]["bid_px_00"].tolist() == [100]
    assert as_rows((await feed.derived(2, 4)).of, "mbp-1", 2)[0]["bid_px_00"] == 102


async def test_at_the_beginning_every_book_is_cleared(feed: Feed) -> None:
    arrived = await feed.arrival(0)
    assert {chr(row["action"]) for row in arrived["mbp-1"]} == {"R"}
    assert len(arrived["mbp-1"]) == 3
    assert (arrived["bbo-1s"]["bid_ct_00"] == 0).all()


async def test_the_last_sale_of_each_book_is_known_after_a_jump(painter: ThreadPoolExecutor) -> None:
    one = stream(add("B", 100, 5, 1), record("T", "A", 100, 2), *(record("N", flags=LAST) for _ in range(400)))
    other = renamed_book(one[:1], BookKey(1, 7))
    records = in_seconds(np.concatenate([one, other, stream(record("N"))]))
    arrived = (await Feed(records, painter).arrival(len(records)))["bbo-1s"]
    assert {row["instrument_id"]: row["size"] for row in arrived} == {432669: 2, 7: 0}


async def test_all_samples_of_an_arrival_are_of_one_second(painter: ThreadPoolExecutor) -> None:
    inside = renamed_book(stream(add("B", 90, 1, 9, flags=0)), BookKey(1, 7))
    records = np.concatenate([inside, stream(add("B", 100, 5, 1), add("B", 101, 5, 2))])
    start = FIRST_TS // SECOND * SECOND
    records["ts_recv"] = [start + 1, start + 5 * SECOND + 1, start + 3 * SECOND]  # times may step back
    samples = (await Feed(records, painter).arrival(3))["bbo-1s"]
    assert samples["ts_recv"].tolist() == [start + 5 * SECOND] * 2
