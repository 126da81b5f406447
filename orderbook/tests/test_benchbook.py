"""The benchmark: the streams that it makes, the runs that it refuses, what it reports. Never how fast anything is."""

import json
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from orderbook.benchmark.records import interleaved, tiled
from orderbook.benchmark.rounds import (
    Outcome,
    WrongResultError,
    apply_timed,
    batches,
    latencies_ns,
    memory_of,
    outcome_of,
    outcome_over,
    prove,
    require_all_applied,
    require_same,
    run_rounds,
)
from orderbook.benchmark.start import StartError, start_figures, start_once
from orderbook.book.market import BookKind, make_book, split_by_book
from orderbook.book.mbo import UNDEF_TIMESTAMP, Action, MboArray, Side
from orderbook.management.commands.benchbook import measured, shown, stream_of, summary
from orderbook.tests.records import KINDS, random_session, record, stream
from replay import simulator
from replay.tests.recordings import session, write_dbn

FIGURES = [
    "kernel_records_per_s",
    "kernel_same_records_per_s",
    "reference_records_per_s",
    "memory_scan_records_per_s",
    "apply_p50_ns",
    "apply_p99_ns",
    "apply_p999_ns",
    "apply_max_ns",
    "clock_cost_ns",
]
STARTS = ["cold_start_s", "warm_start_s", "import_s"]
TYPES = {
    "records": int,
    "records_reference": int,
    "records_proven": int,
    "instruments": int,
    "data": str,
    "rounds": int,
    "state_hash": str,
    "kernel_to_reference": float,
    "bytes_per_order": float,
    "bytes_per_order_at_most": float,
    "resting_orders_max": int,
    "arena_bytes": int,
    "python": str,
    "numba": str,
    "numpy": str,
    "cpu": str,
    "cpu_count": int,
    "load_1m": float,
} | {f"{name}{suffix}": int for name in FIGURES for suffix in ("", "_min", "_max")}
START_TYPES = {f"{name}{suffix}": float for name in STARTS for suffix in ("", "_min", "_max")}


def outcome(records: MboArray, kind: BookKind = "kernel") -> Outcome:
    return outcome_of(apply_timed(kind, batches(records))[1])


def copies_of(made: MboArray, books: int, length: int) -> list[MboArray]:
    """Return the copies of a recording of so many books and records, each without its clears."""
    return [copy[books:] for copy in batches(made, books + length)]


# The streams


@pytest.mark.parametrize("count", [1, 299, 300, 302, 303, 1000])
def test_a_stream_has_exactly_the_records_asked_for(count: int) -> None:
    assert len(tiled(session(300), count)) == count
    assert len(interleaved(session(300), count, 5)) == count


def test_every_copy_begins_with_a_clear_of_every_book() -> None:
    records = session(300)
    made = tiled(records, 1000)
    for copy in batches(made, 302):
        clears = copy[:2]
        assert clears["action"].tolist() == [Action.CLEAR] * 2
        assert {(each["publisher_id"], each["instrument_id"]) for each in clears} == set(dict(split_by_book(records)))
        assert Action.CLEAR not in copy["action"][2:]


def test_a_copy_is_the_recording_but_for_its_ids_sequences_and_times() -> None:
    records = session(300)
    same = ["publisher_id", "instrument_id", "price", "size", "flags", "action", "side", "rtype", "length"]
    for copy in copies_of(tiled(records, 302 * 3), 2, 300):
        assert copy[same].tolist() == records[same].tolist()
        for field in ("order_id", "sequence", "ts_event", "ts_recv"):
            assert len(set((copy[field] - records[field]).tolist())) == 1


def test_no_order_id_comes_in_two_copies() -> None:
    ids = [set(copy["order_id"].tolist()) for copy in copies_of(tiled(session(300), 302 * 4), 2, 300)]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 4 * len(ids[0])


def test_sequences_and_times_go_on_from_copy_to_copy() -> None:
    copies = copies_of(tiled(session(300), 302 * 3), 2, 300)
    for before, after in pairwise(copies):
        for field in ("sequence", "ts_event", "ts_recv"):
            assert before[field].max() < after[field].min()


def test_a_time_that_is_undefined_stays_so() -> None:
    records = random_session(1, 100)
    records["ts_recv"][::2] = UNDEF_TIMESTAMP
    first, second = copies_of(tiled(records, 202), 1, 100)
    assert (second["ts_recv"][::2] == UNDEF_TIMESTAMP).all()
    assert (second["ts_recv"][1::2] > first["ts_recv"][1::2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_copy_leaves_what_the_recording_alone_leaves(kind: BookKind) -> None:
    records = random_session(2, 500)
    once, often = make_book(kind), make_book(kind)
    once.apply(records)
    often.apply(tiled(records, 501 * 4))
    for side in (Side.BID, Side.ASK):
        assert often.levels(side).tolist() == once.levels(side).tolist()
    assert often.orders()["size"].tolist() == once.orders()["size"].tolist()
    assert {name: 4 * count for name, count in once.anomalies.items()} == often.anomalies


def test_ids_at_the_end_of_their_range_begin_anew_without_meeting() -> None:
    records = stream(*(record("A", "B", 100, 1, 2**64 - 1 - n) for n in range(10)))
    first, second, third = (set(copy["order_id"].tolist()) for copy in copies_of(tiled(records, 33), 1, 10))
    assert len(first | second | third) == 30


def test_ids_that_leave_no_room_are_refused() -> None:
    records = stream(record("A", "B", 100, 1, 0), record("A", "B", 100, 1, 2**64 - 1))
    assert len(tiled(records, 3)) == 3
    with pytest.raises(ValueError, match="room for 2 copies in 64 bits, found 0 to 18446744073709551615"):
        tiled(records, 4)


def test_times_that_leave_no_room_are_refused() -> None:
    records = stream(record("A", "B", 100, 1, 1), record("A", "B", 100, 1, 2))
    records["ts_event"][0] = 0
    with pytest.raises(ValueError, match="expected times with room for 20 copies in 64 bits, found 0 to"):
        tiled(records, 60)


def test_every_instrument_of_a_mixed_stream_lives_through_the_recording_in_its_order() -> None:
    records = random_session(3, 300)
    mixed = interleaved(records, 5000, 7)
    assert set(mixed["instrument_id"].tolist()) == set(range(1, 8))
    assert len(set(mixed["instrument_id"][:50].tolist())) > 1
    same = ["sequence", "ts_event", "ts_recv", "price", "size", "flags", "action", "side"]
    for instrument in range(1, 8):
        own = mixed[mixed["instrument_id"] == instrument]
        expected = tiled(records, len(own))
        assert own[same].tolist() == expected[same].tolist()
        assert len(set((own["order_id"] - expected["order_id"]).tolist())) == 1


def test_no_order_id_belongs_to_two_instruments() -> None:
    mixed = interleaved(random_session(3, 300), 3000, 7)
    mixed = mixed[mixed["action"] != Action.CLEAR]
    ids = [set(part["order_id"].tolist()) for _, part in split_by_book(mixed)]
    assert len(set.union(*ids)) == sum(map(len, ids))


def test_the_seed_decides_who_comes_next() -> None:
    records = random_session(3, 300)
    assert interleaved(records, 500, 7, seed=1).tobytes() == interleaved(records, 500, 7, seed=1).tobytes()
    assert interleaved(records, 500, 7, seed=1).tobytes() != interleaved(records, 500, 7, seed=2).tobytes()


def test_instruments_are_copies_of_the_busiest_book() -> None:
    records = session(300)
    records["instrument_id"][:200] = 7001
    records["instrument_id"][200:] = 432669
    mixed = interleaved(records, 200, 1)
    assert mixed["action"][1:].tolist() == records["action"][:199].tolist()


def test_batches_go_into_the_kernel_without_a_copy() -> None:
    for records in (tiled(session(300), 1000), interleaved(session(300), 1000, 3)):
        for batch in batches(records, 100):
            assert batch.flags.carray
            assert np.shares_memory(batch, records)


# The proof


def test_both_books_agree_over_a_whole_stream_or_over_its_beginning() -> None:
    records = tiled(session(2000), 5000)
    whole = outcome_over(records)
    assert whole == outcome(records) == outcome(records, "reference")
    assert outcome_over(records, proof_records=1000) == whole


def test_a_run_that_leaves_other_books_counts_for_nothing() -> None:
    records = session(2000)
    expected = outcome(records)
    other = records.copy()
    other["price"][np.flatnonzero(other["action"] == Action.ADD)[-1]] += 1
    with pytest.raises(WrongResultError, match=f"round 3: expected state_hash {expected.state_hash}, found "):
        require_same(expected, outcome(other, "reference"), "kernel, round 3")


def test_a_run_that_counts_other_anomalies_counts_for_nothing() -> None:
    records = stream(record("A", "B", 100, 1, 1), record("T", "B", 100, 1, 2))
    faulty = stream(record("A", "B", 100, 1, 1), record("C", "B", 100, 1, 2))
    with pytest.raises(WrongResultError, match=r"expected anomalies \{\}, found \{'unknown_cancel': 1\}"):
        require_same(outcome(records), outcome(faulty, "reference"), "a run")


def test_a_run_that_left_the_last_record_out_counts_for_nothing() -> None:
    records = stream(record("A", "B", 100, 1, 1), record("T", "B", 100, 1, 2))
    require_all_applied(records, outcome(records))
    with pytest.raises(WrongResultError, match="the last record of BookKey"):
        require_all_applied(records, outcome(records[:1]))


def test_a_run_without_one_of_the_books_counts_for_nothing() -> None:
    records = stream(record("A", "B", 100, 1, 1), record("A", "B", 100, 1, 2, instrument_id=2))
    with pytest.raises(WrongResultError, match="instrument_id=2.*found None"):
        require_all_applied(records, outcome(records[:1]))


def test_every_round_must_leave_the_right_books() -> None:
    records = session(2000)
    assert len(run_rounds(records, 2, outcome(records))["kernel_records_per_s"]) == 2
    with pytest.raises(WrongResultError, match="kernel, round 1: expected"):
        run_rounds(records, 2, outcome(records[:-1]))


def test_the_timed_records_must_come_to_the_same_book() -> None:
    records = random_session(4, 1000)
    records["instrument_id"] = np.arange(1000) % 3
    expected = prove(records)
    found = latencies_ns(records, expected)
    assert 0 < found["apply_p50_ns"] <= found["apply_p99_ns"] <= found["apply_p999_ns"] <= found["apply_max_ns"]
    with pytest.raises(WrongResultError, match="the run that times each record"):
        latencies_ns(records[:-200], expected)


# The figures


def test_memory_is_told_for_the_moment_when_most_rest() -> None:
    records = stream(
        *(record("A", "B", 100 + n, 1, n) for n in range(5000)),
        *(record("C", "B", 100 + n, 1, n) for n in range(5000)),
    )
    memory = memory_of(records)
    assert 4000 < memory.resting_orders_max <= 5000
    assert memory.worst >= memory.at_most == memory.arena_bytes / memory.resting_orders_max


def test_memory_without_a_resting_order_is_no_ratio() -> None:
    memory = memory_of(stream(record("T", "B", 100, 1, 1)))
    assert (memory.worst, memory.at_most, memory.resting_orders_max) == (0.0, 0.0, 0)


def test_a_summary_is_the_median_between_the_extremes_and_of_a_maximum_the_worst() -> None:
    report = summary({"apply_p50_ns": [30, 90, 40], "apply_max_ns": [30, 90, 40], "warm_start_s": [0.25, 0.5]})
    assert report == {
        "apply_p50_ns": 40,
        "apply_p50_ns_min": 30,
        "apply_p50_ns_max": 90,
        "apply_max_ns": 90,
        "apply_max_ns_min": 30,
        "apply_max_ns_max": 90,
        "warm_start_s": 0.375,
        "warm_start_s_min": 0.25,
        "warm_start_s_max": 0.5,
    }


def test_simulated_instruments_are_measured_and_shown() -> None:
    records = simulator.simulate(3000, ["A", "B", "C"], seed=1)
    report = measured(records, "simulated", rounds=2)
    assert {name: type(value) for name, value in report.items()} == TYPES
    assert (report["records"], report["records_reference"], report["instruments"]) == (3000, 3000, 3)
    assert report["state_hash"] == prove(records).state_hash
    text = shown(report | summary({name: [1.5] for name in STARTS}))
    assert "3,000 records, simulated; instruments: 3" in text
    assert "one reading of the clock included" in text


def test_a_stream_has_the_instruments_of_its_file_unless_asked_for_others(tmp_path: Path) -> None:
    path = write_dbn(tmp_path / "made.dbn", session(500))
    for count, expected in ((None, [7001, 432669]), (1, [1]), (3, [1, 2, 3])):
        records, data = stream_of(900, path, count)
        assert (len(records), data) == (900, "made.dbn")
        assert np.unique(records["instrument_id"]).tolist() == expected


@pytest.mark.parametrize(("asked", "expected"), [(None, 1), (1, 1), (3, 3)])
def test_a_stream_without_a_file_is_simulated(asked: int | None, expected: int) -> None:
    records, data = stream_of(1500, None, asked)
    assert (len(records), data) == (1500, "simulated")
    assert len(np.unique(records["instrument_id"])) == expected


def test_a_file_is_measured_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbook.management.commands.benchbook.WARM_STARTS", 1)
    path = write_dbn(tmp_path / "made.dbn", session(500))
    out = StringIO()
    call_command("benchbook", file=path, records=1200, rounds=2, json=True, stdout=out)
    report = json.loads(out.getvalue())
    assert {name: type(value) for name, value in report.items()} == TYPES | START_TYPES
    assert (report["records"], report["instruments"], report["rounds"]) == (1200, 2, 2)
    assert report["data"] == "made.dbn"


def test_a_process_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    with pytest.raises(StartError, match="in a new process, found exit code 1: "):
        start_once(tmp_path)


def test_a_kernel_that_was_kept_elsewhere_is_no_cold_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="expected the compiled kernel in .*file, found nothing"):
        start_figures(tmp_path / "file", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"records": 0}, "--records: expected 1 to 100,000,000, found 0"),
        ({"records": 100_000_001}, "--records: expected 1 to 100,000,000, found 100,000,001"),
        ({"rounds": 0}, "--rounds: expected 1 to 1,000,000, found 0"),
        ({"instruments": 0}, "--instruments: expected 1 to 65,535, found 0"),
        ({"instruments": 65_536}, "--instruments: expected 1 to 65,535, found 65,536"),
        ({"records": 1000, "instruments": 3}, "expected at least 500 records for each symbol, found 333"),
        ({"file": Path("nowhere.dbn")}, "nowhere.dbn: expected a file, found nothing there"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("benchbook", **options)


def test_ctrl_c_ends_the_benchmark_without_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orderbook.management.commands.benchbook.stream_of", pressed)
    with pytest.raises(CommandError, match="nothing is measured") as error:
        call_command("benchbook")
    assert error.value.returncode == 130
