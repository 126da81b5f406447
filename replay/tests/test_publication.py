"""The clock of one run, with the time given: what is released, how fast it says it was, and pictures on the way."""

import numpy as np
import pytest

from replay.feed.pacing import SECOND_NS
from replay.streamer import shadow
from replay.streamer.messages import Pace
from replay.streamer.publication import WINDOW_RECORDS, Publication
from replay.streamer.shadow import Shadow
from replay.tests.recordings import books, command, recording, session

MS = 1_000_000


def publication(pace: Pace, count: int = 20_000) -> Publication:
    return Publication(command(pace), recording(np.tile(session(1000), count // 1000)), [], now_ns=0)


def test_the_achieved_rate_is_the_asked_one() -> None:
    run = publication({"records_per_s": 4000})
    for now_ns in range(0, 3 * SECOND_NS + 1, 5 * MS):
        run.advance(now_ns, None)
    assert run.achieved_per_s(3 * SECOND_NS) == 4000


def test_a_clock_that_was_held_up_says_so() -> None:
    run = publication({"records_per_s": 4000})
    for now_ns in range(0, SECOND_NS + 1, 5 * MS):
        run.advance(now_ns, None)
    assert run.achieved_per_s(2 * SECOND_NS) == 2000
    assert run.achieved_per_s(3 * SECOND_NS) == 0, "nothing went out for two seconds"


def test_the_achieved_rate_is_that_of_the_last_two_seconds_and_none_after_the_end() -> None:
    run = publication({"records_per_s": 1000})
    for now_ns in range(0, 4 * SECOND_NS + 1, 5 * MS):
        if now_ns == 2 * SECOND_NS:
            run.change_pace({"records_per_s": 100}, now_ns)
        run.advance(now_ns, None)
    assert run.achieved_per_s(4 * SECOND_NS) == 100
    run.finish(run.state.STOPPED)
    assert run.achieved_per_s(4 * SECOND_NS) == 0


def test_at_max_nobody_is_further_ahead_of_the_slowest_client_than_the_window() -> None:
    run = publication("max", 4 * WINDOW_RECORDS)
    assert not run.advance(0, None)
    for slowest in (0, 5, WINDOW_RECORDS):
        assert run.advance(0, slowest)
        assert run.released == slowest + WINDOW_RECORDS
        assert not run.advance(SECOND_NS, slowest)


def test_a_picture_is_the_same_however_long_the_steps_to_it_are(monkeypatch: pytest.MonkeyPatch) -> None:
    records = session(1000)
    monkeypatch.setattr(shadow, "_STEP_RECORDS", 7)
    drawn = Shadow(records)
    for position in (0, 1, 500, 700, 14, 1000):
        assert books(drawn.picture(position)) == books(records[:position])
