"""The registry of what the child of a fork does.

A child has its parent's objects but none of its threads. Objects that own threads, sockets or an
event loop register here, and release them in the child.
"""

import os
import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

from .log import Log

__all__ = ["call_in_child"]

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


def _run() -> None:
    callbacks: list[Callable[[], object]] = list(_functions)
    callbacks += [partial(method, owner) for owner, method in list(_methods.items())]
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("in the child of a fork, %r failed", callback)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
