"""What a test says that the next calls of a server's method meet: `MethodPlan`."""

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Self

from ..rpc.validation import checked_seconds

__all__ = ["MethodPlan", "Step", "Steps"]

#: Stands for what was not given, as ``None`` may be returned.
_MISSING: Any = object()


@dataclass(frozen=True)
class Step:
    """What some calls meet in place of the handler, or before it.

    Args:
        error: what is raised.
        value: what is returned; of a stream, the items.
        seconds: of delay before the handler runs.
        hangs: whether it does not end until it is cancelled.
        times: how many calls; ``None`` for all from then on.
    """

    error: BaseException | type[BaseException] | None = None
    value: Any = _MISSING
    seconds: float | None = None
    hangs: bool = False
    times: int | None = None

    @property
    def returns(self) -> bool:
        """Whether there is a value to be returned."""
        return self.value is not _MISSING


class Steps:
    """The steps that are left for one method. Any thread may take one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: deque[Step] = deque()

    def take(self) -> Step | None:
        """The step for a call that has come; ``None`` to run the handler."""
        with self._lock:
            if not self._steps:
                return None
            step = self._steps[0]
            if step.times is not None:
                self._steps.popleft()
                if step.times > 1:
                    self._steps.appendleft(replace(step, times=step.times - 1))
            return step

    def add(self, step: Step) -> None:
        """Add a step. The one before it, if it would last forever, is for one call."""
        with self._lock:
            if self._steps and self._steps[-1].times is None:
                self._steps[-1] = replace(self._steps[-1], times=1)
            self._steps.append(step)

    def clear(self) -> None:
        """Forget all steps."""
        with self._lock:
            self._steps.clear()


class MethodPlan:
    """What the next calls of a method meet in place of its handler. Made by `KitServer.method`.

    ::

        server.method("charge").fails(ConnectionError("down"), times=2).then(returns=7)

    The words can be chained: each begins where the one before it ends. Without ``times`` a word is
    for all calls from then on, or for one call if another word follows. After the last one the
    handler runs again. The first word after `KitServer.method` replaces an earlier plan.

    Calls are recorded all the same, and arguments are checked, as they are before the handler.
    """

    def __init__(self, name: str, steps: Steps) -> None:
        self._name = name
        self._steps = steps
        self._is_begun = False

    def fails(
        self, error: BaseException | type[BaseException], *, times: int | None = None
    ) -> Self:
        """Raise an exception in the handler's place; it reaches the caller as from a handler.

        So a class of the program's own needs `error_table` at the client, and what the package
        raises itself, such as `ConnectionLostError`, arrives as the builtin class that it is made
        of: for these, have the link or the server fail.

        Args:
            error: an exception or a class of exceptions.
            times: for how many calls.

        Raises:
            TypeError: `error` is neither.
        """
        __tracebackhide__ = True
        is_class = isinstance(error, type) and issubclass(error, BaseException)
        if not (is_class or isinstance(error, BaseException)):
            raise TypeError(f"fails: give an exception such as ValueError('text'), not {error!r}")
        return self._add(Step(error=error), times)

    def returns(self, value: Any, *, times: int | None = None) -> Self:
        """Return a value, and do not run the handler; of a stream, its items."""
        __tracebackhide__ = True
        return self._add(Step(value=value), times)

    def delays(self, seconds: float, *, times: int | None = None) -> Self:
        """Wait some seconds, then run the handler."""
        __tracebackhide__ = True
        return self._add(Step(seconds=checked_seconds(seconds, "seconds", zero=True)), times)

    def hangs(self, *, times: int | None = None) -> Self:
        """Never answer: the call ends when it is cancelled, expires, or the server ends."""
        __tracebackhide__ = True
        return self._add(Step(hangs=True), times)

    def then(
        self,
        *,
        returns: Any = _MISSING,
        fails: BaseException | type[BaseException] | None = None,
        delays: float | None = None,
        hangs: bool = False,
        times: int | None = None,
    ) -> Self:
        """Add one of the other words, as an argument.

        Raises:
            TypeError: not exactly one of them is given.
        """
        __tracebackhide__ = True
        given = (returns is not _MISSING) + (fails is not None) + (delays is not None) + bool(hangs)
        if given != 1:
            raise TypeError(
                "then: give one of returns=, fails=, delays= and hangs=True; after the last step "
                "the handler runs by itself"
            )
        if fails is not None:
            return self.fails(fails, times=times)
        if delays is not None:
            return self.delays(delays, times=times)
        return self.hangs(times=times) if hangs else self.returns(returns, times=times)

    def runs(self) -> Self:
        """Forget what was planned: the handler runs."""
        self._steps.clear()
        self._is_begun = True
        return self

    def _add(self, step: Step, times: int | None) -> Self:
        __tracebackhide__ = True
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"times is a number of calls from 1 on, not {times!r}")
        if not self._is_begun:
            self.runs()
        self._steps.add(replace(step, times=times))
        return self

    def __repr__(self) -> str:
        return f"<MethodPlan of {self._name!r}>"
