"""How a message runs through its route: one receiver after another, whatever they raise."""

import types
from collections.abc import Callable
from typing import Any, TypeAlias

from .answering import Answering
from .log import bus_logger, describe
from .message import Message
from .pooled_call import PooledCall
from .registrations import FunctionRegistration, MethodRegistration, Receiver, Refusal
from .route import MAX_DEPTH, Route, explain, sending, stop
from .tasks import Tasks

__all__ = ["Delivery", "ErrorHandler"]

ErrorHandler: TypeAlias = Callable[[BaseException, Message, Any], object]


class Delivery:
    """Calls receivers, starts those that are coroutines, and reports what they raise.

    Attributes:
        on_error: that of the `Bus`.
        tasks: the ``async def`` receivers that are running.
    """

    __slots__ = ("on_error", "tasks")

    def __init__(self) -> None:
        self.on_error: ErrorHandler | None = None
        self.tasks = Tasks()

    def run(self, route: Route, message: Message) -> int:
        """Call all of a route; how many receivers it reached.

        Raises:
            RecursionError: as `Bus.twitter`.
        """
        stack = sending.stack
        depth = len(stack)
        if depth >= MAX_DEPTH:
            stop(stack, route)
        stack.append(route)
        reached = route.reached
        try:
            for call in route.calls:
                try:
                    result = call(message)
                    if result is not None and not self.accept(result, call, message):
                        reached -= 1
                except RecursionError as error:
                    # All that is within this one is part of the cycle. Were it reported and gone
                    # on with here, two such receivers would make 2**MAX_DEPTH calls; and the
                    # frames to report it with may be lacking.
                    if depth:
                        explain(error, stack)
                        raise
                    self.report(error, message, _registered(call), "failed")
                except Exception as error:
                    self.report(error, message, _registered(call), "failed")
        finally:
            if not depth:
                stack.clear()
            elif depth > 1:
                stack.pop()
            else:
                # What `stop` has added ends here.
                del stack[1:]
        return reached

    def accept(self, result: object, call: Receiver, message: Message) -> bool:
        """Deal with what a call has returned; whether its receiver was reached."""
        if isinstance(result, Refusal):
            if isinstance(result.error, RecursionError):
                raise result.error
            if result.error is not None:
                self.report(result.error, message, _registered(call), "has a guard that failed")
            return False
        if isinstance(result, types.CoroutineType):
            receiver = _registered(call)

            def failed(error: BaseException) -> None:
                self.report(error, message, receiver, "failed")

            ended = call.ended if isinstance(call, Answering) else None
            self.tasks.start(result, f"receiver of {message.id}", failed, ended)
        return True

    def report(self, error: BaseException, message: Message, receiver: Any, problem: str) -> None:
        """Log an error and hand it to `on_error`, as `Bus.report`."""
        logger = bus_logger()
        logger.error("receiver %s %s: %r", describe(receiver), problem, message, exc_info=error)
        if self.on_error is None:
            return
        try:
            self.on_error(error, message, receiver)
        except Exception:
            logger.exception("on_error itself failed")

    def report_call(self, error: BaseException, message: Message, call: Receiver) -> None:
        """Report what a call of a route has raised."""
        self.report(error, message, _registered(call), "failed")


def _registered(call: Receiver) -> Any:
    """The receiver as it was registered."""
    if isinstance(call, Answering):
        return _registered(call.call)
    if isinstance(call, PooledCall):
        return call.registration.receiver()
    if isinstance(call, types.MethodType):
        registration = call.__self__
        if isinstance(registration, FunctionRegistration | MethodRegistration):
            return registration.receiver()
    return call
