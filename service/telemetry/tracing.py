"""One trace for a job's whole way: the request that made it, each wake-up, each step, each
measurement.

It is carried as a W3C `traceparent`: on the job's row, in the headers of a message, in what an
agent claims. Spans are sent to where `OTEL_EXPORTER_OTLP_ENDPOINT` says, by the extra
`snugnet[otel]`; without that variable nothing here is loaded or costs anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACEPARENT = "traceparent"
FLUSH_MS = 3000

logger = logging.getLogger(__name__)

_provider: TracerProvider | None = None


def configure(role: str) -> bool:
    """Send this process's spans to the collector of the environment; whether there is one."""
    if not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("traces are not sent: install snugnet[otel]")
        return False
    service = os.environ.get("OTEL_SERVICE_NAME") or f"snugnet-{role}"
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)
    return True


def use(provider: TracerProvider) -> None:
    """Record spans with this one, for the rest of the process."""
    global _provider
    from opentelemetry import trace

    trace.set_tracer_provider(provider)  # FastAPI's own spans of requests look there
    _provider = provider


def flush() -> None:
    """Send what is recorded before this process ends without ceremony."""
    if _provider is not None:
        _provider.force_flush(FLUSH_MS)


@contextmanager
def span(name: str, *, parent: str | None = None, **attributes: Any) -> Iterator[None]:
    """A span around the block, below `parent` (a traceparent) or else below the open one.

    An exception that leaves the block is noted on it.
    """
    if _provider is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract({TRACEPARENT: parent}) if parent else None
    tracer = _provider.get_tracer("snugnet")
    with tracer.start_as_current_span(name, context=above, attributes=_named(attributes)):
        yield


def current_headers() -> Mapping[str, str]:
    """What a request to another process carries to belong to the same trace."""
    headers: dict[str, str] = {}
    if _provider is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers


def current_traceparent() -> str | None:
    """Of the span that is open; None where nothing is recorded."""
    return current_headers().get(TRACEPARENT)


def current_ids() -> Mapping[str, str]:
    """For log lines: the ids of the trace and of the span that is open."""
    if _provider is None:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {f"snugnet.{key}": value for key, value in attributes.items() if value is not None}
