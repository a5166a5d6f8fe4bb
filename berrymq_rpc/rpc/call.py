"""A call in flight: a future, a coroutine to those who ask for one, and a stream's iterator."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from time import monotonic
from typing import Any

from .stream import AWAITED, CallChannel, PendingCall, Stream, StreamHandle, Usage

__all__ = ["Call"]


class Call(asyncio.Future[Any]):
    """What ``client.rpc.method(...)`` returns. The call has been sent already.

    Await it for the result, or iterate over it with ``async for`` when the method is a stream
    (an async generator at the peer). It is an `asyncio.Future`, so `asyncio.gather`,
    `asyncio.wait_for` and `asyncio.ensure_future` take it as it is, and it passes for a
    coroutine with `asyncio.create_task` and `asyncio.TaskGroup.create_task`. `asyncio.wait`, which
    takes no coroutines, needs such a task.

    Cancelling it, or the task that awaits it, cancels the method at the peer. A stream ends at
    the peer when it is exhausted, closed with `aclose` (or `contextlib.aclosing`), or collected;
    when no item comes within the timeout; and when a loop of ``async for`` is cancelled, by
    `asyncio.timeout` too. An `anext` that was cancelled can be tried again.

    All that is wrong with a call is raised where it is awaited, as what the peer answers is.

    Raises:
        RPCTimeoutError: the client's timeout is over; for a stream, that of one item.
        ConnectionLostError: the peer is gone; `Error.sent` says whether the call may have run.
        ServiceClosedError: this client or the server closed. A call that did not run
            (`Error.sent` is ``False``) goes to another server, where the client has one.
        OverloadedError, NotFoundError, ParametersError: it did not run.
        TypeError, ValueError: an argument cannot be packed; `TooLargeError` for what is larger than
            either side allows. Nothing was sent.
        ProtocolError: a stream was awaited, or a method iterated over that is not a stream.
        Exception: what the method raised, as `GenericError` where its class is not known here.
    """

    # One is made for each call, so what all calls have is in slots, and what is not set costs
    # nothing. `Connection.call` sets `connection`, `made_at`, `method`, and `timeout`, `deadline`
    # where there are any; the session sets `id` and `sent`. For the same reason the session knows
    # the future itself, and not a further object.
    __slots__ = ("connection", "id", "made_at", "method", "sent")

    connection: CallChannel
    method: str
    made_at: float
    id: int
    sent: float | None

    timeout: float | None = None
    deadline: float | None = None
    accepted_at: float | None = None
    #: Sends it to another server when the first is closing and did not run it; see `PendingCall`.
    resend: Callable[[PendingCall], bool] | None = None
    #: Called with the error, or ``None``, when a stream that it has become is over.
    on_end: Callable[[BaseException | None], object] | None = None
    #: What the errors about streams advise; a client of another kind sets its own.
    usage: Usage = AWAITED
    _stream: StreamHandle | None = None
    _coroutine: Generator[Any, None, Any] | None = None

    # -- what the session reports (`wire.session.Caller`) ------------------------------------

    succeed = asyncio.Future.set_result

    def fail(self, error: BaseException, /) -> None:
        if not self.done():
            self.set_exception(error)

    def fail_at_once(self, error: Exception, /) -> None:
        """Fail a call that could not be sent."""
        if isinstance(error, StopIteration):
            # A future cannot raise it; a method that makes the form of a value may.
            error = RuntimeError(f"an argument raised {error!r:.100} when it was packed")
        # Where it was raised says nothing to the caller, and holds the call in a cycle.
        self.set_exception(error.with_traceback(None))

    def refused(self, error: BaseException, /) -> None:
        if self.resend is None or not self.resend(self):
            self.fail(error)

    def accepted(self, now: float, released: bool, /) -> None:
        self.accepted_at = now

    def item(self, value: Any, /) -> None:
        self._become_stream().item(value)

    def end(self) -> None:
        self._become_stream().end()

    @property
    def is_stream(self) -> bool:
        """Whether it has become a stream."""
        return self._stream is not None

    # -- cancelling ----------------------------------------------------------------------

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up, and cancel the method at the peer."""
        if self._stream is not None:
            return self._stream.stream.abandon()
        if not super().cancel(msg):
            return False
        self.connection.cancel(self.id)
        return True

    # -- a coroutine ---------------------------------------------------------------------

    def send(self, value: Any, /) -> Any:
        """Run the coroutine that it passes for one step."""
        if self._coroutine is None:
            self._coroutine = self.__await__()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise in the coroutine that it passes for."""
        kind = error[0] if isinstance(error[0], type) else type(error[0])
        if issubclass(kind, asyncio.CancelledError):
            # A task cancelled before its first step never awaited the future.
            self.cancel()
        if self._coroutine is None:
            self._coroutine = self.__await__()
        try:
            return self._coroutine.throw(*error)
        finally:
            # Its traceback holds this frame.
            del error

    def close(self) -> None:
        """End the coroutine that it passes for: a call in flight is given up."""
        self.cancel()

    # -- a stream ------------------------------------------------------------------------

    def make_stream(self) -> Stream:
        """Make what takes its place in the session."""
        return Stream(self, self.timeout, self.get_loop())

    def _become_stream(self) -> Stream:
        handle = self._stream
        if handle is None:
            stream = self.make_stream()
            # From now on the user alone keeps this object: when it is collected, so is the
            # handle, and the stream ends at the peer.
            handle = self._stream = StreamHandle(stream)
            self.connection.take_place(stream)
            if not self.done():
                error = self.usage.a_stream(self.method)
                self.set_exception(self.connection.session.note_call(error, self, monotonic()))
            # Its reader iterates, and so does not ask the future.
            self.exception()
        return handle.stream

    def __aiter__(self) -> "StreamLoop":
        self.read()
        if self._stream is not None:
            self._stream.stream.in_loop = True
        return StreamLoop(self)

    def read(self) -> "Call":
        """Begin to read a stream, item by item with `anext`."""
        if self._stream is None and not self.done():
            self._become_stream()
        return self

    async def __anext__(self) -> Any:
        """The next item; waits for it, at most for the call's timeout."""
        self.read()
        if self._stream is None:
            # It was over before it was iterated over: raise what it failed with.
            await self
            error = self.usage.not_a_stream(self.method)
            raise self.connection.session.note_call(error, self, monotonic())
        try:
            return await self._stream.stream.next()
        except BaseException:
            # A kept exception keeps this frame, and must not keep the stream from collection.
            del self
            raise

    async def aclose(self) -> None:
        """End the stream here and at the peer; nothing happens if it is over."""
        if self._stream is not None:
            self._stream.stream.abandon()
        else:
            self.cancel()

    def loop_left(self) -> None:
        """A loop of ``async for`` over it is over."""
        if self._stream is not None:
            self._stream.stream.loop_left()


class StreamLoop:
    """The iterator of one loop of ``async for``, which nothing but the loop holds.

    So its end is the loop's, and is noticed whatever still holds the call: an exception that is
    kept holds the variables of all frames that it came through.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __aiter__(self) -> "StreamLoop":
        return self

    def __anext__(self) -> Awaitable[Any]:
        """The next item, as that of the call."""
        return self._call.__anext__()

    async def aclose(self) -> None:
        """End the stream, as that of the call."""
        await self._call.aclose()

    def __del__(self) -> None:
        self._call.loop_left()
