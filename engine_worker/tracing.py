"""Spans for OpenTelemetry: one for each batch that a thread of the engine works on, never one a record. Floor 3.

Only imported where OTEL_TRACES=1: it loads an HTTP client and protobuf, and an engine without traces runs none of this.
Where spans go is for the standard names of the environment to say (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_BSP_…). What the
collector does not take in time is dropped, oldest first: ``ended`` less ``exported`` says how many.
"""

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, Final, TypeVar

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from engine_worker.config import EngineConfig
from engine_worker.engine import Engine
from engine_worker.sinks.base import ThreadedSink, Write, Written
from orderbook.book.mbo import MboArray

T = TypeVar("T")

CLOSE_S: Final = 1.0
_SPANS: Final = {"database": "snapshot.write", "jsonl": "snapshot.write", "broadcast": "book.publish"}


class Tracing:
    """What makes spans, and takes them away on a thread of its own."""

    def __init__(self, config: EngineConfig, exporter: SpanExporter | None = None) -> None:
        names = {
            "service.name": "batonic-engine",
            "service.instance.id": config.name,
            "service.version": config.version,
        }
        self._exporter = _Counting(exporter or OTLPSpanExporter())
        self._processor = _Bounded(self._exporter)
        self._provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self.tracer = self._provider.get_tracer("batonic", config.version)

    @property
    def ended(self) -> int:
        """Spans that were made."""
        return self._processor.ended

    @property
    def exported(self) -> int:
        """Spans that the collector has."""
        return self._exporter.exported

    def watch(self, sink: ThreadedSink[Any], run_id: Callable[[], str]) -> None:
        """Make a span of each batch that a sink writes. To be called before the sink starts."""
        sink.write_through(lambda write: traced(write, sink.name, self.tracer, run_id))

    def engine(self, *args: Any, **options: Any) -> Engine:
        """Return an engine that makes spans; it takes what any engine does."""
        return TracedEngine(self.tracer, *args, **options)

    def close(self) -> None:
        """Send what is left, at most for a second: a collector that is away does not hold the end up."""
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


class TracedEngine(Engine):
    """An engine that makes a span of each batch of records."""

    def __init__(self, tracer: Tracer, *args: Any, **options: Any) -> None:
        self._tracer = tracer
        super().__init__(*args, **options)

    def step(self, records: MboArray, decode_ns: int = 0) -> None:
        if not len(records):
            super().step(records, decode_ns)
            return
        with self._tracer.start_as_current_span("engine.batch") as span:
            before = self.counters.snapshots
            super().step(records, decode_ns)
            span.set_attributes(
                {
                    "run_id": self.shown.run_id,
                    "records": len(records),
                    "snapshots": self.counters.snapshots - before,
                    "decode_ns": decode_ns,
                }
            )


def traced(write: Write[T], sink: str, tracer: Tracer, run_id: Callable[[], str]) -> Write[T]:
    """Return what writes, and makes a span of each batch; the run is the one under way: rows in a queue know none."""

    def write_in_span(batch: list[T]) -> Written:
        if not batch:
            return write(batch)
        about = {"run_id": run_id(), "sink": sink}
        with tracer.start_as_current_span(_SPANS[sink], attributes=about) as span:
            done = write(batch)
            span.set_attributes(done._asdict())
            return done

    return write_in_span


class _Bounded(BatchSpanProcessor):
    """The usual queue of 2,048 spans; counts what was put into it."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter)
        self.ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1
        super().on_end(span)


class _Counting(SpanExporter):
    """Counts what another exporter got rid of."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exported = 0
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
