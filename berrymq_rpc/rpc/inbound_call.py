"""One call of a peer while it is served, and which call is being served now."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import aclosing
from contextvars import Context, ContextVar, copy_context
from time import monotonic
from typing import Any, Protocol

from ..common.awaitable import as_coroutine, discard
from ..errors import Error
from ..runtime.log import Log
from .method import Kind, Method
from .peer import Peer
from .wire.record import InboundEvent

__all__ = ["InboundCall", "Responder", "Returned", "SyncCalls", "current", "warn_slow"]

logger = Log("berrymq_rpc.rpc")

#: Seconds after which a stream looks again whether its peer has read what is queued.
CONGESTION_PAUSE = 0.01

#: The call that is being served in this task, thread or callback.
current: ContextVar["InboundCall | SyncCalls | None"] = ContextVar("berrymq_rpc call", default=None)


class Responder(Protocol):
    """What sends a call's items and its answer: its peer's `inbound.Inbound`."""

    loop: asyncio.AbstractEventLoop
    #: Seconds that a handler may hold the event loop before a warning names it.
    slow_handler: float
    #: Seconds that the steps of its coroutines took since calls were started last.
    spent: float

    @property
    def peer(self) -> Peer:
        """Who calls."""

    @property
    def dialect(self) -> str:
        """What the peer speaks."""

    @property
    def stream_credit(self) -> int:
        """Items that a stream may send before the peer asks for more."""

    def is_congested(self) -> bool:
        """Whether the peer does not read, and the bound on what is queued for it is reached."""

    def send_item(self, call: "InboundCall", item: Any) -> None:
        """Send an item of a stream."""

    def finished(self, call: "InboundCall", value: Any) -> None:
        """A call ended with a result."""

    def failed(self, call: "InboundCall", error: BaseException) -> None:
        """A call ended with an exception."""


class InboundCall(Coroutine[Any, Any, None]):
    """A call from its acceptance to its answer.

    For a coroutine or a stream it is what the task runs: each step is timed, so that a handler
    that holds the event loop is named, and the outcome becomes the answer with no callback or
    further coroutine between.
    """

    __slots__ = (
        "_coroutine",
        "_credited",
        "arguments",
        "began",
        "cancelled",
        "credit",
        "deadline",
        "expired",
        "id",
        "inbound",
        "metadata",
        "method",
        "on_delivery",
        "task",
        "timer",
    )

    def __init__(
        self,
        inbound: Responder,
        call_id: Any,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None,
        metadata: dict[str, Any] | None,
    ) -> None:
        self.inbound = inbound
        #: ``None`` for a notification, which is not answered.
        self.id = call_id
        self.method = method
        self.arguments = (args, kwargs)
        self.deadline = deadline
        #: When it was started, where calls are counted.
        self.began: float | None = None
        #: What came beside the arguments; ``None`` for nothing.
        self.metadata = metadata
        self.cancelled = False
        #: Whether it was cancelled because its deadline passed.
        self.expired = False
        self.on_delivery: Callable[[bool], object] | None = None
        self.task: asyncio.Future[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        #: Items that a stream may send before the reader asks for more.
        self.credit = 0
        self._credited: asyncio.Future[None] | None = None
        self._coroutine: Any = None

    @property
    def is_stream(self) -> bool:
        """Whether items are sent before the answer."""
        return self.method.kind is Kind.STREAM

    @property
    def holds_slot(self) -> bool:
        """Whether it counts against the window of calls in flight."""
        return not (self.method.waits or self.is_stream)

    def time_left(self) -> float | None:
        """Seconds until the caller gives up."""
        return None if self.deadline is None else self.deadline - monotonic()

    def snapshot(self) -> "InboundCall":
        """The call of this moment: itself."""
        return self

    # -- starting and stopping -----------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop, executor: Any) -> None:
        """Begin to run it, as a task or on a thread. Called in a context of its own."""
        current.set(self)
        args, kwargs = self.arguments
        if self.method.kind is Kind.THREAD:
            self.task = loop.run_in_executor(executor, self._in_thread, copy_context())
            self.task.add_done_callback(self._thread_ended)
        else:
            if self.is_stream:
                self.credit = self.inbound.stream_credit
                self._coroutine = self._produce(self.method.function(*args, **kwargs))
            else:
                self._coroutine = self.method.function(*args, **kwargs)
            task = loop.create_task(self, name=f"rpc {self.method.name}")
            # An eager task factory may have run it to its end.
            self.task = None if task.done() else task
        if self.deadline is not None and self.task is not None and not self.is_stream:
            self.timer = loop.call_later(self.deadline - monotonic(), self._expire)

    def cancel(self) -> None:
        """Stop it: its caller does not wait for it any more.

        A thread cannot be stopped: its result is dropped when it ends.
        """
        if self.cancelled:
            # The deadline and the caller both say so: what it does on its way out goes on.
            return
        self.cancelled = True
        if self.task is not None and self.method.kind is not Kind.THREAD:
            self.task.cancel()

    def _expire(self) -> None:
        self.expired = True
        self.cancel()

    def add_credit(self, items: int) -> None:
        """Let a stream send more items."""
        self.credit += items
        if self._credited is not None and not self._credited.done():
            self._credited.set_result(None)

    # -- a thread ------------------------------------------------------------------------

    def _in_thread(self, context: Context) -> tuple[Any, BaseException | None]:
        if self.cancelled:
            return None, asyncio.CancelledError()
        args, kwargs = self.arguments
        try:
            return context.run(self.method.function, *args, **kwargs), None
        except BaseException as error:
            # A future does not take every exception (StopIteration, for one).
            return None, error

    def _thread_ended(self, task: "asyncio.Future[tuple[Any, BaseException | None]]") -> None:
        value, error = (None, asyncio.CancelledError()) if task.cancelled() else task.result()
        if error is None:
            self.inbound.finished(self, value)
        else:
            self.inbound.failed(self, error)
            if isinstance(error, KeyboardInterrupt):
                raise error

    # -- a stream ------------------------------------------------------------------------

    async def _produce(self, items: Any) -> None:
        inbound = self.inbound
        # What the generator holds is freed when the reader leaves, not at collection.
        async with aclosing(items):
            async for item in items:
                while self.credit <= 0:
                    await self._wait_for_credit()
                while inbound.is_congested():
                    await asyncio.sleep(CONGESTION_PAUSE)
                self.credit -= 1
                inbound.send_item(self, item)

    async def _wait_for_credit(self) -> None:
        self._credited = asyncio.get_running_loop().create_future()
        try:
            await self._credited
        finally:
            self._credited = None

    # -- a coroutine, for the task -------------------------------------------------------

    def _step(self, advance: Callable[[Any], Any], value: Any) -> Any:
        began = monotonic()
        try:
            return advance(value)
        except StopIteration as stop:
            self.inbound.finished(self, stop.value)
            raise StopIteration from None
        except BaseException as error:
            self.inbound.failed(self, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, KeyboardInterrupt):
                # Out of the event loop, and not by way of the task, which would log it too.
                self.inbound.loop.call_soon(_interrupt, error)
            raise StopIteration from None
        finally:
            # An exception thrown in has this frame in its traceback: without a cycle of the two,
            # what the handler held is freed now, such as a stream from the peer that it read.
            del value
            took = monotonic() - began
            inbound = self.inbound
            inbound.spent += took
            if took > inbound.slow_handler:
                warn_slow(self.method, took)

    def send(self, value: Any, /) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, error: Any, *rest: Any) -> Any:
        try:
            return self._step(self._coroutine.throw, error)
        finally:
            del error, rest

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("only the task of a call may run it")

    # asyncio's debug output and Task.get_stack ask a coroutine for these.

    @property
    def cr_frame(self) -> Any:
        return self._coroutine.cr_frame

    @property
    def cr_running(self) -> bool:
        return bool(self._coroutine.cr_running)

    @property
    def cr_code(self) -> Any:
        return self._coroutine.cr_code

    @property
    def cr_await(self) -> Any:
        return self._coroutine.cr_await


def _interrupt(error: KeyboardInterrupt) -> None:
    raise error


def warn_slow(method: Method, seconds: float) -> None:
    """Log the name of a handler that held the event loop, and so delayed all other calls."""
    logger.warning(
        "handler %s held the event loop for %.0f ms: mark it @rpc.method(thread=True), or await "
        "in it",
        method.name,
        seconds * 1000,
    )


class SyncCalls:
    """Stands for the call that is being served among those of a message that end at once.

    `Inbound.dispatch` sets `event` and `method`, and `call` to ``None``, for each. Most handlers
    never ask for their context, so an `InboundCall` is made when one does.
    """

    __slots__ = ("call", "event", "inbound", "method")

    #: No call of these is ever cancelled.
    expired = False

    method: Method

    def __init__(self, inbound: Responder) -> None:
        self.inbound = inbound
        self.event: InboundEvent | None = None
        #: An `InboundCall` once a handler has asked for its context. Any, as a type checker takes
        #: what `dispatch` sets for what is there after the handler ran.
        self.call: Any = None

    @property
    def metadata(self) -> dict[str, Any] | None:
        """That of the call of this moment."""
        return None if self.event is None else self.event[6]

    def end(self) -> None:
        """Refuse further use, by tasks or callbacks that a handler has left behind."""
        self.event = None
        self.call = None

    def snapshot(self) -> InboundCall:
        """The call of this moment.

        Raises:
            Error: they are over.
        """
        call: InboundCall | None = self.call
        if call is None:
            if self.event is None:
                raise Error(
                    "the call is over: ask for rpc.context() in the method itself, not in a task "
                    "or callback that it leaves behind"
                )
            _, call_id, _, args, kwargs, deadline, metadata = self.event
            call = self.call = InboundCall(
                self.inbound, call_id, self.method, args, kwargs, deadline, metadata
            )
        return call


class Returned:
    """What a plain function has returned that has to be awaited: the function of its call."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Coroutine[Any, Any, Any]:
        value, self._value = self._value, None
        return as_coroutine(value)

    def __del__(self) -> None:
        # Its call was refused, or its peer left before the call's turn came.
        discard(self._value)
