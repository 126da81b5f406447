"""The page of measurements: results into templates/benchmarks.md. No clock, no process, no file. Floor 5."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from django.template.loader import render_to_string

from batonic_site.benchmarks.plan import MANY_BOOKS, RATES
from batonic_site.benchmarks.table import Column, Report, Row, table
from batonic_site.benchmarks.targets import Results, target_table

TEMPLATE: Final = "benchmarks.md"

_SPEED: Final = Column("M records/s", "records_per_s", 1e6, 2)
_SNAP: Final = (
    Column("snapshot p50, us", "snap_p50_us"),
    Column("p99", "snap_p99_us"),
    Column("max", "snap_max_us"),
)
_APPLY: Final = (
    Column("apply p50, ns", "apply_p50_ns"),
    Column("p99", "apply_p99_ns"),
    Column("max", "apply_max_ns"),
)
_LIMIT: Final = Column("limit", "limit")
_BOOKS: Final = (
    Column("M records/s", "kernel_records_per_s", 1e6, 1),
    Column("times the reference", "kernel_to_reference", 1, 0),
    Column("p50, ns", "apply_p50_ns"),
    Column("p99", "apply_p99_ns"),
    Column("p99.9", "apply_p999_ns"),
    Column("max", "apply_max_ns"),
    Column("bytes an order", "bytes_per_order", 1, 0),
    Column("start from the cache, s", "warm_start_s", 1, 2),
)
_STORED: Final = (
    _SPEED,
    Column("snapshots", "snapshots"),
    Column("rows stored", "snapshots_stored"),
    Column("all stored after, s", "stored_s", 1, 2),
    Column("snapshots/s", "snapshots_per_s"),
    Column("lines dropped", "lines_dropped"),
    Column("engine MB", "engine_peak_mb"),
    Column("streamer MB", "streamer_peak_mb"),
    Column("engine CPU s", "engine_cpu_s", 1, 2),
    _LIMIT,
)
_PUBLISH: Final = (
    Column("p50, ms", "publish_p50_ms", 1, 1),
    Column("p99", "publish_p99_ms", 1, 1),
    Column("max", "publish_max_ms", 1, 1),
    Column("clients", "clients"),
    Column("books each", "books_per_client", 1, 1),
    Column("expected", "books_expected", 1, 1),
    Column("staleness p50, ms", "staleness_p50_ms", 1, 1),
    Column("p99", "staleness_p99_ms", 1, 1),
    Column("max", "staleness_max_ms", 1, 1),
    Column("web CPU s", "web_cpu_s", 1, 2),
)
_MANY: Final = (
    Column("M records/s", "records_per_s", 1e6, 2),
    Column("engine CPU s", "engine_cpu_s", 1, 2),
    Column("engine MB", "engine_peak_mb"),
    Column("snapshots", "snapshots"),
    Column("written behind the first record, s", "stored_s", 1, 1),
)
_MEMORY: Final = (
    Column("orders resting", "resting_orders"),
    Column("replays", "replays"),
    Column("MB behind the first", "engine_mb_first"),
    Column("behind the last", "engine_mb_last"),
    Column("at most", "engine_peak_mb"),
)
_GATEWAY: Final = (
    Column("M records/s to each", "records_per_s_per_client", 1e6, 1),
    Column("streamer CPU s", "streamer_cpu_s", 1, 2),
    Column("streamer MB", "streamer_peak_mb"),
)
_LATE: Final = (
    Column("records", "records"),
    Column("late p50, ms", "late_ms_p50", 1, 2),
    Column("p99", "late_ms_p99", 1, 2),
    Column("max", "late_ms_max", 1, 2),
)
_CONTROL: Final = (
    Column("p50, ms", "p50_ms", 1, 1),
    Column("p95", "p95_ms", 1, 1),
    Column("max", "max_ms", 1, 1),
)
_SOCKETS: Final = (
    Column("stalled beside", "stalled"),
    Column("ok", "ok"),
    Column("failed", "failed"),
    Column("books each", "msgs_per_client", 1, 1),
    Column("expected", "expected_per_client", 1, 1),
    Column("delivered, %", "delivered_percent", 1, 2),
    Column("staleness p50, ms", "staleness_p50_ms", 1, 1),
    Column("p99", "staleness_p99_ms", 1, 1),
    Column("max", "staleness_max_ms", 1, 1),
    Column("connect p95, ms", "connect_p95_ms", 1, 1),
    Column("% of a core", "server_core_percent", 1, 1),
    Column("server MB", "server_peak_mb"),
)
_CHURN: Final = (
    Column("failed", "failed"),
    Column("files open before", "server_fds_before"),
    Column("after", "server_fds_after"),
    Column("MB before", "server_mb_before", 1, 1),
    Column("after", "server_mb_after", 1, 1),
)


def page(results: Results, facts: Mapping[str, str], note: str) -> str:
    """Return the page. ``facts`` are those of the machine; ``note`` says what a reader must know of this run."""
    rates, labels = _names_of("rate", RATES)
    achieved = Column("achieved, records/s", "records_per_s")
    every = Column("snapshot every", "snapshot_every")
    tables = {
        "targets": target_table(results),
        "rates": table(
            "asked, records/s",
            (achieved, every, *_APPLY, *_SNAP, _LIMIT),
            _rows(results, [*rates, "dbn"], [*labels, "max"]),
        ),
        "pipeline": table("", _STORED, _rows(results, ["dbn", "csv", "every-10", "every-1", "every-change"])),
        "many": table("instruments", _MANY, _rows(results, *_names_of("books", MANY_BOOKS))),
        "latency": table("", (*_APPLY, *_SNAP), _rows(results, ["dbn", "csv", "every-10", "every-1", "every-change"])),
        "publish": table("", _PUBLISH, _rows(results, ["audience"])),
        "memory": table("", _MEMORY, _rows(results, ["memory"])),
        "books": table("", _BOOKS, _rows(results, ["book-1", "book-1000"])),
        "gateway": table("", _GATEWAY, _rows(results, ["gateway-1", "gateway-3"])),
        "punctual": table("pace, times as recorded", _LATE, _paces(results)),
        "control": table("", _CONTROL, _rows(results, ["control"])),
        "sockets": table("clients", _SOCKETS, _rounds(results, ["sockets-10hz", "sockets-20hz", "stalled"])),
        "churn": table("clients", _CHURN, _churns(results)),
    }
    return render_to_string(TEMPLATE, {"facts": facts, "note": note, "tables": tables})


def _names_of(kind: str, numbers: Iterable[int]) -> tuple[list[str], list[str]]:
    """Return what measurements are called that differ by a number, and their labels."""
    return [f"{kind}-{number}" for number in numbers], [f"{number:,}" for number in numbers]


def _rows(results: Results, names: list[str], labels: list[str] | None = None) -> Iterator[Row]:
    for name, label in zip(names, labels or names, strict=True):
        for report, command in _found(results, name):
            yield Row(label, report, command)


def _rounds(results: Results, names: list[str]) -> Iterator[Row]:
    for name in names:
        for report, command in _found(results, name):
            yield Row(f"{report['clients']:,}", report, command)


def _churns(results: Results) -> Iterator[Row]:
    for report, command in list(_found(results, "churn"))[-1:]:  # behind the rounds
        yield Row(f"{report['churn']:,}", report, command)


def _paces(results: Results) -> Iterator[Row]:
    for report, command in _found(results, "punctual"):
        paces: dict[str, Report] = report["market_time"]
        for pace, late in paces.items():
            yield Row(pace, late, command)


def _found(results: Results, name: str) -> Iterator[tuple[Report, str]]:
    """Yield the reports of a measurement, each with its command."""
    if name in results:
        for report in results[name]["reports"]:
            yield report, " ".join(results[name]["words"])


def facts_of(cpu: str, cores: int, memory_bytes: int, versions: Mapping[str, Any]) -> dict[str, str]:
    """Return what is said of a machine."""
    return {
        "processor": f"{cpu}, {cores} cores, {memory_bytes / 2**30:.0f} GB",
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
