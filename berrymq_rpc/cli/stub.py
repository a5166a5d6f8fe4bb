"""``berrymq stub``: write a Python module with types for what a server offers.

The description comes from a peer, and the module will be imported: names are checked, annotations
and defaults are rebuilt from known parts (`annotation`), docstrings are written as literals.
"""

import asyncio
import builtins
import keyword
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import click

from ..security import Security
from .annotation import (
    COLLECTIONS,
    TYPING,
    annotation_source,
    default_source,
    items_source,
    qualified_names,
    result_source,
)
from .arguments import endpoint_argument, wait_option
from .client import client_options
from .methods import Method, Parameter, fetch_methods
from .output import Output

__all__ = ["check_class_name", "stub", "stub_source"]

#: Columns of a line; a longer signature gets a line for each parameter.
WIDTH = 100

_MODULES = ("builtins", "collections.abc", "datetime", "decimal", "typing", "uuid", "zoneinfo")
_NAMES = {
    "asyncio": ("Future",),
    "collections.abc": sorted(COLLECTIONS),
    "typing": sorted(TYPING | {"Protocol", "TypeVar"}),
}

_STREAM = '''\
Item = TypeVar("Item", covariant=True)


class Stream(Protocol[Item]):
    """Yields items one by one; contextlib.aclosing ends it early."""

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


@click.command()
@endpoint_argument
@click.option("--name", default="Server", show_default=True, help="The name of the class.")
@wait_option
@client_options
def stub(endpoint: str, name: str, wait: float, security: Security | None, insecure: bool) -> None:
    """Write types for what a server offers.

    The output is a Python module. With cast(Server, client.rpc), a type checker and an editor know
    the server's methods.
    """
    try:
        check_class_name(name)
    except ValueError as error:
        raise click.UsageError(f"--name: {error}") from error
    _, found = asyncio.run(fetch_methods(endpoint, wait, security, insecure))
    Output(sys.stdout).text(stub_source(found, name, endpoint))


@dataclass
class Namespace:
    """A namespace: the name of its class, its methods, and the namespaces inside it.

    Attributes:
        itself: the method that has the namespace's own name.
    """

    class_name: str
    methods: dict[str, Method] = field(default_factory=dict)
    namespaces: dict[str, "Namespace"] = field(default_factory=dict)
    itself: Method | None = None


def check_class_name(name: str) -> None:
    """Check that a class of the module may have this name.

    Raises:
        ValueError: it may not have it.
    """
    if not _is_attribute(name):
        raise ValueError(f"{name!r} is not a valid class name")
    if name in _RESERVED:
        raise ValueError(f"{name!r} is already used in the module")


def stub_source(methods: Iterable[Method], class_name: str, endpoint: str) -> str:
    """Write the module.

    Args:
        methods: what the server offers.
        class_name: the class of ``client.rpc``; the names of the namespaces' classes begin with it.
        endpoint: where the server is, for the module's docstring.

    Returns:
        Source that type checkers read, and that can be imported.
    """
    root = Namespace(class_name)
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

Written by "berrymq stub"; write it again rather than edit it. Use it with a client::

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


def _place(root: Namespace, parts: Sequence[str], method: Method, taken: set[str]) -> None:
    namespace = root
    *path, last = parts
    for part in path:
        if part not in namespace.namespaces:
            name = namespace.class_name + "".join(word.capitalize() for word in part.split("_"))
            while name in taken:
                name += "_"
            taken.add(name)
            namespace.namespaces[part] = Namespace(name, itself=namespace.methods.pop(part, None))
        namespace = namespace.namespaces[part]
    if last in namespace.namespaces:
        namespace.namespaces[last].itself = method
    else:
        namespace.methods[last] = method


def _classes(namespace: Namespace) -> Iterator[str]:
    """Write the class, after those that it refers to."""
    for _, inner in sorted(namespace.namespaces.items()):
        yield from _classes(inner)
    qualified = qualified_names({*namespace.methods, *namespace.namespaces})
    members = [
        f"    @property\n    def {name}(self) -> {inner.class_name}: ...\n"
        for name, inner in sorted(namespace.namespaces.items())
    ]
    if namespace.itself is not None:
        members.append(_method("__call__", namespace.itself, qualified))
    members += [_method(name, each, qualified) for name, each in sorted(namespace.methods.items())]
    yield f"class {namespace.class_name}(Protocol):\n" + ("\n".join(members) or "    pass\n")


def _method(name: str, method: Method, qualified: Mapping[str, str]) -> str:
    if method.is_stream:
        gives = f"Stream[{items_source(method.returns, qualified)}]"
    else:
        gives = f"Future[{result_source(method.returns, qualified)}]"
    parameters = _parameters(method.parameters, qualified)
    line = f"    def {name}({', '.join(parameters)}) -> {gives}:"
    if len(line) + len(" ...") > WIDTH:
        inner = "".join(f"        {each},\n" for each in parameters)
        line = f"    def {name}(\n{inner}    ) -> {gives}:"
    if not method.doc.strip():
        return f"{line} ...\n"
    return f"{line}\n{_docstring(method.doc)}\n        ...\n"


# -- parameters ----------------------------------------------------------------------------


def _parameters(parameters: Sequence[Parameter], qualified: Mapping[str, str]) -> list[str]:
    """Write the parameters; malformed ones are replaced by any arguments."""
    if not _are_valid(parameters):
        anything = annotation_source(None, qualified)
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
        written.append(_parameter(parameter, kind, qualified))
        if kind == _POSITIONAL and _POSITIONAL not in kinds[position + 1 :]:
            written.append("/")
    return written


def _are_valid(parameters: Sequence[Parameter]) -> bool:
    names = [parameter.name for parameter in parameters]
    kinds = [_KINDS.get(parameter.kind, -1) for parameter in parameters]
    # For each positional parameter, whether it has a default: none without may follow one with.
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
    # Python normalizes names: the result may equal another name, or a keyword.
    is_normal = unicodedata.is_normalized("NFKC", name)
    return is_normal and name.isidentifier() and not keyword.iskeyword(name) and name != "__debug__"


def _parameter(parameter: Parameter, kind: int, qualified: Mapping[str, str]) -> str:
    stars = {_REST: "*", _NAMED_REST: "**"}.get(kind, "")
    written = f"{stars}{parameter.name}: {annotation_source(parameter.annotation, qualified)}"
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
    """Escape the text for a literal in triple quotes; newlines are kept."""
    # Python 3.13 cannot compile a docstring with a lone surrogate, not even an escaped one.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    inner = text.rstrip('"')
    escaped = inner.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    shown = "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in escaped
    )
    return shown + '\\"' * (len(text) - len(inner))
