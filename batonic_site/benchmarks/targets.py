"""What the figures must reach, as data, and whether they do. Pure. Floor 5."""

from collections.abc import Callable, Mapping, Sequence
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


Figure = Callable[[Sequence[Mapping[str, Any]]], float | None]
"""Looks a figure up in the reports of one command; None where it came to none, as a percentile of nothing."""


class Target(NamedTuple):
    """A bound of one figure."""

    what: str
    name: str
    """Of the measurement."""
    figure: Figure
    bound: float
    at_least: bool
    """Else at most."""
    unit: str
    scale: float = 1.0
    """What one unit of the page is in units of the report."""
    digits: int = 0


def of(key: str, number: int = 0) -> Figure:
    """Return what reads one figure of one of the reports."""
    return lambda reports: reports[number][key]


def more(after: Figure, before: Figure) -> Figure:
    """Return what says how much greater one figure is than another."""

    def found(reports: Sequence[Mapping[str, Any]]) -> float | None:
        values = after(reports), before(reports)
        return None if values[0] is None or values[1] is None else values[0] - values[1]

    return found


def more_percent(after: Figure, before: Figure) -> Figure:
    """Return what says how much greater one figure is than another, in percent of that."""

    def found(reports: Sequence[Mapping[str, Any]]) -> float | None:
        difference, base = more(after, before)(reports), before(reports)
        return None if difference is None or not base else 100 * difference / base

    return found


_MIB: Final = 2**20 / 1e6
"""In MB."""
_LOST: Final = more(of("snapshots"), of("snapshots_stored"))
_P99: Final = "staleness_p99_ms"
_PEAK: Final = "server_peak_mb"


def _crowd(what: str, name: str, number: int, delivered: float, p99_ms: float) -> tuple[Target, ...]:
    """Return what is asked of one round of clients."""
    return (
        Target(f"{what}: delivered", name, of("delivered_percent", number), delivered, True, "%", 1, 2),
        Target(f"{what}: staleness, p99", name, of(_P99, number), p99_ms, False, "ms", 1, 1),
        Target(f"{what}: failed", name, of("failed", number), 0, False, "clients"),
    )


def _connect(what: str, name: str, number: int) -> Target:
    return Target(f"{what}: connect at 100/s, p95", name, of("connect_p95_ms", number), 50, False, "ms", 1, 1)


_10_HZ: Final = "1,000 clients at 10 Hz, 1 web process"
_20_HZ: Final = "1,000 clients at 20 Hz, 2 web processes"
_100: Final = "100 clients at 20 Hz, 1 web process"
_BESIDE: Final = "50 stalled clients beside them, 60 s"
_CHURN: Final = "2,000 connects and abrupt closes"

TARGETS: Final = (
    Target("DBN, a snapshot every 1,000 records", "dbn", of("records_per_s"), 10, True, "M records/s", 1e6, 1),
    Target("CSV, a snapshot every 1,000 records", "csv", of("records_per_s"), 3, True, "M records/s", 1e6, 1),
    Target("a snapshot every 10, PostgreSQL", "every-10", of("records_per_s"), 1, True, "M records/s", 1e6, 2),
    Target("a snapshot every 10, PostgreSQL: lost", "every-10", _LOST, 0, False, "rows"),
    Target("every record, PostgreSQL", "every-1", of("snapshots_per_s"), 100_000, True, "rows/s"),
    Target("every record, PostgreSQL: lost", "every-1", _LOST, 0, False, "rows"),
    Target("snapshot p99 at full speed, DBN", "dbn", of("snap_p99_us"), 130, False, "us"),
    Target("snapshot p99 at 50,000 records/s", "rate-50000", of("snap_p99_us"), 130, False, "us"),
    Target("event to publish, p99, 100 clients, PUSH_MS + 5", "audience", of("publish_p99_ms"), 55, False, "ms", 1, 1),
    Target("engine's memory, a million orders, ten replays", "memory", of("engine_peak_mb"), 300, False, "MB"),
    Target(
        "engine's memory, more behind ten replays than behind one", "memory",
        more_percent(of("engine_mb_last"), of("engine_mb_first")), 5, False, "%", 1, 1,
    ),
    *_crowd(_10_HZ, "sockets-10hz", 0, 98, 200),
    _connect(_10_HZ, "sockets-10hz", 0),
    *_crowd(_20_HZ, "sockets-20hz", 3, 95, 250),
    _connect(_20_HZ, "sockets-20hz", 3),
    *_crowd(_100, "stalled", 0, 100, 25),
    Target(f"{_100}: its CPU", "stalled", of("server_core_percent"), 25, False, "% of a core", 1, 1),
    Target(f"{_BESIDE}: staleness, p99, more", "stalled", more_percent(of(_P99, 1), of(_P99)), 20, False, "%", 1, 1),
    Target(f"{_BESIDE}: memory, more", "stalled", more(of(_PEAK, 1), of(_PEAK)), 64, False, "MiB", _MIB, 1),
    Target(
        f"{_CHURN}: files open, more", "churn", more(of("server_fds_after", -1), of("server_fds_before", -1)),
        0, False, "files",
    ),
    Target(
        f"{_CHURN}: memory, more", "churn", more(of("server_mb_after", -1), of("server_mb_before", -1)),
        5, False, "MB", 1, 1,
    ),
    Target(f"{_CHURN}: failed", "churn", of("failed", -1), 0, False, "clients"),
)  # fmt: skip


_WORDS: Final = {each.name: each.words for each in PLAN}


def verdict(target: Target, results: Results) -> tuple[str, str]:
    """Return what was found, and ``met``, ``MISSED`` or ``not measured``: a quick run measures nothing.

    What was measured and came to no figure is missed.
    """
    found_there = results.get(target.name)
    if found_there is None or tuple(found_there["words"]) != _WORDS[target.name]:
        return "-", "not measured"
    value = target.figure(found_there["reports"])
    if value is None:
        return "none", "MISSED"
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
