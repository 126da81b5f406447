"""Going on from a mark, in steps without sockets: what is stored before it and what is behind it are one run."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from engine_worker.catch_up import Astray
from engine_worker.ledger import Ledger
from engine_worker.mark import Mark, MarkDamaged, first_mark, packed, unpacked
from engine_worker.resumption import Known, Resumption
from engine_worker.tests.builders import Desk, blank, clear, interleaved, pieces, rows, session
from engine_worker.trail import Spot, Trail
from orderbook.book.digest import market_hash
from orderbook.book.market import BookKind, make_market
from orderbook.book.mbo import UNDEF_CHANNEL, Action, BookKey, Flags, MboArray
from orderbook.book.snapshot import BookSnapshot
from replay.streamer.live_stream import _snapshot, find_starts
from replay.streamer.publication import Publication
from replay.tests.recordings import command, recording

NAMES = {7: "CLX5", 8: "ESZ5", 9: "GCZ5"}
WHOLE = (7, 8, 9)
REPLAY = 5


class Marks(Ledger):
    """A ledger on which every mark is at once durable, with what was stored by then."""

    def __init__(self, desk: Desk, left: Mark | None = None) -> None:
        self.made: list[tuple[Mark, int]] = []
        self.again: list[Mark] = []
        self._desk, self._left = desk, left

    def load(self, stop: Event) -> Mark | None:
        return self._left

    def offer(self, mark: Mark) -> None:
        self.made.append((unpacked(packed(mark)), len(self._desk.snapshots)))

    def resumed(self, mark: Mark) -> None:
        self.again.append(mark)


class Feed:
    """A gateway's answers, made of a recording: where a subscription begins, and what comes from there."""

    def __init__(self, records: MboArray, own: Sequence[int] = WHOLE) -> None:
        self.records = records
        self._own = own
        self._publication = Publication(command(replay_id=REPLAY), recording(records, NAMES), 0)

    def place(self, start_ns: int) -> int:
        return find_starts(self._publication, {("ts_event", start_ns)})["ts_event", start_ns]

    def since(self, place: int, end: int | None = None) -> MboArray:
        """Return the picture of a place, and what comes behind it."""
        stream = np.concatenate((_snapshot(self._publication, place), self.records[place:end]))
        return stream[np.isin(stream["instrument_id"], self._own)]

    def taken_back(self) -> MboArray:
        """Return what takes the picture of a replay that had ended back, when another one begins."""
        return self._publication.clears([BookKey(1, number) for number in self._own])

    def jump(self, place: int, end: int | None = None) -> MboArray:
        """Return what a client gets that is brought to another place."""
        stream = np.concatenate((self._publication.arrival(place), self.records[place:end]))
        return stream[np.isin(stream["instrument_id"], self._own)]


def uneven(seed: int) -> MboArray:
    """Return three instruments, the third born late, whose venue times stand still and step back.

    With clears and a picture of the recording's own, and records that are there twice, byte for byte.
    """
    parts = [session(500, seed=seed + number, instrument_id=7 + number) for number in range(3)]
    parts[2]["ts_event"] += np.uint64(300_001)
    parts[2]["ts_recv"] += np.uint64(300_001)
    records = interleaved(*parts)
    rng = np.random.default_rng(seed)
    records["ts_event"] -= records["ts_event"] % np.uint64(5000)
    records["ts_event"] -= np.where(rng.random(len(records)) < 0.05, 12_000, 0).astype(np.uint64)
    for place in rng.integers(200, len(records) - 20, 3).tolist():
        records[place] = clear(sequence=int(records["sequence"][place]), instrument_id=7)[0]
        records["channel_id"][place] = 3
    picture = int(rng.integers(300, 1200))
    records["flags"][picture : picture + 9] |= np.uint8(Flags.SNAPSHOT)
    for place in rng.integers(100, len(records) - 2, 40).tolist():
        records[place + 1] = records[place]
    return records


def desk_of(folder: Path, left: Mark | None = None, **rule: Any) -> tuple[Desk, Marks]:
    desk = Desk(folder, NAMES, **rule)
    marks = Marks(desk, left)
    desk.engine.resumption = Resumption(marks)
    desk.engine.resumption.load(Event())
    desk.engine.begin(NAMES.get)
    return desk, marks


def undisturbed(folder: Path, feed: Feed, **rule: Any) -> Desk:
    desk, _ = desk_of(folder, **rule)
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(0))
    desk.engine.end()
    return desk


def killed(folder: Path, feed: Feed, seed: int, until: int, **rule: Any) -> tuple[Mark, list[BookSnapshot]]:
    """Return a mark of an engine that was killed somewhere, and the snapshots before it."""
    desk, marks = desk_of(folder, **rule)
    assert desk.engine.resumption.known() == Known(0, 0)
    desk.engine.follows(REPLAY)
    desk.feed(*pieces(feed.since(0, until), seed), wait_ms=300)
    mark, stored = random.Random(seed).choice(marks.made)
    return mark, desk.snapshots[:stored]


def resumed(folder: Path, feed: Feed, mark: Mark, seed: int, **rule: Any) -> Desk:
    """Return the desk of an engine that goes on from a mark, to the end of the replay."""
    desk, marks = desk_of(folder, mark, **rule)
    known = desk.engine.resumption.known()
    assert mark.spot is not None and known == Known(REPLAY, mark.spot.ts_event)
    desk.engine.follows(REPLAY)
    desk.feed(*pieces(feed.since(feed.place(mark.spot.ts_event)), seed + 1), wait_ms=300)
    desk.engine.end()
    assert [made.replay_id for made in marks.again] == [REPLAY]
    return desk


@pytest.mark.parametrize("kind", ["kernel", "reference"])
@pytest.mark.parametrize(("every", "ms"), [(0, 0), (1, 0), (7, 0), (7, 1), (1000, 0), (1000, 1)])
def test_what_is_stored_before_and_behind_a_mark_is_one_undisturbed_run(
    tmp_path: Path, every: int, ms: int, kind: BookKind
) -> None:
    rule: dict[str, Any] = {"snapshot_every": every, "snapshot_ms": ms, "book": kind, "depth": 3}
    for seed in range(4 if kind == "kernel" else 1):
        feed = Feed(uneven(seed), WHOLE if seed % 2 else (7, 9))
        whole = undisturbed(tmp_path / "whole", feed, **rule)
        mark, before = killed(tmp_path / "killed", feed, seed, 400 + 300 * seed, **rule)
        behind = resumed(tmp_path / "resumed", feed, mark, seed, **rule)
        assert rows(before) + rows(behind.snapshots) == rows(whole.snapshots), (seed, mark.spot)
        assert behind.engine.shown.records == whole.engine.shown.records
        assert market_hash(behind.engine._market.books.items()) == market_hash(whole.engine._market.books.items())
        counters = behind.engine.counters
        assert counters.received == counters.applied and counters.runs == 1


def test_a_connection_that_breaks_is_gone_on_with_at_exactly_that_record(tmp_path: Path) -> None:
    feed = Feed(uneven(3))
    whole = undisturbed(tmp_path / "whole", feed, snapshot_every=7)
    desk, _ = desk_of(tmp_path, snapshot_every=7)
    begin, rnd = 0, random.Random(1)
    stream = feed.since(0)
    while True:
        desk.engine.follows(REPLAY)
        cut = rnd.randrange(1, 900)
        desk.feed(*pieces(stream[:cut], begin))
        if cut >= len(stream):
            break
        desk.engine.resumption.interrupted(desk.engine._run)
        desk.engine.begin(NAMES.get)
        known = desk.engine.resumption.known()
        stream = feed.since(0 if known == Known(0, 0) else feed.place(known.start_ns or 0))
    desk.engine.end()
    assert rows(desk.snapshots) == rows(whole.snapshots)
    assert desk.engine.counters.runs == 1
    assert len((tmp_path / "benchmarks.jsonl").read_text().splitlines()) == 1


def marked(folder: Path, feed: Feed, until: int, **rule: Any) -> Mark:
    desk, marks = desk_of(folder, **rule)
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(0, until))
    return marks.made[-1][0]


def test_a_mark_at_the_last_record_leaves_the_snapshots_of_the_end_to_be_taken(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    whole = undisturbed(tmp_path / "whole", feed, snapshot_every=1000)
    mark = marked(tmp_path / "killed", feed, len(feed.records), snapshot_every=1000)
    behind = resumed(tmp_path / "resumed", feed, mark, 1, snapshot_every=1000)
    assert rows(behind.snapshots) == rows(whole.snapshots)[-3:]


@pytest.mark.parametrize("change", ["another record", "no such time", "set back", "sent elsewhere"])
def test_a_stream_that_does_not_lead_to_the_mark_is_had_from_its_beginning(tmp_path: Path, change: str) -> None:
    feed = Feed(uneven(2))
    mark = marked(tmp_path / "killed", feed, 1000)
    assert mark.spot is not None
    stream = feed.since(feed.place(mark.spot.ts_event))
    match change:
        case "another record":
            mark = replace(mark, spot=mark.spot._replace(record=feed.records[0].tobytes()))
        case "no such time":
            stream = stream[:0]
        case "set back":
            mark = replace(mark, spot=mark.spot._replace(since_ns=mark.spot.ts_event + 1))
        case "sent elsewhere":
            stream = np.concatenate((feed.since(300, 500), feed.jump(200)))
    desk, _ = desk_of(tmp_path, mark)
    desk.engine.follows(REPLAY)
    with pytest.raises(Astray):
        desk.feed(*pieces(stream, 1))
        desk.engine.end()
    desk.engine.resumption.interrupted(desk.engine._run)
    desk.engine.begin(NAMES.get)
    counters = desk.engine.counters
    assert counters.received == counters.applied + counters.ignored
    assert desk.snapshots == [] and desk.engine.resumption.known() == Known(0, 0)
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(0))
    desk.engine.end()
    assert rows(desk.snapshots) == rows(undisturbed(tmp_path / "whole", feed).snapshots)


def test_a_replay_that_was_had_to_its_end_is_not_asked_for_again(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    desk, marks = desk_of(tmp_path)
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(0))
    desk.engine.end()
    mark, stored = marks.made[-1]
    assert mark.is_over and stored == len(desk.snapshots)
    for again in (desk, desk_of(tmp_path / "next", mark)[0]):
        again.engine.begin(NAMES.get)
        assert again.engine.resumption.known() == Known(REPLAY, None)
        count = len(again.snapshots)
        again.feed(feed.since(len(feed.records)))
        again.engine.follows(REPLAY + 1)
        again.feed(feed.taken_back(), feed.since(0))
        again.engine.end()
        assert rows(again.snapshots[count:]) == rows(desk.snapshots[:stored])


def test_a_replay_without_a_record_for_us_is_over_too(tmp_path: Path) -> None:
    desk, marks = desk_of(tmp_path)
    desk.engine.follows(REPLAY)
    desk.engine.end()
    assert [mark.is_over for mark, _ in marks.made] == [True]
    assert desk.engine.resumption.known() == Known(REPLAY, None)


def test_an_engine_that_has_reached_max_msgs_takes_no_more_of_that_replay_after_a_restart(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    desk, marks = desk_of(tmp_path, max_msgs=500)
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(0, 900))
    assert len(desk.snapshots) > 1 and marks.made[-1][0].is_over
    after, _ = desk_of(tmp_path, marks.made[-1][0], max_msgs=500)
    assert after.engine.resumption.known() == Known(REPLAY, None)
    after.engine.follows(REPLAY)
    after.feed(feed.since(900))
    after.engine.end()
    assert after.snapshots == [] and len((tmp_path / "benchmarks.jsonl").read_text().splitlines()) == 1
    counters = after.engine.counters
    assert counters.ignored > 0 and counters.received == counters.applied + counters.ignored


def test_a_mark_beyond_max_msgs_leaves_no_room_and_no_count_below_none(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    mark = marked(tmp_path / "killed", feed, 1000)
    assert mark.spot is not None
    desk, _ = desk_of(tmp_path, mark, max_msgs=500)
    desk.engine.follows(REPLAY)
    had = feed.since(feed.place(mark.spot.ts_event), 1000)
    desk.feed(had, feed.records[1000:])
    counters = desk.engine.counters
    assert (counters.applied, counters.ignored) == (len(had), len(feed.records) - 1000)
    assert desk.engine.shown.finished and desk.engine.shown.records == 1000


def test_nothing_is_stored_of_a_replay_that_was_had_whatever_the_gateway_sends_of_it(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    mark = replace(marked(tmp_path / "killed", feed, 1000), spot=None)
    desk, _ = desk_of(tmp_path, mark)
    desk.engine.follows(REPLAY)
    desk.feed(*pieces(feed.since(0), 1))
    desk.engine.end()
    assert desk.snapshots == [] and desk.engine.counters.snapshots == 0
    assert market_hash(desk.engine._market.books.items()) == books_at_end(feed)


def books_at_end(feed: Feed) -> str:
    market = make_market("kernel")
    market.apply(feed.records)
    return market_hash(market.books.items())


def test_a_replay_that_is_named_while_another_is_being_caught_up_with_ends_that(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    resumption = Resumption(Marks(Desk(tmp_path), marked(tmp_path / "killed", feed, 1000)))
    resumption.load(Event())
    assert resumption.follows(REPLAY) is not None and resumption.is_catching_up
    assert resumption.follows(REPLAY + 1) is None and not resumption.is_catching_up


def test_a_run_knows_the_number_of_its_replay_and_none_where_none_was_told(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    mark = marked(tmp_path / "killed", feed, 1000)
    assert undisturbed(tmp_path / "whole", feed).engine.shown.replay_id == REPLAY
    assert resumed(tmp_path / "resumed", feed, mark, 1).engine.shown.replay_id == REPLAY
    desk = Desk(tmp_path, NAMES)
    desk.feed(feed.since(0))
    assert desk.engine.shown.replay_id == 0


def test_max_msgs_counts_what_was_applied_before_the_mark_and_not_the_way_back_to_it(tmp_path: Path) -> None:
    records = uneven(1)
    records["ts_event"][40] += np.uint64(10**9)  # the way back begins there, with a picture of 40 orders and clears
    feed, limit = Feed(records), {"max_msgs": 1191, "snapshot_every": 7}
    whole = undisturbed(tmp_path / "whole", feed, **limit)
    mark = marked(tmp_path / "killed", feed, 1190, **limit)
    assert mark.records == 1190 and mark.spot is not None and feed.place(mark.spot.ts_event) == 40
    behind = resumed(tmp_path / "resumed", feed, mark, 4, **limit)
    assert rows(behind.snapshots) == rows(whole.snapshots)[-len(behind.snapshots) :]
    assert market_hash(behind.engine._market.books.items()) == market_hash(whole.engine._market.books.items())
    assert behind.engine.shown.records == 1191


def test_an_engine_without_a_ledger_takes_the_present_and_goes_on_only_within_its_life(tmp_path: Path) -> None:
    feed = Feed(uneven(1))
    desk = Desk(tmp_path, NAMES, snapshot_every=7)
    assert desk.engine.resumption.known() == Known(0, None)
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(500, 1000))
    desk.engine.resumption.interrupted(desk.engine._run)
    desk.engine.begin(NAMES.get)
    known = desk.engine.resumption.known()
    assert known.replay_id == REPLAY and known.start_ns is not None
    desk.engine.follows(REPLAY)
    desk.feed(feed.since(feed.place(known.start_ns)))
    desk.engine.end()
    alone = Desk(tmp_path / "alone", NAMES, snapshot_every=7)
    alone.feed(feed.since(500))
    alone.engine.end()
    assert rows(desk.snapshots) == rows(alone.snapshots)


@pytest.mark.parametrize("is_first", [False, True])
def test_a_feed_that_does_not_say_what_it_brings_is_taken_as_it_comes(tmp_path: Path, is_first: bool) -> None:
    feed = Feed(uneven(1))
    mark = first_mark(None) if is_first else marked(tmp_path / "killed", feed, 1000)
    desk, marks = desk_of(tmp_path, mark)
    desk.feed(feed.since(700), wait_ms=300)
    desk.engine.end()
    assert len(desk.snapshots) > 3 and marks.made == []
    assert (tmp_path / "benchmarks.jsonl").exists()


def test_names_and_ticks_are_those_of_the_run_that_is_gone_on_with(tmp_path: Path) -> None:
    names = {7: "CLX5", 9: "CLX5"}
    feed = Feed(uneven(2), (7, 9))
    desk, marks = desk_of(tmp_path, snapshot_every=7)
    desk.engine.begin(names.get)
    desk.engine.follows(REPLAY)
    late_first = np.concatenate((feed.records[feed.records["instrument_id"] == 9][:60], feed.since(0, 900)))
    desk.feed(late_first)
    before = {snapshot.key: (snapshot.symbol, snapshot.tick) for snapshot in desk.snapshots}
    after, _ = desk_of(tmp_path / "after", marks.made[-1][0], snapshot_every=7)
    after.engine.begin(names.get)
    after.engine.follows(REPLAY)
    spot = marks.made[-1][0].spot
    assert spot is not None and before[BookKey(1, 9)][0] == "CLX5"
    after.feed(feed.since(feed.place(spot.ts_event)))
    assert {snapshot.key: (snapshot.symbol, snapshot.tick) for snapshot in after.snapshots} == before


def test_a_damaged_mark_or_one_of_another_version_is_never_taken_for_one(tmp_path: Path) -> None:
    mark = marked(tmp_path, Feed(uneven(1)), 1000)
    data = packed(mark)
    again = unpacked(data)
    assert (again.spot, again.records, again.names) == (mark.spot, mark.records, mark.names)
    assert (again.states == mark.states).all()
    for place in range(len(data)):
        with pytest.raises(MarkDamaged):
            unpacked(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(MarkDamaged):
            unpacked(data[:place])


def test_a_trail_tells_the_first_of_the_latest_plain_records_however_the_stream_is_cut() -> None:
    for seed in range(5):
        records = uneven(seed)
        records["ts_event"][200:204] = 2**64 - 1  # no time at all
        records["ts_event"][records["flags"] & Flags.SNAPSHOT != 0] += np.uint64(10**6)  # of no plain record
        whole, cut = Trail(is_whole=True), Trail(is_whole=True)
        done = 0
        for part in pieces(records, seed):
            cut.took(part)
            done += len(part)
            seen = records[:done]
            is_plain = (seen["flags"] & Flags.SNAPSHOT == 0) & (seen["ts_event"] < 2**63)
            if is_plain.any():
                latest = seen["ts_event"][is_plain].max()
                first = int((is_plain & (seen["ts_event"] == latest)).argmax())
                assert cut.spot == Spot(0, int(latest), records[first].tobytes(), done - first)
        whole.took(records)
        assert whole.spot == cut.spot


def test_a_jump_begins_a_trail_anew() -> None:
    records = session(400)
    jump = blank(3)
    jump["action"], jump["flags"], jump["channel_id"] = Action.ADD, Flags.SNAPSHOT, UNDEF_CHANNEL
    jump["action"][0], jump["ts_event"] = Action.CLEAR, records["ts_event"][99]
    trail = Trail(is_whole=True)
    trail.took(np.concatenate((records, jump)))
    assert trail.spot is None
    trail.took(records[100:150])
    first = int(records["ts_event"][100])
    assert trail.spot == Spot(first, int(records["ts_event"][149]), records[149].tobytes(), 1)
