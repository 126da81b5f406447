"""Where snapshots fall in the records of one book."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.cadence import Cadence
from engine_worker.tests.builders import blank, clear, session
from orderbook.book.mbo import Flags, MboArray


def all_cuts(cadence: Cadence, batches: list[MboArray]) -> list[int]:
    """Return the cuts as positions in the whole stream."""
    cuts, done = [], 0
    for batch in batches:
        cuts += [done + cut for cut in cadence.cuts(batch)]
        done += len(batch)
    return cuts


def with_ends(flags: list[bool]) -> MboArray:
    records = blank(len(flags))
    records["flags"] = np.where(flags, Flags.LAST, 0)
    return records


def test_every_event_end_is_a_cut_when_every_record_is_asked_for() -> None:
    assert Cadence(1).cuts(with_ends([True, False, True, True])) == [1, 3, 4]


def test_a_snapshot_that_is_due_in_mid_event_waits_for_its_end() -> None:
    assert Cadence(2).cuts(with_ends([True, False, False, True, True, True])) == [4, 6]


def test_a_due_snapshot_is_not_forgotten_between_two_batches() -> None:
    cadence = Cadence(3)
    assert cadence.cuts(with_ends([False] * 5)) == []
    assert cadence.cuts(with_ends([False, True])) == [2]
    assert cadence.cuts(with_ends([True, True])) == []


def test_clears_and_pictured_orders_do_not_count() -> None:
    pictured = with_ends([True] * 5)
    pictured["flags"] = Flags.SNAPSHOT | Flags.LAST
    cadence = Cadence(2)
    assert cadence.cuts(np.concatenate((clear(), pictured, clear()))) == []
    assert cadence.cuts(with_ends([True, True, True])) == [2]


def test_a_stream_without_event_ends_has_no_snapshots() -> None:
    assert Cadence(1).cuts(with_ends([False] * 10)) == []


@given(
    ends=st.lists(st.booleans(), max_size=60),
    every=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 8), max_size=30),
)
def test_the_cuts_do_not_depend_on_how_the_stream_is_cut_into_batches(
    ends: list[bool], every: int, sizes: list[int]
) -> None:
    records = with_ends(ends)
    batches, done = [], 0
    for size in sizes:
        batches.append(records[done : done + size])
        done += size
    batches.append(records[done:])
    cuts = all_cuts(Cadence(every), batches)
    assert cuts == Cadence(every).cuts(records)
    # Each lies at an event end, and is the first one with enough records behind the last cut.
    previous = 0
    for cut in cuts:
        assert ends[cut - 1]
        assert cut - previous >= every
        assert not any(ends[previous + every - 1 : cut - 1])
        previous = cut


def test_the_count_goes_on_from_a_snapshot_as_it_did_from_the_start() -> None:
    """What lets an engine that restarts behind its last stored snapshot store the same ones."""
    records = session(3000)
    cuts = Cadence(50).cuts(records)
    rest = Cadence(50).cuts(records[cuts[9] :])
    assert [cuts[9] + cut for cut in rest] == cuts[10:]


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every 1 or more records, found 0"):
        Cadence(0)
