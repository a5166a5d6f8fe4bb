"""How the delivery of a message becomes spans: one while it is sent, one while it is received."""

import threading
from collections.abc import Callable
from typing import Any

from ..common.tracing import Span, Tracing
from .completion import OnEnd, WrappedCall, track
from .message import Message
from .registrations import Receiver, is_sink
from .routing_table import Route

__all__ = ["TracedRoute", "run_traced"]


class TracedRoute(Route):
    """A route for one message, whose receivers report their ends to a span."""

    __slots__ = ()


def run_traced(
    run: Callable[[Route, Message], int], tracing: Tracing, route: Route, message: Message
) -> int:
    """Make all calls of a route within spans.

    A message of this process has one while it is sent, which ends with that. Its receivers have one
    together, from the first to the end of the last, in whatever thread. What only puts a message
    aside, as a queue does, has none.

    Args:
        run: makes the calls of a `TracedRoute`.
    """
    identifier = str(route.identifier)
    sending = tracing.send(identifier) if message.origin is None else None
    receiving = _Receiving(tracing, identifier)
    calls: list[Receiver] = list(route.forwarders)
    receivers = route.receivers
    tracked = [call if is_sink(call) else _tracked(call, receiving.on_end) for call in receivers]
    sinks = sum(map(is_sink, receivers))
    if sinks < len(receivers):
        # After the forwarders: other processes continue from the sending.
        calls.append(receiving.enter)
    calls += tracked
    if sending is not None:
        sending.enter()
    try:
        reached = run(TracedRoute(route.identifier, tuple(calls), route.reached), message)
    except BaseException as error:
        receiving.leave(0, error)
        if sending is not None:
            sending.end(error)
        raise
    else:
        receiving.leave(reached - sinks)
        if sending is not None:
            sending.end()
        return reached
    finally:
        if sending is not None:
            sending.leave()


def _tracked(call: Receiver, on_end: OnEnd) -> WrappedCall:
    """The same call, whose end is reported here too."""
    before = call.on_end if isinstance(call, WrappedCall) else None
    if before is None:
        return track(call, on_end)

    def both(result: Any, error: BaseException | None) -> None:
        try:
            before(result, error)
        finally:
            on_end(result, error)

    return track(call, both)


class _Receiving:
    """The span of the receivers of one message, which may end in any thread."""

    def __init__(self, tracing: Tracing, identifier: str) -> None:
        self._tracing = tracing
        self._identifier = identifier
        self._span: Span | None = None
        self._lock = threading.Lock()
        self._ended = 0
        self._expected: int | None = None
        self._error: BaseException | None = None

    def enter(self, message: Message) -> None:
        """Begin, as a call of the route."""
        self._span = self._tracing.process(self._identifier)
        self._span.enter()

    def on_end(self, result: Any, error: BaseException | None) -> None:
        """Note that one more receiver has ended."""
        with self._lock:
            self._ended += 1
            self._error = self._error or error
            is_over = self._ended == self._expected
        if is_over:
            self._end()

    def leave(self, expected: int, error: BaseException | None = None) -> None:
        """All are called: end once so many have ended, or now with an error."""
        if self._span is None:
            return
        self._span.leave()
        with self._lock:
            self._expected = expected
            self._error = self._error or error
            is_over = self._ended >= expected
        if is_over:
            self._end()

    def _end(self) -> None:
        if self._span is not None:
            self._span.end(self._error)
