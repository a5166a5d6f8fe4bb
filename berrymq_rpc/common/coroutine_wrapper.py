"""A coroutine in an object that can do more than be awaited."""

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["CoroutineWrapper"]

T = TypeVar("T")


class CoroutineWrapper(Coroutine[Any, Any, T]):
    """May be used wherever a coroutine may, such as in `asyncio.create_task`.

    Args:
        coroutine: what it runs.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        return self._coroutine.throw(*args)

    def close(self) -> None:
        self._coroutine.close()
