"""Chunks in files: order, checksums, limits, and what a kill leaves."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_worker.spill import HEADER_BYTES, Spill, SpillDamaged, SpillUnavailable
from engine_worker.tests.full_disk import no_room_behind

ROOMY = 1 << 30
ENDLESS_WRITER = """
import sys
from pathlib import Path
from engine_worker.spill import Spill

spill = Spill(Path(sys.argv[1]), 1 << 30, segment_bytes=100_000)
number = 0
while True:
    spill.append([memoryview(number.to_bytes(4, "little") * 2000)], 1)
    number += 1
    if number == 20:
        print("running", flush=True)
"""


def payload(number: int, size: int = 20) -> list[memoryview]:
    """Return bytes that tell their number, in two parts."""
    whole = random.Random(number).randbytes(size)
    return [memoryview(whole[:7]), memoryview(whole[7:])]


def whole(number: int, size: int = 20) -> bytes:
    return b"".join(payload(number, size))


@contextmanager
def opened(folder: Path, capacity: int = ROOMY, segment: int = 100) -> Iterator[Spill]:
    spill = Spill(folder, capacity, segment)
    spill.recover()
    yield spill
    spill.close()


def contents(spill: Spill) -> list[bytes]:
    return [bytes(spill.read(chunk)) for chunk in spill.oldest(1000)]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spill"))


def test_chunks_come_back_in_order_and_their_files_go_when_they_are_released(tmp_path: Path) -> None:
    with opened(tmp_path) as spill:
        for number in range(10):
            spill.append(payload(number), number)
        assert contents(spill) == [whole(number) for number in range(10)]
        assert spill.snapshots == sum(range(10))
        several = len(files(tmp_path))
        assert several > 2
        spill.release(7)
        assert contents(spill) == [whole(number) for number in range(7, 10)]
        assert len(files(tmp_path)) < several
        spill.append(payload(10), 10)
        spill.release(4)
        assert spill.snapshots == 0
    assert files(tmp_path) == []


def test_what_one_engine_left_the_next_one_reads_first(tmp_path: Path) -> None:
    with opened(tmp_path) as spill:
        for number in range(5):
            spill.append(payload(number), 1)
    with opened(tmp_path) as spill:
        assert spill.snapshots == 5
        spill.append(payload(5), 1)
        assert contents(spill) == [whole(number) for number in range(6)]
        assert spill.damaged_bytes == 0


def test_a_clock_that_was_set_back_does_not_change_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, time_ns in enumerate((10**18, 10**17, 10**16)):
        monkeypatch.setattr("time.time_ns", lambda time_ns=time_ns: time_ns)
        with opened(tmp_path) as spill:
            spill.append(payload(number), 1)
    with opened(tmp_path) as spill:
        assert contents(spill) == [whole(number) for number in range(3)]


def test_engines_that_share_a_folder_leave_each_others_files_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        one.append(payload(1), 1)
        other.append(payload(2), 1)
        with opened(tmp_path) as third:
            assert third.snapshots == 0
        assert (contents(one), contents(other)) == ([whole(1)], [whole(2)])


def test_the_limit_of_the_disk_is_kept_and_room_comes_back(tmp_path: Path) -> None:
    with opened(tmp_path, capacity=1000) as spill:
        done = 0
        with pytest.raises(SpillUnavailable, match="limit"):
            for done in range(100):
                spill.append(payload(done, 50), 1)
        assert sum(path.stat().st_size for path in files(tmp_path)) == spill.nbytes <= 1000
        assert contents(spill) == [whole(number, 50) for number in range(done)]
        spill.release(4)
        spill.append(payload(done, 50), 1)
        assert contents(spill) == [whole(number, 50) for number in range(4, done + 1)]


def test_a_limit_of_nothing_keeps_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, capacity=0) as spill, pytest.raises(SpillUnavailable):
        spill.append(payload(1), 1)
    assert files(tmp_path) == []


def test_a_full_disk_refuses_a_chunk_whole_and_takes_it_later(tmp_path: Path) -> None:
    with opened(tmp_path, segment=1000) as spill:
        spill.append(payload(0), 1)
        before = files(tmp_path)[0].stat().st_size
        with no_room_behind(before + HEADER_BYTES + 3), pytest.raises(SpillUnavailable, match="File too large"):
            spill.append(payload(1), 1)
        assert files(tmp_path)[0].stat().st_size == before
        spill.append(payload(1), 1)
        assert contents(spill) == [whole(0), whole(1)]


def test_a_file_whose_first_write_failed_is_not_left_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as spill:
        with no_room_behind(3), pytest.raises(SpillUnavailable):
            spill.append(payload(1), 1)
        assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spill = Spill(tmp_path / "file" / "spill", ROOMY)
    with pytest.raises(SpillUnavailable, match="file/spill: Not a directory"):
        spill.recover()
    with pytest.raises(SpillUnavailable, match="file/spill: Not a directory"):
        spill.append(payload(1), 1)


def test_every_torn_tail_is_cut_and_counted_and_all_before_it_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path, segment=1000) as spill:
        for number in range(3):
            spill.append(payload(number), 1)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    chunk = len(data) // 3
    for size in range(2 * chunk, 3 * chunk):
        path.write_bytes(data[:size])
        with opened(tmp_path) as spill:
            assert contents(spill) == [whole(0), whole(1)]
            assert spill.damaged_bytes == size - 2 * chunk
        assert path.stat().st_size == 2 * chunk


def test_every_flipped_bit_is_noticed_and_costs_one_chunk(tmp_path: Path) -> None:
    with opened(tmp_path, segment=1000) as spill:
        for number in range(3):
            spill.append(payload(number), 1)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    chunk = len(data) // 3
    for bit in range(chunk * 8, 2 * chunk * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found: list[bytes | None] = []
        with opened(tmp_path) as spill:
            for each in spill.oldest(10):
                try:
                    found.append(bytes(spill.read(each)))
                except SpillDamaged as error:
                    assert f"{path} at {chunk}" in str(error)
                    found.append(None)
            assert [text for text in found if text is not None] == [whole(0), whole(2)]
            assert (None in found) != (spill.damaged_bytes == chunk)
        path.write_bytes(data)


def test_a_bit_that_flips_while_we_run_is_noticed(tmp_path: Path) -> None:
    with opened(tmp_path) as spill:
        spill.append(payload(1), 1)
        (path,) = files(tmp_path)
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"?")
        with pytest.raises(SpillDamaged):
            spill.read(spill.oldest(1)[0])


@pytest.mark.parametrize("junk", [b"", b"\x89SPL", b"junk" * 100, b"\x89SPL" * 50])
def test_a_file_of_anything_else_is_counted_and_removed(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "00000000000000000001.spill").write_bytes(junk)
    with opened(tmp_path) as spill:
        assert spill.snapshots == 0
        assert spill.damaged_bytes == len(junk)
    assert files(tmp_path) == []


def test_what_a_killed_process_had_written_is_all_there(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    with opened(tmp_path) as spill:
        found = contents(spill)
        assert len(found) >= 20
        assert found == [number.to_bytes(4, "little") * 2000 for number in range(len(found))]
