"""Traces: the context that goes with a job, and spans. The only module that knows OpenTelemetry.

OpenTelemetry is imported where a collector is named (OTEL_EXPORTER_OTLP_ENDPOINT, or the same for traces alone), and
nowhere else. It reads the other OTEL_* variables itself.

A context is a `traceparent` (https://www.w3.org/TR/trace-context/), passed on as text and never by the thread, for many
requests may be under way in one. `tracestate` is neither read nor passed on.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal

from knative_jobs.runtime.settings import settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OpenTelemetrySpan
    from opentelemetry.trace import Tracer

FLUSH_SECONDS = 3
"""The longest that the end of a process waits for a collector to take the last spans."""

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def parse(header: str) -> str:
    """Return the `traceparent` of a header, as version 00 writes it. Empty: there is none, or it is not valid."""
    found = _TRACEPARENT.fullmatch(header)
    if not found:
        return ""
    version, ids, flags, more = found.groups()
    if version == "00":
        return "" if more else header
    return f"00-{ids}-{int(flags, 16) & 1:02x}"  # of a later version's flags only "sampled" is known


def enabled() -> bool:
    """Return whether spans are sent anywhere."""
    return bool(settings().otel_exporter_otlp_endpoint or settings().otel_exporter_otlp_traces_endpoint)


def prepare() -> None:
    """Import what spans need, when they are sent anywhere, so that no request waits for it."""
    if enabled():
        import opentelemetry.sdk.trace.export  # noqa: F401

        _exporter()


class Span:
    """A span under way. Where spans are sent nowhere it is only its `traceparent`, which is then that of its parent."""

    def __init__(self, traceparent: str, span: "OpenTelemetrySpan | None" = None) -> None:
        self.traceparent = traceparent
        self._span = span

    def note(self, name: str, value: str | int) -> None:
        """Add an attribute. No secret, and nothing of what was submitted, belongs into one."""
        if self._span:
            self._span.set_attribute(name, value)

    def went_wrong(self, kind: str) -> None:
        """Mark the span as an error of some kind: a status of HTTP, or the name of an exception."""
        if self._span:
            from opentelemetry.trace import StatusCode

            self._span.set_attribute("error.type", kind)
            self._span.set_status(StatusCode.ERROR)


@contextmanager
def span(
    name: str, kind: Literal["SERVER", "PRODUCER", "CONSUMER"], parent: str, attributes: Mapping[str, str | int]
) -> Iterator[Span]:
    """Let what is done within be a span. An exception that leaves it marks it as an error.

    Args:
        name: one of few, whatever is asked for.
        kind: as OpenTelemetry names it.
        parent: the `traceparent` of the span or request that led to this. Empty: a trace begins here.
        attributes: as for `Span.note`, by the names of https://opentelemetry.io/docs/specs/semconv/ where there is one.
    """
    if not enabled():
        yield Span(parent)
        return
    from opentelemetry.trace import SpanKind

    begun = _tracer().start_span(name, _context(parent), SpanKind[kind], attributes)
    of = begun.get_span_context()
    own = f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}" if of.is_valid else parent
    shown = Span(own, begun)
    try:
        yield shown
    except BaseException as error:
        shown.went_wrong(type(error).__name__)
        raise
    finally:
        begun.end()


def _context(parent: str) -> "Context":
    from opentelemetry import trace
    from opentelemetry.context import Context

    if not parse(parent):
        return Context()
    _, trace_id, span_id, flags = parent.split("-")
    remote = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), Context())


@cache
def _exporter() -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


@cache
def _tracer() -> "Tracer":
    """Return the tracer of this process. The first span makes it: a server may fork once it has loaded a function."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({"service.name": settings().k_service or "knative-jobs"})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    _flush_at_exit(provider)
    return provider.get_tracer("knative_jobs")


def _flush_at_exit(provider: "TracerProvider") -> None:
    """Send at the end of this process what is batched, and wait no longer than FLUSH_SECONDS for that.

    granian's workers are forked by multiprocessing, which ends them with os._exit: no atexit function runs, but
    multiprocessing's own finalizers do, as they do at the end of any other process. The thread is started here because
    a process that ends can start none.
    """
    from multiprocessing.util import Finalize

    asked, done = threading.Event(), threading.Event()

    def wait_and_send() -> None:
        asked.wait()
        provider.shutdown()
        done.set()

    def send() -> None:
        asked.set()
        done.wait(FLUSH_SECONDS)

    threading.Thread(target=wait_and_send, daemon=True).start()
    Finalize(None, send, exitpriority=0)
