"""Files as recordings: every form gives the same records, and every broken one says where it is broken."""

import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import zstandard

from orderbook.book.mbo import Flags, MboArray
from replay.feed import first_look, sources, zstd_source
from replay.feed.csv_codec import HEADER, encode_csv
from replay.feed.dbn_metadata import encode_metadata
from replay.feed.sources import Recording, SourceError, file_sha256, open_recording
from replay.feed.summary import summarize
from replay.tests.feeds import SYMBOLS, edge_records, random_records
from replay.tests.test_dbn_codec import metadata, system, with_ts_out

RECORDS = random_records(2, 500)
HEAD = encode_metadata("GLBX.MDP3", int(RECORDS["ts_recv"][0]), SYMBOLS)
DBN = HEAD + RECORDS.tobytes()
CSV = HEADER + encode_csv(RECORDS, SYMBOLS)
FORMS = {
    "v3.dbn": DBN,
    "v3.dbn.zst": zstandard.compress(DBN),
    "two-frames.dbn.zst": zstandard.compress(DBN[:1000])
    + b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    + zstandard.compress(DBN[1000:]),
    "pretty.csv": CSV,
    "pretty.csv.zst": zstandard.compress(CSV),
    "UPPER.DBN": DBN,
}


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path, cache_folder: Path | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        open_recording(path, cache_folder)
    assert str(caught.value).startswith(path.name)
    return str(caught.value)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file_gives_the_same_recording(tmp_path: Path, name: str, cached: bool) -> None:
    path = write(tmp_path, name, FORMS[name])
    for _ in range(2):
        recording = open_recording(path, tmp_path / "cache" if cached else None)
        assert (recording.records == RECORDS).all()
        assert recording.records.flags.writeable and recording.records.ctypes.data % 8 == 0
        assert recording.symbols == SYMBOLS
        assert recording.path == path
        assert recording.format == name.partition(".")[2].lower()
        assert recording.venue_dataset == ("" if "csv" in name else "GLBX.MDP3")


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_are_decoded_to_aligned_records(tmp_path: Path, version: int) -> None:
    path = write(tmp_path, "old.dbn", metadata(version) + RECORDS.tobytes())
    recording = open_recording(path, tmp_path / "cache")
    assert (recording.records == RECORDS).all()
    assert recording.symbols == {432669: "CLX5", 7001: "7001"}


def test_a_capture_of_a_live_stream_is_a_recording(tmp_path: Path) -> None:
    live = metadata(3, schema=None, mapped=False) + system("ack") + RECORDS.tobytes()
    ts_out = metadata(3, ts_out=True) + with_ts_out(RECORDS)
    for name, data in (("live.dbn", live), ("ts_out.dbn", ts_out)):
        assert (open_recording(write(tmp_path, name, data), tmp_path / "cache").records == RECORDS).all()


def test_plain_dbn_is_mapped_and_writing_to_the_records_leaves_the_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dbn", DBN)
    recording = open_recording(path, tmp_path / "cache")
    recording.records["size"] = 77
    assert path.read_bytes() == DBN
    assert not (tmp_path / "cache").exists()


class Looks:
    """Counts how often every record of a file is looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        look = sources.foreign_record
        monkeypatch.setattr(first_look, "WORTH_KEEPING", 1)
        monkeypatch.setattr(sources, "foreign_record", lambda records: self._look(look, records))

    def _look(self, look: Callable[..., int | None], records: MboArray) -> int | None:
        self.count += 1
        return look(records)


@pytest.mark.parametrize("name", ["v3.dbn", "v3.dbn.zst"])
def test_every_record_of_a_file_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    looks = Looks(monkeypatch)
    path = write(tmp_path, name, FORMS[name])
    recordings = [open_recording(path, tmp_path / "cache") for _ in range(3)]
    assert looks.count == 1
    assert [recording.symbols for recording in recordings] == [SYMBOLS] * 3
    assert all((recording.records == RECORDS).all() for recording in recordings)


@pytest.mark.parametrize("change", ["touched", "in the middle", "kept is damaged", "kept is of another kind"])
def test_what_was_found_in_a_file_holds_for_that_very_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    looks = Looks(monkeypatch)
    path = write(tmp_path, "a.dbn", DBN)
    open_recording(path, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("*.seen")
    before = path.stat()
    if change == "touched":
        os.utime(path, ns=(0, 0))
    elif change == "in the middle":
        path.write_bytes(DBN[: len(HEAD) + 101 * 56] + b"xx" + DBN[len(HEAD) + 101 * 56 + 2 :])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert "expected an MBO record" in refusal(path, tmp_path / "cache")
        return
    else:
        kept.write_text("{" if "damaged" in change else "[]")
    open_recording(path, tmp_path / "cache")
    assert looks.count == 2
    open_recording(path, tmp_path / "cache")
    assert looks.count == 2, "the second look is kept as the first was"


def test_where_nothing_can_be_kept_a_file_is_opened_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    path, folder = write(tmp_path, "a.dbn", DBN), write(tmp_path, "no-folder", b"")
    for count in (1, 2):
        assert open_recording(path, folder).symbols == SYMBOLS
        assert looks.count == count


def test_a_compressed_file_is_decoded_once(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dbn.zst", FORMS["v3.dbn.zst"])
    cache = tmp_path / "cache"
    open_recording(path, cache)
    (entry,) = cache.iterdir()
    before = entry.stat()
    open_recording(path, cache)
    assert list(cache.iterdir()) == [entry]
    assert (entry.stat().st_ino, entry.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_was_decoded_is_not_read_again_but_for_its_first_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dbn.zst", FORMS["v3.dbn.zst"])
    open_recording(path, tmp_path / "cache")
    found = path.stat()
    path.write_bytes(path.read_bytes()[:8] + bytes(found.st_size - 8))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (open_recording(path, tmp_path / "cache").records == RECORDS).all()


def test_a_changed_file_is_decoded_anew_and_its_older_form_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path, other = write(tmp_path, "a.csv", CSV), write(tmp_path, "b.csv", CSV)
    before, kept = open_recording(path, cache), open_recording(other, cache)
    entries = {*cache.iterdir()}
    path.write_bytes(HEADER + encode_csv(RECORDS[:7], SYMBOLS))
    assert (open_recording(path, cache).records == RECORDS[:7]).all()
    assert len(entries & {*cache.iterdir()}) == 1 and len([*cache.iterdir()]) == 2
    assert (before.records == RECORDS).all()  # who maps it keeps it
    assert (open_recording(other, cache).records == kept.records).all()
    os.utime(path, ns=(0, 0))
    open_recording(path, cache)
    assert len([*cache.iterdir()]) == 2


def test_a_link_and_its_file_are_decoded_once(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", CSV)
    (tmp_path / "link.csv").symlink_to(path)
    for name in ("a.csv", "link.csv"):
        open_recording(tmp_path / name, tmp_path / "cache")
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_a_file_that_is_written_while_it_is_decoded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.csv", CSV)
    encode = sources.encode_metadata

    def write_more(*args: object) -> bytes:
        path.write_bytes(CSV + CSV.splitlines(keepends=True)[-1])
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "encode_metadata", write_more)
    assert "expected a file that stays as it is" in refusal(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_failed_decode_leaves_nothing_in_the_cache_and_stale_parts_are_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    stale, fresh = write(cache, "killed.part", b"x"), write(cache, "working.part", b"x")
    os.utime(stale, (time.time() - 10**6,) * 2)
    path = write(tmp_path, "a.csv", CSV + b"junk\n")
    assert "line 502, column ts_recv" in refusal(path, cache)
    assert list(cache.iterdir()) == [fresh]


def test_instruments_without_a_name_are_called_by_their_id_or_by_the_default(tmp_path: Path) -> None:
    one = RECORDS[RECORDS["instrument_id"] == 432669]
    path = write(tmp_path, "a.csv", HEADER + encode_csv(one, {}))
    assert open_recording(path).symbols == {432669: "432669"}
    assert open_recording(path, default_symbol="CLX5").symbols == {432669: "CLX5"}
    both = write(tmp_path, "b.csv", HEADER + encode_csv(RECORDS, {}))
    assert open_recording(both, default_symbol="CLX5").symbols == {7001: "7001", 432669: "432669"}


def test_only_instruments_with_records_are_named(tmp_path: Path) -> None:
    head = encode_metadata("X", 0, SYMBOLS | {9: "NEVER"})
    assert open_recording(write(tmp_path, "a.dbn", head + RECORDS.tobytes())).symbols == SYMBOLS


def without(column: bytes) -> bytes:
    return CSV.replace(b"," + column, b"", 1)


BROKEN = {
    "empty.dbn": (b"", "byte 0: expected a dbn file, found an empty file"),
    "empty.csv": (b"", "byte 0: expected a csv file, found an empty file"),
    "empty.dbn.zst": (b"", "byte 0: expected a dbn.zst file, found an empty file"),
    "magic.dbn": (b"PK\x03\x04 archive", r"byte 0: expected b'DBN', found 'PK\x03\x04'"),
    "plain.dbn.zst": (DBN, "byte 0: expected a zstd frame (28 b5 2f fd), found 'DBN"),
    "zipped.dbn": (FORMS["v3.dbn.zst"], r"byte 0: expected b'DBN', found '(\xb5/\xfd'"),
    "zipped.csv": (FORMS["pretty.csv.zst"], r"byte 0: expected a CSV header, found '(\xb5/\xfd'"),
    "binary.csv": (DBN, r"byte 0: expected a CSV header, found 'DBN\x03'"),
    "version.dbn": (b"DBN\x07" + DBN[4:], "byte 3: expected DBN version 1, 2 or 3, found 7"),
    "head.dbn": (DBN[:100], f"byte 100: expected DBN metadata of {len(HEAD)} bytes, found the end of the file"),
    "prefix.dbn": (DBN[:5], "byte 5: expected the rest of the DBN metadata, found the end of the file"),
    "cut.dbn": (DBN[:-10], f"byte {len(DBN) - 56}: expected a record of 56 bytes, found the end of the file after 46"),
    "cut.dbn.zst": (FORMS["v3.dbn.zst"][:-5], "expected the rest of the zstd frame that starts at byte 0"),
    "cut-inside.dbn.zst": (zstandard.compress(DBN[:-10]), f"byte {len(DBN) - 56}: expected a record of 56 bytes"),
    "no-records.dbn": (HEAD, "expected MBO records, found none"),
    "no-records.csv": (HEADER, "expected MBO records, found none"),
    "schema.dbn": (metadata(3, schema="mbp-1") + bytes(80), "byte 24: expected schema mbo, found mbp-1"),
    "schema.dbn.zst": (
        zstandard.compress(metadata(1, schema="trades") + bytes(48)),
        "byte 24: expected schema mbo, found",
    ),
    "foreign.dbn": (
        HEAD + RECORDS[:3].tobytes() + b"\x0e\x01" + bytes(54),
        f"byte {len(HEAD) + 3 * 56}: expected an MBO record (rtype 160, length 14), found rtype 1 with length 14",
    ),
    "column.csv": (without(b"price"), "line 1: expected column price, found a header without"),
    "number.csv": (CSV.replace(b",160,", b",16O,", 1), "line 2, column rtype: expected 160 (MBO), found '16O'"),
    "cut.csv": (CSV[:-3], "line 501: expected a line end, found the end of the stream after"),
    "name.txt": (DBN, "expected a name that ends with .dbn, .dbn.zst, .csv, .csv.zst, found 'name.txt'"),
    "checksum.dbn.zst": (
        zstandard.ZstdCompressor(write_checksum=True).compress(DBN)[:-4] + b"\0\0\0\0",
        "expected zstd data, found",
    ),
}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_says_where_what_was_expected_and_what_was_found(tmp_path: Path, name: str, cached: bool) -> None:
    data, message = BROKEN[name]
    assert message in refusal(write(tmp_path, name, data), tmp_path / "cache" if cached else None)


def test_a_directory_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.dbn").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    assert "expected a file, found a directory" in refusal(tmp_path / "folder.dbn")
    assert "expected a file, found nothing there" in refusal(tmp_path / "missing.dbn")
    assert "expected a file, found nothing of that kind" in refusal(tmp_path / "pipe.csv")


@pytest.mark.parametrize("name", ["v3.dbn", "pretty.csv"])
def test_a_flipped_byte_gives_a_recording_or_the_declared_error(tmp_path: Path, name: str) -> None:
    records = edge_records()[:4]
    head = encode_metadata("GLBX.MDP3", int(records["ts_recv"][0]), SYMBOLS)
    data = bytearray(head + records.tobytes() if name == "v3.dbn" else HEADER + encode_csv(records, SYMBOLS))
    path = tmp_path / name
    refused = 0
    for offset in range(len(data)):
        data[offset] ^= 0x5A
        path.write_bytes(data)
        try:
            summarize(open_recording(path))
        except SourceError:
            refused += 1
        data[offset] ^= 0x5A
    assert 0 < refused < len(data)


def test_every_cut_of_a_compressed_file_is_noticed(tmp_path: Path) -> None:
    data = zstandard.ZstdCompressor(write_checksum=True).compress(HEAD + RECORDS[:2].tobytes())
    for size in range(1, len(data)):
        refusal(write(tmp_path, "a.dbn.zst", data[:size]))


def test_a_flipped_byte_of_a_compressed_file_gives_the_declared_error(tmp_path: Path) -> None:
    data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(HEAD + RECORDS[:2].tobytes()))
    refused = 0
    for offset in range(len(data)):
        data[offset] ^= 0x5A
        try:
            open_recording(write(tmp_path, "a.dbn.zst", bytes(data)))
        except SourceError:
            refused += 1
        data[offset] ^= 0x5A
    assert refused >= len(data) - 8  # some bits of the frame's header mean nothing


def test_a_file_that_grows_beyond_all_market_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd_source, "FREE_BYTES", 1 << 16)
    bomb = zstandard.compress(DBN[: len(HEAD)] + RECORDS[:1].tobytes() * 100_000, 19)
    message = refusal(write(tmp_path, "bomb.dbn.zst", bomb), tmp_path / "cache")
    assert f"expected at most {(1 << 16) + 250 * len(bomb)} bytes decompressed, found more" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_that_is_short_is_said_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1000))
    message = refusal(write(tmp_path, "a.csv", CSV), tmp_path / "cache")
    assert "bytes free on the disk of" in message and message.endswith("found 1000")


def test_the_digest_tells_its_progress(tmp_path: Path) -> None:
    path = write(tmp_path, "a.dbn", DBN)
    told: list[int] = []
    assert len(file_sha256(path, told.append)) == 64
    assert sum(told) == len(DBN)


def test_a_summary_counts_records_events_span_and_grids() -> None:
    records = RECORDS.copy()
    records["price"] = np.random.default_rng(1).integers(6000, 7000, len(records)) * 10_000_000
    records["ts_event"][0] = 2**64 - 1
    summary = summarize(Recording(Path("x.dbn"), "dbn", "", records, SYMBOLS))
    assert (summary.records, summary.events) == (500, int((records["flags"] & Flags.LAST > 0).sum()))
    assert (summary.first_ts_event, summary.last_ts_event) == (
        records["ts_event"][1:].min(),
        records["ts_event"][1:].max(),
    )
    assert [(found.symbol, found.tick) for found in summary.instruments] == [("ESZ5", 10_000_000), ("CLX5", 10_000_000)]
    assert sum(found.records for found in summary.instruments) == 500


def test_a_summary_of_prices_that_tell_no_grid_has_the_finest() -> None:
    records = RECORDS.copy()
    records["price"] = 0
    summary = summarize(Recording(Path("x.dbn"), "dbn", "", records, SYMBOLS))
    assert {found.tick for found in summary.instruments} == {1}


def test_the_real_recording_is_read_whole(real_data_dir: Path, tmp_path: Path) -> None:
    recording = open_recording(real_data_dir / "CLX5_mbo.dbn")
    summary = summarize(recording)
    assert (summary.records, summary.events) == (38_212, 32_053)
    assert [(found.symbol, found.tick) for found in summary.instruments] == [("CLX5", 10_000_000)]
    as_csv = write(
        tmp_path, "clx5.csv.zst", zstandard.compress(HEADER + encode_csv(recording.records, recording.symbols))
    )
    assert (open_recording(as_csv, tmp_path / "cache").records == recording.records).all()


def test_a_reader_may_give_few_bytes_at_a_time() -> None:
    class Drops(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readinto(self, space: memoryview) -> int:  # type: ignore[override]
            return self._data.readinto(space[:13])

    parts = [records.copy() for records in sources._decoded(Drops(CSV), sources._decoder("csv"))]
    assert (np.concatenate(parts) == RECORDS).all()
