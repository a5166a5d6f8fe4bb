"""Turn a type of this process into JSON Schema: that of its values as `json_values` writes them.

What is only known as a text, such as an annotation of another process, is `schema`'s.
"""

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable
from typing import Annotated, Any, ForwardRef, Literal, NewType, TypeVar, Union

from .schema import Schema, any_of, array_of, enum_of, named, object_of, schema_of, tuple_of

__all__ = ["TypeSchemas", "signature_of"]

#: Levels of a type that are looked at, and parts of one in all: types may hold one another.
MAX_LEVELS = 10
MAX_PARTS = 1000

#: Types that say something about the place where they stand, and not about the value.
_TRANSPARENT = frozenset(
    getattr(typing, name)
    for name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
    if hasattr(typing, name)
)

_ARRAYS = (
    list,
    set,
    frozenset,
    collections.deque,
    collections.abc.Sequence,
    collections.abc.Set,
    collections.abc.Iterable,
)

#: The classes whose values have a schema by the name of the class.
_PLAIN = frozenset(
    (
        *_ARRAYS,
        bool,
        bytearray,
        bytes,
        collections.abc.Mapping,
        datetime.date,
        datetime.datetime,
        datetime.time,
        datetime.timedelta,
        decimal.Decimal,
        dict,
        float,
        int,
        str,
        tuple,
        uuid.UUID,
    )
)


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function, empty if it has none.

    Its annotations are types; or texts, where a name in them is not known.
    """
    for evaluates in (True, False):
        try:
            return inspect.signature(function, eval_str=evaluates)
        except Exception:
            # A name may exist for type checkers alone, and evaluating may raise anything.
            continue
    return inspect.Signature()


class TypeSchemas:
    """Makes the schemas of types. One may be asked for many."""

    def __init__(self) -> None:
        #: The classes that a schema is being made of, each within the one before.
        self._inside: list[Any] = []
        self._left = 0

    def of(self, annotation: Any) -> Schema:
        """The schema of a type; ``{}``, which allows anything, for one that is not known."""
        self._left = MAX_PARTS
        self._inside.clear()
        try:
            return self._of(annotation)
        except Exception:
            # What a class answers about itself may be anything.
            return {}

    def _of(self, annotation: Any) -> Schema:
        self._left -= 1
        if self._left < 0 or len(self._inside) > MAX_LEVELS:
            return {}
        self._inside.append(annotation)
        try:
            return self._made(annotation)
        finally:
            self._inside.pop()

    def _made(self, annotation: Any) -> Schema:
        if isinstance(annotation, str):
            return schema_of(annotation)
        if isinstance(annotation, ForwardRef):
            return schema_of(annotation.__forward_arg__)
        if annotation is None or annotation is types.NoneType:
            return {"type": "null"}
        if annotation is typing.Tuple:  # noqa: UP006 (the name itself)
            return named("tuple")
        if isinstance(annotation, NewType):
            return self._of(annotation.__supertype__)
        if isinstance(annotation, TypeVar):
            return {} if annotation.__bound__ is None else self._of(annotation.__bound__)
        if hasattr(annotation, "__value__"):
            # What `type X = ...` makes, from Python 3.12 on.
            return self._of(annotation.__value__)
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._generic(origin, typing.get_args(annotation))
        return self._class(annotation) if isinstance(annotation, type) else {}

    def _generic(self, origin: Any, arguments: tuple[Any, ...]) -> Schema:
        if origin is Union or origin is types.UnionType:
            return any_of([self._of(argument) for argument in arguments])
        if origin is Literal:
            return enum_of(arguments)
        if origin is Annotated or origin in _TRANSPARENT:
            return self._of(arguments[0])
        if origin is tuple:
            return self._tuple(arguments)
        if not isinstance(origin, type):
            return {}
        if issubclass(origin, collections.abc.Mapping):
            return object_of(self._of(arguments[1]) if len(arguments) == 2 else {})
        base = next((each for each in origin.__mro__ if each in _ARRAYS), None)
        if base is not None and len(arguments) == 1:
            return array_of(named(base.__name__), self._of(arguments[0]))
        return self._class(origin)

    def _tuple(self, arguments: tuple[Any, ...]) -> Schema:
        if len(arguments) == 2 and arguments[1] is ...:
            return array_of(named("tuple"), self._of(arguments[0]))
        if any(
            typing.get_origin(each) is typing.Unpack or getattr(each, "__unpacked__", False)
            for each in arguments
        ):
            return named("tuple")
        return tuple_of([self._of(argument) for argument in arguments])

    def _class(self, cls: type) -> Schema:
        if issubclass(cls, enum.Flag):
            # Any sum of its members.
            return {"title": cls.__name__, "type": "integer"}
        if issubclass(cls, enum.Enum):
            return {"title": cls.__name__} | enum_of([member.value for member in cls])
        for base in cls.__mro__:
            if base in _PLAIN:
                if base is tuple and hasattr(cls, "_fields"):
                    return self._named_tuple(cls)
                if base is dict and typing.is_typeddict(cls):
                    break
                return named(base.__name__)
        if self._inside.count(cls) > 1:
            return {"title": cls.__name__, "type": "object"}
        if typing.is_typeddict(cls):
            return self._typed_dict(cls)
        if dataclasses.is_dataclass(cls) and not hasattr(cls, "to_dict"):
            return self._dataclass(cls)
        return {}

    def _named_tuple(self, cls: Any) -> Schema:
        parameters = signature_of(cls).parameters
        found = [parameters.get(name) for name in cls._fields]
        return tuple_of([{} if each is None else self._of(each.annotation) for each in found])

    def _typed_dict(self, cls: Any) -> Schema:
        return self._object(cls, _hints(cls), sorted(cls.__required_keys__))

    def _dataclass(self, cls: Any) -> Schema:
        hints = _hints(cls)
        fields = dataclasses.fields(cls)
        required = [
            each.name
            for each in fields
            if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        ]
        return self._object(
            cls, {each.name: hints.get(each.name, Any) for each in fields}, required
        )

    def _object(self, cls: type, hints: dict[str, Any], required: list[str]) -> Schema:
        properties = {name: self._of(hint) for name, hint in hints.items()}
        schema: Schema = {"title": cls.__name__, "type": "object", "properties": properties}
        if required:
            schema["required"] = required
        return schema


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except Exception:
        # As texts, where a name is not known.
        return dict(inspect.get_annotations(cls))
