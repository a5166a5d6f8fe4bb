"""A method's signature, read once, against which the arguments of each call are checked.

Types are not checked: an annotation is there for people and for `describe`.
"""

import contextlib
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ForwardRef, Literal, Union, Unpack, get_args, get_origin

from ..errors import ParametersError

if sys.version_info >= (3, 14):  # pragma: no cover (by version)
    import annotationlib

__all__ = ["Signature", "annotation_text", "bounded_repr"]

#: Characters of one default value or annotation; people write less, and a table of constants as
#: a default would fill every error text and every answer of `describe`.
VALUE_LENGTH = 200

#: Characters of a whole signature in an error text.
SIGNATURE_LENGTH = 1000

#: Characters of an argument's name that a peer sent; it may send megabytes.
NAME_LENGTH = 100

#: Names that a peer sent are listed up to this many.
NAMES_SHOWN = 3

#: Functions that wrap one another.
_MAX_WRAPPED = 100

# An address says something about this process's memory, and differs from run to run.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")

_NO_DEFAULT = _NO_ANNOTATION = inspect.Parameter.empty
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def bounded_repr(value: object, length: int = VALUE_LENGTH) -> str:
    """Return ``repr(value)``, cut at `length` characters, without addresses; never raise."""
    if isinstance(value, str | bytes | bytearray):
        # What is cut off need not be turned into text first.
        value = value[: length + 1]
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__} object>"
    return _cut(_ADDRESS.sub("", text), length)


def annotation_text(annotation: object) -> str | None:
    """Return an annotation as in source, or None if there is none; never raise.

    An annotation that is a string already is given as it is. The text is the same on every Python:
    an optional is ``int | None``, and a name in quotes has none, at whatever depth.
    """
    if annotation is inspect.Parameter.empty:
        return None
    try:
        text = _source(annotation)
    except Exception:
        text = f"<{type(annotation).__qualname__} object>"
    return _cut(_ADDRESS.sub("", text), VALUE_LENGTH)


def _source(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return " | ".join(map(_argument_source, arguments))
    if origin is Unpack:
        return f"*{_argument_source(arguments[0])}"
    if not arguments or origin is Literal:
        return inspect.formatannotation(annotation)
    name = inspect.formatannotation(annotation).partition("[")[0]
    if origin is Annotated:
        written = [_argument_source(arguments[0]), *map(repr, arguments[1:])]
    else:
        written = [_argument_source(argument) for argument in arguments]
    return f"{name}[{', '.join(written)}]"


def _argument_source(argument: Any) -> str:
    if argument is types.NoneType:
        return "None"
    if argument is ...:
        return "..."
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_argument_source, argument))}]"
    return _source(argument)


class _Shown:
    """Stands in a signature for a default or an annotation, and shows as the given text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _told_parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    text = annotation_text(parameter.annotation)
    return parameter if text is None else parameter.replace(annotation=text)


def _shown_parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    default, annotation = parameter.default, parameter.annotation
    return parameter.replace(
        default=default if default is _NO_DEFAULT else _Shown(bounded_repr(default)),
        annotation=_NO_ANNOTATION if annotation is _NO_ANNOTATION else _Shown(annotation),
    )


# Of what tells nothing about its arguments.
_ANYTHING = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)


def _inspected(function: Callable[..., Any]) -> inspect.Signature:
    # Some functions written in C tell nothing; they check what they get by themselves. From Python
    # 3.14 on annotations are evaluated only now, and may need names that exist for a type checker
    # only, or fail in any other way.
    for read in (inspect.signature, _as_written, _without_annotations):
        with contextlib.suppress(Exception):
            return read(function)
    return _ANYTHING


def _as_written(function: Callable[..., Any]) -> inspect.Signature:
    """The signature with annotations that are not evaluated, where Python has kept their source."""
    if sys.version_info >= (3, 14):  # pragma: no cover (by version)
        return inspect.signature(function, annotation_format=annotationlib.Format.STRING)
    raise TypeError("annotations are values")


def _without_annotations(function: Callable[..., Any]) -> inspect.Signature:
    if isinstance(function, types.MethodType):
        return inspect.signature(types.MethodType(_bare(function.__func__), function.__self__))
    return inspect.signature(_bare(function))


def _bare(function: object) -> types.FunctionType:
    """The same function without annotations, and without what it wraps."""
    if not isinstance(function, types.FunctionType):
        raise TypeError("only a function can be made anew")
    bare = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    bare.__kwdefaults__ = function.__kwdefaults__
    return bare


def _bound_names(function: Any) -> frozenset[str]:
    """The names of the parameters that a call of a method or partial has given already.

    A call with one of them by name fails in Python itself, also where there is ``**kwargs``.
    """
    names: set[str] = set()
    bound = 0
    # Wrappers may refer to one another in a circle.
    for _ in range(_MAX_WRAPPED):
        if isinstance(function, functools.partial):
            bound += len(function.args)
            function = function.func
        elif isinstance(function, types.MethodType):
            bound += 1
            function = function.__func__
        elif isinstance(function, types.FunctionType):
            code = function.__code__
            names.update(code.co_varnames[code.co_posonlyargcount : min(code.co_argcount, bound)])
            # The signature is that of what it wraps, and so are the arguments that it passes on.
            function = getattr(function, "__wrapped__", None)
        else:
            called = getattr(type(function), "__call__", None)  # noqa: B004
            if not isinstance(called, types.FunctionType):
                break
            bound += 1
            function = called
    return frozenset(names)


def _listed(names: Iterable[str]) -> str:
    *first, last = (bounded_repr(name, NAME_LENGTH) for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _listed_from_peer(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    if more <= 0:
        return _listed(names)
    shown = ", ".join(bounded_repr(name, NAME_LENGTH) for name in names[:NAMES_SHOWN])
    return f"{shown} and {more} more"


def _arguments(count: int, what: str = "") -> str:
    return f"{what}argument" if count == 1 else f"{what}arguments"


class Signature:
    """What arguments a method takes.

    A call without keyword arguments fits if and only if ``minimum <= len(args) <= maximum``, so
    that a dispatcher can say so without a call of `check`.

    Args:
        function: the callable; if it has no signature that can be read, as some functions
            written in C, any arguments fit.
        name: the method's name in error texts.

    Attributes:
        name: as given.
        minimum: least count of positional arguments that is enough without keyword arguments.
        maximum: largest such count; `sys.maxsize` for ``*args``. It is below `minimum` if the
            method needs a keyword-only argument, as no count is enough then.
        parameters: of `inspect.Parameter`, in order; the annotations are texts, as objects could
            hold the function itself.
        returns: the text of the annotation of the result, or None.
    """

    __slots__ = (
        "_any_name",
        "_bound",
        "_most",
        "_named",
        "_positional",
        "_required",
        "maximum",
        "minimum",
        "name",
        "parameters",
        "returns",
    )

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        signature = _inspected(function)
        self.name = name
        self.parameters = tuple(map(_told_parameter, signature.parameters.values()))
        self.returns = annotation_text(signature.return_annotation)

        kinds = {parameter.kind for parameter in self.parameters}
        self._positional = tuple(p for p in self.parameters if p.kind in _BY_POSITION)
        self._named = frozenset(p.name for p in self.parameters if p.kind in _BY_NAME)
        self._any_name = inspect.Parameter.VAR_KEYWORD in kinds
        # A name in **kwargs must not be that of a parameter which has its value already.
        self._bound = _bound_names(function) - self._named if self._any_name else frozenset()
        self._most = (
            sys.maxsize if inspect.Parameter.VAR_POSITIONAL in kinds else len(self._positional)
        )
        by_position = [
            (position, p.name)
            for position, p in enumerate(self._positional)
            if p.default is _NO_DEFAULT
        ]
        by_name = [
            (sys.maxsize, p.name)
            for p in self.parameters
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is _NO_DEFAULT
        ]
        # With each required parameter, the index of the positional argument that gives it.
        self._required = (*by_position, *by_name)
        self.minimum, self.maximum = (1, 0) if by_name else (len(by_position), self._most)

    def renamed(self, name: str) -> "Signature":
        """Return the same signature under another name, without reading the function again."""
        if name == self.name:
            return self
        other = object.__new__(Signature)
        for attribute in Signature.__slots__:
            setattr(other, attribute, getattr(self, attribute))
        other.name = name
        return other

    def check(self, args: tuple[Any, ...], kwargs: Mapping[Any, Any]) -> None:
        """Raise `ParametersError` if the method cannot be called with these arguments.

        The error's text begins with the signature, and says which parameter is missing, given
        twice or unexpected, or that there are too many positional arguments.
        """
        given = len(args)
        if not kwargs and self.minimum <= given <= self.maximum:
            return
        for name in kwargs:
            if not isinstance(name, str):
                raise self._error(f"names of arguments are text, not {type(name).__name__}")
        if given > self._most:
            raise self._error(self._too_many(given))
        if self._any_name:
            unexpected = [name for name in kwargs if name in self._bound]
        else:
            unexpected = [name for name in kwargs if name not in self._named]
        if unexpected:
            raise self._error(self._unexpected(unexpected))
        twice = [
            p.name for p in self._positional[:given] if p.name in kwargs and p.name in self._named
        ]
        if twice:
            raise self._error(f"got {_listed(twice)} both by position and by name")
        missing = [
            name
            for position, name in self._required
            # A name that cannot be given by keyword may be in kwargs for the sake of **kwargs.
            if position >= given and not (name in kwargs and name in self._named)
        ]
        if missing:
            count = len(missing)
            what = _arguments(count, "required ")
            raise self._error(f"missing {count} {what}: {_listed(missing)}")

    def text(self) -> str:
        """Return the signature as in source, such as ``(a: int, b: int = 0) -> int``.

        Defaults and annotations are bounded in length each.
        """
        return str(
            inspect.Signature(
                [_shown_parameter(parameter) for parameter in self.parameters],
                return_annotation=(
                    _NO_ANNOTATION if self.returns is None else _Shown(self.returns)
                ),
            )
        )

    def __str__(self) -> str:
        parameters = [_shown_parameter(parameter) for parameter in self.parameters]
        return _cut(f"{self.name}{inspect.Signature(parameters)}", SIGNATURE_LENGTH)

    def __repr__(self) -> str:
        return f"<Signature {self}>"

    def _error(self, text: str) -> ParametersError:
        return ParametersError(f"{self}: {text}")

    def _too_many(self, given: int) -> str:
        least = sum(position < sys.maxsize for position, _ in self._required)
        takes = str(self._most) if least == self._most else f"from {least} to {self._most}"
        what = _arguments(self._most, "positional ")
        return f"takes {takes} {what}, but {given} {'was' if given == 1 else 'were'} given"

    def _unexpected(self, names: list[str]) -> str:
        by_position = {p.name for p in self._positional}.intersection(names)
        if by_position:
            listed = _listed(sorted(by_position))
            return f"takes {listed} by position only, but got {listed} by name"
        count = len(names)
        return f"got {count} unexpected keyword {_arguments(count)}: {_listed_from_peer(names)}"
