"""Calls whose ends are told, for what waits for them or answers with their results."""

import contextlib
import types
from collections.abc import Callable
from typing import Any, TypeAlias

from .message import Message
from .registrations import Receiver, Refusal

__all__ = ["Answering", "Ended"]

Ended: TypeAlias = Callable[[Any, BaseException | None], object]


class Answering:
    """A call of a route; when its receiver has run, `ended` is called, once.

    Args:
        call: the call.
        ended: called as ``ended(result, error)``, in the thread where the receiver ended; not for
            a receiver that its guard skipped. `error` is `None` if the receiver returned.
    """

    __slots__ = ("call", "ended")

    def __init__(self, call: Receiver, ended: Ended) -> None:
        self.call = call
        self.ended = ended

    def __call__(self, message: Message) -> Any:
        try:
            result = self.call(message)
        except RecursionError as error:
            # In the depth of a cycle there is no room left for answers.
            with contextlib.suppress(RecursionError):
                self.ended(None, error)
            raise
        except Exception as error:
            self.ended(None, error)
            raise
        # A coroutine has not begun yet: who runs it calls `ended`.
        if not isinstance(result, Refusal | types.CoroutineType):
            self.ended(result, None)
        return result
