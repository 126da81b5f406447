"""What Prometheus is told of the engine, read at the moment of each scrape. Floor 3.

Counts and durations are over the life of the process. Nothing is counted here, and no lock is held but the mailboxes'
own for some lines. Labels are bounded: the sinks, the sides, the states and kinds that there are, the reasons of the
decoders, and the first MAX_SYMBOLS books. A histogram's bounds are 250 ns x 2^k: see ``LatencyHistogram.below``.
"""

import platform
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from engine_worker.engine import Engine
from engine_worker.histogram import LEAST_BOUND_NS, LatencyHistogram
from engine_worker.sinks.base import Sink
from engine_worker.status import Feed
from orderbook.book.anomaly import Anomaly
from orderbook.book.snapshot import BookSnapshot, BookState

MAX_SYMBOLS: Final = 100
DOUBLINGS: Final = 23  # up to 1.05 s
BOUNDS: Final = [f"{LEAST_BOUND_NS * 2**k / 1e9:.10g}" for k in range(DOUBLINGS)]

_SINK_COUNTS: Final[list[tuple[type[CounterMetricFamily] | type[GaugeMetricFamily], str, str, str]]] = [
    (CounterMetricFamily, "offered", "offered", "Snapshots offered; the next four and the queue's items add up to it."),
    (CounterMetricFamily, "written", "written", "Snapshots that the target has."),
    (CounterMetricFamily, "duplicates", "duplicates", "Snapshots that the target had already."),
    (CounterMetricFamily, "dropped", "dropped", "Snapshots lost, each time with a reason in the log."),
    (CounterMetricFamily, "conflated", "conflated", "Snapshots replaced by newer ones before they went out."),
    (CounterMetricFamily, "spilled", "spilled", "Snapshots moved to the disk."),
    (GaugeMetricFamily, "queue_items", "pending", "Snapshots that wait, on disk or in memory."),
    (GaugeMetricFamily, "queue_bytes", "queue_bytes", "Memory of what waits."),
    (GaugeMetricFamily, "queue_capacity_bytes", "queue_capacity_bytes", "Its bound; 0: one for each book."),
    (GaugeMetricFamily, "disk_items", "on_disk", "Snapshots that wait on disk."),
    (GaugeMetricFamily, "disk_bytes", "disk_bytes", "Their files."),
    (GaugeMetricFamily, "disk_capacity_bytes", "disk_capacity_bytes", "Their bound; 0: nothing goes there."),
]
"""Kind, name, field of SinkCounters, and what it means."""


class Spans(Protocol):
    """How many spans there were."""

    @property
    def ended(self) -> int: ...

    @property
    def exported(self) -> int: ...


class EngineCollector(Collector):
    """Reads the engine, its sinks and its feed."""

    def __init__(
        self,
        engine: Engine,
        sinks: Sequence[Sink[Any]],
        feed: Feed,
        publish_ns: LatencyHistogram,
        spans: Spans | None = None,
    ) -> None:
        self._engine, self._sinks, self._feed, self._publish_ns = engine, sinks, feed, publish_ns
        self._spans = spans

    def collect(self) -> Iterator[Metric]:
        yield self._build()
        yield from self._records()
        yield from self._durations()
        yield from self._feed_metrics()
        yield from self._sink_counts()
        yield from self._sink_states()
        yield from _books(self._engine.pusher.complete)
        if self._spans is not None:
            yield _counter("mbo_trace_spans_ended", "Spans that were made.", self._spans.ended)
            yield _counter("mbo_trace_spans_exported", "Spans that the collector has.", self._spans.exported)

    def describe(self) -> Iterator[Metric]:
        return iter(())  # nothing is looked at when it is registered

    def _build(self) -> Metric:
        config = self._engine.config
        build = GaugeMetricFamily(
            "mbo_build_info", "What runs; always 1.", labels=("engine", "version", "python", "book")
        )
        build.add_metric((config.name, config.version, platform.python_version(), config.book), 1)
        return build

    def _records(self) -> Iterator[Metric]:
        counters, flow = self._engine.counters, self._engine.counters.settled
        anomalies = self._engine.anomalies.counts
        yield _counter(
            "mbo_records_received", "What arrived: applied, ignored and rejected add up to it.", flow.received
        )
        yield _counter("mbo_records_applied", "Records that went into the books.", flow.applied)
        yield _counter("mbo_records_ignored", "Records beyond MAX_MSGS.", flow.ignored)
        rejected = CounterMetricFamily(
            "mbo_records_rejected", "What arrived and was no MBO record.", labels=("reason",)
        )
        for reason, count in flow.rejected.items():
            rejected.add_metric((reason,), count)
        yield rejected
        yield _counter("mbo_events", "Venue events that applied records closed.", counters.events)
        yield _counter(
            "mbo_sequence_gaps",
            "Records behind a gap that the vendor saw in its channel (MAYBE_BAD_BOOK); the sequence numbers of one "
            "instrument tell none.",
            anomalies.get(Anomaly.MAYBE_BAD_BOOK, 0),
        )
        faults = CounterMetricFamily("mbo_anomalies", "Data faults that books counted, a second old.", labels=("kind",))
        for kind in Anomaly:
            faults.add_metric((kind,), anomalies.get(kind, 0))
        yield faults
        yield _counter("mbo_snapshots", "Snapshots handed to the stores.", counters.snapshots)
        yield _counter("mbo_pushes", "Live books handed to the broadcast.", self._engine.pusher.pushes)
        yield _counter("mbo_replay_runs", "Replays that began.", counters.runs)

    def _durations(self) -> Iterator[Metric]:
        apply_ns, snap_ns = self._engine.sampler.apply_ns, self._engine.snap_ns
        for name, text, durations in (
            ("mbo_apply_duration", "Decoding and applying a record; some records of each millisecond.", apply_ns),
            (
                "mbo_snapshot_duration",
                "From the end of an event until its snapshot is handed over, encoding too.",
                snap_ns,
            ),
            ("mbo_event_to_publish", "From the arrival of a change until Redis has it.", self._publish_ns),
        ):
            yield _histogram(f"{name}_seconds", text, durations)
            yield _gauge(f"{name}_longest_seconds", f"{text} The longest so far.", durations.max_ns / 1e9)

    def _feed_metrics(self) -> Iterator[Metric]:
        counters, lag = self._engine.counters, self._feed.lag()
        connected = self._engine.state in ("waiting", "streaming")
        yield _gauge("mbo_feed_connected", "1 while there is a connection to the feed.", int(connected))
        yield _counter("mbo_feed_connections", "Connections that were made.", counters.connections)
        yield _counter(
            "mbo_feed_interruptions", "Connections that broke in the middle of a replay.", counters.interruptions
        )
        yield _counter(
            "mbo_feed_partial_frames",
            "Of those, how many broke inside a record or with garbage: nothing was made of it.",
            counters.partial_frames,
        )
        yield _counter("mbo_feed_notices", "What the feed said of itself: system and error records.", counters.notices)
        yield _gauge("mbo_feed_unread_bytes", "Bytes that arrived and were not received.", lag.unread_bytes)
        yield _gauge("mbo_feed_lag_records", "As many records as that is.", lag.records)
        yield _gauge("mbo_feed_lag_seconds", "How long the oldest of them has waited, at most.", lag.ns / 1e9)

    def _sink_counts(self) -> Iterator[Metric]:
        counts = {sink.name: sink.counters for sink in self._sinks}
        for make, name, field, text in _SINK_COUNTS:
            family = make(f"mbo_sink_{name}", text, labels=("sink",))
            for sink, counters in counts.items():
                family.add_metric((sink,), getattr(counters, field))
            yield family

    def _sink_states(self) -> Iterator[Metric]:
        degraded = GaugeMetricFamily("mbo_sink_degraded", "1 while the target cannot be written to.", labels=("sink",))
        failures = CounterMetricFamily("mbo_sink_write_failures", "Writes that failed and were kept.", labels=("sink",))
        written = HistogramMetricFamily("mbo_sink_write_duration_seconds", "Writing one batch.", labels=("sink",))
        for sink in self._sinks:
            degraded.add_metric((sink.name,), int(bool(sink.degraded)))
            failures.add_metric((sink.name,), sink.failures)
            written.add_metric((sink.name,), *_buckets(sink.write_ns))
        yield from (degraded, failures, written)
        yield _gauge("mbo_results_degraded", "1 when the last results were not written.", int(bool(self._engine.fault)))


def registry_of(collector: EngineCollector) -> CollectorRegistry:
    """Return a registry with the engine, and its process where the system tells (Linux)."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def _books(books: dict[str, BookSnapshot]) -> Iterator[Metric]:
    yield _gauge("mbo_books", "Books of the run.", len(books))
    shown = dict(sorted(books.items())[:MAX_SYMBOLS])
    yield _gauge("mbo_books_unlisted", "Of those, how many have no metrics of their own.", len(books) - len(shown))
    state = GaugeMetricFamily("mbo_book_state", "1 for the state that the book is in.", labels=("symbol", "state"))
    levels = GaugeMetricFamily("mbo_book_levels", "Price levels.", labels=("symbol", "side"))
    orders = GaugeMetricFamily("mbo_book_orders", "Resting orders.", labels=("symbol",))
    newest = GaugeMetricFamily(
        "mbo_book_event_timestamp_seconds", "Market time of its newest event.", labels=("symbol",)
    )
    for symbol, book in shown.items():
        for each in BookState:
            state.add_metric((symbol, each), int(book.state is each))
        for side, found in (("bid", book.bids), ("ask", book.asks)):
            levels.add_metric((symbol, side), len(found))
        orders.add_metric((symbol,), int(book.bids[:, 2].sum() + book.asks[:, 2].sum()))
        newest.add_metric((symbol,), book.ts_event / 1e9)
    yield from (state, levels, orders, newest)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _histogram(name: str, text: str, durations: LatencyHistogram) -> Metric:
    family = HistogramMetricFamily(name, text)
    family.add_metric((), *_buckets(durations))
    return family


def _buckets(durations: LatencyHistogram) -> tuple[list[tuple[str, float]], float]:
    below, count = durations.below(DOUBLINGS)
    return [*zip(BOUNDS, below, strict=True), ("+Inf", count)], durations.sum_ns / 1e9
