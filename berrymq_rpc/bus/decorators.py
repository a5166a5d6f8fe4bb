"""Functions that send messages when they are called, when they return, or when they raise.

`wrap` puts a context around the calls of a function of any kind. For `Bus.auto_twitter` the context
is `EntryExit`, for `Bus.twitter_exception` it is `ExceptionReport`.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeAlias

from ..identifier import Identifier
from .message import Message, OutcomeMessage
from .registrations import Receiver, is_remote_sink
from .routing_table import Route

__all__ = [
    "Around",
    "EntryExit",
    "ExceptionReport",
    "error_message",
    "portable_route",
    "with_action",
    "wrap",
]

#: Makes the context of a call, of the call's arguments.
Around: TypeAlias = Callable[
    [tuple[Any, ...], dict[str, Any]], AbstractContextManager[object, bool | None]
]


class EntryExit:
    """Sends one message before a call, and one after it unless it raised."""

    __slots__ = ("_args", "_entry", "_exit", "_kwargs", "_send")

    def __init__(
        self,
        send: Callable[..., object],
        entry: Identifier | None,
        exit: Identifier | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._send = send
        self._entry = entry
        self._exit = exit
        self._args = args
        self._kwargs = kwargs

    def __enter__(self) -> Self:
        if self._entry is not None:
            self._send(self._entry, *self._args, **self._kwargs)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None and self._exit is not None:
            self._send(self._exit, *self._args, **self._kwargs)


class ExceptionReport:
    """Sends a message when a call raises, and swallows the exception unless `reraise` is true."""

    __slots__ = ("_reraise", "_send")

    def __init__(self, send: Callable[[Exception], object], reraise: bool) -> None:
        self._send = send
        self._reraise = reraise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(exc_value, Exception):
            return False
        self._send(exc_value)
        return not self._reraise


def with_action(identifier: Identifier, action: str) -> Identifier:
    """An identifier of the same name and namespace, with another action."""
    head, _, _ = str(identifier).partition(":")
    return Identifier(f"{head}:{action}")


def error_message(
    identifier: Identifier, error: Exception, with_traceback: bool
) -> tuple[OutcomeMessage, Message]:
    """The messages that report an error: in this process, and in others.

    The exception itself, its class and its traceback do not leave the process: their names and
    text do.
    """
    import traceback

    if with_traceback:
        lines = traceback.format_exception(error)
    else:
        lines = traceback.format_exception_only(error)
    kwargs = {
        "type": type(error),
        "value": error,
        "traceback": error.__traceback__ if with_traceback else None,
    }
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    text = "".join(traceback.format_exception_only(error)).strip()
    portable = Message(identifier, (lines,), {"type": name, "value": text, "traceback": None})
    return OutcomeMessage(identifier, (lines,), kwargs, error), portable


def portable_route(route: Route, portable: Message) -> Route:
    """The same route, with `portable` for what leaves the process instead of the message."""

    def instead(call: Receiver) -> Receiver:
        @functools.wraps(call)
        def replace(message: Message) -> Any:
            return call(portable)

        return replace

    receivers = [instead(call) if is_remote_sink(call) else call for call in route.receivers]
    calls = (*map(instead, route.forwarders), *receivers)
    return Route(route.identifier, calls, route.reached)


def wrap(function: Any, around: Around) -> Any:
    """A function that does what `function` does, within a context of `around`.

    The context is that of the run: of an ``async def`` from its first step to its end, of a
    generator from its first item to its end. A class method or static method stays one.
    """
    # Imported here: nothing else in the bus needs it, and it takes some ms.
    import inspect

    if isinstance(function, classmethod | staticmethod):
        return type(function)(wrap(function.__func__, around))
    if inspect.iscoroutinefunction(function):
        return _wrap_coroutine(function, around)
    if inspect.isgeneratorfunction(function):
        return _wrap_generator(function, around)
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(function, around)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with around(args, kwargs):
            return function(*args, **kwargs)

    return call


def _wrap_coroutine(function: Any, around: Around) -> Any:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with around(args, kwargs):
            return await function(*args, **kwargs)

    return call


def _wrap_generator(function: Any, around: Around) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with around(args, kwargs):
            return (yield from function(*args, **kwargs))

    return call


def _wrap_async_generator(function: Any, around: Around) -> Any:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with around(args, kwargs):
            items = function(*args, **kwargs)
            try:
                step = items.__anext__()
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    # What comes back from the caller is for the wrapped generator.
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = items.athrow(error)
                    else:
                        step = items.asend(sent)
            finally:
                await items.aclose()

    return call
