"""What a client gets of several schemas and instruments, and in which order it goes out."""

import numpy as np
import pytest

from replay.feed.derived import DTYPES
from replay.feed.live_merging import Part, interleaved, portions, runs
from replay.streamer.selection import Selection
from replay.tests.recordings import session

RECORDS = session(500)
CLX5, ESZ5 = 432669, 7001
OF_CLX5 = RECORDS["instrument_id"] == CLX5


def selection(*wishes: tuple[str, set[int] | None, int]) -> Selection:
    chosen = Selection()
    for wish in wishes:
        chosen.add(*wish)
    return chosen


def test_who_wants_everything_gets_the_very_array() -> None:
    assert selection(("mbo", None, 0)).take("mbo", RECORDS) is RECORDS
    assert selection(("mbo", {CLX5, ESZ5}, 0)).take("mbo", RECORDS) is RECORDS
    assert selection(("mbo", {CLX5}, 0), ("mbo", None, 0)).take("mbo", RECORDS) is RECORDS


@pytest.mark.parametrize("more", [0, 10])
def test_instruments_are_filtered_and_those_of_several_subscriptions_come_once(more: int) -> None:
    others = set(range(1, more))
    assert (selection(("mbo", {CLX5} | others, 0)).take("mbo", RECORDS) == RECORDS[OF_CLX5]).all()
    both = selection(("mbo", {CLX5}, 0), ("mbo", {CLX5, ESZ5} | others, 0))
    assert both.take("mbo", RECORDS) is RECORDS
    assert not len(selection(("mbo", others, 0)).take("mbo", RECORDS))


def test_a_start_holds_for_its_own_subscription_until_the_client_has_caught_up() -> None:
    start = int(RECORDS["ts_event"][300])
    chosen = selection(("mbo", {CLX5}, start), ("mbo", {ESZ5}, 0))
    late = RECORDS["ts_event"] >= start
    assert (chosen.take("mbo", RECORDS) == RECORDS[~OF_CLX5 | late]).all()
    chosen.forget_starts()
    assert chosen.take("mbo", RECORDS) is RECORDS


def test_any_number_of_subscriptions_is_what_each_of_them_gives_on_its_own() -> None:
    rng = np.random.default_rng(1)
    records = session(500)
    records["instrument_id"] = rng.integers(1, 30, len(records))
    times = records["ts_event"][rng.integers(0, len(records), 60)].tolist()
    ids = [None if number == 40 else set(rng.integers(1, 40, 5).tolist()) for number in range(60)]
    chosen, expected = Selection(), np.zeros(len(records), bool)
    for start_ns, wanted in zip(times, ids, strict=True):
        chosen.add("mbo", wanted, start_ns)
        among = np.isin(records["instrument_id"], sorted(wanted or range(40)))
        expected |= among & (records["ts_event"] >= np.uint64(start_ns))
        assert chosen.take("mbo", records).tobytes() == records[expected].tobytes()
    assert not chosen.has_all_of("mbo") and 100 < expected.sum() < len(records)
    chosen.forget_starts()
    assert chosen.has_all_of("mbo")


def test_a_schema_nobody_asked_for_is_not_there_and_the_others_are_in_a_fixed_order() -> None:
    chosen = selection(("mbp-10", None, 0), ("mbo", None, 0), ("trades", None, 0))
    assert "tbbo" not in chosen and "mbo" in chosen
    assert chosen.schemas == ["mbo", "trades", "mbp-10"] and chosen.derived == ["trades", "mbp-10"]


def parts(seed: int = 1) -> list[Part]:
    """Return rows of three schemas, of different sizes, at some places of a block each."""
    rng = np.random.default_rng(seed)
    made = [Part("mbo", np.arange(500), RECORDS)]
    for schema in ("trades", "mbp-10"):
        places = np.sort(rng.choice(500, 120))
        rows = np.frombuffer(rng.bytes(120 * DTYPES[schema].itemsize), DTYPES[schema])
        made.append(Part(schema, places, rows))
    return made


def naive(of: list[Part]) -> list[tuple[str, bytes]]:
    """Return every row with its schema in the order in which they go out."""
    rows = [
        (place, number, part.schema, part.rows[row].tobytes())
        for number, part in enumerate(of)
        for row, place in enumerate(part.places.tolist())
    ]
    return [(schema, data) for _, _, schema, data in sorted(rows, key=lambda each: each[:2])]


def test_rows_of_several_schemas_go_out_by_place_and_at_one_place_in_their_order() -> None:
    assert interleaved(parts()).tobytes() == b"".join(data for _, data in naive(parts()))


def test_a_single_schema_is_a_view() -> None:
    assert np.shares_memory(interleaved(parts()[:1]), RECORDS)


@pytest.mark.parametrize("most_bytes", [1, 1000, 1 << 20])
def test_runs_are_the_same_rows_cut_by_schema_and_by_size(most_bytes: int) -> None:
    found = list(runs(parts(), most_bytes))
    assert [(schema, row.tobytes()) for schema, rows in found for row in rows] == naive(parts())
    assert all(rows.nbytes <= most_bytes or len(rows) == 1 for _, rows in found)


@pytest.mark.parametrize("most_bytes", [1, 1000, 20_000, 1 << 20])
def test_portions_are_the_same_rows_and_none_is_larger_than_asked_for(most_bytes: int) -> None:
    found = list(portions(parts(), most_bytes))
    assert [row for each in found for row in naive(list(each))] == naive(parts())
    for each in found:
        assert sum(part.rows.nbytes for part in each) <= most_bytes or [len(part.rows) for part in each] == [1]
