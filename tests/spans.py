"""What OpenTelemetry has recorded, for tests of tracing: the fixture `spans`."""

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind


class Spans:
    """What was recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def of(self, name: str, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.all if (span.name, span.kind) == (name, kind)]

    def one(self, name: str, kind: SpanKind) -> ReadableSpan:
        (span,) = self.of(name, kind)
        return span

    def pair(self, name: str) -> tuple[ReadableSpan, ReadableSpan]:
        """The spans of a call at its client and at its server, which are one trace."""
        client, server = self.one(name, SpanKind.CLIENT), self.one(name, SpanKind.SERVER)
        assert server.parent is not None
        assert server.parent.is_remote
        assert server.parent.span_id == client.context.span_id
        assert server.context.trace_id == client.context.trace_id
        return client, server
