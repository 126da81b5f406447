"""What of the feed file comes again behind a mark, and is left out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine_worker.batch import SnapshotBatch
from engine_worker.mark import FilePlace
from engine_worker.sinks.base import SinkUnavailable
from engine_worker.sinks.jsonl import JsonlWriter
from engine_worker.sinks.overlap import read_overlap
from engine_worker.tests.batches import batch
from orderbook.book.encoding import LineEncoder

Lines = Callable[[], list[int]]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """Return a function that reads the sequences of the feed file."""
    return lambda: [int(json.loads(line)["sequence"]) for line in (tmp_path / "feed.jsonl").read_text().splitlines()]


def writer_of(folder: Path, *batches: SnapshotBatch) -> JsonlWriter:
    writer = JsonlWriter(folder / "feed.jsonl", 1)
    for each in batches:
        writer.write([each])
    return writer


def test_lines_behind_a_place_that_come_again_are_left_out_and_counted(tmp_path: Path, lines: Lines) -> None:
    before = writer_of(tmp_path, batch(10))
    place = before.place
    before.write([batch(10, first=11)])
    before.close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert place is not None
    after.resume(place)
    assert after.write([batch(6, first=11)]) == (0, 6, 0)
    assert after.write([batch(6, first=17), batch(5, first=23)]) == (7, 4, 0)
    assert after.write([batch(20, first=1)]) == (20, 0, 0)  # a replay of the same market is written again
    assert lines() == [*range(1, 28), *range(1, 21)]
    after.close()


def test_only_as_many_snapshots_are_looked_at_as_there_are_lines(tmp_path: Path, lines: Lines) -> None:
    writer_of(tmp_path, batch(5)).close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    after.resume(FilePlace(0, 0))
    assert after.write([batch(5, first=100)]) == (5, 0, 0)
    assert after.write([batch(5)]) == (5, 0, 0)
    assert lines() == [*range(1, 6), *range(100, 105), *range(1, 6)]
    after.close()


def test_while_lines_come_again_the_place_of_a_mark_stays_where_they_begin(tmp_path: Path) -> None:
    before = writer_of(tmp_path, batch(3))
    place = before.place
    before.write([batch(10, first=4)])
    before.close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert place is not None
    after.resume(place)
    assert after.place == place
    after.write([batch(4, first=4)])
    assert after.place == place
    after.write([batch(6, first=8)])
    assert after.place == FilePlace(place.inode, (tmp_path / "feed.jsonl").stat().st_size)
    after.close()


def test_a_file_that_was_begun_since_is_looked_at_whole(tmp_path: Path, lines: Lines) -> None:
    before = writer_of(tmp_path, batch(3))
    place = before.place
    (tmp_path / "feed.jsonl").rename(tmp_path / "feed.1")
    before.write([batch(4, first=4)])
    before.close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert place is not None
    after.resume(place)
    assert after.write([batch(6, first=4)]) == (2, 4, 0)
    assert lines() == [4, 5, 6, 7, 8, 9]
    after.close()


def test_a_write_that_fails_while_lines_come_again_leaves_out_the_same_ones_the_next_time(
    tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer_of(tmp_path, batch(5)).close()
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    after.resume(FilePlace(0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(LineEncoder, "encode", _no_space)
        assert after.write([batch(2)]) == (0, 2, 0)
        with pytest.raises(SinkUnavailable):
            after.write([batch(4, first=3)])
    assert after.write([batch(4, first=3)]) == (1, 3, 0)
    assert after.write([batch(2)]) == (2, 0, 0)
    assert lines() == [*range(1, 7), 1, 2]
    after.close()


def _no_space(self: LineEncoder, batches: object) -> None:
    raise OSError(28, "No space left on device")


def test_where_a_file_that_is_not_open_ends_is_behind_its_last_whole_line(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "feed.jsonl", 1)
    assert writer.place is None and writer.place_at_start() == FilePlace(0, 0)
    writer_of(tmp_path, batch(2)).close()
    size = (tmp_path / "feed.jsonl").stat().st_size
    with (tmp_path / "feed.jsonl").open("ab") as file:
        file.write(b'{"torn')
    assert writer.place_at_start().offset == size
    writer.write([batch(1, first=9)])
    assert writer.place is not None and writer.place.offset > size
    writer.close()


FOREIGN = b"""\0\0\0\0
half a line of a power cut"}
[1]
{"symbol":"CLX5"}
{"symbol":["CLX5"],"ts_ns":"1","sequence":1}
{"symbol":"CLX5","ts_ns":Infinity,"sequence":1}
\xff
"""


def test_lines_that_are_no_snapshots_are_passed_over_and_told_once(
    tmp_path: Path, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_bytes(FOREIGN + b"[" * 100_000 + b"\n")
    writer_of(tmp_path, batch(5)).close()
    after = JsonlWriter(path, 1)
    after.resume(FilePlace(0, 0))
    assert after.write([batch(8)]) == (3, 5, 0)
    assert caplog.text.count("behind byte 0 there are 8 lines that are no snapshots") == 1
    path.write_bytes(path.read_bytes()[len(FOREIGN) + 100_001 :])
    assert lines() == [*range(1, 9)]
    after.close()


def test_a_file_that_has_become_shorter_than_the_place_has_nothing_to_leave_out(tmp_path: Path, lines: Lines) -> None:
    before = writer_of(tmp_path, batch(5), batch(5, first=6))
    place = before.place
    before.close()
    assert place is not None
    text = (tmp_path / "feed.jsonl").read_bytes()
    with (tmp_path / "feed.jsonl").open("r+b") as file:
        file.truncate(text.index(b"\n") + 1)
    after = JsonlWriter(tmp_path / "feed.jsonl", 1)
    after.resume(place)
    assert after.write([batch(3)]) == (3, 0, 0)
    assert lines() == [1, 1, 2, 3]
    after.close()


def test_of_a_file_behind_a_place_only_so_much_is_read_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "feed.jsonl"
    writer_of(tmp_path, batch(10)).close()
    ends = [number for number, byte in enumerate(path.read_bytes(), 1) if byte == ord("\n")]
    for size, found in ((ends[3], 4), (ends[4] - 1, 4), (ends[9] + 1, 10)):
        monkeypatch.setattr("engine_worker.sinks.overlap.READ_BYTES", size)
        overlap = read_overlap(path, 0)
        assert sum(map(len, overlap.without([batch(20)]))) == 20 - found
    assert caplog.text.count("may be there twice") == 2


def test_keys_that_were_met_are_held_no_longer_and_come_back_when_the_write_fails(tmp_path: Path) -> None:
    writer_of(tmp_path, batch(10), batch(4)).close()
    overlap = read_overlap(tmp_path / "feed.jsonl", 0)
    for _ in range(2):
        assert sum(map(len, overlap.without([batch(3), batch(6)]))) == 0
        assert overlap._keys.keys() == {("CLX5", batch(n).rows["ts_event"][-1], n) for n in (4, 7, 8, 9, 10)}
        assert not overlap.is_over
        overlap.put_back()
        assert overlap._keys.total() == 14
    overlap.without([batch(9)])
    overlap.settle()
    assert sum(map(len, overlap.without([batch(1, first=10)]))) == 0
    overlap.put_back()
    assert sum(map(len, overlap.without([batch(1, first=10), batch(4), batch(4)]))) == 4
    assert overlap.is_over
