"""How calls of peers become spans, where tracing was on when their server was made."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ..common.awaitable import PLAIN, as_coroutine, is_awaitable
from ..common.tracing import Span, Tracing
from ..errors import RPCTimeoutError
from .inbound_call import current
from .method import Kind, Method

__all__ = ["is_traced", "traced"]


def traced(method: Method, tracing: Tracing) -> Method:
    """Return the same method, each call of which is a span.

    It begins when the method does: a call that is refused before has none at this side.
    """
    if not is_traced(method):
        return method
    function = method.function
    wrap = {Kind.COROUTINE: _coroutine, Kind.STREAM: _stream}.get(method.kind, _function)
    return replace(method, function=wrap(method.name, function, tracing))


def is_traced(method: Method) -> bool:
    """Whether calls of a method become spans: its object may say that they do not."""
    return getattr(getattr(method.function, "__self__", None), "is_traced", True) is not False


def _begin(name: str, tracing: Tracing) -> Span:
    call = current.get()
    assert call is not None
    inbound = call.inbound
    return tracing.serve(name, inbound.dialect, call.metadata, inbound.peer.address)


def _outcome(error: BaseException) -> BaseException:
    """What a call has failed with, as its caller sees it."""
    call = current.get()
    if isinstance(error, asyncio.CancelledError) and call is not None and call.expired:
        return RPCTimeoutError("the caller's deadline passed while the method ran")
    return error


def _function(name: str, function: Callable[..., Any], tracing: Tracing) -> Callable[..., Any]:
    def serve(*args: Any, **kwargs: Any) -> Any:
        span = _begin(name, tracing)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            span.end(error)
            raise
        if type(result) not in PLAIN and is_awaitable(result):
            return _awaited(span, result)
        span.end()
        return result

    return serve


async def _awaited(span: Span, result: Any) -> Any:
    try:
        value = await as_coroutine(result)
    except BaseException as error:
        span.end(_outcome(error))
        raise
    span.end()
    return value


def _coroutine(name: str, function: Callable[..., Any], tracing: Tracing) -> Callable[..., Any]:
    async def serve(*args: Any, **kwargs: Any) -> Any:
        span = _begin(name, tracing)
        return await _awaited(span, function(*args, **kwargs))

    return serve


def _stream(name: str, function: Callable[..., Any], tracing: Tracing) -> Callable[..., Any]:
    async def serve(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        span = _begin(name, tracing)
        try:
            async with aclosing(function(*args, **kwargs)) as items:
                async for item in items:
                    yield item
        except BaseException as error:
            span.end(_outcome(error))
            raise
        span.end()

    return serve
