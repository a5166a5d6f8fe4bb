"""Serve a node's own functions and a program's handler at the same root."""

from typing import Any

from ..rpc import AbstractHandler, AttrHandler
from ..rpc.handler import is_tabulated, items
from ..rpc.method_table import collect_methods

__all__ = ["MergedHandler", "merge_handlers"]


class MergedHandler(AbstractHandler):
    """The names of one handler, then those of another that is asked at each call."""

    def __init__(self, first: AttrHandler, second: Any) -> None:
        self._first = first
        self._second = second

    def __getitem__(self, key: str) -> Any:
        try:
            return self._first[key]
        except KeyError:
            return self._second[key]


def merge_handlers(functions: AttrHandler, handler: Any) -> Any:
    """Make one handler with the names of both.

    Raises:
        TypeError: `handler` is not a handler.
        ValueError: a name is in both.
    """
    # Refuses what cannot be served before any socket is opened.
    collect_methods(handler)
    own = dict(items(functions, is_data=False))
    if is_tabulated(handler):
        theirs = dict(items(handler, is_data=False))
        _refuse_clashes([name for name in own if name in theirs])
        return own | theirs
    _refuse_clashes([name for name in own if _has(handler, name)])
    return MergedHandler(functions, handler)


def _has(handler: Any, name: str) -> bool:
    try:
        handler[name]
    except LookupError:
        return False
    return True


def _refuse_clashes(names: list[str]) -> None:
    if names:
        raise ValueError(f"the handler has names of the node's own functions: {', '.join(names)}")
