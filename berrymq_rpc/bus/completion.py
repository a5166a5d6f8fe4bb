"""When receivers end: calls whose end is tracked, and what waits for all of them.

`Bus.publish` waits for the end of all receivers, `Bus.talk` sends what each returned.
"""

import contextlib
import threading
import types
from collections.abc import Callable
from typing import Any, TypeAlias

from ..common.awaitable import is_awaitable
from .message import Message
from .registrations import (
    FunctionRegistration,
    MethodRegistration,
    Receiver,
    Refusal,
    Substitute,
    is_sink,
)
from .routing_table import Route

__all__ = [
    "Completion",
    "OnEnd",
    "TrackedCall",
    "Waiter",
    "WrappedCall",
    "registered_receiver",
    "track",
    "track_route",
]

#: Called as ``on_end(result, error)`` in the thread where a receiver ended; `error` is `None` if it
#: returned.
OnEnd: TypeAlias = Callable[[Any, BaseException | None], object]


class WrappedCall:
    """A call of a route that does more than the receiver's registration says.

    Attributes:
        on_end: called once, when the receiver has ended, or `None`. Not called for a receiver that
            its guard skipped.
    """

    __slots__ = ("on_end",)

    on_end: OnEnd | None

    def __call__(self, message: Message) -> Any:
        raise NotImplementedError

    def receiver(self) -> Any:
        """The receiver as it was registered."""
        raise NotImplementedError

    def tracked(self, on_end: OnEnd) -> "WrappedCall":
        """The same call, with another `on_end`."""
        raise NotImplementedError


class TrackedCall(WrappedCall):
    """A call in this thread whose end is reported."""

    __slots__ = ("_call",)

    on_end: OnEnd

    def __init__(self, call: Receiver, on_end: OnEnd) -> None:
        self._call = call
        self.on_end = on_end

    def __call__(self, message: Message) -> Any:
        try:
            result = self._call(message)
        except RecursionError as error:
            # In the depth of a cycle there is no room left for answers.
            with contextlib.suppress(RecursionError):
                self.on_end(None, error)
            raise
        except Exception as error:
            self.on_end(None, error)
            raise
        # A coroutine has not begun yet: what awaits it calls `on_end`.
        if result is None or not (isinstance(result, Refusal) or is_awaitable(result)):
            self.on_end(result, None)
        return result

    def receiver(self) -> Any:
        return registered_receiver(self._call)

    def tracked(self, on_end: OnEnd) -> "TrackedCall":
        return TrackedCall(self._call, on_end)


def track(call: Receiver, on_end: OnEnd) -> WrappedCall:
    """The same call, whose end is reported."""
    return call.tracked(on_end) if isinstance(call, WrappedCall) else TrackedCall(call, on_end)


def registered_receiver(call: Receiver) -> Any:
    """The receiver of a call of a route, as it was registered."""
    if isinstance(call, WrappedCall):
        return call.receiver()
    if isinstance(call, types.MethodType):
        registration = call.__self__
        if isinstance(registration, Substitute):
            registration = registration.registration
        if isinstance(registration, FunctionRegistration | MethodRegistration):
            return registration.receiver()
    return call


def track_route(route: Route, on_end: OnEnd) -> tuple[Route, int]:
    """The same route with `on_end` for each receiver, and how many sinks it has.

    Sinks, such as queues, only put messages aside: they have no end to report.
    """
    receivers: list[Receiver] = []
    sinks = 0
    for call in route.receivers:
        if is_sink(call):
            receivers.append(call)
            sinks += 1
        else:
            receivers.append(track(call, on_end))
    return Route(route.identifier, (*route.forwarders, *receivers), route.reached), sinks


class Waiter:
    """One wait of a coroutine, which any thread can end. Made and awaited in a task."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self) -> None:
        # A program without asyncio need not import it; it takes some 30 ms.
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future = self._loop.create_future()

    async def wait(self) -> None:
        """Wait for `wake`."""
        await self._future

    def wake(self) -> bool:
        """Let `wait` return; `False` if nothing waits any more."""
        if threading.get_ident() == self._thread:
            # To wake a loop from another thread takes a system call, which is not needed here.
            return self._set()
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            # The loop is closed.
            return False
        return True

    def _set(self) -> bool:
        if self._future.done():
            return False
        self._future.set_result(None)
        return True


class Completion:
    """Waits until the receivers of a message have ended, in any threads. Made in a task."""

    __slots__ = ("_ended", "_expected", "_lock", "_waiter")

    def __init__(self) -> None:
        self._waiter = Waiter()
        self._ended = 0
        self._expected: int | None = None
        # Reentrant: garbage collection may end a receiver at any point.
        self._lock = threading.RLock()

    def on_end(self, result: Any, error: BaseException | None) -> None:
        """Count one more receiver that has ended."""
        with self._lock:
            self._ended += 1
            is_complete = self._ended == self._expected
        if is_complete:
            self._waiter.wake()

    async def wait(self, expected: int) -> None:
        """Wait until this many receivers have ended."""
        with self._lock:
            self._expected = expected
            is_complete = self._ended >= expected
        if not is_complete:
            await self._waiter.wait()
