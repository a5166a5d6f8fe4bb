"""The methods of a server under test: each call is recorded, and meets what a test has planned."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ..common.awaitable import is_awaitable
from ..errors import NotFoundError
from ..rpc.inbound_call import InboundCall, current
from ..rpc.method import Kind, Method
from ..rpc.method_table import HandlerTable
from .method_plan import MethodPlan, Step, Steps

__all__ = ["RecordedCall", "RecordedMethods"]

#: Seconds between two looks of a planned wait on a thread whether its call was cancelled.
LOOK = 0.01

#: Names of methods that an error lists.
SHOWN = 20


@dataclass(frozen=True)
class RecordedCall:
    """A call or notification that reached a server.

    Args:
        name: of the method.
        args, kwargs: its arguments.
        served: how it went on; ``None`` if it was read after its deadline, and so did not run.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    served: InboundCall | None

    @property
    def is_notification(self) -> bool:
        """Whether the caller wanted no result."""
        return self.served is not None and self.served.id is None

    @property
    def is_expired(self) -> bool:
        """Whether its deadline passed, before it ran or while it did."""
        return self.served is None or self.served.expired

    @property
    def is_cancelled(self) -> bool:
        """Whether it was stopped, other than by its deadline."""
        return self.served is not None and self.served.cancelled and not self.served.expired


class RecordedMethods(HandlerTable):
    """The table of a handler's methods, around each of which it records and plans.

    Args:
        table: the handler's methods.
    """

    __slots__ = ("_ended", "_lock", "_plans", "_records", "_table")

    def __init__(self, table: HandlerTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._plans: dict[str, Steps] = {}
        self._records: list[RecordedCall] = []
        self._ended = threading.Event()
        super().__init__({name: self._around(m) for name, m in table.methods.items()}, {})

    # -- for the dispatcher ------------------------------------------------------------------

    def find(self, name: object) -> Method:
        found = self.methods.get(name) if isinstance(name, str) else None
        return found or self._around(self._table.find(name))

    def waits(self, method: Method) -> bool:
        return self._table.waits(method)

    def call_expired(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._record(RecordedCall(name, args, kwargs, None))

    # -- for tests ---------------------------------------------------------------------------

    def plan(self, name: str) -> MethodPlan:
        """What the next calls of a method meet.

        Raises:
            NotFoundError: there is no such method; the text lists those that there are.
        """
        __tracebackhide__ = True
        self.check(name)
        return MethodPlan(name, self._plans.setdefault(name, Steps()))

    def check(self, name: str | None) -> None:
        """Raise `NotFoundError` for the name of no method."""
        __tracebackhide__ = True
        try:
            if name is not None:
                self.find(name)
        except NotFoundError as error:
            known = sorted(self.methods)
            listed = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            end = "" if str(error).endswith("?") else "."
            raise NotFoundError(f"{error}{end} The server has: {listed or 'nothing'}") from None

    def records(self, name: str | None) -> list[RecordedCall]:
        """What was recorded, in order; of one method, or of all."""
        __tracebackhide__ = True
        self.check(name)
        with self._lock:
            return [record for record in self._records if name in (None, record.name)]

    def end_waits(self) -> None:
        """End what waits on threads because a test has planned so, and let nothing wait again."""
        self._ended.set()

    # -- calls ---------------------------------------------------------------------------------

    def _record(self, record: RecordedCall) -> None:
        with self._lock:
            self._records.append(record)

    def _around(self, method: Method) -> Method:
        begin = {
            Kind.SYNC: self._begin_sync,
            Kind.COROUTINE: self._begin_coroutine,
            Kind.THREAD: self._begin_thread,
            Kind.STREAM: self._begin_stream,
        }[method.kind]

        # Not `async`, whatever the method is: what is cancelled before it begins was called, too.
        def begun(*args: Any, **kwargs: Any) -> Any:
            serving = current.get()
            # Which sets the call of a plain function, so that an awaitable result is awaited.
            served = None if serving is None else serving.snapshot()
            assert served is not None
            self._record(RecordedCall(method.name, args, kwargs, served))
            steps = self._plans.get(method.name)
            step = None if steps is None else steps.take()
            if step is None:
                return method.function(*args, **kwargs)
            return begin(step, served, lambda: method.function(*args, **kwargs))

        return replace(method, function=begun)

    def _begin_sync(self, step: Step, served: InboundCall, run: Callable[[], Any]) -> Any:
        if step.hangs or step.seconds is not None:
            # A plain function cannot wait; the server awaits what it returns.
            return self._begin_coroutine(step, served, run)
        return _outcome(step)

    async def _begin_coroutine(
        self, step: Step, served: InboundCall, run: Callable[[], Any]
    ) -> Any:
        if not (step.hangs or step.seconds is not None):
            return _outcome(step)
        await _wait(step)
        result = run()
        return await result if is_awaitable(result) else result

    def _begin_thread(self, step: Step, served: InboundCall, run: Callable[[], Any]) -> Any:
        if not (step.hangs or step.seconds is not None):
            return _outcome(step)
        end = None if step.seconds is None else time.monotonic() + step.seconds
        while not served.cancelled:
            left = LOOK if end is None else min(LOOK, end - time.monotonic())
            if left <= 0 or self._ended.wait(left):
                break
        return None if step.hangs or served.cancelled else run()

    async def _begin_stream(
        self, step: Step, served: InboundCall, run: Callable[[], Any]
    ) -> AsyncIterator[Any]:
        if step.hangs or step.seconds is not None:
            await _wait(step)
            async with aclosing(run()) as items:
                async for item in items:
                    yield item
            return
        for item in _outcome(step):
            yield item


def _outcome(step: Step) -> Any:
    """Return the value of a step, or raise its error."""
    if step.error is None:
        return step.value
    if isinstance(step.error, BaseException):
        # One that is raised again would collect the frames of each time.
        raise step.error.with_traceback(None)
    raise step.error


def _wait(step: Step) -> Coroutine[Any, Any, Any]:
    """Wait as long as a step says: forever, if it hangs."""
    if step.seconds is not None:
        return asyncio.sleep(step.seconds)
    return asyncio.Event().wait()
