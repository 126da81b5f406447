"""manage.py verify: what it prints, how it ends, and what it finds in a real recording."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from pytest_django import Settings

from orderbook.book.reference import ReferenceBook
from orderbook.quality.verification import BookChoice, CheckOptions
from replay.feed.csv_codec import HEADER, encode_csv
from replay.feed.sources import SourceError, file_sha256
from replay.quality import check_file
from replay.tests.recordings import SYMBOLS, session, write_dbn

BOOKS: list[BookChoice] = ["kernel", "reference", "both"]


@pytest.fixture
def recorded(data_folder: Path) -> Path:
    return write_dbn(data_folder / "made.dbn", session(1000))


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("verify", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def refusal(*words: object) -> str:
    with pytest.raises(CommandError) as refused:
        run(*words)
    assert refused.value.returncode == 1
    return str(refused.value)


def test_it_says_ok_first_and_then_what_it_found(recorded: Path) -> None:
    lines = run(recorded, "--every", 10).splitlines()
    assert lines[0].startswith("OK  made.dbn: the kernel book checked")
    assert lines[0].endswith("at every 10 event ends")
    assert ["records", "1,000"] in [line.split() for line in lines]
    assert lines[-1].startswith("in ")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("book", BOOKS)
def test_json_is_all_that_is_printed_and_names_the_content(recorded: Path, book: BookChoice) -> None:
    report = json.loads(run(recorded, "--json", "--book", book))
    assert (report["ok"], report["file"], report["format"], report["records"]) == (True, "made.dbn", "dbn", 1000)
    assert report["sha256"] == file_sha256(recorded)
    assert report["checks"]["book"] == book
    assert [found["symbol"] for found in report["instruments"]] == ["ESZ5", "CLX5"]


def test_its_own_report_is_what_is_expected_of_the_same_file(recorded: Path, tmp_path: Path) -> None:
    expected = tmp_path / "report.json"
    expected.write_text(run(recorded, "--json"))
    assert run(recorded, "--json", "--expect", expected) == expected.read_text()
    assert "OK" in run(recorded, "--expect", ' {"records": 1000}')


def test_what_differs_from_the_expectation_is_named_and_is_a_failure(recorded: Path, tmp_path: Path) -> None:
    message = refusal(
        recorded, "--expect", '{"records": 5, "anomalies": {"over_cancel": {"first": null}}, "recrods": 5}'
    )
    assert "\n  records: expected 5, found 1000\n" in message
    assert "\n  anomalies.over_cancel.first: expected null, found {" in message
    assert "\n  recrods: expected one of the report's keys (version, ok, " in message
    other = write_dbn(tmp_path / "other.dbn", session(1000, seed=2))
    assert "\n  hash: expected" in refusal(other, "--expect", run(recorded, "--json"))


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ("missing.json", "--expect missing.json: expected a readable file, found No such file or directory."),
        ('{"records": ', "--expect: expected JSON, found expecting value at line 1, column 13."),
    ],
)
def test_an_expectation_that_cannot_be_read_is_refused_before_the_work(
    recorded: Path, expected: str, message: str
) -> None:
    assert refusal(recorded.with_name("not there.dbn"), "--expect", expected) == message


def test_a_broken_invariant_is_printed_and_is_a_failure(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceBook, "_resize", lambda book, order, size: setattr(order, "size", size))
    out = io.StringIO()
    with pytest.raises(CommandError, match="made.dbn does not hold") as failed:
        call_command("verify", str(recorded), "--book", "reference", stdout=out)
    assert failed.value.returncode == 1
    assert out.getvalue().startswith("FAILED  made.dbn: the reference book contradicts itself at record ")


def test_two_books_that_differ_are_a_failure(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReferenceBook, "_resize", lambda book, order, size: None)
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("verify", str(recorded), "--book", "both", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert (report["ok"], report["violation"]["book"]) == (False, "both")


def test_compressed_and_csv_files_are_verified_as_well(data_folder: Path) -> None:
    records = session(500)
    (data_folder / "made.csv").write_bytes(HEADER + encode_csv(records, SYMBOLS))
    write_dbn(data_folder / "made.dbn", records)
    reports = [json.loads(run(data_folder / name, "--json")) for name in ("made.csv", "made.dbn")]
    assert (reports[0]["format"], reports[0]["hash"]) == ("csv", reports[1]["hash"])
    assert any(django_settings.RECORDINGS_FOLDER.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cut.dbn"], "cut.dbn, byte .*: expected a record of 56 bytes, found the end of the file after 49 of them"),
        (["none.dbn"], "none.dbn: expected a readable file, found No such file or directory"),
        (["notes.txt"], "expected a name that ends with .dbn"),
        (["made.dbn", "--every", "0"], "expected a whole number of 1 or more, found '0'"),
        (["made.dbn", "--instruments", "0"], "expected a whole number of 1 or more, found '0'"),
        (["made.dbn", "--sha256", "ab"], "made.dbn: expected content with the SHA-256 ab, found [0-9a-f]{64}$"),
        (["made.dbn", "--idle-s", "nan"], "expected 0 to 1,000,000,000 seconds, found 'nan'"),
        (["made.dbn", "--book", "mine"], "invalid choice: 'mine'"),
    ],
)
def test_what_cannot_be_verified_is_refused_with_a_reason(recorded: Path, words: list[str], message: str) -> None:
    recorded.with_name("cut.dbn").write_bytes(recorded.read_bytes()[:-7])
    recorded.with_name("notes.txt").touch()
    with pytest.raises(CommandError, match=message):
        run(recorded.with_name(words[0]), *words[1:])


def test_the_idle_threshold_is_in_decimal_seconds(recorded: Path) -> None:
    idle = json.loads(run(recorded, "--json", "--idle-s", "0.0000005"))["idle"]
    assert (idle["longer_than_ns"], idle["count"]) == ("500", 999)


def test_a_file_that_is_written_meanwhile_is_refused(recorded: Path) -> None:
    def write(stage: str, n: int, total: int) -> None:
        if stage == "books":
            os.utime(recorded)

    with pytest.raises(SourceError, match="found one that was written while it was checked"):
        check_file(recorded, CheckOptions("reference"), progress=write)


def test_progress_is_told_of_every_byte_and_record(recorded: Path) -> None:
    told: list[tuple[str, int, int]] = []
    check_file(recorded, CheckOptions("reference", every=None), progress=lambda *words: told.append(words))
    size = recorded.stat().st_size
    assert told == [("sha256", size, size), ("orders", 1000, 1000), ("books", 1000, 1000)]


def test_other_content_than_was_named_is_refused_before_its_books_are_rebuilt(recorded: Path) -> None:
    stages: list[str] = []
    with pytest.raises(SourceError, match="expected content with the SHA-256 0000, found"):
        check_file(recorded, CheckOptions("reference"), "0000", lambda stage, n, total: stages.append(stage))
    assert stages == ["sha256"]
    assert json.loads(run(recorded, "--json", "--sha256", file_sha256(recorded)))["ok"] is True


def test_only_the_busiest_instruments_are_reported_when_asked(recorded: Path) -> None:
    assert len(json.loads(run(recorded, "--json", "--instruments", 1))["instruments"]) == 1
    assert "Books at the end, 1 busiest of 2" in run(recorded, "--instruments", 1)


def test_checks_may_be_as_frequent_as_takes_ten_seconds(recorded: Path) -> None:
    checks = json.loads(run(recorded, "--json", "--every", "auto"))["checks"]
    assert (checks["every"], checks["made"]) == (1, json.loads(run(recorded, "--json"))["events"])


def test_it_ends_with_the_process_that_wants_it(recorded: Path) -> None:
    assert run(recorded, "--parent", os.getppid()).startswith("OK")
    another = os.getpid()
    assert refusal(recorded, "--parent", another) == f"Process {another}, for which this was, has ended."


def test_a_name_that_no_terminal_shows_is_written_with_escapes(recorded: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(recorded.parent) + b"/bad\xff.dbn"))
    odd.write_bytes(recorded.read_bytes())
    assert run(odd).startswith("OK  bad\\xff.dbn: ")


def test_ctrl_c_ends_it_without_a_trace(
    recorded: Path, process_env: dict[str, str], wait_for: Callable[..., Any]
) -> None:
    expectation = recorded.with_name("expected.json")
    os.mkfifo(expectation)
    words = [sys.executable, "manage.py", "verify", str(recorded), "--expect", str(expectation)]
    with (
        subprocess.Popen(
            words,
            env=process_env,
            cwd=django_settings.BASE_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        ) as process,
        expectation.open("w"),
    ):  # opens when the command does
        # A signal between its last look for signals and the wait for what is written would be heard behind that wait.
        wait_for(lambda: is_asleep(process.pid), what="the command's wait")
        process.send_signal(signal.SIGINT)
        printed, error = process.communicate(timeout=30)
    assert (process.returncode, printed) == (130, "")
    assert error == "CommandError: Stopped before the end; nothing is known.\n"


def heed_ctrl_c() -> None:
    """Undo what a suite that runs in the background hands down: a shell lets such a program ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_asleep(pid: int) -> bool:
    """Say whether the first thread of a process waits for something."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_neither_the_report_nor_its_storage_loads_numba() -> None:
    names = "orderbook.quality.building, orderbook.quality.tables, replay.quality, replay.admin"
    code = f"import django; django.setup(); import sys, {names}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=django_settings.BASE_DIR).returncode == 0


@pytest.mark.parametrize("book", BOOKS)
def test_the_real_recording_has_the_known_quality(
    book: BookChoice, real_data_dir: Path, data_folder: Path, settings: Settings
) -> None:
    every = 1 if book == "kernel" else 20  # a readable check of every event end takes a quarter of a minute
    report = check_file(real_data_dir / "CLX5_mbo.dbn", CheckOptions(book, every))
    golden: dict[str, Any] = json.loads((real_data_dir / "CLX5_mbo.golden.json").read_text())
    assert report["ok"] and report["sha256"] == golden["sha256"]
    assert (report["records"], report["events"]) == (golden["records"], golden["events"]) == (38_212, 32_053)
    assert report["checks"]["made"] == 32_053 // every
    counts = {kind: found["count"] for kind, found in report["anomalies"].items() if found["count"]}
    assert counts == {"unknown_cancel": 1224, "unknown_modify": 216}
    assert report["bbo_changes"] == golden["bbo_changes_at_event_ends_price_size_count"] == 17_222
    assert (report["sequence_steps_back"]["count"], report["ts_recv_steps_back"]["count"]) == (0, 0)
    (instrument,) = report["instruments"]
    final = golden["final"]
    assert (instrument["symbol"], instrument["state"], instrument["orders"]) == ("CLX5", "crossed", final["orders"])
    assert instrument["levels"] == {side: len(final[f"{side}s"]) for side in ("bid", "ask")}
    for side, best in (("bids", instrument["best_bid"]), ("asks", instrument["best_ask"])):
        assert best and [int(best["px"]), best["sz"], best["ct"]] == final[side][0]
    first, last = instrument["crossed"]["first"], instrument["crossed"]["last"]
    assert first and first["begin_record"] == 38_040
    assert last and last["open"]
    assert report["locked_count"] == 0
    assert [(span["begin_record"], span["end_record"]) for span in report["idle"]["longest"]] == [(37_990, 37_991)]
    assert report["hash"] == "98344520e51ee42624e6d5d831ea8084"
    assert instrument["hash"] == "e7c347f6f899ea71fa83b400c67494f2"
