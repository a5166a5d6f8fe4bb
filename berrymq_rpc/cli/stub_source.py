"""Source of a module with types for what a server offers.

Everything in a description came from a peer, and the module will be imported: names are checked,
annotations and defaults are written anew (`annotation`), docstrings are written as literals.
"""

import builtins
import keyword
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .annotation import (
    annotation_source,
    default_source,
    items_source,
    qualified_names,
    result_source,
)
from .description import MethodDescription, ParameterDescription

__all__ = ["check_class_name", "stub_source"]

#: Columns of a line; a longer signature gets a line for each parameter.
WIDTH = 100

_MODULES = ("builtins", "collections.abc", "datetime", "decimal", "typing", "uuid", "zoneinfo")
_NAMES = {
    "asyncio": ("Future",),
    "collections.abc": (
        "AsyncGenerator", "AsyncIterable", "AsyncIterator", "Awaitable", "Callable", "Collection",
        "Coroutine", "Generator", "Hashable", "Iterable", "Iterator", "Mapping", "MutableMapping",
        "MutableSequence", "MutableSet", "Sequence", "Sized",
    ),
    "typing": (
        "Any", "Literal", "LiteralString", "Never", "NoReturn", "Optional", "Protocol", "TypeVar",
        "Union",
    ),
}  # fmt: skip

_STREAM = '''\
Item = TypeVar("Item", covariant=True)


class Stream(Protocol[Item]):
    """Gives items one by one; contextlib.aclosing ends it early."""

    def __aiter__(self) -> AsyncIterator[Item]: ...

    async def __anext__(self) -> Item: ...

    async def aclose(self) -> None: ...
'''

_RESERVED = {
    "Item",
    "Stream",
    *(name for names in _NAMES.values() for name in names),
    *(module.partition(".")[0] for module in _MODULES),
    *vars(builtins),
}

_KINDS = {
    "positional_only": 0,
    "positional_or_keyword": 1,
    "var_positional": 2,
    "keyword_only": 3,
    "var_keyword": 4,
}
_POSITIONAL, _, _REST, _KEYWORD, _NAMED_REST = range(5)


@dataclass
class Space:
    """A namespace: the name of its class, its methods, and the namespaces inside it.

    Attributes:
        itself: the method that has the namespace's own name.
    """

    class_name: str
    methods: dict[str, MethodDescription] = field(default_factory=dict)
    spaces: dict[str, "Space"] = field(default_factory=dict)
    itself: MethodDescription | None = None


def check_class_name(name: str) -> None:
    """See that a class of the module may have this name.

    Raises:
        ValueError: it may not.
    """
    if not _is_attribute(name):
        raise ValueError(f"{name!r} cannot be the name of a class")
    if name in _RESERVED:
        raise ValueError(f"{name!r} is the name of something else in the module")


def stub_source(methods: Iterable[MethodDescription], class_name: str, endpoint: str) -> str:
    """Write the module.

    Args:
        methods: what the server offers.
        class_name: the class of ``client.rpc``; the names of those of namespaces begin with it.
        endpoint: where the server was, for the module's docstring.

    Returns:
        Source that type checkers read, and that can be imported.
    """
    root = Space(class_name)
    taken = {class_name, *_RESERVED}
    hidden = []
    for method in methods:
        parts = method.name.split(".")
        if all(map(_is_attribute, parts)):
            _place(root, parts, method, taken)
        else:
            hidden.append(f"# Not an attribute: client.call({method.name!a}, ...)\n")
    classes = list(_classes(root))
    if any("Stream[" in each for each in classes):
        classes.insert(0, _STREAM)
    body = "\n\n".join([*classes, *(["".join(hidden)] if hidden else [])])
    imports = "\n".join(_imports(body))
    return f'"""{_literal(_head(class_name, endpoint))}"""\n\n{imports}\n\n\n{body}'


def _head(class_name: str, endpoint: str) -> str:
    return f"""\
Types for what a berrymq_rpc server offers, as it was at {endpoint}.

Written by "berrymq stub"; write it anew rather than change it. Use it with a client::

    from typing import cast

    server = cast({class_name}, client.rpc)
"""


def _imports(body: str) -> Iterator[str]:
    yield "from __future__ import annotations"
    yield ""
    for module in _MODULES:
        if re.search(rf"\b{re.escape(module)}\.", body):
            yield f"import {module}"
    words = set(re.findall(r"\w+", body))
    for module, names in _NAMES.items():
        wanted = [name for name in names if name in words]
        if wanted:
            yield f"from {module} import {', '.join(wanted)}"


def _is_attribute(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name[0] != "_"


# -- classes -------------------------------------------------------------------------------


def _place(root: Space, parts: Sequence[str], method: MethodDescription, taken: set[str]) -> None:
    space = root
    *namespaces, last = parts
    for part in namespaces:
        if part not in space.spaces:
            name = space.class_name + "".join(word.capitalize() for word in part.split("_"))
            while name in taken:
                name += "_"
            taken.add(name)
            space.spaces[part] = Space(name, itself=space.methods.pop(part, None))
        space = space.spaces[part]
    if last in space.spaces:
        space.spaces[last].itself = method
    else:
        space.methods[last] = method


def _classes(space: Space) -> Iterator[str]:
    """The class, after those that it names."""
    for _, inner in sorted(space.spaces.items()):
        yield from _classes(inner)
    instead = qualified_names({*space.methods, *space.spaces})
    members = [
        f"    @property\n    def {name}(self) -> {inner.class_name}: ...\n"
        for name, inner in sorted(space.spaces.items())
    ]
    if space.itself is not None:
        members.append(_method("__call__", space.itself, instead))
    members += [_method(name, each, instead) for name, each in sorted(space.methods.items())]
    yield f"class {space.class_name}(Protocol):\n" + ("\n".join(members) or "    pass\n")


def _method(name: str, method: MethodDescription, instead: Mapping[str, str]) -> str:
    if method.is_stream:
        gives = f"Stream[{items_source(method.returns, instead)}]"
    else:
        gives = f"Future[{result_source(method.returns, instead)}]"
    parameters = _parameters(method.parameters, instead)
    line = f"    def {name}({', '.join(parameters)}) -> {gives}:"
    if len(line) + len(" ...") > WIDTH:
        inner = "".join(f"        {each},\n" for each in parameters)
        line = f"    def {name}(\n{inner}    ) -> {gives}:"
    if not method.doc.strip():
        return f"{line} ...\n"
    return f"{line}\n{_docstring(method.doc)}\n        ...\n"


# -- parameters ----------------------------------------------------------------------------


def _parameters(
    parameters: Sequence[ParameterDescription], instead: Mapping[str, str]
) -> list[str]:
    """As in source; anything goes where they make no sense."""
    if not _are_sensible(parameters):
        anything = annotation_source(None, instead)
        return ["self", f"*args: {anything}", f"**kwargs: {anything}"]
    names = [parameter.name for parameter in parameters]
    kinds = [_KINDS[parameter.kind] for parameter in parameters]
    receiver = "self"
    while receiver in names:
        receiver += "_"
    written = [receiver]
    for position, (parameter, kind) in enumerate(zip(parameters, kinds, strict=True)):
        if kind == _KEYWORD and not {_REST, _KEYWORD} & set(kinds[:position]):
            written.append("*")
        written.append(_parameter(parameter, kind, instead))
        if kind == _POSITIONAL and _POSITIONAL not in kinds[position + 1 :]:
            written.append("/")
    return written


def _are_sensible(parameters: Sequence[ParameterDescription]) -> bool:
    names = [parameter.name for parameter in parameters]
    kinds = [_KINDS.get(parameter.kind, -1) for parameter in parameters]
    # Whether those by position have a default: none may follow that has not.
    defaults = [
        parameter.default is not None
        for parameter, kind in zip(parameters, kinds, strict=True)
        if kind < _REST
    ]
    return (
        all(map(_is_parameter, names))
        and len(set(names)) == len(names)
        and kinds == sorted(kinds)
        and -1 not in kinds
        and kinds.count(_REST) <= 1
        and kinds.count(_NAMED_REST) <= 1
        and defaults == sorted(defaults)
    )


def _is_parameter(name: str) -> bool:
    # Python takes a name for its normal form, which may be that of another, or a keyword.
    is_normal = unicodedata.is_normalized("NFKC", name)
    return is_normal and name.isidentifier() and not keyword.iskeyword(name) and name != "__debug__"


def _parameter(parameter: ParameterDescription, kind: int, instead: Mapping[str, str]) -> str:
    stars = {_REST: "*", _NAMED_REST: "**"}.get(kind, "")
    written = f"{stars}{parameter.name}: {annotation_source(parameter.annotation, instead)}"
    if parameter.default is None or stars:
        return written
    return f"{written} = {default_source(parameter.default)}"


# -- texts ---------------------------------------------------------------------------------


def _docstring(doc: str) -> str:
    first, *others = _literal(doc.strip()).splitlines()
    if not others:
        return f'        """{first}"""'
    lines = [f"        {line}".rstrip() for line in others]
    return "\n".join([f'        """{first}', *lines, '        """'])


def _literal(text: str) -> str:
    """The text as it may stand between triple quotes, ends of lines kept."""
    # Python 3.13 compiles no docstring with half of a surrogate pair, written as an escape either.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    inner = text.rstrip('"')
    escaped = inner.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    shown = "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in escaped
    )
    return shown + '\\"' * (len(text) - len(inner))
