"""Numbers to geometry, without a database and without Django."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.charts.chart import build_chart
from history.charts.geometry import Frame, Series, stepped_path, thin
from history.charts.scale import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS, time_ticks, value_ticks

NOON = 1_758_715_200 * SECOND_NS  # 2025-09-24T12:00:00Z
FRAME = Frame(left=0, top=0, width=100, height=50, start_ns=0, end_ns=100, low=0, high=50)


def series(values: list[int | None], name: str = "Bid") -> Series:
    present = np.array([value is not None for value in values])
    return Series(name, np.array([value or 0 for value in values], dtype=np.int64), present)


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (5, ["12:00:00.000000000", "12:00:00.000000001", "12:00:00.000000002"]),
        (40_000_000, ["12:00:00.00", "12:00:00.01", "12:00:00.02"]),
        (30 * SECOND_NS, ["12:00:00", "12:00:05", "12:00:10"]),
        (50 * MINUTE_NS, ["12:00", "12:10", "12:20"]),
        (20 * HOUR_NS, ["12:00", "15:00", "18:00"]),
        (6 * DAY_NS, ["2025-09-25", "2025-09-26", "2025-09-27"]),
    ],
)
def test_time_labels_suit_the_span(span: int, labels: list[str]) -> None:
    assert [tick.label for tick in time_ticks(NOON, NOON + span, 8)][:3] == labels


def test_midnight_is_labelled_with_its_day() -> None:
    labels = [tick.label for tick in time_ticks(NOON + 6 * HOUR_NS, NOON + 18 * HOUR_NS, 8)]
    assert "25 Sep" in labels


@given(st.integers(0, 2**62), st.integers(1, 10**18), st.integers(2, 12))
def test_time_ticks_are_round_inside_and_few(start: int, span: int, most: int) -> None:
    ticks = [tick.value for tick in time_ticks(start, start + span, most)]
    assert len(ticks) <= most
    assert all(start <= tick <= start + span for tick in ticks)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        assert all(tick % step == 0 for tick in ticks)


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**15), st.integers(2, 12), st.sampled_from([1, 25, 10**7]))
def test_value_ticks_are_round_inside_and_few(low: int, span: int, most: int, unit: int) -> None:
    ticks = value_ticks(low, low + span, most, unit)
    assert len(ticks) <= most
    assert all(low <= tick <= low + span and tick % unit == 0 for tick in ticks)


def test_value_ticks_never_lie_between_two_prices() -> None:
    assert value_ticks(9, 21, 6, unit=10) == [10, 20]


def test_a_path_holds_each_value_until_the_next_point() -> None:
    times = np.array([0, 20, 60, 100])
    assert stepped_path(times, series([10, 30, 30, 20]), FRAME) == "M0 40H20V20H60H100V30"


def test_a_path_breaks_where_a_side_is_empty() -> None:
    times = np.array([0, 20, 40, 60, 80])
    assert stepped_path(times, series([10, 10, None, 20, 20]), FRAME) == "M0 40H20H40M60 30H80"


def test_a_path_of_nothing_is_empty() -> None:
    assert stepped_path(np.array([0, 50]), series([None, None]), FRAME) == ""


def test_thinning_keeps_a_single_spike_among_many_points() -> None:
    values = np.full(200_000, 10, dtype=np.int64)
    values[123_457] = 500
    times = np.arange(200_000, dtype=np.int64) * SECOND_NS + NOON
    kept_times, kept = thin(times, Series("Spread", values, np.ones(200_000, dtype=bool)))
    assert len(kept_times) <= 1700
    assert kept.values.max() == 500
    assert kept_times[0] == times[0] and kept_times[-1] == times[-1]


def test_thinning_keeps_the_edges_of_a_gap() -> None:
    present = np.ones(50_000, dtype=bool)
    present[20_000:20_100] = False
    times = np.arange(50_000, dtype=np.int64)
    kept_times, kept = thin(times, Series("Ask", np.full(50_000, 7, dtype=np.int64), present))
    assert kept.present[kept_times == 20_000].tolist() == [False]
    assert kept.present[kept_times == 20_100].tolist() == [True]


def test_thinning_leaves_few_points_alone() -> None:
    times = np.arange(1600, dtype=np.int64)
    line = series([1] * 1600)
    assert thin(times, line) == (times, line)


def test_a_flapping_side_does_not_defeat_the_thinning() -> None:
    present = np.arange(100_000) % 2 == 0
    times = np.arange(100_000, dtype=np.int64)
    kept_times, _ = thin(times, Series("Bid", np.arange(100_000, dtype=np.int64), present))
    assert len(kept_times) < 3300


@pytest.mark.parametrize("values", [[], [5], [None, 5], [None, None, None]])
def test_fewer_than_two_points_are_not_drawn(values: list[int | None]) -> None:
    times = np.arange(len(values), dtype=np.int64)
    chart = build_chart("mid", "Mid", times, [series(values)], str)
    assert not chart.drawable
    assert chart.points == sum(value is not None for value in values)


def test_points_at_one_instant_are_not_drawn() -> None:
    assert not build_chart("mid", "Mid", np.array([5, 5]), [series([1, 2])], str).drawable


def test_a_flat_line_lies_inside_the_frame() -> None:
    chart = build_chart("mid", "Mid", np.array([0, 10]), [series([7, 7])], str)
    y = float(re.findall(r"M\S+ (\S+)H", chart.lines[0].path)[0])
    assert chart.top < y < chart.bottom


def test_a_chart_says_how_many_points_it_shows_and_their_extremes() -> None:
    values = [3, 9, None, 4]
    chart = build_chart("size", "Size", np.arange(4), [series(values), series([1, 1, 1, 1], "Ask")], str)
    assert (chart.points, chart.shown, chart.low, chart.high) == (4, 4, "1", "9")
    assert [line.kind for line in chart.lines] == ["bid", "ask"]


def test_charts_need_no_django() -> None:
    code = "import sys, history.charts.chart; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
