"""Files become Dataset rows; a broken one says why, and the others go on."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from history.models import Instrument
from orderbook.book.mbo import Flags, MboArray
from replay import datasets
from replay.datasets import GONE, open_dataset, register, scan
from replay.feed.csv_codec import HEADER, encode_csv
from replay.feed.sources import open_recording
from replay.models import Dataset
from replay.simulator import instrument_ids, simulate, write_session

pytestmark = pytest.mark.django_db
SYMBOLS = instrument_ids(["CLX5", "ESZ5"])


@pytest.fixture(scope="module")
def session() -> MboArray:
    return simulate(2_000, ["CLX5", "ESZ5"], 1)


@pytest.fixture
def folder(data_folder: Path, session: MboArray) -> Path:
    """Return DATA_DIR with one good file of each format and one broken file."""
    folder = data_folder / "data"
    write_session(folder / "a.dbn", session, SYMBOLS)
    write_session(folder / "b.dbn.zst", session, SYMBOLS)
    (folder / "c.csv").write_bytes(HEADER + encode_csv(session, SYMBOLS))
    (folder / "broken.dbn").write_bytes((folder / "a.dbn").read_bytes()[:-7])
    (folder / "notes.txt").write_text("not data")
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that were decoded so far."""
    names: list[str] = []

    def open_and_note(path: Path, *args: Path) -> object:
        names.append(path.name)
        return open_recording(path, *args)

    monkeypatch.setattr(datasets, "open_recording", open_and_note)
    return names


def age(path: Path) -> None:
    """Make the rows of a test younger than the change of a file that was just written."""
    Dataset.objects.filter(path=str(path)).update(registered_at="2100-01-01T00:00:00Z")


def test_every_file_becomes_a_row_with_what_it_holds(folder: Path, session: MboArray) -> None:
    rows = {dataset.name: dataset for dataset in scan()}
    assert [*rows] == ["a.dbn", "b.dbn.zst", "broken.dbn", "c.csv"]
    for name in ("a.dbn", "b.dbn.zst", "c.csv"):
        row = rows[name]
        assert (row.state, row.error) == ("ready", "")
        assert (row.path, row.format) == (str(folder / name), name.partition(".")[2])
        assert (row.records, row.events) == (2_000, int((session["flags"] & Flags.LAST > 0).sum()))
        assert (row.first_ts_event, row.last_ts_event) == (session["ts_event"].min(), session["ts_event"].max())
        assert {instrument.symbol for instrument in row.instruments.all()} == {"CLX5", "ESZ5"}
        assert row.size_bytes == (folder / name).stat().st_size
        assert len(row.sha256) == 64
    assert rows["a.dbn"].venue_dataset == "GLBX.MDP3"


def test_a_broken_file_is_a_row_that_says_why_and_the_others_go_on(folder: Path) -> None:
    row = next(dataset for dataset in scan() if dataset.name == "broken.dbn")
    assert row.state == "failed"
    assert "expected a record of 56 bytes, found the end of the file after 49" in row.error
    assert (row.records, row.first_ts_event, row.instruments.count()) == (0, None, 0)


def test_instruments_get_the_grid_of_their_prices_and_keep_a_corrected_one(folder: Path) -> None:
    register(folder / "a.dbn")
    assert dict(Instrument.objects.values_list("symbol", "tick_size")) == {"CLX5": 10_000_000, "ESZ5": 250_000_000}
    assert dict(Instrument.objects.values_list("instrument_id", "symbol")) == SYMBOLS
    Instrument.objects.filter(symbol="CLX5").update(tick_size=5_000_000)
    register(folder / "c.csv")
    assert Instrument.objects.get(symbol="CLX5").tick_size == 5_000_000


def test_an_unchanged_file_is_not_read_again(folder: Path, opened: list[str]) -> None:
    scan()
    for path in folder.iterdir():
        age(path)
    opened.clear()
    told: list[int] = []
    scan(lambda path, n: told.append(n))
    assert opened == []
    assert sum(told) == sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".txt")


def test_a_touched_file_is_compared_and_a_changed_one_is_decoded(folder: Path, opened: list[str]) -> None:
    register(folder / "a.dbn")
    opened.clear()
    os.utime(folder / "a.dbn")
    register(folder / "a.dbn")
    assert opened == []
    data = bytearray((folder / "a.dbn").read_bytes())
    data[-1] ^= 1
    (folder / "a.dbn").write_bytes(data)
    before = Dataset.objects.get().sha256
    assert register(folder / "a.dbn").sha256 != before
    assert opened == ["a.dbn"]


def test_while_a_file_is_looked_at_its_row_is_registering(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def note(path: Path, *args: object) -> None:
        seen.append(Dataset.objects.get().state)

    def open_and_note(path: Path, *args: Path) -> object:
        note(path)
        return open_recording(path, *args)

    monkeypatch.setattr(datasets, "open_recording", open_and_note)
    assert register(folder / "a.dbn", note).state == "ready"
    assert set(seen) == {"registering"} and len(seen) > 1
    seen.clear()
    os.utime(folder / "a.dbn")  # looked at again, and found to be the same
    assert register(folder / "a.dbn", note).state == "ready"
    assert set(seen) == {"registering"}
    assert Dataset.objects.get().state == "ready"


def test_a_file_whose_registration_was_cut_short_is_looked_at_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(folder / "a.dbn")

    def die(path: Path, *args: object) -> None:
        raise KeyboardInterrupt

    os.utime(folder / "a.dbn")
    with pytest.raises(KeyboardInterrupt):
        register(folder / "a.dbn", die)
    assert Dataset.objects.get().state == "registering"
    age(folder / "a.dbn")
    assert register(folder / "a.dbn").state == "ready"


def test_a_file_that_vanished_is_failed_and_ready_again_when_it_is_back(folder: Path) -> None:
    scan()
    (folder / "a.dbn").rename(folder / "elsewhere")
    row = next(dataset for dataset in scan() if dataset.name == "a.dbn")
    assert (row.state, row.error) == ("failed", GONE)
    (folder / "elsewhere").rename(folder / "a.dbn")
    age(folder / "a.dbn")
    row = next(dataset for dataset in scan() if dataset.name == "a.dbn")
    assert (row.state, row.records) == ("ready", 2_000)


def test_a_repaired_file_becomes_ready(folder: Path) -> None:
    scan()
    shutil.copy(folder / "a.dbn", folder / "broken.dbn")
    assert register(folder / "broken.dbn").state == "ready"


def test_a_file_that_is_written_while_it_is_read_is_read_again_next_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a.dbn"
    whole = path.read_bytes()

    def open_half(path: Path, *args: Path) -> object:
        recording = open_recording(path, *args)
        path.write_bytes(whole + whole[-56:])
        return recording

    with monkeypatch.context() as patched:
        patched.setattr(datasets, "open_recording", open_half)
        assert "found one that was written while it was read" in register(path).error
    age(path)
    assert register(path).records == 2_001


def test_csv_path_is_registered_wherever_it_lies_and_names_stay_apart(
    folder: Path, tmp_path: Path, settings: Settings
) -> None:
    other = tmp_path / "other" / "c.csv"
    other.parent.mkdir()
    shutil.copy(folder / "c.csv", other)
    settings.CSV_PATH = str(other)
    names = {dataset.name: dataset.path for dataset in scan() if dataset.state == "ready"}
    assert names["c.csv"] == str(folder / "c.csv")
    assert names[str(other)] == str(other)
    settings.CSV_PATH = str(tmp_path / "missing.csv")
    row = next(dataset for dataset in scan() if dataset.name == "missing.csv")
    assert (row.state, row.error) == ("failed", GONE)


def test_a_file_name_that_is_no_utf8_is_a_failed_row_and_the_others_go_on(folder: Path) -> None:
    odd = os.fsencode(folder) + b"/bad\xff.dbn"
    Path(os.fsdecode(odd)).write_bytes((folder / "a.dbn").read_bytes())
    for _ in range(2):  # the second scan finds the row again, and does not call its file gone
        rows = {dataset.name: dataset for dataset in scan()}
        assert rows["bad\\xff.dbn"].state == "failed"
        assert "expected a file name in UTF-8" in rows["bad\\xff.dbn"].error
        assert rows["c.csv"].state == "ready"


def test_only_the_nameless_instrument_of_csv_path_is_taken_for_symbol(
    folder: Path, tmp_path: Path, settings: Settings
) -> None:
    records = open_recording(folder / "a.dbn").records
    lines = encode_csv(records[records["instrument_id"] == next(iter(SYMBOLS))], SYMBOLS).splitlines()
    nameless = b"".join(line.rpartition(b",")[0] + b"\n" for line in (HEADER.strip(), *lines))
    for path in (tmp_path / "chosen.csv", folder / "other.csv"):
        path.write_bytes(nameless)
    settings.CSV_PATH = str(tmp_path / "chosen.csv")
    assert set(open_dataset(tmp_path / "chosen.csv").symbols.values()) == {settings.SYMBOL}
    assert settings.SYMBOL not in open_dataset(folder / "other.csv").symbols.values()


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.dbn", tmp_path / "secret.dbn")
    (folder / "out.dbn").symlink_to(tmp_path / "secret.dbn")
    (folder / "in.dbn").symlink_to(folder / "a.dbn")
    rows = {dataset.name: dataset for dataset in scan()}
    assert rows["out.dbn"].state == "failed" and "found a link to" in rows["out.dbn"].error
    assert rows["in.dbn"].state == "ready"


def test_a_folder_and_an_unreadable_name_are_rows_too(folder: Path) -> None:
    (folder / "folder.csv").mkdir()
    row = next(dataset for dataset in scan() if dataset.name == "folder.csv")
    assert row.error == "folder.csv: expected a file, found a directory"


def test_no_folder_is_no_datasets(data_folder: Path) -> None:
    (data_folder / "data").rmdir()
    assert scan() == []


def run(command: str, *words: object) -> str:
    out = io.StringIO()
    call_command(command, *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_scandatasets_prints_a_table_and_the_reasons(folder: Path) -> None:
    printed = run("scandatasets")
    assert "a.dbn       ready   dbn      2,000" in printed
    assert "CLX5,ESZ5" in printed
    assert "broken.dbn cannot be replayed: broken.dbn, byte" in printed


def test_scandatasets_says_where_it_looked(data_folder: Path) -> None:
    assert f"No datasets: {data_folder / 'data'} has no .dbn" in run("scandatasets")


def test_makedataset_writes_a_session_that_scan_registers(data_folder: Path) -> None:
    out = data_folder / "data" / "made.dbn.zst"
    printed = run("makedataset", out, "--records", 3000, "--seed", 5, "--start", "2025-11-03T08:00:00Z")
    assert "3,000 records of CLX5, ESZ5, 2025-11-03T08:00:00 to" in printed
    (row,) = scan()
    assert (row.state, row.records) == ("ready", 3_000)
    recording = open_recording(out)
    assert recording.records["ts_recv"].min() == 1_762_156_800 * 10**9
    assert set(recording.symbols.values()) == {"CLX5", "ESZ5"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.csv"], "expected a name that ends with .dbn or .dbn.zst"),
        (["x.dbn", "--records", "10"], "at least 500 records for each symbol"),
        (["x.dbn", "--symbols", "A" * 80, "--records", "500"], "expected a symbol of 1 to 70 bytes"),
        (["x.dbn", "--start", "yesterday"], "expected a time such as"),
        (["there.dbn"], "exists; --force replaces it"),
    ],
)
def test_makedataset_refuses_with_a_reason(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "there.dbn").touch()
    with pytest.raises(CommandError, match=message):
        run("makedataset", tmp_path / words[0], *words[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["there.dbn"]


def test_the_real_recording_is_registered(real_data_dir: Path, data_folder: Path, settings: Settings) -> None:
    settings.CSV_PATH = str(real_data_dir / "CLX5_mbo.dbn")
    (row,) = scan()
    assert (row.state, row.records, row.events) == ("ready", 38_212, 32_053)
    assert row.sha256.startswith("5dc124ea")
    assert [(i.symbol, i.tick_size, i.instrument_id) for i in row.instruments.all()] == [("CLX5", 10_000_000, 432_669)]


def test_sample_sessions_of_one_seed_are_the_same_file(tmp_path: Path) -> None:
    for name in ("1.dbn", "2.dbn"):
        run("makedataset", tmp_path / name, "--records", 1000)
    assert (tmp_path / "1.dbn").read_bytes() == (tmp_path / "2.dbn").read_bytes()


def test_progress_reaches_the_size_of_every_file(folder: Path) -> None:
    told: dict[str, int] = {}

    def note(path: Path, n: int) -> None:
        told[path.name] = told.get(path.name, 0) + n

    scan(note)
    assert told == {path.name: path.stat().st_size for path in folder.iterdir() if path.suffix != ".txt"}


def test_times_beyond_what_the_database_holds_are_left_out(folder: Path, session: MboArray) -> None:
    records = session.copy()
    records["ts_event"][::2] = np.iinfo(np.uint64).max
    write_session(folder / "a.dbn", records[:1000:2].copy(), SYMBOLS)
    assert register(folder / "a.dbn").first_ts_event is None
