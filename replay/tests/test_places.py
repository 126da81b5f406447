"""What commands name, as positions; and the sentences for what cannot be found."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orderbook.book.mbo import UNDEF_TIMESTAMP, Action, Flags, MboArray
from orderbook.tests.records import add, cancel, stream
from replay.feed import positions
from replay.feed.index import IndexFault
from replay.feed.positions import Unit
from replay.simulator import simulate
from replay.streamer.checks import check_step
from replay.streamer.messages import StreamerRefused
from replay.streamer.places import Ground, find, stepped, window_of
from replay.streamer.publication import Window
from replay.tests.streams import eventful, index_of


class Setting:
    """A recording with an index, and short names for what is asked of it."""

    def __init__(self, records: MboArray, window: Window | None = None) -> None:
        self.records, self.index = records, index_of(records)
        self.ground = Ground("made", records, lambda: self.index)
        self.window = window or Window(0, len(records))

    def find(self, place: object, position: int = 0) -> int:
        return find(self.ground, self.window, place, position)

    def step(self, unit: Any, by: int, position: int) -> int:
        return stepped(self.ground, self.window, unit, by, position)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting(eventful(3))


@pytest.fixture(scope="module")
def simulated() -> Setting:
    """A session of two books that are crossed before the open."""
    return Setting(simulate(6000, ["CLX5", "ESZ5"], 1))


def test_fixed_places_are_found(setting: Setting) -> None:
    size = len(setting.records)
    assert [setting.find({"record": n}) for n in (0, 7, size)] == [0, 7, size]
    assert [setting.find({"fraction": f}) for f in (0, 0.5, 1, 1.0)] == [0, size // 2, size, size]
    times = setting.records["ts_recv"]
    at = setting.find({"ts_ns": str(times[3000])})
    assert times[at] >= times[3000] > times[at - 1]
    assert setting.find({"ts_ns": "0"}) == 0
    assert setting.find({"ts_ns": str(2**64 + 5)}) == setting.find({"ts_ns": str(UNDEF_TIMESTAMP)}) == size


@pytest.mark.parametrize("unit", ["trade", "event", "bbo"])
def test_each_next_one_lies_behind_and_the_previous_one_leads_back(setting: Setting, unit: str) -> None:
    all_of_them = [
        positions.position_of(setting.records, setting.index, Unit[unit.upper()], nth)
        for nth in range(1, int(setting.index.marks[Unit[unit.upper()]][-1]) + 1)
    ]
    if unit == "trade":
        expected = np.flatnonzero(setting.records["action"] == np.uint8(Action.TRADE)) + 1
        assert all_of_them == expected.tolist()
    if unit == "event":
        assert all_of_them == (np.flatnonzero(setting.records["flags"] & Flags.LAST) + 1).tolist()
    for position in (0, 1, 255, 256, 257, 3333, all_of_them[-2]):
        after = [place for place in all_of_them if place > position]
        assert setting.find({"next": unit}, position) == after[0]
        assert setting.find({"previous": unit}, after[0] + 1) == after[0]
        before = [place for place in all_of_them if place < position]
        if before:
            assert setting.find({"previous": unit}, position) == before[-1]


def test_crossings_of_the_pre_open_are_found_forward_and_back(simulated: Setting) -> None:
    first = simulated.find({"next": "crossing"})
    second = simulated.find({"next": "crossing"}, first)
    assert 0 < first < second
    assert simulated.find({"previous": "crossing"}, second) == first
    assert simulated.find({"previous": "crossing"}, second + 1) == second


def test_the_next_anomaly_is_the_record_behind_the_fault() -> None:
    rows = [add("B", 100 + n % 7, 1, n + 1) for n in range(2000)]
    rows[1200] = cancel("B", 100, 1, 99_999)  # an order that nobody knows
    made = Setting(stream(*rows))
    assert made.find({"next": "anomaly"}) == 1201
    with pytest.raises(StreamerRefused, match=r"^There is no further anomaly behind record 1201\.$"):
        made.find({"next": "anomaly"}, 1201)


@pytest.mark.parametrize("name", ["trade", "crossing", "anomaly", "event", "bbo"])
def test_where_no_more_come_the_place_is_refused(name: str) -> None:
    rows = stream(*(add("B", 100, 1, n + 1, 0) for n in range(600)))
    made = Setting(rows)
    with pytest.raises(StreamerRefused, match=rf"^There is no further {name} behind record 17\.$"):
        made.find({"next": name}, 17)
    if name != "anomaly":
        with pytest.raises(StreamerRefused, match=rf"^There is no {name} before record 17\.$"):
            made.find({"previous": name}, 17)


def test_nothing_is_found_outside_of_the_window(setting: Setting) -> None:
    narrow = Setting(setting.records, Window(1000, 1100))
    for record in (999, 1101):
        with pytest.raises(
            StreamerRefused, match="lies outside of the window, which is from record 1000 to record 110"
        ):
            narrow.find({"record": record})
    assert [narrow.find({"record": record}) for record in (1000, 1100)] == [1000, 1100]
    with pytest.raises(StreamerRefused, match="no further event behind record 1100"):
        narrow.find({"next": "event"}, 1100)
    with pytest.raises(StreamerRefused, match="no event before record 1000"):
        narrow.find({"previous": "event"}, 1000)


@pytest.mark.parametrize("unit", ["record", "event", "trade", "bbo"])
def test_steps_go_both_ways_and_end_at_the_ends_of_the_window(setting: Setting, unit: str) -> None:
    size = len(setting.records)
    there = setting.step(unit, 5, 3000)
    assert there > 3000
    assert setting.step(unit, 1, setting.step(unit, 4, 3000)) == there
    assert setting.step(unit, -4, there) == setting.step(unit, 1, 3000)
    assert setting.step(unit, 10**9, 3000) == size
    assert setting.step(unit, -(10**9), 3000) == 0
    with pytest.raises(StreamerRefused, match=rf"^There is no further {unit} behind record {size}\.$"):
        setting.step(unit, 1, size)
    with pytest.raises(StreamerRefused, match=rf"^There is no {unit} before record 0\.$"):
        setting.step(unit, -1, 0)
    narrow = Setting(setting.records, Window(2999, 3001))
    assert [narrow.step(unit, by, 3000) for by in (9, -9)] == [3001, 2999]


def test_from_the_middle_of_an_event_one_step_back_is_the_end_of_the_one_before(setting: Setting) -> None:
    ends = np.flatnonzero(setting.records["flags"] & Flags.LAST) + 1
    gap = int(np.flatnonzero(np.diff(ends) > 2)[0])
    before, after = ends[gap : gap + 2].tolist()
    assert setting.step("event", -1, before + 1) == before
    assert setting.step("event", 1, before + 1) == after


@pytest.mark.parametrize(("unit", "by"), [("tick", 1), (None, 1), (["event"], 1)])
def test_a_unit_that_is_none_is_refused(unit: object, by: object) -> None:
    with pytest.raises(StreamerRefused, match="Expected a unit record, event, trade or bbo, found"):
        check_step(unit, by)


@pytest.mark.parametrize("by", [0, True, 1.0, "1", None, 10**9 + 1, -(10**9) - 1])
def test_a_step_that_is_none_is_refused(by: object) -> None:
    with pytest.raises(StreamerRefused, match="Expected a step of 1 to 1000000000 units, negative for back, found"):
        check_step("event", by)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({}, "Expected a place"),
        (None, "Expected a place"),
        ("record", "Expected a place"),
        ({"record": 1, "fraction": 0.5}, "Expected a place"),
        ({"record": True}, "Expected a place"),
        ({"record": 1.0}, "Expected a place"),
        ({"record": -1}, "Expected a record from 0 to 6000, the end of the file, found -1"),
        ({"record": 6001}, "Expected a record from 0 to 6000, the end of the file, found 6001"),
        ({"fraction": 1.01}, "Expected a fraction from 0 to 1, found 1.01"),
        ({"fraction": float("nan")}, "Expected a fraction from 0 to 1, found nan"),
        ({"fraction": False}, "Expected a place"),
        ({"ts_ns": 5}, "Expected a place"),
        ({"ts_ns": "-5"}, "Expected a place"),
        ({"ts_ns": "٣"}, "Expected a place"),
        ({"ts_ns": "1" * 21}, "Expected a place"),
        ({"next": "year"}, 'Expected a place {"next"'),
        ({"next": ["trade"]}, 'Expected a place {"next"'),
        ({"next": "trade", "record": 5}, 'Expected a place {"next"'),
        ({"previous": "anomaly"}, 'Expected a place {"next"'),
    ],
)
def test_a_place_that_is_none_is_refused(setting: Setting, place: object, told: str) -> None:
    with pytest.raises(StreamerRefused) as refusal:
        setting.find(place)
    assert str(refusal.value).startswith(told)


def test_a_window_lies_between_two_places(setting: Setting) -> None:
    ground, size = setting.ground, len(setting.records)
    assert window_of(ground, None, None) == (0, size)
    assert window_of(ground, {"record": 5}, {"fraction": 0.5}) == (5, size // 2)
    assert window_of(ground, {"ts_ns": str(setting.records["ts_recv"][4000])}, None).begin <= 4000
    for begin, end in (({"record": 9}, {"record": 9}), ({"record": 9}, {"record": 8}), ({"fraction": 1}, None)):
        with pytest.raises(StreamerRefused, match="^The window is empty: from record "):
            window_of(ground, begin, end)
    with pytest.raises(StreamerRefused, match="^Expected a place"):
        window_of(ground, {"next": "trade"}, None)
    nothing = setting.ground._replace(records=setting.records[:0])
    assert window_of(nothing, None, None) == (0, 0)


def test_without_an_index_what_needs_one_is_refused_and_the_rest_is_found(setting: Setting) -> None:
    bare = setting.ground._replace(find_index=lambda: None)
    for place in ({"ts_ns": "5"}, {"next": "trade"}, {"next": "anomaly"}, {"previous": "event"}):
        with pytest.raises(StreamerRefused, match="^The index of made is not made yet: "):
            find(bare, setting.window, place, 0)
    with pytest.raises(StreamerRefused, match="^The index of made is not made yet: "):
        stepped(bare, setting.window, "event", 1, 0)
    assert find(bare, setting.window, {"fraction": 0.5}, 0) == 3000
    assert stepped(bare, setting.window, "record", -3, 5) == 2


def test_a_damaged_index_is_removed_and_the_caller_is_told(setting: Setting, tmp_path: Path) -> None:
    index = index_of(setting.records)
    index.path = tmp_path / "made.index"
    index.path.write_bytes(b"")

    def damaged(number: int) -> Any:
        raise IndexFault(f"the checksum of keyframe {number} is not that of its bytes")

    index.keyframe = damaged  # type: ignore[method-assign]
    broken = setting.ground._replace(find_index=lambda: index)
    with pytest.raises(
        StreamerRefused, match="^The index of made was damaged and is removed: the checksum of keyframe"
    ):
        find(broken, setting.window, {"next": "bbo"}, 5000)
    assert not index.path.exists()
