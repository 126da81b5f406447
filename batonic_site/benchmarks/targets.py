"""What the figures must reach, as data, and whether they do. Pure. Floor 5."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypedDict

from batonic_site.benchmarks.plan import PLAN


class Found(TypedDict):
    """What a measurement came to."""

    words: Sequence[str]
    """Of the command that was run."""
    reports: Sequence[Mapping[str, Any]]
    """That it printed."""


Results = Mapping[str, Found]
"""By the name of the measurement."""


class Target(NamedTuple):
    """A bound of one figure."""

    what: str
    name: str
    """Of the measurement."""
    key: str
    bound: float
    at_least: bool
    """Else at most."""
    unit: str
    scale: float = 1.0
    """What one unit of the page is in units of the report."""
    digits: int = 0
    round: int = 0
    """Of several reports of one command."""


TARGETS: Final = (
    Target("DBN, a snapshot every 1,000 records", "dbn", "records_per_s", 10, True, "M records/s", 1e6, 1),
    Target("CSV, a snapshot every 1,000 records", "csv", "records_per_s", 3, True, "M records/s", 1e6, 1),
    Target("a snapshot every 10, PostgreSQL", "every-10", "records_per_s", 1, True, "M records/s", 1e6, 1),
    Target("every record, PostgreSQL", "every-1", "snapshots_per_s", 100_000, True, "rows/s"),
    Target("snapshot p99 at full speed, DBN", "dbn", "snap_p99_us", 130, False, "us"),
    Target("snapshot p99 at 50,000 records/s", "rate-50000", "snap_p99_us", 130, False, "us"),
    Target("event to publish, p99, 100 clients, PUSH_MS + 5", "audience", "publish_p99_ms", 55, False, "ms", 1, 1),
    Target("engine's memory, a million orders, ten replays", "memory", "engine_peak_mb", 300, False, "MB"),
    Target("1,000 clients at 20 Hz, p99 staleness", "sockets-2", "staleness_p99_ms", 250, False, "ms", 1, 0, 3),
    Target("1,000 clients at 10 Hz, p99 staleness", "sockets-1", "staleness_p99_ms", 200, False, "ms"),
    Target("100 clients at 20 Hz, p99 staleness", "sockets-2", "staleness_p99_ms", 25, False, "ms", 1, 0, 2),
)


_WORDS: Final = {each.name: each.words for each in PLAN}


def verdict(target: Target, results: Results) -> tuple[str, str]:
    """Return what was found, and ``met``, ``MISSED`` or ``not measured``: a quick run measures nothing."""
    found_there = results.get(target.name)
    if found_there is None or tuple(found_there["words"]) != _WORDS[target.name]:
        return "-", "not measured"
    value = found_there["reports"][target.round][target.key]
    found = value / target.scale
    is_met = found >= target.bound if target.at_least else found <= target.bound
    return f"{found:,.{target.digits}f} {target.unit}", "met" if is_met else "MISSED"


def target_table(results: Results) -> str:
    """Return every target beside what was found, as Markdown."""
    lines = ["| target | bound | found | |", "|---|---|---|---|"]
    for target in TARGETS:
        found, said = verdict(target, results)
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:,g} {target.unit}"
        lines.append(f"| {target.what} | {bound} | {found} | {said} |")
    return "\n".join(lines)
