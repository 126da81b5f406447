"""Snapshots in the feed file, on a real disk that is sometimes full."""

import json
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_worker.mailbox import FifoMailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.tests.builders import Desk, session
from orderbook.book.snapshot import BookSnapshot

WaitFor = Callable[..., object]


@pytest.fixture
def pictures(tmp_path: Path) -> list[BookSnapshot]:
    desk = Desk(tmp_path, snapshot_every=10)
    desk.feed(session(1000))
    return desk.snapshots


@contextmanager
def no_room_behind(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes, as a full disk would: the write that meets it is cut."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def lines(path: Path) -> list[dict[str, object]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_each_snapshot_is_one_line_with_the_levels_of_the_book(tmp_path: Path, pictures: list[BookSnapshot]) -> None:
    path = tmp_path / "new folder" / "feed.jsonl"
    writer = JsonlWriter(path, depth=3)
    assert writer.write(pictures) == Written(len(pictures))
    writer.close()
    found = lines(path)
    assert [line["records"] for line in found] == [picture.records for picture in pictures]
    assert [line["seq"] for line in found] == list(range(1, len(pictures) + 1))
    last = pictures[-1]
    assert found[-1]["symbol"] == "CLX5"
    assert found[-1]["ts_ns"] == str(last.ts_event)
    assert [[round(px * 10**9), size, count] for px, size, count in found[-1]["bids"]] == last.bids[:3].tolist()  # type: ignore[attr-defined]


def test_a_later_writer_appends(tmp_path: Path, pictures: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    for part in (pictures[:10], pictures[10:]):
        writer = JsonlWriter(path, depth=3)
        writer.write(part)
        writer.close()
    assert len(lines(path)) == len(pictures)


def test_a_line_that_a_killed_process_left_unfinished_is_cut_off(tmp_path: Path, pictures: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b'{"whole":1}\n{"torn":')
    writer = JsonlWriter(path, depth=3)
    writer.write(pictures[:1])
    writer.close()
    assert [line.get("whole", line.get("seq")) for line in lines(path)] == [1, 1]


def test_a_file_without_any_whole_line_is_begun_again(tmp_path: Path, pictures: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(b"{" * (3 << 20))
    writer = JsonlWriter(path, depth=3)
    writer.write(pictures[:1])
    writer.close()
    assert len(lines(path)) == 1


def test_a_full_disk_leaves_whole_lines_only_and_the_batch_is_written_later(
    tmp_path: Path, pictures: list[BookSnapshot]
) -> None:
    path = tmp_path / "feed.jsonl"
    writer = JsonlWriter(path, depth=10)
    writer.write(pictures[:5])
    size = path.stat().st_size
    with no_room_behind(size + 700), pytest.raises(SinkUnavailable, match=r"feed\.jsonl: "):
        writer.write(pictures[5:])
    assert path.stat().st_size == size
    assert writer.write(pictures[5:]) == Written(len(pictures) - 5)
    writer.close()
    assert [line["seq"] for line in lines(path)] == list(range(1, len(pictures) + 1))


def test_a_folder_that_refuses_is_said_with_its_path(tmp_path: Path, pictures: list[BookSnapshot]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkUnavailable, match="file/feed.jsonl: "):
        JsonlWriter(tmp_path / "file" / "feed.jsonl", depth=3).write(pictures)


def test_a_file_that_was_moved_away_is_begun_again(tmp_path: Path, pictures: list[BookSnapshot]) -> None:
    path = tmp_path / "feed.jsonl"
    writer = JsonlWriter(path, depth=3)
    writer.write(pictures[:10])
    path.rename(tmp_path / "old.jsonl")
    writer.write(pictures[10:])
    writer.close()
    assert len(lines(tmp_path / "old.jsonl")) == 10
    assert len(lines(path)) == len(pictures) - 10


def test_with_the_disk_full_and_the_queue_full_pictures_are_dropped_and_counted_until_there_is_room(
    tmp_path: Path, pictures: list[BookSnapshot], wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "feed.jsonl"
    mailbox = FifoMailbox[BookSnapshot](10, batch=5, age_s=0.01)
    sink = ThreadedSink("jsonl", mailbox, JsonlWriter(path, depth=10), lossy_when_degraded=True)
    sink.start()
    with no_room_behind(100):
        sink.offer(pictures[0])
        wait_for(lambda: sink.degraded)
        for picture in pictures[1:50]:
            sink.offer(picture)
        dropped = sink.counters.dropped
        assert dropped > 0
    assert sink.flush(10)
    assert sink.degraded == ""
    for picture in pictures[50:]:
        sink.offer(picture)
    sink.close(5)
    counters = sink.counters
    assert (counters.offered, counters.dropped, counters.pending) == (len(pictures), dropped, 0)
    assert counters.written == len(lines(path)) == len(pictures) - dropped
    assert "dropped" in caplog.text
