"""Spans within one process, recorded by the SDK; tests/workers follows one over processes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.client import Client
from service.database.db import Database
from service.database.models import Job
from service.steps import outbox
from service.steps.queue import InMemoryQueue
from service.telemetry import tracing
from service.telemetry.logs import JsonFormatter
from tests.service.helpers import create_job
from tests.service.serving import upload_both

_exporter = InMemorySpanExporter()


@pytest.fixture(scope="module")
def _provider() -> TracerProvider:
    """OpenTelemetry takes one for the life of a process."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    return provider


@pytest.fixture
def spans(_provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    monkeypatch.setattr(tracing, "_provider", None)
    tracing.use(_provider)
    _exporter.clear()
    return _exporter


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


def test_a_job_belongs_to_the_trace_of_the_request_that_made_it(
    spans: InMemorySpanExporter, client: Client, database: Database, tmp_path: Path
) -> None:
    spec = upload_both(client, tmp_path)
    spans.clear()
    with tracing.span("a user's program"):
        job_id = client.submit(spec).id
    outbox.publish(database, InMemoryQueue())

    outer = named(spans, "a user's program")
    request = named(spans, "POST /v1/search-jobs")
    with database.read() as session:
        traceparent = session.get_one(Job, job_id).traceparent
    assert request.context is not None
    assert outer.context is not None
    assert request.parent is not None
    assert request.parent.span_id == outer.context.span_id
    trace_id, span_id = request.context.trace_id, request.context.span_id
    assert traceparent is not None
    assert traceparent.split("-")[1:3] == [f"{trace_id:032x}", f"{span_id:016x}"]


def test_a_wake_up_is_sent_within_the_trace_of_its_job(
    spans: InMemorySpanExporter, database: Database
) -> None:
    class Headers(InMemoryQueue):
        def enqueue(self, step_id: str, kind: str) -> bool:
            self.traceparent = tracing.current_traceparent()
            return super().enqueue(step_id, kind)

    with tracing.span("request"):
        create_job(database, kind="evaluate")
    queue = Headers()
    outbox.publish(database, queue)
    request, dispatch = named(spans, "request"), named(spans, "dispatch")
    assert dispatch.context is not None
    assert request.context is not None
    assert dispatch.context.trace_id == request.context.trace_id
    assert dispatch.attributes is not None
    assert dispatch.attributes["snugnet.kind"] == "evaluate"
    assert queue.traceparent is not None
    assert queue.traceparent.split("-")[2] == f"{dispatch.context.span_id:016x}"


def test_what_looks_after_the_process_is_not_traced(
    spans: InMemorySpanExporter, http: TestClient
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        http.get(path)
    assert spans.get_finished_spans() == ()


def test_an_error_is_noted_on_its_span(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="broken"), tracing.span("work"):
        raise ValueError("it is broken")
    span = named(spans, "work")
    assert not span.status.is_ok
    assert span.events[0].name == "exception"


def test_a_line_of_the_log_names_the_trace(spans: InMemorySpanExporter) -> None:
    with tracing.span("work"):
        record = logging.makeLogRecord({"msg": "at it", "levelname": "INFO"})
        line = json.loads(JsonFormatter(()).format(record))
    context = named(spans, "work").context
    assert context is not None
    assert (line["trace_id"], line["span_id"]) == (
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
    )


def test_without_a_collector_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys\nfrom service.telemetry import tracing\n"
        "assert not tracing.configure('agent')\n"
        "with tracing.span('x'): assert tracing.current_traceparent() is None\n"
        "tracing.flush()\n"
        "assert not {m for m in sys.modules if m.startswith('opentelemetry')}"
    )
    for name in tracing.ENDPOINT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_with_a_collector_but_without_the_extra_there_is_a_warning_and_no_failure() -> None:
    code = (
        "import os, sys\nsys.modules['opentelemetry.sdk'] = None\n"
        "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = 'http://127.0.0.1:9'\n"
        "from service.telemetry import tracing\nassert not tracing.configure('agent')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "install snugnet[otel]" in done.stderr
