"""What traces calls and messages, where a program has switched that on; by default nothing does.

`berrymq_rpc.opentelemetry` installs it. Clients, servers and buses ask for it once, when they are
made, so that without it nothing is asked for each call.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["TRACE_FIELDS", "Carrier", "Span", "Tracing", "install", "installed", "when_installed"]

#: What carries the context of a trace: headers of W3C, which metadata have under the same names.
TRACE_FIELDS = ("traceparent", "tracestate", "baggage")

Carrier = Mapping[str, Any]


class Span(Protocol):
    """One operation that is going on.

    Attributes:
        carrier: the context, for those who continue the trace elsewhere: texts by names.
    """

    carrier: dict[str, str]

    def enter(self) -> None:
        """Make it current in this context, until `leave` is called there."""

    def leave(self) -> None:
        """Make what was current before it current again."""

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

    def send(self, identifier: str) -> Span:
        """Begin to send a message, as a child of what is current here."""

    def process(self, identifier: str) -> Span:
        """Begin to call the receivers of a message, as a child of what is current here."""

    def receive(self, carrier: Carrier | None) -> None:
        """Make current, in this context for good, what the sender of a message has sent of it."""

    def carrier(self) -> dict[str, str]:
        """What carries the context that is current here; empty if there is none."""


_tracing: Tracing | None = None
_listeners: list[Callable[[Tracing | None], object]] = []


def install(tracing: Tracing | None) -> None:
    """Have what is made from now on traced; ``None`` for not any more."""
    global _tracing
    _tracing = tracing
    for listener in _listeners:
        listener(tracing)


def installed() -> Tracing | None:
    """What traces, or ``None``."""
    return _tracing


def when_installed(listener: Callable[[Tracing | None], object]) -> None:
    """Have a function called with what traces from then on: for what is made with the process."""
    _listeners.append(listener)
