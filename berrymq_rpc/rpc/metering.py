"""Calls that are measured: what a `Connection` makes in place of a `Call` if there is a meter."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..common.measures import CANCELLED, ERROR, EXPIRED, OK, REFUSED, CallMeter
from ..errors import Error, NotFoundError, RPCTimeoutError
from ..runtime.meter import Meter
from .call import Call
from .stream import PendingCall, Stream

__all__ = ["MeteredCall", "NewCall", "new_call_for", "outcome_of"]

#: Makes a call, as ``new_call(loop=loop)``.
NewCall = Callable[..., Call]


def new_call_for(meter: Meter | None) -> NewCall:
    """What makes the calls of a client or server with this meter."""
    if meter is None:
        return Call
    # A class has the meter for all its calls, so that each costs no more to make.
    return type("MeteredCall", (MeteredCall,), {"__slots__": (), "made": meter.made})


def outcome_of(error: BaseException) -> int:
    """How a call has ended that failed with this error."""
    if isinstance(error, RPCTimeoutError):
        return EXPIRED
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    if isinstance(error, Error) and error.sent is False:
        return REFUSED
    return ERROR


class MeteredCall(Call):
    """A call that a meter counts when it ends; a stream, when that ends."""

    __slots__ = ()

    made: CallMeter

    def succeed(self, value: Any, /) -> None:
        self.set_result(value)
        self.made.ended(self.method, OK, monotonic() - self.made_at)

    def fail(self, error: BaseException, /) -> None:
        if not self.done():
            super().fail(error)
            _failed(self.made, self, error)

    def fail_at_once(self, error: Exception, /) -> None:
        super().fail_at_once(error)
        self.made.ended(self.method, REFUSED, None)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        if self._stream is None:
            self.made.ended(self.method, CANCELLED, monotonic() - self.made_at)
        return True

    def make_stream(self) -> Stream:
        return MeteredStream(self.made, self, self.timeout, self.get_loop())


class MeteredStream(Stream):
    """The stream that takes the place of a `MeteredCall`."""

    __slots__ = ("_made",)

    def __init__(
        self,
        made: CallMeter,
        call: PendingCall,
        timeout: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(call, timeout, loop)
        self._made = made

    def fail(self, error: BaseException, /) -> None:
        if not self._over:
            super().fail(error)
            _failed(self._made, self, error)

    def end(self) -> None:
        if not self._over:
            self._made.ended(self.method, OK, monotonic() - self.made_at)
        super().end()

    def abandon(self) -> bool:
        if not super().abandon():
            return False
        self._made.ended(self.method, CANCELLED, monotonic() - self.made_at)
        return True


def _failed(made: CallMeter, call: PendingCall, error: BaseException) -> None:
    outcome = outcome_of(error)
    seconds = None if outcome == REFUSED else monotonic() - call.made_at
    # Before a bridge's client it is the peers that make up names.
    exists = not isinstance(error, NotFoundError)
    made.ended(call.method, outcome, seconds, exists)
