"""Functions that send messages by themselves: when they are called, when they end or fail."""

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ..identifier import Identifier
from .message import Message, OutcomeMessage
from .registrations import Receiver, is_remote_sink
from .route import Route

__all__ = ["Announcement", "Complaint", "error_message", "portable_route", "with_action"]

Send = Callable[..., object]


class Announcement:
    """Sends one message before a call, and one after it unless it raised."""

    __slots__ = ("_args", "_entry", "_exit", "_kwargs", "_send")

    def __init__(
        self,
        send: Send,
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


class Complaint:
    """Sends a message when a call raises, and swallows the exception unless `reraise` says not."""

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
    """What tells of an error in this process, and what does in others.

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
    """A route on which `portable` leaves the process, in place of what the receivers get."""

    def instead(call: Receiver) -> Receiver:
        @functools.wraps(call)
        def replace(message: Message) -> Any:
            return call(portable)

        return replace

    receivers = [instead(call) if is_remote_sink(call) else call for call in route.receivers]
    calls = (*map(instead, route.forwarders), *receivers)
    return Route(route.identifier, calls, route.reached)
