"""What traces calls and messages, where a program has switched that on; by default nothing does.

`berrymq_rpc.opentelemetry` installs it. Clients, servers and buses ask for it once, when they are
made, so that without it nothing is asked for each call.
"""

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["TRACE_FIELDS", "Carrier", "Span", "Tracing", "install", "installed"]

#: What carries the context of a trace: headers of W3C, which metadata have under the same names.
TRACE_FIELDS = ("traceparent", "tracestate", "baggage")

Carrier = Mapping[str, Any]


class Span(Protocol):
    """One operation that is going on.

    Attributes:
        carrier: the context, for those who continue the trace elsewhere: texts by names.
    """

    carrier: dict[str, str]

    def at(self, endpoint: str | None) -> None:
        """Note where the other side is."""

    def end(self, error: BaseException | None = None) -> None:
        """It is over; nothing happens if it was before.

        Args:
            error: what it failed with.
        """


class Tracing(Protocol):
    """Makes spans. Any thread may use it."""

    def call(self, method: str, system: str) -> Span:
        """Begin a call of this side, as a child of what is current here.

        Args:
            method: the full name.
            system: the dialect.
        """

    def serve(self, method: str, system: str, carrier: Carrier | None, client: str | None) -> Span:
        """Begin to serve a call, and make it current in this context for good.

        Args:
            method: the full name of a method that there is.
            system: the dialect.
            carrier: what the caller sent; anything may be in it.
            client: the address of the caller, where that is known.
        """


_tracing: Tracing | None = None


def install(tracing: Tracing | None) -> None:
    """Have what is made from now on traced; ``None`` for not any more."""
    global _tracing
    _tracing = tracing


def installed() -> Tracing | None:
    """What traces, or ``None``."""
    return _tracing
