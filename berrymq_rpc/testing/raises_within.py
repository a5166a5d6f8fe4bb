"""An exception that has to come in time: `RaisesWithin`."""

import asyncio
import re
import time
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..rpc.validation import checked_seconds

__all__ = ["RaisesWithin"]

E = TypeVar("E", bound=BaseException)


class RaisesWithin(Generic[E]):
    """A context that fails unless an exception is raised in time. Made by `Kit.raises_within`.

    Attributes:
        value: the exception, when it has come.
        elapsed: seconds until then.
    """

    value: E
    elapsed: float

    def __init__(
        self,
        expected: type[E] | tuple[type[E], ...],
        seconds: float,
        match: str | None,
    ) -> None:
        classes: tuple[Any, ...] = expected if isinstance(expected, tuple) else (expected,)
        if not classes or not all(
            isinstance(c, type) and issubclass(c, BaseException) for c in classes
        ):
            raise TypeError(f"give a class of exceptions or several, not {expected!r}")
        self._classes = classes
        self._names = " or ".join(c.__name__ for c in classes)
        self._seconds = checked_seconds(seconds, "seconds")
        self._match = match
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False
        self._cancelling = 0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            self._task = asyncio.current_task()
        except RuntimeError:
            return self
        if self._task is not None:
            self._cancelling = self._task.cancelling()
            self._timer = loop.call_later(self._seconds, self._cancel)
        return self

    def _cancel(self) -> None:
        assert self._task is not None
        self._is_late = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        __tracebackhide__ = True
        self.elapsed = time.monotonic() - self._began
        if self._timer is not None:
            self._timer.cancel()
        if self._is_late:
            assert self._task is not None
            # What else has cancelled the task goes on.
            if self._task.uncancel() > self._cancelling:
                return False
            if isinstance(error, asyncio.CancelledError) or error is None:
                raise AssertionError(
                    f"no {self._names} was raised within {self._seconds:g} s: what ran was "
                    "cancelled"
                ) from None
        if error is None:
            raise AssertionError(
                f"no {self._names} was raised: the block ended after {self.elapsed:.3f} s"
            )
        if not isinstance(error, self._classes):
            return False
        if self._is_late or self.elapsed > self._seconds:
            raise AssertionError(
                f"{type(error).__name__} was raised after {self.elapsed:.3f} s, and not within "
                f"{self._seconds:g} s"
            ) from error
        if self._match is not None and not re.search(self._match, str(error)):
            raise AssertionError(
                f"the text of {type(error).__name__} does not match {self._match!r}: {error}"
            ) from error
        self.value = error
        return True
