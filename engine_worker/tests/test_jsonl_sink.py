"""Snapshots in the feed file, on a real disk that is sometimes full."""

import json
from pathlib import Path

import pytest

from engine_worker.batch import SnapshotBatch
from engine_worker.sinks.base import SinkUnavailable, Written
from engine_worker.sinks.jsonl import JsonlWriter, jsonl_sink
from engine_worker.tests.full_disk import (
    fill_and_make_room,
    in_its_own_process,
    offer_without_room,
    on_a_small_disk,
    write_twice,
)
from engine_worker.tests.levels import snapshots_of
from orderbook.book.encoding import book_json


@pytest.fixture(scope="module")
def snapshots() -> SnapshotBatch:
    return snapshots_of(100)


def one_by_one(batch: SnapshotBatch) -> list[SnapshotBatch]:
    return [batch[n : n + 1] for n in range(len(batch))]


def lines(path: Path) -> list[dict[str, object]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_snapshot_is_one_line_with_the_levels_of_the_book(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    path = tmp_path / "new folder" / "feed.jsonl"
    writer = JsonlWriter(path, depth=3)
    assert writer.write([snapshots[:30], snapshots[30:]]) == Written(len(snapshots))
    writer.close()
    assert path.read_text() == "".join(f"{book_json(snapshots.snapshot(n), 3)}\n" for n in range(len(snapshots)))
    found = lines(path)
    assert [line["records"] for line in found] == list(range(10, 1001, 10))
    assert [line["seq"] for line in found] == list(range(1, len(snapshots) + 1))
    last = snapshots.snapshot(99)
    assert found[-1]["symbol"] == "CLX5"
    assert found[-1]["ts_ns"] == str(last.ts_event)
    assert [[round(px * 10**9), size, count] for px, size, count in found[-1]["bids"]] == last.bids[:3].tolist()  # type: ignore[attr-defined]


def test_a_later_writer_appends(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    path = tmp_path / "feed.jsonl"
    for part in (snapshots[:10], snapshots[10:]):
        writer = JsonlWriter(path, depth=3)
        writer.write([part])
        writer.close()
    assert len(lines(path)) == len(snapshots)


def test_a_line_that_a_killed_process_left_unfinished_is_cut_off(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b'{"whole":1}\n{"torn":')
    writer = JsonlWriter(path, depth=3)
    writer.write([snapshots[:1]])
    writer.close()
    assert [line.get("whole", line.get("seq")) for line in lines(path)] == [1, 1]


def test_a_file_without_any_whole_line_is_begun_again(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"{" * (3 << 20))
    writer = JsonlWriter(path, depth=3)
    writer.write([snapshots[:1]])
    writer.close()
    assert len(lines(path)) == 1


def test_a_full_disk_leaves_whole_lines_only_and_the_batch_is_written_later(
    tmp_path: Path, snapshots: SnapshotBatch
) -> None:
    path = tmp_path / "feed.jsonl"
    refusal, before, after = in_its_own_process(write_twice, path, one_by_one(snapshots), first=5, room=700)
    assert "feed.jsonl: " in refusal
    assert after == before
    assert [line["seq"] for line in lines(path)] == list(range(1, len(snapshots) + 1))


def test_a_second_engine_writes_nothing_to_the_file_until_the_first_one_is_gone(
    tmp_path: Path, snapshots: SnapshotBatch
) -> None:
    path = tmp_path / "feed.jsonl"
    first, second = JsonlWriter(path, depth=3), JsonlWriter(path, depth=3)
    first.write([snapshots[:2]])
    with path.open("ab") as file:
        file.write(b'{"half')  # as if the first one were in the middle of a write
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(SinkUnavailable, match=r"feed\.jsonl: another engine is writing to this file"):
            second.write([snapshots[2:4]])
    assert path.read_bytes() == before
    first.close()
    assert second.write([snapshots[2:4]]) == Written(2)
    second.close()
    assert [line["seq"] for line in lines(path)] == [1, 2, 3, 4]


def test_a_folder_that_refuses_is_said_with_its_path(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkUnavailable, match="file/feed.jsonl: "):
        JsonlWriter(tmp_path / "file" / "feed.jsonl", depth=3).write([snapshots])


def test_a_file_that_was_moved_away_is_begun_again(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    path = tmp_path / "feed.jsonl"
    writer = JsonlWriter(path, depth=3)
    writer.write([snapshots[:10]])
    path.rename(tmp_path / "old.jsonl")
    writer.write([snapshots[10:]])
    writer.close()
    assert len(lines(tmp_path / "old.jsonl")) == 10
    assert len(lines(path)) == len(snapshots) - 10


def test_a_disk_that_fills_up_behind_a_part_of_a_batch_leaves_nothing_of_it_and_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    many = snapshots_of(4000, every=1)
    refusal, before, after = in_its_own_process(write_twice, path, [many[:5], many[5:]], first=1, room=2 << 20)
    assert "feed.jsonl: " in refusal
    assert after == before < path.stat().st_size - (2 << 20)
    assert [line["seq"] for line in lines(path)] == list(range(1, 4001))


def test_on_a_real_full_disk_whole_lines_stay_and_the_rest_comes_when_there_is_room(tmp_path: Path) -> None:
    try:
        refusal, is_whole, full, after = on_a_small_disk(fill_and_make_room, tmp_path)
    except PermissionError as error:
        pytest.skip(f"no disk of our own here: {error}")
    assert refusal == f"{tmp_path}/feed.jsonl: No space left on device"
    assert is_whole == "True"
    count = len(json.loads(full))
    assert 0 < count < 100
    assert json.loads(full) == list(range(1, count + 1))
    assert json.loads(after) == list(range(1, 101))


def test_with_the_disk_full_the_feed_does_not_wait_and_what_finds_no_room_is_dropped_counted_and_told(
    tmp_path: Path, snapshots: SnapshotBatch
) -> None:
    path = tmp_path / "feed.jsonl"
    outage = in_its_own_process(offer_without_room, path, one_by_one(snapshots), waiting=20)
    full, dropping = outage.degraded
    assert full.startswith(f"{path}: ")
    assert dropping.startswith(full) and "60 snapshots dropped" in dropping
    during, after = outage.during, outage.after
    assert (during.offered, during.written, during.pending, during.dropped) == (90, 10, 20, 60)
    assert outage.lines == 10
    assert (after.offered, after.written, after.pending, after.dropped) == (100, 40, 0, 60)
    assert [line["seq"] for line in lines(path)] == [*range(1, 31), *range(91, 101)]


def test_the_sink_of_the_feed_file_writes_what_it_is_offered(tmp_path: Path, snapshots: SnapshotBatch) -> None:
    path = tmp_path / "feed.jsonl"
    sink = jsonl_sink(path, depth=3)
    sink.start()
    for part in (snapshots[:1], snapshots[1:99], snapshots[99:]):
        sink.offer(part)
    sink.close(5)
    assert (sink.counters.offered, sink.counters.written) == (100, 100)
    assert [line["seq"] for line in lines(path)] == list(range(1, 101))
