"""Snapshots in the feed file, on a real disk that is sometimes full."""

import json
from pathlib import Path

import pytest

from engine_worker.sinks.base import SinkUnavailable, Written
from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.tests.builders import Desk, session
from engine_worker.tests.full_disk import in_its_own_process, offer_without_room, write_twice
from orderbook.book.snapshot import BookSnapshot


@pytest.fixture
def snapshots(tmp_path: Path) -> list[BookSnapshot]:
    desk = Desk(tmp_path, snapshot_every=10)
    desk.feed(session(1000))
    return desk.snapshots


def lines(path: Path) -> list[dict[str, object]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_snapshot_is_one_line_with_the_levels_of_the_book(tmp_path: Path, snapshots: list[BookSnapshot]) -> None:
    path = tmp_path / "new folder" / "feed.jsonl"
    writer = JsonlWriter(path, depth=3)
    assert writer.write(snapshots) == Written(len(snapshots))
    writer.close()
    found = lines(path)
    assert [line["records"] for line in found] == [snapshot.records for snapshot in snapshots]
    assert [line["seq"] for line in found] == list(range(1, len(snapshots) + 1))
    last = snapshots[-1]
    assert found[-1]["symbol"] == "CLX5"
    assert found[-1]["ts_ns"] == str(last.ts_event)
    assert [[round(px * 10**9), size, count] for px, size, count in found[-1]["bids"]] == last.bids[:3].tolist()  # type: ignore[attr-defined]


def test_a_later_writer_appends(tmp_path: Path, snapshots: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    for part in (snapshots[:10], snapshots[10:]):
        writer = JsonlWriter(path, depth=3)
        writer.write(part)
        writer.close()
    assert len(lines(path)) == len(snapshots)


def test_a_line_that_a_killed_process_left_unfinished_is_cut_off(tmp_path: Path, snapshots: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b'{"whole":1}\n{"torn":')
    writer = JsonlWriter(path, depth=3)
    writer.write(snapshots[:1])
    writer.close()
    assert [line.get("whole", line.get("seq")) for line in lines(path)] == [1, 1]


def test_a_file_without_any_whole_line_is_begun_again(tmp_path: Path, snapshots: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"{" * (3 << 20))
    writer = JsonlWriter(path, depth=3)
    writer.write(snapshots[:1])
    writer.close()
    assert len(lines(path)) == 1


def test_a_full_disk_leaves_whole_lines_only_and_the_batch_is_written_later(
    tmp_path: Path, snapshots: list[BookSnapshot]
) -> None:
    path = tmp_path / "feed.jsonl"
    refusal, before, after = in_its_own_process(write_twice, path, snapshots, first=5, room=700)
    assert "feed.jsonl: " in refusal
    assert after == before
    assert [line["seq"] for line in lines(path)] == list(range(1, len(snapshots) + 1))


def test_a_second_engine_writes_nothing_to_the_file_until_the_first_one_is_gone(
    tmp_path: Path, snapshots: list[BookSnapshot]
) -> None:
    path = tmp_path / "feed.jsonl"
    first, second = JsonlWriter(path, depth=3), JsonlWriter(path, depth=3)
    first.write(snapshots[:2])
    with path.open("ab") as file:
        file.write(b'{"half')  # as if the first one were in the middle of a write
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(SinkUnavailable, match=r"feed\.jsonl: another engine is writing to this file"):
            second.write(snapshots[2:4])
    assert path.read_bytes() == before
    first.close()
    assert second.write(snapshots[2:4]) == Written(2)
    second.close()
    assert [line["seq"] for line in lines(path)] == [1, 2, 3, 4]


def test_a_folder_that_refuses_is_said_with_its_path(tmp_path: Path, snapshots: list[BookSnapshot]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkUnavailable, match="file/feed.jsonl: "):
        JsonlWriter(tmp_path / "file" / "feed.jsonl", depth=3).write(snapshots)


def test_a_file_that_was_moved_away_is_begun_again(tmp_path: Path, snapshots: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    writer = JsonlWriter(path, depth=3)
    writer.write(snapshots[:10])
    path.rename(tmp_path / "old.jsonl")
    writer.write(snapshots[10:])
    writer.close()
    assert len(lines(tmp_path / "old.jsonl")) == 10
    assert len(lines(path)) == len(snapshots) - 10


def test_with_the_disk_full_and_the_queue_full_snapshots_are_dropped_and_counted_until_there_is_room(
    tmp_path: Path, snapshots: list[BookSnapshot]
) -> None:
    path = tmp_path / "feed.jsonl"
    dropped, counters = in_its_own_process(offer_without_room, path, snapshots)
    assert dropped > 0
    assert (counters.offered, counters.dropped, counters.pending) == (len(snapshots), dropped, 0)
    assert counters.written == len(lines(path)) == len(snapshots) - dropped
