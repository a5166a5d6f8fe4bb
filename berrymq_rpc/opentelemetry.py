"""OpenTelemetry: each call and message is a span, on both sides, and one trace from end to end.

It needs the extra ``otel``, which brings OpenTelemetry's API; an SDK, which sends the spans
somewhere, is the program's choice.
"""

import asyncio
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .common.tracing import TRACE_FIELDS, Carrier, install
from .endpoint import Endpoint
from .errors import GenericError
from .runtime.extra import missing_package

try:
    from opentelemetry import context as context_api
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("opentelemetry"):
        raise
    raise missing_package("tracing needs opentelemetry-api", "otel", "opentelemetry") from None

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["instrument", "uninstrument"]

#: Names of systems where OpenTelemetry has one; others are named as the dialect is.
_SYSTEMS = {"native": "berrymq_rpc", "micro": "nats"}

#: Bytes of what travels of a trace. `tracestate` has at most 512 characters by W3C's rules, and
#: baggage may fill the metadata of a call; without it a trace is whole all the same.
MAX_CARRIER = 2 << 10

#: Characters of a peer's field that are read.
MAX_FIELD = 8 << 10

#: Characters of an exception's text in the status of a span.
MAX_DESCRIPTION = 300


def instrument(tracer_provider: "TracerProvider | None" = None) -> None:
    """Trace the calls and messages of all that is made from now on in this process.

    Call it first, before clients, servers, bridges and nodes are made: those that exist already
    are not traced. The context of a trace travels by the propagator that is set for the process
    (`opentelemetry.propagate`): W3C's, unless the program has set another.

    Args:
        tracer_provider: makes the tracer; ``None`` for the one that is set for the process.

    Raises:
        TypeError: `tracer_provider` is not a provider.
    """
    if tracer_provider is not None and not isinstance(tracer_provider, trace.TracerProvider):
        raise TypeError(f"not a TracerProvider: {tracer_provider!r:.100}")
    # Its version is that of the package; read here, as few need it.
    from importlib.metadata import PackageNotFoundError, version

    found = None
    with suppress(PackageNotFoundError):
        found = version("berrymq-rpc")
    install(_Tracing(trace.get_tracer("berrymq_rpc", found, tracer_provider)))


def uninstrument() -> None:
    """Trace nothing that is made from now on."""
    install(None)


class _Tracing:
    """Makes the spans: a `common.tracing.Tracing`."""

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    def call(self, method: str, system: str) -> "_Span":
        attributes = {"rpc.system.name": _SYSTEMS.get(system, system), "rpc.method": method}
        span = self._tracer.start_span(method, kind=SpanKind.CLIENT, attributes=attributes)
        return _Span(span, _carrier(span))

    def serve(
        self, method: str, system: str, carrier: Carrier | None, client: str | None
    ) -> "_Span":
        attributes = {"rpc.system.name": _SYSTEMS.get(system, system), "rpc.method": method}
        if client:
            attributes["client.address"] = client
        parent = _extracted(carrier)
        span = self._tracer.start_span(method, parent, kind=SpanKind.SERVER, attributes=attributes)
        context_api.attach(trace.set_span_in_context(span, parent))
        return _Span(span, {}, serves=True)

    def send(self, identifier: str) -> "_Span":
        return self._message("send", identifier, SpanKind.PRODUCER)

    def process(self, identifier: str) -> "_Span":
        return self._message("process", identifier, SpanKind.CONSUMER)

    def _message(self, operation: str, identifier: str, kind: SpanKind) -> "_Span":
        attributes = {
            "messaging.system": "berrymq_rpc",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": identifier,
        }
        name = f"{operation} {identifier}"
        return _Span(self._tracer.start_span(name, kind=kind, attributes=attributes), {})

    def receive(self, carrier: Carrier | None) -> None:
        context_api.attach(_extracted(carrier))

    def carrier(self) -> dict[str, str]:
        return _carrier(trace.get_current_span())


class _Span:
    """One span: a `common.tracing.Span`."""

    __slots__ = ("_serves", "_span", "_token", "carrier")

    def __init__(self, span: "Span", carrier: dict[str, str], *, serves: bool = False) -> None:
        self._span = span
        self._serves = serves
        self._token: Any = None
        self.carrier = carrier

    def enter(self) -> None:
        self._token = context_api.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        context_api.detach(self._token)

    def at(self, endpoint: str | None) -> None:
        if endpoint and self._span.is_recording():
            self._span.set_attributes(_place(endpoint))

    def end(self, error: BaseException | None = None) -> None:
        span = self._span
        if not span.is_recording():
            # It was not sampled, or has ended.
            return
        if isinstance(error, GeneratorExit) or (
            self._serves and isinstance(error, asyncio.CancelledError)
        ):
            # No failure: who reads a stream has seen enough, or a caller wants no result any more.
            span.add_event("cancelled")
        elif error is not None:
            span.set_attribute("error.type", _type_name(error))
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, _described(error)))
        span.end()


def _type_name(error: BaseException) -> str:
    """What an exception is an instance of: at the peer, where this side does not know the class."""
    if isinstance(error, GenericError):
        return str(error.exc_type)[:MAX_DESCRIPTION]
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")


def _described(error: BaseException) -> str:
    try:
        return str(error)[:MAX_DESCRIPTION] or type(error).__name__
    except Exception:
        return type(error).__name__


def _carrier(span: "Span") -> dict[str, str]:
    """What carries the context of a span to where the trace goes on."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    if sum(len(name) + len(value) for name, value in carrier.items()) > MAX_CARRIER:
        carrier = {name: value for name, value in carrier.items() if name == TRACE_FIELDS[0]}
    return carrier


def _extracted(carrier: Carrier | None) -> Any:
    """The context that a peer sent; without one that can be read, an empty one.

    Never what is current here: a server may have been started within a span of its program.
    """
    texts = {
        name: value
        for name, value in (carrier or {}).items()
        if isinstance(value, str) and len(value) <= MAX_FIELD
    }
    empty = context_api.Context()
    if not texts:
        return empty
    try:
        return propagate.extract(texts, empty)
    except Exception:
        # A propagator of the user's may not expect what a peer can send.
        return empty


@lru_cache(1000)
def _place(endpoint: str) -> dict[str, str | int]:
    """Attributes that say where a server is."""
    try:
        found = Endpoint.parse(endpoint)
    except ValueError:
        # A client of several servers, before it is connected.
        return {}
    if not found.host:
        return {"server.address": endpoint.partition("://")[2]}
    place: dict[str, str | int] = {"server.address": found.host}
    if isinstance(found.port, int):
        place["server.port"] = found.port
    return place
