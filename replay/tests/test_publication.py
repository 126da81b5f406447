"""The clock of one run, with the time given: what is released, where clients go, and the books that they then have."""

import gc
import random
from collections.abc import Iterator

import numpy as np
import pytest

from orderbook.book.digest import market_hash
from orderbook.book.market import make_market
from orderbook.book.mbo import Action, Flags, MboArray
from replay.feed.marks import latest
from replay.feed.pacing import SECOND_NS
from replay.simulator import simulate
from replay.streamer import shadow
from replay.streamer.messages import Pace, ReplayState, StartCommand
from replay.streamer.publication import WINDOW_RECORDS, Publication, Window
from replay.streamer.shadow import Shadow
from replay.streamer.stretch import Cursor, Jump, Over, Send, Wait
from replay.tests.recordings import books, command, recording, session
from replay.tests.streams import eventful, index_of

MS = 1_000_000
BLOCK = 64


def publication(pace: Pace, count: int = 20_000) -> Publication:
    return Publication(command(pace), recording(np.tile(session(1000), count // 1000)), now_ns=0)


def run_of(records: MboArray, order: StartCommand, window: Window | None = None) -> Publication:
    return Publication(order, recording(records), 0, index_of(records) if len(records) else None, window)


def play(run: Publication, start_ns: int, duration_ns: int) -> None:
    for now_ns in range(start_ns, start_ns + duration_ns + 1, 5 * MS):
        run.advance(now_ns, None)


def hash_at(records: MboArray, position: int) -> str:
    market = make_market("kernel")
    market.apply(records[:position])
    return market_hash(market.books.items())


class Follower:
    """A client without a socket: it keeps what it gets, and rebuilds the books."""

    def __init__(self, run: Publication) -> None:
        self.run, self.cursor = run, run.join()
        self.market = make_market("kernel")
        self.got: list[tuple[int, int]] = []
        self.arrived: list[int] = []
        if self.cursor.position:
            self.market.apply(run.picture(self.cursor.position))

    def move(self) -> bool:
        """Make one move; False when there is none to make."""
        match self.run.next_move(self.cursor, BLOCK):
            case Send(begin, stop):
                assert begin == self.cursor.position < stop <= (begin // BLOCK + 1) * BLOCK
                self.market.apply(self.run.recording.records[begin:stop])
                self.got.append((begin, stop))
                self.cursor.position = stop
            case Jump() as jump:
                self.cursor.jump(jump)
                self.arrived.append(jump.position)
                self.market.apply(self.run.arrival(jump.position))
            case Wait() | Over():
                return False
        return True

    def follow(self) -> "Follower":
        while self.move():
            pass
        return self

    @property
    def hash(self) -> str:
        return market_hash(self.market.books.items())

    @property
    def records(self) -> list[int]:
        """The numbers of the records that it got."""
        return [number for begin, stop in self.got for number in range(begin, stop)]


def test_the_achieved_rate_is_the_asked_one() -> None:
    run = publication({"records_per_s": 4000})
    play(run, 0, 3 * SECOND_NS)
    assert run.achieved_per_s(3 * SECOND_NS) == 4000


def test_a_clock_that_was_held_up_says_so() -> None:
    run = publication({"records_per_s": 4000})
    play(run, 0, SECOND_NS)
    assert run.achieved_per_s(2 * SECOND_NS) == 2000
    assert run.achieved_per_s(3 * SECOND_NS) == 0, "nothing went out for two seconds"


def test_the_achieved_rate_is_that_of_the_last_two_seconds_and_none_after_the_end() -> None:
    run = publication({"records_per_s": 1000})
    play(run, 0, 2 * SECOND_NS)
    run.change_pace({"records_per_s": 100}, None, 2 * SECOND_NS)
    play(run, 2 * SECOND_NS, 2 * SECOND_NS)
    assert run.achieved_per_s(4 * SECOND_NS) == 100
    run.finish(run.state.STOPPED)
    assert run.achieved_per_s(4 * SECOND_NS) == 0


def test_a_paused_replay_achieves_nothing_and_a_resumed_one_does_not_count_the_pause() -> None:
    run = publication({"records_per_s": 1000})
    play(run, 0, SECOND_NS)
    run.pause(SECOND_NS)
    assert run.achieved_per_s(SECOND_NS) == 0
    run.resume(60 * SECOND_NS)
    play(run, 60 * SECOND_NS, SECOND_NS)
    assert run.achieved_per_s(61 * SECOND_NS) == 1000


def test_at_max_nobody_is_further_ahead_of_the_slowest_client_than_the_window() -> None:
    run = publication("max", 4 * WINDOW_RECORDS)
    assert not run.advance(0, None)
    for slowest in (0, 5, WINDOW_RECORDS):
        assert run.advance(0, slowest)
        assert run.released == slowest + WINDOW_RECORDS
        assert not run.advance(SECOND_NS, slowest)


def test_at_max_the_window_is_counted_over_jumps_and_rounds() -> None:
    run = Publication(command("max", loop=True), recording(np.tile(session(1000), 100)), 0)
    slow = run.join()
    run.advance(0, slow.published)
    run.seek(99_500, 0)
    assert not run.advance(0, slow.published)
    slow.jump(Jump(run.stretch))
    assert run.advance(0, slow.published)
    assert run.loops == 1 and run.published == 2 * WINDOW_RECORDS
    assert not run.advance(0, slow.published)


def test_a_picture_is_the_same_however_long_the_steps_to_it_are(monkeypatch: pytest.MonkeyPatch) -> None:
    records = session(1000)
    monkeypatch.setattr(shadow, "_STEP_RECORDS", 7)
    drawn = Shadow(records)
    for position in (0, 1, 500, 700, 14, 1000):
        assert books(drawn.picture(position)) == books(records[:position])


@pytest.mark.parametrize("pace", [{"records_per_s": 1000}, {"market_time": 50}])
def test_a_pause_loses_nothing_and_repeats_nothing(pace: Pace) -> None:
    records = eventful(3)
    run = run_of(records, command(pace))
    follower = Follower(run)
    now_ns = 0
    while run.active:
        play(run, now_ns, 300 * MS)
        now_ns += 300 * MS
        run.pause(now_ns)
        released = run.released
        play(run, now_ns, SECOND_NS)
        assert run.released == released
        follower.follow()
        now_ns += SECOND_NS
        run.resume(now_ns)
    assert follower.follow().records == list(range(len(records)))
    assert follower.arrived == []
    assert isinstance(run.next_move(follower.cursor, BLOCK), Over)


def test_a_pause_in_the_middle_of_a_gap_leaves_the_rest_of_it_whatever_is_changed_meanwhile() -> None:
    records = session(3)
    records["ts_recv"] = 10**18 + np.arange(3, dtype=np.uint64) * np.uint64(10 * SECOND_NS)
    run = Publication(command({"market_time": 1}), recording(records), 0)
    run.advance(0, None)
    run.pause(4 * SECOND_NS)
    for now_s in (10, 20, 30):
        run.change_pace({"market_time": now_s // 10}, None, now_s * SECOND_NS)
    run.resume(40 * SECOND_NS)
    run.advance(42 * SECOND_NS - 1, None)
    assert run.released == 1
    run.advance(42 * SECOND_NS, None)
    assert run.released == 2, "what was left, 6 s, at three times the pace"


def test_a_pace_changed_in_flight_gives_neither_a_gap_nor_a_burst() -> None:
    records = np.tile(session(1000), 10)
    records["ts_recv"] = records["ts_recv"][0] + np.arange(len(records), dtype=np.uint64) * np.uint64(MS)
    run = Publication(command({"records_per_s": 1000}), recording(records), 0)
    paces: list[tuple[Pace, int]] = [
        ({"records_per_s": 50}, 50),
        ({"market_time": 1}, 1000),
        ({"market_time": 0.1}, 100),
        ({"records_per_s": 2000}, 2000),
        ({"market_time": 3}, 3000),
    ]
    play(run, 0, SECOND_NS)
    for second, (pace, expected) in enumerate(paces, start=1):
        now_ns = second * SECOND_NS + 3 * MS
        play(run, now_ns - 3 * MS, 3 * MS)
        run.change_pace(pace, None, now_ns)
        counts = [run.released]
        for step in range(500):
            run.advance(now_ns + step * 2 * MS, None)
            counts.append(run.released)
        steps = np.diff(counts)
        assert steps[0] <= 1
        assert steps.max() <= expected // 500 + 1
        assert counts[-1] - counts[0] == pytest.approx(expected, abs=expected // 100 + 2)


@pytest.fixture(params=[1, 3])
def records(request: pytest.FixtureRequest) -> MboArray:
    return eventful(request.param)


@pytest.mark.parametrize("paused", [True, False])
def test_after_any_seek_a_followers_books_are_those_of_an_uninterrupted_run(records: MboArray, paused: bool) -> None:
    run = run_of(records, command({"records_per_s": 1000}, paused=paused))
    follower, now_ns = Follower(run), 0
    inside = int(np.flatnonzero(records["flags"][3000:] & Flags.LAST == 0)[0]) + 3001
    for position in (4000, 100, inside, 0, 1, len(records) - 500, 2, inside + 1, 3):
        run.seek(position, now_ns)
        assert follower.follow().hash == hash_at(records, position)
        assert follower.cursor.position == position == run.released
        play(run, now_ns, 200 * MS)
        now_ns += 200 * MS
        assert run.released == position + (0 if paused else 200)
        assert follower.follow().hash == hash_at(records, run.released)
    run.resume(now_ns)
    play(run, now_ns, 7 * SECOND_NS)
    assert run.state == ReplayState.DONE
    assert follower.follow().hash == hash_at(records, len(records))


def test_an_arrival_inside_an_event_leaves_it_open_and_the_records_that_follow_complete_it() -> None:
    records = session(3000, instruments=1)
    inside = int(np.flatnonzero(records["flags"][:-1] == 0)[5]) + 1
    run = run_of(records, command("max", paused=True))
    follower = Follower(run)
    run.seek(inside, 0)
    follower.follow()
    (book,) = follower.market.books.values()
    assert not book.at_event_end
    run.step_to(inside + 1, 0)
    assert follower.follow().hash == hash_at(records, inside + 1)
    assert book.at_event_end == bool(records["flags"][inside] & Flags.LAST)


def test_an_arrival_clears_the_books_that_do_not_exist_there_yet() -> None:
    records = eventful(3)
    born = {int(tag): int(np.flatnonzero(records["instrument_id"] == tag)[0]) for tag in set(records["instrument_id"])}
    late = max(born, key=lambda tag: born[tag])
    run = run_of(records, command("max"))
    follower = Follower(run)
    run.advance(0, 0)
    follower.follow()
    position = born[late]
    run.seek(position, 0)
    clears = run.arrival(position)[: len(born)]
    late_ones = clears[clears["instrument_id"] == late]
    assert set(late_ones["action"]) == {Action.CLEAR}
    assert set(late_ones["flags"]) == {Flags.SNAPSHOT | Flags.LAST}
    assert follower.follow().hash == hash_at(records, position)


def test_an_arrival_at_the_start_is_a_plain_clear_of_every_book() -> None:
    records = session(1000)
    arrival = run_of(records, command("max")).arrival(0)
    assert arrival["instrument_id"].tolist() == sorted(set(records["instrument_id"].tolist()))
    assert set(arrival["action"]) == {Action.CLEAR} and set(arrival["flags"]) == {Flags.LAST}
    assert set(arrival["sequence"]) == {0}
    assert set(arrival["ts_event"]) == {records[0]["ts_event"]}


def test_of_several_seeks_before_a_slow_client_looks_it_makes_only_the_last() -> None:
    records = eventful(3)
    run = run_of(records, command({"records_per_s": 1000}))
    play(run, 0, SECOND_NS)
    follower = Follower(run)
    play(run, SECOND_NS, SECOND_NS)
    for position in (10, 5000, 3333):
        run.seek(position, 2 * SECOND_NS)
        play(run, 2 * SECOND_NS, 100 * MS)
    assert follower.follow().arrived == [3333]
    assert follower.got[0] == (3333, 3392), "what was left of the stretches before is not sent"
    assert follower.hash == hash_at(records, run.released)


def test_a_round_that_ended_is_sent_whole_before_a_client_goes_on_to_the_next() -> None:
    records = session(500)
    run = run_of(records, command({"records_per_s": 1000}, loop=True))
    follower = Follower(run)
    play(run, 0, 1750 * MS)
    assert (run.loops, run.released, run.published) == (3, 250, 1750)
    follower.follow()
    assert follower.arrived == [0, 0, 0]
    assert follower.records == [*range(500)] * 3 + [*range(250)]
    run.seek(100, 1750 * MS)
    assert (run.loops, run.published) == (3, 1750)
    assert follower.follow().hash == hash_at(records, 100)


def test_the_end_of_a_round_belongs_to_it_and_its_books_stand_until_the_next_record_is_due() -> None:
    run = run_of(session(500), command({"records_per_s": 100}, loop=True))
    play(run, 0, 5 * SECOND_NS)
    assert (run.loops, run.released) == (0, 500)
    run.advance(5 * SECOND_NS + 10 * MS, None)
    assert (run.loops, run.released) == (1, 1)


@pytest.mark.parametrize("pace", ["max", {"records_per_s": 5000}, {"market_time": 10_000}])
def test_a_window_loops_between_its_places_and_each_round_begins_with_its_books(pace: Pace) -> None:
    records = eventful(3)
    run = run_of(records, command(pace, loop=True, max_msgs=2500), Window(3000, 4000))
    follower = Follower(run)
    assert follower.cursor.position == 3000
    now_ns = 0
    while run.active:
        run.advance(now_ns, follower.cursor.published)
        follower.follow()
        if run.released > 3000:
            assert follower.hash == hash_at(records, run.released)
        now_ns += 2 * MS
    assert follower.records == [*range(3000, 4000)] * 2 + [*range(3000, 3500)]
    assert follower.arrived == [3000, 3000]
    assert (run.state, run.loops, run.released, run.published) == (ReplayState.DONE, 2, 3500, 2500)


@pytest.mark.parametrize("pace", ["max", {"records_per_s": 1000}, {"market_time": 1}])
def test_from_the_end_of_the_window_a_loop_goes_on_with_the_next_round(pace: Pace) -> None:
    run = run_of(session(500), command("max", loop=True), Window(100, 500))
    run.seek(500, 0)
    run.change_pace(pace, None, 0)
    run.advance(10 * MS, 0)
    assert run.loops >= 1 and run.published > 0 and Jump(run.stretch, run.stretch.rounds).position == 100


def test_a_window_without_a_loop_ends_at_its_end() -> None:
    run = run_of(session(1000), command({"records_per_s": 5000}), Window(200, 300))
    follower = Follower(run)
    play(run, 0, SECOND_NS)
    assert run.state == ReplayState.DONE
    assert follower.follow().records == [*range(200, 300)]
    assert follower.hash == hash_at(run.recording.records, 300)


def test_max_msgs_counts_over_rounds_jumps_and_steps() -> None:
    run = run_of(session(500), command({"records_per_s": 1000}, loop=True, max_msgs=1500))
    play(run, 0, 700 * MS)
    run.seek(50, 700 * MS)
    play(run, 700 * MS, 100 * MS)
    run.pause(800 * MS)
    run.step_to(450, 800 * MS)
    assert run.published == 700 + 100 + 300
    run.seek(10, 800 * MS)
    run.step_to(490, 800 * MS)
    assert (run.published, run.released, run.state) == (1500, 410, ReplayState.PAUSED)
    run.resume(800 * MS)
    run.advance(800 * MS, None)
    assert (run.published, run.state) == (1500, ReplayState.DONE)


def test_a_replay_goes_on_where_a_dead_streamer_was() -> None:
    order = command({"records_per_s": 1000}, loop=True, max_msgs=1600, start_record=123)
    run = run_of(session(500), {**order, "published": 1123, "loops": 2, "paused": True})
    follower = Follower(run)
    assert (run.state, run.released, run.published, run.loops) == (ReplayState.PAUSED, 123, 1123, 2)
    assert follower.hash == hash_at(run.recording.records, 123)
    run.resume(0)
    play(run, 0, SECOND_NS)
    assert (run.state, run.published, run.loops, run.released) == (ReplayState.DONE, 1600, 3, 100)


def test_a_step_on_is_part_of_the_stretch_and_costs_clients_no_arrival() -> None:
    records = session(1000)
    run = run_of(records, command("max", paused=True))
    follower = Follower(run)
    for position in (1, 2, 77, 1000):
        run.step_to(position, 0)
        assert follower.follow().hash == hash_at(records, position)
    assert follower.arrived == []
    assert run.state == ReplayState.PAUSED, "at the end too: one may step back"
    run.seek(999, 0)
    assert follower.follow().hash == hash_at(records, 999)
    assert follower.arrived == [999]


def test_what_was_published_goes_out_before_a_client_is_told_of_the_end() -> None:
    run = run_of(session(1000), command({"records_per_s": 1000}))
    follower = Follower(run)
    play(run, 0, 500 * MS)
    run.finish(ReplayState.STOPPED)
    assert follower.follow().records == [*range(500)]
    assert isinstance(run.next_move(follower.cursor, BLOCK), Over)


def test_a_client_that_comes_late_has_the_books_of_that_moment_and_follows() -> None:
    records = eventful(3)
    run = run_of(records, command({"records_per_s": 1000}))
    play(run, 0, SECOND_NS)
    follower = Follower(run)
    assert follower.hash == hash_at(records, 1000)
    play(run, SECOND_NS, SECOND_NS)
    assert follower.follow().hash == hash_at(records, 2000)
    assert follower.records == [*range(1000, 2000)]


def test_skip_idle_crosses_the_lull_of_a_session_and_keeps_everything_else_as_recorded() -> None:
    records = simulate(6000, ["CLX5"], 1)
    gaps_ns = np.diff(latest(records)).astype(np.int64)
    lull_ns = int(gaps_ns.max())
    assert lull_ns > 60 * SECOND_NS
    took_ns = {}
    for skip_idle_s in (None, 60):
        run, now_ns = run_of(records, command({"market_time": 1000}, skip_idle_s=skip_idle_s)), 0
        while run.advance(now_ns, None) or run.active:
            now_ns += run.wait_ns(now_ns)
        took_ns[skip_idle_s] = now_ns
    assert took_ns[None] == pytest.approx(gaps_ns.sum() // 1000, abs=10 * MS)
    skipped_ns = gaps_ns[gaps_ns > 60 * SECOND_NS].sum() // 1000
    assert took_ns[None] - took_ns[60] == pytest.approx(skipped_ns, abs=10 * MS)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("pace", ["max", {"records_per_s": 1000}, {"market_time": 1}])
def test_a_recording_of_nothing_is_done_at_once(pace: Pace, loop: bool) -> None:
    run = run_of(session(10)[:0], command(pace, loop=loop))
    follower = Follower(run)
    assert run.advance(0, 0)
    assert run.state == ReplayState.DONE
    assert isinstance(run.next_move(follower.cursor, BLOCK), Over)
    assert len(run.arrival(0)) == 0


@pytest.mark.parametrize("pace", ["max", {"records_per_s": 1000}, {"market_time": 1}])
def test_a_recording_of_one_record_is_replayed_sought_and_looped(pace: Pace) -> None:
    records = session(10)[:1]
    run = run_of(records, command(pace, loop=True, max_msgs=5))
    follower = Follower(run)
    for now_ms in range(20):
        run.advance(now_ms * MS, follower.cursor.published)
        follower.follow()
    assert (run.state, follower.records, run.loops) == (ReplayState.DONE, [0] * 5, 4)
    paused = run_of(records, command(pace, paused=True))
    watcher = Follower(paused)
    for position in (1, 0, 1):
        paused.seek(position, 0)
        assert watcher.follow().hash == hash_at(records, position)


def test_rounds_of_few_records_do_not_flood_the_clients() -> None:
    run = run_of(session(10)[:1], command({"records_per_s": 1_000_000}, loop=True))
    follower = Follower(run)
    run.advance(SECOND_NS, None)
    assert len(follower.follow().arrived) <= 8


def test_stretches_that_everybody_has_left_are_forgotten() -> None:
    run = run_of(session(500), command({"records_per_s": 1000}, loop=True))
    follower = Follower(run)
    first = run.stretch
    run.seek(100, 0)
    run.seek(200, 0)
    follower.follow()
    assert gc.get_referrers(first) == [], "but for the name in this test"


def test_a_client_that_is_many_rounds_behind_costs_no_more_than_one_and_gets_all_of_them() -> None:
    run = run_of(session(10), command({"records_per_s": 100_000}, loop=True), Window(2, 9))
    follower = Follower(run)
    for now_ns in range(0, SECOND_NS, 100_000):
        run.advance(now_ns, None)
    assert run.loops > 1000 and run.published == 7 * run.loops + run.released - 2
    assert follower.cursor.stretch is run.stretch, "nothing lies between the client and the present"
    behind = run.published
    run.seek(5, SECOND_NS)
    follower.follow()
    assert follower.arrived == [2] * (run.loops - 1) + [5], "what was left of the round that a seek ended is not sent"
    assert follower.records == [*range(2, 9)] * run.loops
    assert follower.cursor.published == run.published == behind


def _driven(run: Publication, rng: random.Random, steps: int) -> Iterator[int]:
    """Drive a run by chance; yield the time after each command."""
    now_ns, size = 0, len(run.recording.records)
    paces: list[Pace] = ["max", {"records_per_s": 20_000}, {"market_time": 20}, {"market_time": 10_000}]
    for _ in range(steps):
        now_ns += rng.randrange(20 * MS)
        match rng.randrange(5):
            case 0:
                run.pause(now_ns)
            case 1:
                run.resume(now_ns)
            case 2:
                run.change_pace(rng.choice(paces), rng.choice([None, 0, 60.0]), now_ns)
            case 3:
                run.seek(rng.randrange(run.window.begin, run.window.end), now_ns)
            case 4:
                run.pause(now_ns)
                run.step_to(min(run.released + rng.randrange(300), size - 1, run.window.end), now_ns)
        yield now_ns


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_commanded_fast_and_slow_followers_have_the_books_of_their_places(seed: int) -> None:
    records, rng = eventful(3, seed=seed), random.Random(seed)
    run = run_of(records, command("max", loop=True), Window(500, 5500) if seed % 2 else None)
    fast, slow = Follower(run), Follower(run)
    for now_ns in _driven(run, rng, 150):
        cursors: list[Cursor] = [fast.cursor, slow.cursor]
        run.advance(now_ns, min(cursor.published for cursor in cursors))
        fast.follow()
        for _ in range(rng.randrange(6)):
            slow.move()
        assert fast.hash == hash_at(records, fast.cursor.position)
    for follower in (fast.follow(), slow.follow()):
        assert follower.cursor.position == run.released
        assert follower.hash == hash_at(records, run.released)
