"""The compiled looks over a stream, against the same in numpy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker import stream_kernel
from engine_worker.stream_kinds import channelless_clears, emptying_clears, first_plain, is_plain
from engine_worker.trail import venue_times
from orderbook.book.mbo import MBO, UNDEF_CHANNEL, Action, Flags, MboArray

KINDS = st.tuples(
    st.sampled_from("RRA"),
    st.sampled_from([0, 32, 128, 160, 168, 255]),
    st.sampled_from([0, 1]),
    st.sampled_from([0, UNDEF_CHANNEL]),
    st.sampled_from([0, 1, 2, 2**63 - 1, 2**63, 2**64 - 1]),
)


def records_of(rows: list[tuple[str, int, int, int, int]]) -> MboArray:
    records = np.zeros(len(rows), MBO)
    for record, (action, flags, sequence, channel, ts_event) in zip(records, rows, strict=True):
        record["action"], record["flags"], record["sequence"] = ord(action), flags, sequence
        record["channel_id"], record["ts_event"] = channel, ts_event
    return records


def test_the_codes_of_the_kernel_are_the_public_ones() -> None:
    assert (stream_kernel.CLEAR, stream_kernel.SNAPSHOT) == (Action.CLEAR, Flags.SNAPSHOT)


@settings(deadline=None)  # the first example may compile
@given(st.lists(KINDS, max_size=12))
def test_every_look_finds_what_numpy_finds(rows: list[tuple[str, int, int, int, int]]) -> None:
    records = records_of(rows)
    clears = records["action"] == np.uint8(Action.CLEAR)
    both, last = np.uint8(Flags.SNAPSHOT | Flags.LAST), np.uint8(Flags.LAST)
    emptying = ((records["flags"] & both) == last) | (records["flags"] == both)
    plain = is_plain(records)
    assert (
        channelless_clears(records).tolist()
        == np.flatnonzero(clears & (records["channel_id"] == UNDEF_CHANNEL)).tolist()
    )
    assert emptying_clears(records) == np.flatnonzero(clears & emptying & (records["sequence"] == 0)).tolist()
    assert first_plain(records) == next(iter(np.flatnonzero(plain)), len(records))
    of_none = np.flatnonzero(plain)
    latest = of_none[venue_times(records)[of_none].argmax()] if len(of_none) else len(records)
    assert stream_kernel.latest_plain(records) == latest
