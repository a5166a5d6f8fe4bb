"""Calls that are measured: what a `Connection` makes in place of a `Call` if there is a meter."""

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from ..common.measures import CANCELLED, ERROR, EXPIRED, OK, REFUSED
from ..errors import Error, RPCTimeoutError
from ..runtime.meter import Meter
from .call import Call
from .stream import PendingCall, Stream

__all__ = ["MeteredCall", "NewCall", "new_call_for", "outcome_of"]

#: Makes a call, as ``new_call(loop=loop)``.
NewCall = Callable[..., Call]


def new_call_for(meter: Meter | None) -> NewCall:
    """What makes the calls of a client or server with this meter."""
    return Call if meter is None else partial(MeteredCall, meter)


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

    __slots__ = ("meter",)

    def __init__(self, meter: Meter, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.meter = meter

    def succeed(self, value: Any, /) -> None:
        self.set_result(value)
        self.meter.made.ended(self.method, OK, monotonic() - self.made_at)

    def fail(self, error: BaseException, /) -> None:
        if not self.done():
            super().fail(error)
            _failed(self.meter, self, error)

    def fail_at_once(self, error: Exception, /) -> None:
        super().fail_at_once(error)
        self.meter.made.ended(self.method, REFUSED, None)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        if self._stream is None:
            self.meter.made.ended(self.method, CANCELLED, monotonic() - self.made_at)
        return True

    def make_stream(self) -> Stream:
        return MeteredStream(self.meter, self, self.timeout, self.get_loop())


class MeteredStream(Stream):
    """The stream that takes the place of a `MeteredCall`."""

    __slots__ = ("_meter",)

    def __init__(
        self,
        meter: Meter,
        call: PendingCall,
        timeout: float | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(call, timeout, loop)
        self._meter = meter

    def fail(self, error: BaseException, /) -> None:
        if not self._over:
            super().fail(error)
            _failed(self._meter, self, error)

    def end(self) -> None:
        if not self._over:
            self._meter.made.ended(self.method, OK, monotonic() - self.made_at)
        super().end()

    def abandon(self) -> bool:
        if not super().abandon():
            return False
        self._meter.made.ended(self.method, CANCELLED, monotonic() - self.made_at)
        return True


def _failed(meter: Meter, call: PendingCall, error: BaseException) -> None:
    outcome = outcome_of(error)
    seconds = None if outcome == REFUSED else monotonic() - call.made_at
    meter.made.ended(call.method, outcome, seconds)
