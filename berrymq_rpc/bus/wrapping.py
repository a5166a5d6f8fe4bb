"""Functions wrapped in what happens before and after them, whatever kind of function they are."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

__all__ = ["Around", "wrap"]

Around: TypeAlias = Callable[
    [tuple[Any, ...], dict[str, Any]], AbstractContextManager[object, bool | None]
]


def wrap(function: Any, around: Around) -> Any:
    """A function that does what `function` does, within a context of `around`.

    The context is that of the run: of an ``async def`` from its first step to its end, of a
    generator from its first item to its end. A class method or static method stays one.

    Args:
        around: called with the arguments of each call; makes its context.
    """
    # Found in no other path of the bus, and it takes some ms.
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
