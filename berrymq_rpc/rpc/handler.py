"""What a server serves: handlers, and what is found in them by one part of a name.

A handler is one of these, and namespaces are handlers again:

=============================  ====================================================================
`AttrHandler`                  its marked functions, and its attributes that are handlers
a mapping, such as a dict      its values that are marked callables or handlers, by their keys
any object with `__getitem__`  asked for each part of a name at each call
=============================  ====================================================================

The first two are read once, when the server starts: what is set later is not found. Reachable is
only what carries the mark of `berrymq_rpc.rpc.method`, by names no part of which is empty or begins
with ``_``. Properties are never run. Handlers written for ``aiozmq.rpc`` are served as they are.
"""

import abc
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .method import marking
from .signature import bounded_repr

__all__ = [
    "NOTHING",
    "AbstractHandler",
    "AttrHandler",
    "is_attribute_handler",
    "is_namespace",
    "is_public",
    "is_tabulated",
    "item",
    "items",
]


class AbstractHandler(abc.ABC):
    """Base of handlers that are asked for each part of a name at each call.

    `__getitem__` is called on the event loop with a public name, and returns a callable that is
    marked with `berrymq_rpc.rpc.method`, or a handler that is the namespace of that name. It
    raises `KeyError` for a name that it does not know; whatever else it raises, the caller gets
    `NotFoundError` as well.

    Any class with a `__getitem__` counts as a subclass, sequences and strings excepted.
    """

    __slots__ = ()

    @abc.abstractmethod
    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    @classmethod
    def __subclasshook__(cls, other: type, /) -> Any:
        if issubclass(other, Sequence):
            return False
        if cls is AbstractHandler:
            for base in other.__mro__:
                if "__getitem__" in base.__dict__:
                    return base.__dict__["__getitem__"] is not None
        return NotImplemented


class AttrHandler(AbstractHandler):
    """Base of handlers whose attributes are the names.

    ::

        class Math(rpc.AttrHandler):
            @rpc.method
            def add(self, a, b):
                return a + b

        class Handler(rpc.AttrHandler):
            def __init__(self):
                self.math = Math()         # client.rpc.math.add(1, 2)

    Attributes of the instance and of its classes count alike: functions marked with
    `berrymq_rpc.rpc.method`, and handlers as namespaces. The attributes are read when the server
    starts; properties are not run, and `__getattr__` is not asked. A subclass that defines
    `__getitem__` is asked at each call instead.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        """Return the exported function or the namespace of that name; else raise `KeyError`."""
        value = _attribute(self, key) if is_public(key) else NOTHING
        if value is NOTHING:
            raise KeyError(key)
        return value


#: What a name stands for under which nothing is exported; None may be a value.
NOTHING: Any = object()


def is_public(part: object) -> bool:
    """Return whether this can be a part of a name that a peer may use."""
    return isinstance(part, str) and part != "" and not part.startswith("_") and "." not in part


def is_namespace(value: object) -> bool:
    """Return whether this is a handler."""
    # Its type is asked: by its __class__ an object may pretend to be another, and run code.
    kind = type(value)
    # The class of an enum has __getitem__ and so has an alias such as `list[int]`, which would
    # take a name for an annotation to compile.
    if issubclass(kind, type) or kind.__module__ in ("types", "typing"):
        return False
    return issubclass(kind, AbstractHandler)


def is_attribute_handler(value: object) -> bool:
    """Return whether the names in this handler are its attributes."""
    for base in type(value).__mro__:
        if "__getitem__" in base.__dict__:
            # aiozmq's is recognised by its name: importing it is slow and may fail.
            full_name = (base.__module__, base.__name__)
            return base is AttrHandler or full_name == ("aiozmq.rpc.base", "AttrHandler")
    return False


def _is_mapping(value: object) -> bool:
    return issubclass(type(value), Mapping)


def is_tabulated(namespace: object) -> bool:
    """Return whether the names in this handler are read at start; else it is asked at each call."""
    return is_attribute_handler(namespace) or _is_mapping(namespace)


def item(namespace: Any, part: str) -> Any:
    """Return what a handler has under a public name, or `NOTHING`.

    Raises:
        Exception: whatever the `__getitem__` of the handler's class raises.
    """
    if is_attribute_handler(namespace):
        return _attribute(namespace, part)
    if _is_mapping(namespace) and part not in namespace:
        # A defaultdict would make an item for whatever name a peer thinks of.
        return NOTHING
    return namespace[part]


def items(namespace: Any, *, is_data: bool) -> Iterator[tuple[str, Any]]:
    """Iterate over the public names in a handler of marked callables, bound, and of handlers.

    Args:
        namespace: a handler for which `is_tabulated` is true.
        is_data: it may be a program's own data, so keys of a mapping that cannot be names are
            left out.

    Raises:
        ValueError: a key of a mapping is not text, or has a dot.
    """
    if is_attribute_handler(namespace):
        for name in _attribute_names(namespace):
            value = _attribute(namespace, name)
            if value is not NOTHING:
                yield name, value
        return
    for key, value in namespace.items():
        if is_public(key):
            if _is_exported(value):
                # Of a key that is an enum's member as well, the text.
                yield str.__str__(key), value
        elif is_data:
            continue
        elif not isinstance(key, str):
            raise ValueError(f"the names in a handler are text, not {bounded_repr(key)}")
        elif "." in key:
            raise ValueError(
                f"{bounded_repr(key)} cannot be a name: the dot stands between namespaces, so "
                "nest a mapping in the mapping"
            )


def _is_exported(value: object) -> bool:
    return marking(value) is not None or is_namespace(value)


def _attributes(handler: object) -> dict[Any, Any]:
    try:
        attributes: dict[Any, Any] = object.__getattribute__(handler, "__dict__")
    except AttributeError:
        return {}
    return attributes


def _attribute_names(handler: object) -> list[str]:
    names = set(_attributes(handler))
    for base in type(handler).__mro__:
        names.update(base.__dict__)
    return sorted(name for name in names if is_public(name))


def _attribute(handler: object, name: str) -> Any:
    """Return the exported function, bound, or the namespace of that name, or `NOTHING`."""
    # A property would be run by getattr.
    value = inspect.getattr_static(handler, name, NOTHING)
    if isinstance(value, types.MemberDescriptorType):
        try:
            value = value.__get__(handler, type(handler))
        except AttributeError:
            return NOTHING
    elif _attributes(handler).get(name, NOTHING) is not value:
        holder = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if marking(holder) is not None:
            bind = getattr(type(value), "__get__", None)
            return value if bind is None else bind(value, handler, type(handler))
    return value if _is_exported(value) else NOTHING
