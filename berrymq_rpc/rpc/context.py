"""What a handler can learn about the call that it serves: `berrymq_rpc.rpc.context`."""

from collections.abc import Callable, Mapping
from contextvars import copy_context
from types import MappingProxyType

from ..errors import Error
from .inbound_call import InboundCall, current

__all__ = ["Context", "context"]


class Context:
    """One call that is being served.

    Attributes:
        peer: who calls.
        method: the full name of the method.
    """

    __slots__ = ("_call", "method", "peer")

    def __init__(self, call: InboundCall) -> None:
        self._call = call
        self.method = call.method.name
        self.peer = call.inbound.peer

    @property
    def metadata(self) -> Mapping[str, str | bytes | int | float]:
        """What the caller sent beside the arguments; empty where there is nothing.

        Anybody who may call may send anything here. It is not a call's place to pass it on: what a
        handler calls in turn gets none of it.
        """
        return MappingProxyType(self._call.metadata or {})

    @property
    def deadline(self) -> float | None:
        """Seconds left until the caller gives up; ``None`` when it waits without a limit."""
        return self._call.time_left()

    @property
    def cancelled(self) -> bool:
        """Whether the caller does not wait for the result any more.

        A coroutine is cancelled then; a method that runs on a thread has to look.
        """
        return self._call.cancelled

    @property
    def is_notification(self) -> bool:
        """Whether the caller wants no result."""
        return self._call.id is None

    def on_delivery(self, callback: Callable[[bool], object]) -> None:
        """Have a function called once it is known whether the result reached the caller.

        Args:
            callback: called once on the event loop, with ``True`` when the caller has
                acknowledged the result, or ``False`` when it went away or gave up before, when
                the method failed, and when no result is wanted (a notification).

        Peers that speak another dialect than the native one acknowledge nothing: for them it is
        called with ``True`` when the result has been sent.

        Raises:
            Error: the method is a stream, which has no result.
        """
        if self._call.is_stream:
            raise Error("on_delivery is for methods with a result, and this one is a stream")
        # It belongs to this call, in whose context it is called; others are served meanwhile.
        own = copy_context()
        self._call.on_delivery = lambda delivered: own.run(callback, delivered)


def context() -> Context:
    """The call that is being served.

    Raises:
        Error: not called by a handler, or by a task or callback that a plain (not ``async``)
            handler left behind, as its call is over then.
    """
    call = current.get()
    if call is None:
        raise Error("rpc.context() is for handlers: no call is being served here")
    return Context(call.snapshot())
