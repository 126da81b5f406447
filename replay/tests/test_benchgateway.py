"""The benchmark of the live port, small: that it measures what it says, with processes of its own."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from orderbook.book.mbo import MBO
from replay.benchmark.gateway import check_complete, late, write_recording, write_slice
from replay.benchmark.processes import BenchmarkError, take
from replay.benchmark.reader_process import Received, arrival_times, framing_bytes
from replay.feed.sources import open_recording


def bench(*args: str) -> dict[str, Any]:
    out = StringIO()
    call_command("benchgateway", "--json", *args, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_every_reader_gets_every_record_and_the_figures_have_their_names() -> None:
    found = bench("--records", "300000", "--clients", "2")
    assert list(found) == ["records", "clients", "records_per_s_per_client", "streamer_cpu_s", "streamer_peak_mb"]
    assert (found["records"], found["clients"]) == (300_000, 2)
    assert found["records_per_s_per_client"] > 0 and found["streamer_peak_mb"] > 0


def test_lateness_is_told_for_each_pace() -> None:
    found = bench("--market-time", "1000", "--seconds", "0.3")["market_time"]
    assert list(found) == ["1000"]
    late = found["1000"]
    assert late["records"] > 1000 and 0 <= late["late_ms_p50"] <= late["late_ms_p99"] <= late["late_ms_max"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--records", "0"], "Expected --records from 1"),
        (["--clients", "65"], "Expected --clients from 1 to 64, found 65"),
        (["--market-time", "fast"], "Expected --market-time like 1,10,1000, found 'fast'"),
        (["--market-time", "0.01"], "Expected --market-time from 0.1 to 10000"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(args: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("benchgateway", *args)


def test_the_made_file_has_as_many_records_as_asked_for(tmp_path: Path) -> None:
    write_recording(tmp_path / "made.dbn", 2500)
    assert len(open_recording(tmp_path / "made.dbn").records) == 2500


def test_a_slice_is_so_much_of_market_time(tmp_path: Path) -> None:
    records = write_slice(tmp_path / "made.dbn", 20.0)
    assert open_recording(tmp_path / "made.dbn").records.tobytes() == records.tobytes()
    assert 10 * 10**9 < int(records["ts_recv"][-1]) - int(records["ts_recv"][0]) <= 20 * 10**9


def test_a_record_has_arrived_when_its_last_byte_has() -> None:
    before = framing_bytes(2) - 320
    arrivals = np.array([[10, before + MBO.itemsize - 1], [20, before + MBO.itemsize], [30, before + 3 * MBO.itemsize]])
    assert arrival_times(Received(10, 30, 0, arrivals), 2, 3).tolist() == [20, 30, 30]


def test_a_constant_delay_is_late_from_the_order_to_replay_on(tmp_path: Path) -> None:
    records = write_slice(tmp_path / "made.dbn", 20.0)
    captured = np.maximum.accumulate(records["ts_recv"]).astype(np.int64)
    begun_ns, delay = 1000, 70_000_000
    found = late(begun_ns + (captured - captured[0]) // 2 + delay, begun_ns, records, 2.0)
    assert (found.p50, found.p99, found.most) == pytest.approx((delay, delay, delay), abs=1)


def test_a_reader_that_did_not_get_all_of_it_makes_the_benchmark_worthless() -> None:
    nbytes = framing_bytes(2) + 10 * MBO.itemsize
    check_complete([Received(0, 0, nbytes, None)], 10)
    with pytest.raises(BenchmarkError, match=f"expected {nbytes} bytes at each reader, found {nbytes - 1}"):
        check_complete([Received(0, 0, nbytes, None), Received(0, 0, nbytes - 1, None)], 10)


class Silent:
    """A pipe to a process that says nothing, and is not waited for."""

    waited_s = 0.0

    def poll(self, timeout: float) -> bool:
        self.waited_s = timeout
        return False


@pytest.mark.parametrize(("lasts_s", "patience_s"), [(0.0, 120), (3600.0, 3720)])
def test_a_process_may_take_as_long_as_the_replay_lasts_and_two_minutes(lasts_s: float, patience_s: int) -> None:
    process = Silent()
    with pytest.raises(BenchmarkError, match=f"has said nothing for {patience_s} s"):
        take(process, lasts_s)  # type: ignore[arg-type]
    assert process.waited_s == patience_s
