"""The methods of a server by their full names.

What is in attributes and mappings is read once, by `collect_methods`, so that a name from a peer
meets a flat table of what is exported and nothing else. Objects that are asked at each call stand
in the table by the names before them.
"""

import dataclasses
import heapq
import operator
import types
import weakref
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from typing import Any

from ..errors import NotFoundError
from .handler import (
    NOTHING,
    is_attribute_handler,
    is_namespace,
    is_public,
    is_tabulated,
    item,
    items,
)
from .method import Method, marking
from .signature import bounded_repr

__all__ = ["HandlerTable", "collect_methods"]

#: Parts of a name. People nest three or four deep.
MAX_PARTS = 100

#: Names of methods and namespaces found at start. Namespaces that all refer to one another make
#: names without end; people export some hundreds.
MAX_NAMES = 50_000

#: Characters of a name for whose parts an object with `__getitem__` is asked.
MAX_NAME = 1000

#: Characters of an unknown name in an error text; a peer may send megabytes.
NAME_LENGTH = 100

#: Signatures kept of functions that objects with `__getitem__` gave, in two tables of this size.
MAX_SIGNATURES = 1000

#: A suggestion for an unknown name must not cost much more than a call, as anybody may ask for
#: unknown names: with these, 0.3 ms at most.
SUGGESTION_NAMES = 64
SUGGESTION_LENGTH = 50
SUGGESTION_CANDIDATES = 3

#: JSON-RPC 2.0, section 4.3: method names that begin with ``rpc.`` are for the system's own.
RESERVED = "rpc"

_ACCEPTED = (
    "a handler is an instance of AttrHandler or AbstractHandler, a mapping of names to handlers "
    "and functions marked with @rpc.method, or an object with __getitem__"
)


_Signatures = weakref.WeakKeyDictionary[types.FunctionType, Method]


class HandlerTable:
    """The methods of a handler by their full names. Made by `collect_methods`; iterates by name.

    Attributes:
        methods: those that were known at start. For reading only; a dispatcher that does not
            find a name here asks `find`, which knows the rest.
        handler: the handler, if the table is that of one.
    """

    __slots__ = ("_asked", "_signatures", "handler", "methods")

    def __init__(self, methods: dict[str, Method], asked: Mapping[str, Any]) -> None:
        self.methods = methods
        self.handler: Any = None
        # Objects with __getitem__ by the names before them, "" for the handler itself.
        self._asked = dict(asked)
        # Of functions, and of functions that are bound: what such an object returns may be
        # bound again at each call, while its function, and so the signature, is the same.
        self._signatures: tuple[_Signatures, _Signatures] = (
            weakref.WeakKeyDictionary(),
            weakref.WeakKeyDictionary(),
        )

    @property
    def is_empty(self) -> bool:
        """Whether it can have no method: that of a side which has no handler."""
        return not (self.methods or self._asked)

    def find(self, name: object) -> Method:
        """Return the method of that name, which may be anything that came from a peer.

        Raises:
            NotFoundError: there is none. If an object with `__getitem__` failed other than by a
                `LookupError`, that is the error's ``__cause__``. Nothing but this is raised, a
                `KeyboardInterrupt` excepted.
        """
        if not isinstance(name, str):
            raise NotFoundError(f"the name of a method must be text, not {type(name).__name__}")
        found = self.methods.get(name)
        if found is None and self._asked and len(name) <= MAX_NAME:
            found = self._ask(name)
        if found is None:
            raise NotFoundError(f"no method {bounded_repr(name, NAME_LENGTH)}{self._hint(name)}")
        return found

    def waits(self, method: Method) -> bool:
        """Whether a method of this table only waits for something to come."""
        return method.waits

    def call_expired(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call was not run, as its deadline had passed. A table that records calls notes it."""

    def __iter__(self) -> Iterator[Method]:
        return iter(sorted(self.methods.values(), key=lambda method: method.name))

    def __len__(self) -> int:
        return len(self.methods)

    @property
    def kept_signatures(self) -> int:
        """How many signatures of methods that were found by asking are kept."""
        return sum(map(len, self._signatures))

    def __repr__(self) -> str:
        return f"<HandlerTable of {len(self)} methods>"

    def _ask(self, name: str) -> Method | None:
        parts = name.split(".")
        if len(parts) > MAX_PARTS or parts[0] == RESERVED or not all(map(is_public, parts)):
            return None
        for count in range(len(parts)):
            namespace = self._asked.get(".".join(parts[:count]), NOTHING)
            if namespace is not NOTHING:
                break
        else:
            return None
        try:
            # What `__getitem__` of a handler sets in its context is not for the calls of others.
            return copy_context().run(self._look_up, name, namespace, parts[count:])
        except LookupError:
            return None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            shown = bounded_repr(name, NAME_LENGTH)
            raise NotFoundError(f"no method {shown}: looking it up failed") from error

    def _look_up(self, name: str, namespace: Any, parts: list[str]) -> Method | None:
        value = namespace
        for part in parts:
            if not is_namespace(value):
                return None
            value = item(value, part)
        return None if marking(value) is None else self._method(name, value)

    def _method(self, name: str, value: Any) -> Method:
        is_bound = type(value) is types.MethodType
        function = value.__func__ if is_bound else value
        if type(function) is not types.FunctionType:
            # Nothing else is sure to keep its signature, or to be recognised by its identity.
            return Method.of(name, value)
        known = self._signatures[is_bound]
        template = known.get(function)
        if template is None:
            method = Method.of(name, value)
            if len(known) >= MAX_SIGNATURES:
                known.clear()
            known[function] = dataclasses.replace(method, function=_forgotten)
            return method
        signature = template.signature.renamed(name)
        return dataclasses.replace(template, name=name, function=value, signature=signature)

    def _hint(self, name: str) -> str:
        if len(name) > SUGGESTION_LENGTH or len(self.methods) > SUGGESTION_NAMES:
            return ""
        inside = min((known for known in self.methods if known.startswith(name + ".")), default="")
        if inside:
            return f": it is a namespace, with methods such as {inside!r}"
        near = [known for known in self.methods if abs(len(known) - len(name)) <= 2]
        likely = heapq.nlargest(
            SUGGESTION_CANDIDATES, near, key=lambda known: _characters_in_place(known, name)
        )
        # Imported only when a name was not found.
        import difflib

        close = difflib.get_close_matches(name, likely, 1, 0.8)
        if not close:
            close = [known for known in self.methods if known.endswith("." + name)]
        return f"; is it {close[0]!r}?" if close else "; is it marked with @rpc.method?"


def _characters_in_place(one: str, other: str) -> int:
    """Count, from both ends, the characters that are the same: cheaper than difflib."""
    from_start = sum(map(operator.eq, one, other))
    from_end = sum(map(operator.eq, reversed(one), reversed(other)))
    return int(from_start + from_end)


def _forgotten() -> None:
    """Stands for the function of a method that is kept without it, for its signature."""


def collect_methods(handler: Any) -> HandlerTable:
    """Return the table of what a handler exports.

    Args:
        handler: an instance of `AttrHandler` (or of aiozmq.rpc's), a mapping, or an object with
            `__getitem__`, such as an `AbstractHandler`.

    Raises:
        TypeError: `handler` is none of those; or a function marked ``thread=True`` is
            ``async def``.
        ValueError: a key of a mapping is not text or has a dot; a name begins with ``rpc.``;
            or the namespaces refer to one another in too many ways.

    A namespace that contains itself is left out where it does so for the first time. A mapping
    that is an attribute of an `AttrHandler` may be the program's own data, so there keys that
    cannot be names are left out.
    """
    if not is_namespace(handler):
        if isinstance(handler, type):
            raise TypeError(f"{_ACCEPTED}, not the class {handler.__qualname__} itself")
        raise TypeError(f"{_ACCEPTED}, not {bounded_repr(handler)}")
    contents = _contents(handler)
    methods: dict[str, Method] = {}
    asked: dict[str, Any] = {}
    found = 0
    # Each with the name before its own names, and itself after all the namespaces it is in.
    pending: list[tuple[str, tuple[Any, ...]]] = [("", (handler,))]
    while pending:
        before, path = pending.pop()
        if not is_tabulated(path[-1]):
            asked[before] = path[-1]
            continue
        for part, value in contents.get(id(path[-1]), ()):
            name = f"{before}.{part}" if before else part
            if marking(value) is not None:
                methods[name] = Method.of(name, value)
            elif len(path) < MAX_PARTS and not any(value is outer for outer in path):
                pending.append((name, (*path, value)))
            else:
                continue
            found += 1
            if found > MAX_NAMES:
                raise ValueError(
                    f"the handler has more than {MAX_NAMES} names: do its namespaces refer to "
                    "one another? Attributes that begin with '_' are not namespaces"
                )
    for name in (*methods, *asked):
        if name.partition(".")[0] == RESERVED:
            raise ValueError(
                f"{name!r} cannot be exported: JSON-RPC 2.0 reserves names that begin with 'rpc.'"
            )
    table = HandlerTable(methods, asked)
    table.handler = handler
    return table


def _contents(handler: Any) -> dict[int, list[tuple[str, Any]]]:
    """Read each namespace within a handler once.

    Returns:
        By the `id` of each namespace that leads to something exported, the names in it that do,
        with the function or namespace. A handler's attributes may be data, large and with
        references in all directions, to follow which by name would never end.
    """
    read: dict[int, tuple[Any, list[tuple[str, Any]]]] = {}
    holders: dict[int, list[int]] = {}
    fruitful: list[int] = []
    pending = [(handler, False)]
    while pending:
        namespace, is_data = pending.pop()
        key = id(namespace)
        if key in read:
            continue
        is_data = is_data or is_attribute_handler(namespace)
        within = list(items(namespace, is_data=is_data)) if is_tabulated(namespace) else []
        # The namespace is kept, so that its id stays its own.
        read[key] = namespace, within
        if not is_tabulated(namespace):
            fruitful.append(key)
        for _, value in within:
            if marking(value) is not None:
                fruitful.append(key)
            else:
                holders.setdefault(id(value), []).append(key)
                pending.append((value, is_data))
    kept: set[int] = set()
    while fruitful:
        key = fruitful.pop()
        if key not in kept:
            kept.add(key)
            fruitful.extend(holders.get(key, ()))
    return {
        key: [
            (name, value)
            for name, value in read[key][1]
            if marking(value) is not None or id(value) in kept
        ]
        for key in kept
    }
