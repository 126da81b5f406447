"""The page of measurements: that a run writes it, that it has every figure, and that the documents lead to it."""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from batonic_site.benchmarks.page import page
from batonic_site.benchmarks.plan import PLAN, RATES, Measurement
from batonic_site.benchmarks.targets import TARGETS, Found, Target, verdict
from batonic_site.management.commands import bench

FACTS = dict.fromkeys(("date", "processor", "software", "batonic", "load_before", "load_after"), "known")


def report(name: str) -> dict[str, Any]:
    """Return what a command could have printed: every figure that a table asks for is 7 in all rounds."""

    class Sevens(dict[str, Any]):
        def __missing__(self, key: str) -> int:
            return 7

        def get(self, key: str, default: Any = None) -> Any:
            return default if key.endswith(("_min", "_max")) else self[key]

    late = Sevens()
    return Sevens({"market_time": {"10": late}} if name == "punctual" else {"clients": 1000, "churn": 2000})


def test_a_run_writes_the_page_and_keeps_what_it_found(tmp_path: Path) -> None:
    written, kept = tmp_path / "page.md", tmp_path / "found.json"
    words = "--quick", "--only", "rate-200", "--write", str(written), "--results", str(kept)
    call_command("bench", *words, stderr=StringIO())
    text = written.read_text()
    assert "A quick run: no measurement." in text
    assert re.search(r"\| 200 \| [\d,]+ \| 10 \| .* \| (pace|source|engine) \| `benchpipeline --rate 200 ", text)
    [report] = json.loads(kept.read_text())["rate-200"]["reports"]
    assert report["records"] == 10000


def test_a_page_has_a_row_for_every_measurement_with_its_command() -> None:
    text = page({each.name: Found(words=each.words, reports=[report(each.name)] * 4) for each in PLAN}, FACTS, "")
    assert "Not measured." not in text
    for each in PLAN:
        assert f"`{' '.join(each.words)}` |" in text, each.name
    for rate in RATES:
        assert f"\n| {rate:,} | 7 |" in text
    assert "| not measured |" not in text


def test_a_measurement_that_was_not_made_is_told_as_such() -> None:
    text = page({}, FACTS, "Half of it.")
    assert "**Half of it.**" in text
    assert text.count("| not measured |") == len(TARGETS) and "Not measured." in text


def found(target: Target, *reports: dict[str, Any], words: tuple[str, ...] = ()) -> tuple[str, str]:
    measured = next(each.words for each in PLAN if each.name == target.name)
    return verdict(target, {target.name: Found(words=(*measured, *words), reports=reports)})


def of(what: str) -> Target:
    return next(each for each in TARGETS if what in each.what)


def test_a_target_is_met_at_its_bound_and_missed_behind_it() -> None:
    speed, wait = of("CSV"), of("snapshot p99 at 50,000")
    assert found(speed, {"records_per_s": 3_000_000}) == ("3.0 M records/s", "met")
    assert found(speed, {"records_per_s": 2_900_000}) == ("2.9 M records/s", "MISSED")
    assert found(wait, {"snap_p99_us": 130}) == ("130 us", "met")
    assert found(wait, {"snap_p99_us": 131}) == ("131 us", "MISSED")
    assert found(wait, {"snap_p99_us": 1}, words=("--quick",)) == ("-", "not measured")


def test_a_target_can_be_of_two_figures_and_is_missed_where_one_came_to_nothing() -> None:
    lost, waits = of("every record, PostgreSQL: lost"), of("stalled clients beside them, 60 s: staleness")
    assert found(lost, {"snapshots": 9, "snapshots_stored": 9}) == ("0 rows", "met")
    assert found(lost, {"snapshots": 9, "snapshots_stored": 8}) == ("1 rows", "MISSED")
    alone = {"staleness_p99_ms": 10.0}
    assert found(waits, alone, {"staleness_p99_ms": 12.0}) == ("20.0 %", "met")
    assert found(waits, alone, {"staleness_p99_ms": 13.0}) == ("30.0 %", "MISSED")
    assert found(waits, alone, {"staleness_p99_ms": None}) == ("none", "MISSED")


def test_every_target_is_of_a_measurement_in_the_plan() -> None:
    assert {target.name for target in TARGETS} <= {each.name for each in PLAN}


def test_the_documents_lead_to_the_page_and_the_page_is_of_this_plan() -> None:
    text = (settings.BASE_DIR / "docs" / "benchmarks.md").read_text()
    for each in PLAN:
        assert f"`{' '.join(each.words)}" in text, f"docs/benchmarks.md has no row for {each.name}: run make bench"
    assert "docs/benchmarks.md" in (settings.BASE_DIR / "README.md").read_text()
    for name in ("gateway.md", "book.md"):
        assert "(benchmarks.md" in (settings.BASE_DIR / "docs" / name).read_text()


def test_a_command_that_fails_ends_the_run_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PLAN", [Measurement("odd", ("benchgateway", "--records", "0"))])
    with pytest.raises(CommandError, match="odd: `manage.py benchgateway --records 0` failed"):
        call_command("bench")
