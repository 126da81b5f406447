"""Spans of the engine: what they say, what a lost collector costs, and that without them nothing is loaded."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from engine_worker.fifo_mailbox import FifoMailbox
from engine_worker.sinks.base import SinkUnavailable, ThreadedSink, Written
from engine_worker.tests.builders import FeedServer, Remembering, blank, config, dbn_bytes, send_and_end, session
from engine_worker.tests.parcels import Parcel
from engine_worker.tracing import Tracing

WaitFor = Callable[..., object]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(tmp_path: Path, exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    made = Tracing(config(tmp_path, name="east", version="1.2.3"), exporter)
    yield made
    made.close()


def test_a_batch_of_records_is_a_span_with_its_run(
    tmp_path: Path, tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    engine = tracing.engine(config(tmp_path, snapshot_every=50), [Remembering()], Remembering())
    engine.begin({}.get)
    engine.step(session(300), decode_ns=77)
    engine.step(blank(0))
    tracing.close()
    [span] = exporter.get_finished_spans()
    assert span.name == "engine.batch"
    assert dict(span.attributes) == {
        "run_id": engine.shown.run_id, "records": 300, "snapshots": engine.counters.snapshots, "decode_ns": 77,
    }  # fmt: skip
    resource = span.resource.attributes
    assert (resource["service.name"], resource["service.instance.id"]) == ("batonic-engine", "east")
    assert (tracing.ended, tracing.exported) == (1, 1)


class Writer:
    """A writer of some words, that is away at first."""

    target, encode_ns, away = "The target", 0, True

    def write(self, batch: list[Parcel]) -> Written:
        if self.away and batch:
            raise SinkUnavailable("it is away")
        return Written(sum(map(len, batch)))

    def close(self) -> None: ...


def test_each_write_of_a_sink_is_a_span_and_looking_for_work_is_none(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    writer = Writer()
    sink = ThreadedSink("database", FifoMailbox[Parcel](100, 10, 0.001), writer)
    tracing.watch(sink, lambda: "run 7")
    assert sink.step(0)
    sink.offer(Parcel([1, 2, 3]))
    assert not sink.step(0)
    writer.away = False
    assert sink.step(0)
    tracing.close()
    failed, done = exporter.get_finished_spans()
    assert failed.name == done.name == "snapshot.write"
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(done.attributes) == {
        "run_id": "run 7", "sink": "database", "written": 3, "duplicates": 0, "dropped": 0,
    }  # fmt: skip


class Stuck(InMemorySpanExporter):
    """A collector that does not answer until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()
        self.ended = False

    def export(self, spans: object) -> SpanExportResult:
        self.may.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ended = True


def test_a_collector_that_does_not_answer_costs_spans_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine_worker.tracing.CLOSE_S", 0.05)
    stuck = Stuck()
    tracing = Tracing(config(tmp_path), stuck)
    for _ in range(5000):
        tracing.tracer.start_span("one").end()
    assert len(tracing._processor._batch_processor._queue) <= 2048
    tracing.close()
    assert not stuck.ended, "the collector was waited for"
    assert (tracing.ended, tracing.exported) == (5000, 0)
    stuck.may.set()
    tracing._processor._batch_processor._worker_thread.join(10)


class Collector:
    """What takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.spans: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.paths.add(self.path)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            words = {each.key: each.value.string_value for each in span.attributes}
                            outer.spans.append((span.name, words))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_an_engine_process_sends_its_spans_to_the_collector_of_the_environment(
    spawn: Spawn, process_env: dict[str, str], data_folder: Path
) -> None:
    with Collector() as collector, FeedServer(send_and_end(dbn_bytes(session(2000)))) as server:
        env = process_env | {
            "FEED_PROTOCOL": "raw", "FEED_FRAMING": "dbn", "FEED_PORT": str(server.port), "SNAPSHOT_EVERY": "50",
            "OTEL_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SDK_DISABLED": "",
        }  # fmt: skip
        process = spawn("runengine", env=env, until=lambda: (data_folder / "benchmarks.jsonl").exists())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert collector.paths == {"/v1/traces"}
    assert {name for name, _ in collector.spans} == {"engine.batch", "snapshot.write", "book.publish"}
    run_id = json.loads((data_folder / "benchmarks.jsonl").read_text())["run_id"]
    assert {words["run_id"] for _, words in collector.spans} == {run_id}


def test_without_traces_nothing_of_it_is_loaded() -> None:
    # redis looks for metrics of OpenTelemetry wherever it is installed: that is not ours
    code = (
        "unwanted = ('engine_worker.tracing', 'opentelemetry.exporter', 'opentelemetry.sdk.trace'); "
        "import django, os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'batonic_site.settings'; django.setup(); "
        "import engine_worker.threads; print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
