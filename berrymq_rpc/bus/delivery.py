"""How a message is delivered: one receiver after another, whatever they raise.

Receivers may send messages themselves. Those that send to each other without end are stopped at
`MAX_DEPTH`, by an error that names the cycle.
"""

import threading
import types
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from ..common.awaitable import PLAIN, as_coroutine, is_awaitable
from ..common.measures import Measures
from ..common.tracing import Tracing, installed
from .async_receivers import AsyncReceivers
from .completion import WrappedCall, registered_receiver
from .log import describe, logger
from .message import Message
from .registrations import Receiver, Refusal
from .routing_table import Route
from .traced_route import TracedRoute, run_traced

__all__ = ["MAX_DEPTH", "Chain", "Delivery", "ErrorHandler", "Sending", "explain", "sending"]

# How deep the messages that receivers send may be nested. Python stops at 1,000 frames by default;
# a level takes three of them here and some in the receiver.
MAX_DEPTH = 100

# How many identifiers of a cycle an error names.
SHOWN = 8

_GENERATORS = (types.GeneratorType, types.AsyncGeneratorType)

ErrorHandler: TypeAlias = Callable[[BaseException, Message, Any], object]


class Delivery:
    """Calls receivers, starts those that are coroutines, and reports what they raise.

    Attributes:
        on_error: that of the `Bus`.
        tracing: makes spans of what is delivered; ``None`` for none.
        meter: counts the receivers and guards that raise; ``None`` while nothing does.
        async_receivers: the ``async def`` receivers that are running.
    """

    __slots__ = ("async_receivers", "meter", "on_error", "tracing")

    def __init__(self) -> None:
        self.on_error: ErrorHandler | None = None
        self.meter: Measures | None = None
        self.tracing = installed()
        self.async_receivers = AsyncReceivers()

    def run(self, route: Route, message: Message) -> int:
        """Make all calls of a route; how many receivers it reached.

        Raises:
            RecursionError: as `Bus.twitter`.
        """
        if self.tracing is not None and type(route) is not TracedRoute:
            return run_traced(self.run, self.tracing, route, message)
        stack = sending.stack
        depth = len(stack)
        if depth >= MAX_DEPTH:
            _stop(stack, route)
        stack.append(route)
        reached = route.reached
        try:
            for call in route.calls:
                try:
                    result = call(message)
                    if result is not None and not self.accept(result, call, message):
                        reached -= 1
                except RecursionError as error:
                    # All that is within this one is part of the cycle. Were it reported here and
                    # the loop continued, two such receivers would make 2**MAX_DEPTH calls; and the
                    # frames to report it with may be lacking.
                    if depth:
                        explain(error, stack)
                        raise
                    self.report(error, message, registered_receiver(call), "failed")
                except Exception as error:
                    self.report(error, message, registered_receiver(call), "failed")
        finally:
            if not depth:
                stack.clear()
            elif depth > 1:
                stack.pop()
            else:
                # What `_stop` has added ends here.
                del stack[1:]
        return reached

    def trace(self, tracing: Tracing | None) -> None:
        """Set what makes the spans."""
        self.tracing = tracing

    def accept(self, result: object, call: Receiver, message: Message) -> bool:
        """Handle what a call has returned; whether its receiver was reached."""
        if isinstance(result, Refusal):
            if isinstance(result.error, RecursionError):
                raise result.error
            if result.error is not None:
                receiver = registered_receiver(call)
                self.report(result.error, message, receiver, "has a guard that failed")
            return False
        if type(result) not in PLAIN and is_awaitable(result):
            receiver = registered_receiver(call)

            def on_error(error: BaseException) -> None:
                self.report(error, message, receiver, "failed")

            on_end = call.on_end if isinstance(call, WrappedCall) else None
            name = f"receiver of {message.id}"
            self.async_receivers.start(as_coroutine(result), name, on_error, on_end)
        elif isinstance(result, _GENERATORS) and not isinstance(call, WrappedCall):
            # What it returned is dropped, unless something tracks its end.
            error = TypeError("it returned a generator, of which no line has run")
            self.report(error, message, registered_receiver(call), "failed")
        return True

    def report(self, error: BaseException, message: Message, receiver: Any, problem: str) -> None:
        """Log an error and hand it to `on_error`, as `Gateway.report` says."""
        name = describe(receiver)
        logger.error("receiver %s %s: %r", name, problem, message, exc_info=error, about=name)
        if self.meter is not None:
            self.meter.receiver_failed()
        if self.on_error is None:
            return
        try:
            self.on_error(error, message, receiver)
        except Exception:
            logger.exception("on_error failed")


class Chain:
    """All that follows, on threads of a pool, from one receiver of a message.

    Attributes:
        is_ended: whether a cycle was found in it; nothing further follows then.
    """

    __slots__ = ("is_ended",)

    def __init__(self) -> None:
        self.is_ended = False

    def end(self) -> bool:
        """End it; `False` if it was ended already."""
        with _ending:
            is_first, self.is_ended = not self.is_ended, True
        return is_first


_ending = threading.Lock()


class Sending(threading.local):
    """What this thread is sending, on any bus.

    In a thread of a pool it begins with what the sender of the message was sending.

    Attributes:
        stack: the routes of the messages, the innermost last.
        chain: what the message belongs to, in a thread of a pool.
    """

    def __init__(self) -> None:
        self.stack: list[Route | None] = []
        self.chain: Chain | None = None


sending = Sending()


def _stop(stack: list[Route | None], route: Route) -> NoReturn:
    """End a recursion: no further message is sent before the thread is back at its first one."""
    cycle = _cycle(stack, route)
    # The receivers on the way may go on after this exception; what they send must fail too.
    stack.extend([None] * MAX_DEPTH)
    raise RecursionError(f"receivers send messages to each other, {MAX_DEPTH} levels deep: {cycle}")


def explain(error: RecursionError, stack: list[Route | None]) -> None:
    """Add to Python's own error which messages led to it: those on the stack."""
    route = stack[-1]
    # Without a route there, the error comes from `_stop`, and says so itself.
    if route is not None and not hasattr(error, "__notes__"):
        error.add_note(f"receivers send messages to each other: {_cycle(stack[:-1], route)}")


def _cycle(stack: list[Route | None], route: Route) -> str:
    sent = [str(outer.identifier) for outer in stack if outer is not None]
    text = str(route.identifier)
    if text not in sent:
        return f"the last are {' -> '.join([*sent[-SHOWN:], text])}"
    sent = sent[len(sent) - 1 - sent[::-1].index(text) :]
    left_out = ["..."] if len(sent) > SHOWN else []
    return f"the cycle is {' -> '.join([*sent[:SHOWN], *left_out, text])}"
