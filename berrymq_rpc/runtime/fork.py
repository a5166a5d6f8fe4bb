"""The registry of what the child of a fork does.

A child has its parent's objects but none of its threads. Objects that own threads, sockets or an
event loop register here, and release them in the child.
"""

import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

from ..errors import Error
from .log import Log

__all__ = ["OwnerProcess", "call_in_child", "leave_loop_in_child"]

logger = Log("berrymq_rpc.runtime")

_functions: list[Callable[[], object]] = []
# Weakly, so that objects need not unregister.
_methods: weakref.WeakKeyDictionary[Any, Callable[[Any], object]] = weakref.WeakKeyDictionary()


def call_in_child(callback: Callable[[], object]) -> None:
    """Have `callback` called in the child of each later fork.

    In the order of registration, functions before methods. One that raises is logged, and the
    others are called all the same.

    Args:
        callback: a function, or a bound method; the object of a method is held weakly, and each has
            one.
    """
    if isinstance(callback, MethodType):
        _methods[callback.__self__] = callback.__func__
    else:
        _functions.append(callback)


#: Event loops that the parent goes on to use.
_loops: weakref.WeakSet[Any] = weakref.WeakSet()


def leave_loop_in_child(loop: Any) -> None:
    """Have the child of a fork do nothing to the files that an event loop waits for.

    By epoll, parent and child share the list of them: when the child closes its loop, as
    `asyncio.run` does at its end, the parent's would not wake up any more.

    Args:
        loop: an event loop of asyncio or uvloop.
    """
    _loops.add(loop)


def _leave_loop(loop: Any) -> None:
    # Here, as a program that forks has imported them already.
    import select
    import selectors

    if sys.platform != "linux":
        return
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, selectors.EpollSelector):
        file = selector.fileno()
    elif hasattr(loop, "_get_backend_id"):
        # That of uvloop.
        file = loop._get_backend_id()
    else:
        return
    # A new list, in the place of the shared one.
    with select.epoll() as epoll:
        os.dup2(epoll.fileno(), file, inheritable=False)


class OwnerProcess:
    """The process that something was opened in.

    In the child of a fork it cannot be used: the threads are not there, and what the child did to
    sockets and event loops that it shares would be felt by the parent. So calls fail, and closing
    does nothing.

    Args:
        kind: what was opened, such as ``"client"``.
    """

    __slots__ = ("_kind", "_process")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._process = os.getpid()

    @property
    def is_this(self) -> bool:
        """Whether this is the process; otherwise it is the child of a fork."""
        return os.getpid() == self._process

    def error(self) -> Error:
        """The exception for what cannot be done in the child of a fork."""
        return Error(
            f"this {self._kind} was opened by another process, of which {os.getpid()} is a fork: "
            f"open a {self._kind} in each process"
        )

    def check(self) -> None:
        """Do nothing in the process itself.

        Raises:
            Error: this is the child of a fork.
        """
        if os.getpid() != self._process:
            raise self.error()


def _run() -> None:
    callbacks: list[Callable[[], object]] = [partial(_leave_loop, loop) for loop in list(_loops)]
    callbacks += _functions
    callbacks += [partial(method, owner) for owner, method in list(_methods.items())]
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("in the child of a fork, %r failed", callback)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
