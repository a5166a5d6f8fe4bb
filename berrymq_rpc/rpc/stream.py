"""The reading side of a stream: items that arrived, and credit for more."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple, Protocol

from ..errors import ProtocolError, RPCTimeoutError
from .wire.session import Caller, Session

__all__ = ["AWAITED", "CallChannel", "PendingCall", "Stream", "StreamHandle", "Usage"]


class CallChannel(Protocol):
    """The connection that sent a call: a `connection.Connection`."""

    session: Session

    def cancel(self, call_id: int) -> None:
        """Give up a call of this side."""

    def credit(self, call_id: int, items: int) -> None:
        """Ask for more items of a stream."""

    def take_place(self, stream: "Stream") -> None:
        """Report to a stream, from now on, what becomes of the call with its id."""


class Usage(NamedTuple):
    """How users of a client get what a call gives: words for errors that say what to do.

    Args:
        result: how they get a result.
        items: how they read a stream.
    """

    result: str
    items: str

    def not_a_stream(self, method: str) -> ProtocolError:
        """Make the error for a method that was taken for a stream."""
        return ProtocolError(f"{method!r} is not a stream: use {self.result}, not {self.items}")

    def a_stream(self, method: str) -> ProtocolError:
        """Make the error for a stream whose result was asked for."""
        return ProtocolError(f"{method!r} is a stream: use {self.items}, not {self.result}")


#: That of a `Client`.
AWAITED = Usage("'await'", "'async for'")


class PendingCall(Caller, Protocol):
    """A `Call`, or the `Stream` that took its place: what a client keeps of a call in flight."""

    connection: CallChannel
    #: Sends a call that a closing peer refused to another one, and returns whether there is one.
    resend: "Callable[[PendingCall], bool] | None"
    accepted_at: float | None
    usage: Usage
    #: Called with the error, or ``None``, when it is a stream and over.
    on_end: "Callable[[BaseException | None], object] | None"


class Stream:
    """Takes a `Call`'s place in its session once it is known to be a stream.

    The session must not hold the `Call` itself any more: only the user does, so that the stream
    ends when the user drops it (`StreamHandle`).

    The peer sends as many items as the window says and then waits for credit, which is given as
    items are taken: a slow reader costs either side no more memory than a window of items.

    Args:
        call: the call; what its session knows of it is taken over.
        timeout: seconds for each item.
        loop: the event loop of the call.
    """

    __slots__ = (
        "_error",
        "_items",
        "_loop",
        "_over",
        "_timeout",
        "_uncredited",
        "_waiter",
        "accepted_at",
        "connection",
        "deadline",
        "id",
        "in_loop",
        "made_at",
        "method",
        "on_end",
        "resend",
        "sent",
        "usage",
    )

    def __init__(
        self, call: PendingCall, timeout: float | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.connection = call.connection
        self.id = call.id
        self.method = call.method
        self.made_at = call.made_at
        self.sent = call.sent
        self.accepted_at = call.accepted_at
        self.resend = call.resend
        self.on_end = call.on_end
        self.usage = call.usage
        #: The timeout is for each item; the call as a whole has none.
        self.deadline: float | None = None
        #: Whether ``async for`` reads it: a loop that was cancelled does not go on.
        self.in_loop = False
        self._timeout = timeout
        self._loop = loop
        self._items: deque[Any] = deque()
        self._uncredited = 0
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._error: BaseException | None = None

    # -- what the session reports (`wire.session.Caller`) ------------------------------------

    def succeed(self, value: Any, /) -> None:
        error = self.usage.not_a_stream(self.method)
        self.fail(self.connection.session.note_call(error, self, monotonic()))

    def fail(self, error: BaseException, /) -> None:
        if not self._over:
            self._over = True
            self._error = error
            self._wake()
            self._report_end(error)

    def refused(self, error: BaseException, /) -> None:
        if self.resend is None or not self.resend(self):
            self.fail(error)

    def accepted(self, now: float, released: bool, /) -> None:
        self.accepted_at = now

    def item(self, value: Any, /) -> None:
        self._items.append(value)
        self._wake()

    def end(self) -> None:
        self._over = True
        self._wake()
        self._report_end(None)

    def _report_end(self, error: BaseException | None) -> None:
        if self.on_end is not None:
            self.on_end(error)

    # -- reading -------------------------------------------------------------------------

    async def next(self) -> Any:
        """The next item.

        Raises:
            StopAsyncIteration: there are no more.
            RPCTimeoutError: none came within the timeout; the stream is over, here and there.
            CancelledError: its reader was cancelled while it waited. If it is ``async for``, the
                stream is over.
        """
        while not self._items:
            if self._over:
                error, self._error = self._error, None
                raise StopAsyncIteration if error is None else error
            if self._waiter is not None:
                raise RuntimeError("another task is reading this stream")
            self._give_credit()
            await self._wait()
        self._uncredited += 1
        if self._uncredited >= self.connection.session.limits.stream_window // 2:
            self._give_credit()
        return self._items.popleft()

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = None
        if self._timeout is not None:
            timer = self._loop.call_later(self._timeout, self._expire)
        try:
            await waiter
        except asyncio.CancelledError:
            self._waiter = None
            if self.in_loop:
                # The loop is over. What keeps the exception may keep the call in a frame of its
                # traceback, so that collection, which ends a stream too, may be far away.
                self.abandon()
            raise
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        if not self._items and not self._over:
            self.connection.cancel(self.id)
            error = RPCTimeoutError(f"no item within {self._timeout:g} s")
            self.connection.session.fail(self, error, monotonic())

    def _give_credit(self) -> None:
        if self._uncredited and not self._over:
            self.connection.credit(self.id, self._uncredited)
            self._uncredited = 0

    def abandon(self) -> bool:
        """End it here and at the peer; return whether it was still open."""
        if self._over:
            return False
        self._over = True
        self._items.clear()
        self.connection.cancel(self.id)
        self._wake()
        # Its reader has seen enough: no failure.
        self._report_end(GeneratorExit())
        return True

    def loop_left(self) -> None:
        """A loop that has read it is over: end it if that was cancelled.

        After a ``break`` it may be read on.
        """
        if self._over:
            return
        try:
            task = asyncio.current_task()
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            # Collected elsewhere, or after the event loop's end.
            return
        if is_here and task is not None and task.cancelling():
            # Collection may have interrupted anything.
            self._loop.call_soon(self.abandon)

    def collected(self) -> None:
        """Its reader is gone. Safe in any thread, as collection happens in any."""
        if not self._over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.abandon)


class StreamHandle:
    """Held by the user's `Call` alone, so that its collection is noticed."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __del__(self) -> None:
        self.stream.collected()
