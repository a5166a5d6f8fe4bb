"""Catching up: a new receiver hears what is retained before what is sent meanwhile.

Messages that other threads send to it meanwhile wait, and are delivered in their order by the
thread that lets it follow. No thread waits for another one.
"""

import threading
from collections import deque
from typing import Any

from .completion import OnEnd, TrackedCall, WrappedCall, track
from .delivery import Delivery
from .message import Message, RetainedMessage, identifier_of
from .registrations import Receiver, Refusal, Registration, Substitute, is_sink
from .routing_table import Route, RoutingTable

__all__ = ["CatchUp"]


class CatchUp(Substitute):
    """What a registration has to hear before it is called like others.

    Args:
        registration: the registration.
        table: has it.
        retained: what it hears first.
    """

    __slots__ = ("_is_done", "_lock", "_table", "_waiting")

    def __init__(
        self, registration: Registration, table: RoutingTable, retained: list[RetainedMessage]
    ) -> None:
        super().__init__(registration)
        self._table = table
        self._waiting: deque[tuple[Receiver, Message]]
        self._waiting = deque((registration.call, message) for message in retained)
        self._is_done = False
        # Reentrant: garbage collection may send a message at any point.
        self._lock = threading.RLock()

    @property
    def call(self) -> Receiver:
        """What the bus calls meanwhile."""
        return self.put if is_sink(self.registration.function) else WaitingCall(self)

    def put(self, message: Message, on_end: OnEnd | None = None) -> Any:
        """Let a message wait; its guard runs at once, as for a receiver on the pool."""
        if self._is_done:
            # Its sender has looked up the receivers before.
            later = self._table.later_call_of(self.registration)
            return (later if on_end is None else track(later, on_end))(message)
        call = self.registration.admit(message)
        if isinstance(call, Refusal):
            return call
        if on_end is not None:
            call = TrackedCall(call, on_end)
        return None if self._wait(call, message) else call(message)

    def _wait(self, call: Receiver, message: Message) -> bool:
        with self._lock:
            if not self._is_done:
                self._waiting.append((call, message))
            return not self._is_done

    def run(self, delivery: Delivery) -> None:
        """Deliver what waits, until nothing does.

        Raises:
            RecursionError: as `Bus.twitter`.
        """
        try:
            while (item := self._next()) is not None:
                call, message = item
                delivery.run(Route(identifier_of(message), (call,), 1), message)
        except BaseException as error:
            self._give_up(error)
            raise

    def _next(self) -> tuple[Receiver, Message] | None:
        with self._lock:
            if not self._waiting:
                self._is_done = True
                # One that came by garbage collection in between.
                self._is_done = not self._waiting
            return None if self._is_done else self._waiting.popleft()

    def _give_up(self, error: BaseException) -> None:
        """Report that what waits does not run: a Ctrl-C, or a cycle, has ended this."""
        with self._lock:
            self._is_done = True
            left = list(self._waiting)
            self._waiting.clear()
        for call, _ in left:
            if isinstance(call, TrackedCall):
                call.on_end(None, error)

    def receiver(self) -> Receiver | None:
        """The receiver as it was registered."""
        return self.registration.receiver()


class WaitingCall(WrappedCall):
    """The call of a registration that catches up."""

    __slots__ = ("_catch_up",)

    def __init__(self, catch_up: CatchUp, on_end: OnEnd | None = None) -> None:
        self.on_end = on_end
        self._catch_up = catch_up

    def __call__(self, message: Message) -> Any:
        return self._catch_up.put(message, self.on_end)

    def receiver(self) -> Any:
        return self._catch_up.receiver()

    def tracked(self, on_end: OnEnd) -> "WaitingCall":
        return WaitingCall(self._catch_up, on_end)
