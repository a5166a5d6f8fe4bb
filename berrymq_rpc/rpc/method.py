"""The decorator that exports a function, and what is known of each exported method."""

import enum
import inspect
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar, overload

from .signature import Signature

__all__ = ["Kind", "Method", "is_generator_function", "kind_of", "marking", "method"]

#: Names of users; ``None`` for everybody.
Users: TypeAlias = Collection[str] | None

Function = TypeVar("Function", bound="Callable[..., Any] | classmethod[Any, Any, Any]")


class Kind(enum.Enum):
    """How a method runs."""

    #: On the event loop, and done when it returns.
    SYNC = "sync"
    #: An ``async def`` function: as a task.
    COROUTINE = "coroutine"
    #: A blocking function: on a thread.
    THREAD = "thread"
    #: An ``async def`` function with ``yield``: its items travel one by one.
    STREAM = "stream"


@overload
def method(
    function: Function, *, thread: bool = ..., waits: bool = ..., allow: Users = ...
) -> Function: ...


@overload
def method(
    function: None = None, *, thread: bool = ..., waits: bool = ..., allow: Users = ...
) -> Callable[[Function], Function]: ...


def method(
    function: Any = None, *, thread: bool = False, waits: bool = False, allow: Users = None
) -> Any:
    """Export a function: peers may call it, and nothing that is not marked.

    Use it bare or with arguments::

        class Handler(rpc.AttrHandler):
            @rpc.method
            def add(self, a: int, b: int) -> int:
                return a + b

            @rpc.method(thread=True)
            def checksum(self, path): ...

    A plain function runs on the event loop, an ``async def`` function as a task, and one that
    also has ``yield`` is a stream. What a plain function on the loop returns is awaited if it has
    to be, as with a decorator that is not ``async`` itself. Its name is that of the attribute, or
    the key in a mapping, that it is found under. The mark is an attribute of the function, so the
    function itself can be called as before, and an override in a subclass is exported only if it
    is marked too. ``@staticmethod`` and ``@classmethod`` may stand above or below. A
    `functools.partial` can be marked; a bound method and a function written in C cannot, so wrap
    them in one.

    Each call runs in a copy of the context (`contextvars`) in which the server was started, with
    settings of `decimal` of its own. What a handler sets there is not seen by any other call.

    Args:
        function: what to export.
        thread: run it on a thread, off the event loop. For functions that block.
        waits: it waits for something to happen, so it may take long and use little meanwhile.
            Such calls leave the window of calls in flight, and have a bound of their own.
        allow: the names of the users who may call it, such as ``{"alice"}``; see
            `Peer.user`. ``None`` for everybody who may connect. Others get a
            `PermissionDeniedError`.

    Returns:
        The function itself, marked; with no function given, a decorator.

    Raises:
        TypeError: `function` is a class, is not callable, or takes no mark; it is a generator
            function without ``async``; `thread` is given for an ``async def`` function; or
            `waits` for a plain function without `thread`, which would hold the event loop
            while it waits.
    """

    allowed = _checked_users(allow)

    def mark(function: Any) -> Any:
        target: Any = function
        if isinstance(function, staticmethod | classmethod):
            target = function.__func__
        _check(target, thread=thread, waits=waits)
        try:
            # `aiozmq.rpc` looks for this attribute as well, whatever it holds.
            target.__rpc__ = {"thread": thread, "waits": waits, "allow": allowed}
        except (AttributeError, TypeError):
            raise TypeError(
                f"{_called(target)} cannot be marked, as it takes no attributes: mark the function "
                "where it is written, or export functools.partial of it"
            ) from None
        return function

    return mark if function is None else mark(function)


def marking(value: Any) -> dict[str, Any] | None:
    """Return the mark of a callable that `method` or ``aiozmq.rpc.method`` exported, or None."""
    if not callable(value) or issubclass(type(value), type):
        return None
    try:
        options = getattr(value, "__rpc__", None)
    except Exception:
        # A proxy of something that is not there now, for one. Then it is not exported.
        return None
    # An object that has every attribute one asks for, such as a client's proxy, is not marked.
    return options if isinstance(options, dict) else None


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One exported method, as a dispatcher needs it. Made once, before any call.

    Args:
        name: the full name, with the namespaces before it and dots between.
        function: what to call with the arguments of the call.
        kind: how it runs.
        waits: as given to `method`.
        signature: what arguments it takes.
        doc: its docstring, or empty.
        allow: who may call it; ``None`` for everybody.
    """

    name: str
    function: Callable[..., Any]
    kind: Kind
    waits: bool
    signature: Signature
    doc: str = field(repr=False)
    allow: frozenset[str] | None = None

    @classmethod
    def of(cls, name: str, function: Callable[..., Any]) -> "Method":
        """Return what is to be known of a marked callable.

        Raises:
            TypeError: it is marked ``thread=True`` but is an ``async def`` function, or is a
                generator function, as a decorator above the mark can make it.
        """
        options = marking(function) or {}
        thread = bool(options.get("thread", False))
        kind = kind_of(function)
        if kind is Kind.SYNC and is_generator_function(function):
            raise TypeError(f"{name} {_GENERATOR_REFUSED}")
        if thread and kind is not Kind.SYNC:
            raise TypeError(f"{name}: {_THREAD_REFUSED}")
        return cls(
            name=name,
            function=function,
            kind=Kind.THREAD if thread else kind,
            waits=bool(options.get("waits", False)),
            allow=options.get("allow"),
            signature=Signature(function, name),
            doc=_documentation(function),
        )


_GENERATOR_REFUSED = "is a generator function: write `async def` to make it a stream"


def _checked_users(allow: object) -> frozenset[str] | None:
    if allow is None:
        return None
    # A text is a collection of its letters.
    if isinstance(allow, Collection) and not isinstance(allow, str | bytes):
        users = frozenset(allow)
        if all(isinstance(user, str) for user in users):
            return users
    raise TypeError(f"allow is a set of users' names such as {{'alice'}}, not {allow!r}")


_THREAD_REFUSED = "thread=True is for plain functions; an `async def` function runs on the loop"


def _called(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else f"a {type(value).__name__} object"


def _code(function: Any) -> Any:
    """Return the innermost function: the one that says how a call of `function` runs."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, types.MethodType | staticmethod | classmethod):
            function = function.__func__
        elif not inspect.isroutine(function) and type(function.__call__) is types.MethodType:
            function = function.__call__
        else:
            return function


def is_generator_function(function: Any) -> bool:
    """Return whether a call of the function, of a partial or of an object makes a generator."""
    return inspect.isgeneratorfunction(_code(function))


def kind_of(function: Any) -> Kind:
    """Return how a function runs that is not ``thread=True``."""
    code = _code(function)
    if inspect.isasyncgenfunction(code):
        return Kind.STREAM
    # Python 3.12's inspect.markcoroutinefunction marks the outer callable.
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(code):
        return Kind.COROUTINE
    return Kind.SYNC


def _check(target: Any, *, thread: bool, waits: bool) -> None:
    if isinstance(target, type):
        raise TypeError(
            f"class {target.__qualname__} cannot be exported: mark those of its methods that a "
            "peer may call, and serve an instance"
        )
    if not callable(target):
        raise TypeError(f"rpc.method marks a function, not a {type(target).__name__}")
    kind = kind_of(target)
    if kind is Kind.SYNC and is_generator_function(target):
        raise TypeError(f"{_called(target)} {_GENERATOR_REFUSED}")
    if thread and kind is not Kind.SYNC:
        raise TypeError(f"{_called(target)}: {_THREAD_REFUSED}")
    if waits and not thread and kind is Kind.SYNC:
        raise TypeError(
            f"{_called(target)} would hold the event loop while it waits: write `async def`, or "
            "give thread=True together with waits=True"
        )


def _documentation(function: Any) -> str:
    # The docstring of functools.partial says nothing of what it holds, unless given its own.
    while isinstance(function, partial) and "__doc__" not in vars(function):
        function = function.func
    text = inspect.getdoc(function)
    if text is None and not inspect.isroutine(function):
        call = function.__call__.__doc__
        text = inspect.cleandoc(call) if call else None
    return text or ""
