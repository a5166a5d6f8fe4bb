"""Describe a server's methods in plain values."""

import inspect
from collections.abc import Iterable
from typing import Any

from .method import Kind, Method
from .signature import bounded_repr

__all__ = ["describe"]

#: Characters of one docstring, so that the description of some hundreds of methods fits in one
#: message.
DOC_LENGTH = 4000

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def describe(table: Iterable[Method]) -> dict[str, Any]:
    """Return a description of methods that any peer can read, and msgpack and JSON can carry.

    Args:
        table: the methods, such as a `HandlerTable`. What an object with `__getitem__` exports
            is not known before it is called, and so is not in there.

    Returns:
        ``{"methods": [...]}``, sorted by name, each a dict with these keys:

        * ``name``: the full name, with dots between the namespaces.
        * ``signature``: as in source, such as ``(a: int, b: int = 0) -> int``.
        * ``doc``: the docstring, its indentation taken away, or an empty text.
        * ``kind``: ``"call"``, or ``"stream"`` for what gives items one by one.
        * ``waits``: whether it waits for something to happen, and so may take long.
        * ``parameters``: a list of dicts with these keys:

          * ``name``
          * ``kind``: one of ``"positional_only"``, ``"positional_or_keyword"``,
            ``"var_positional"``, ``"keyword_only"`` and ``"var_keyword"``.
          * ``annotation``: as in source, or None if there is none.
          * ``default``: the default's `repr`, or None if there is no default; a default that is
            None is the text ``"None"``.
          * ``required``: whether a call must give it.

        * ``returns``: the annotation of the result as in source, or None if there is none.

        Defaults and annotations are cut at 200 characters, docstrings at 4,000.
    """
    return {"methods": [_method(method) for method in sorted(table, key=lambda each: each.name)]}


def _plain(text: str) -> str:
    # Half a surrogate pair is valid text in Python alone.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _method(method: Method) -> dict[str, Any]:
    doc, returns = method.doc, method.signature.returns
    return {
        "name": _plain(method.name),
        "signature": _plain(method.signature.text()),
        "doc": _plain(doc if len(doc) <= DOC_LENGTH else doc[: DOC_LENGTH - 3] + "..."),
        "kind": "stream" if method.kind is Kind.STREAM else "call",
        "waits": method.waits,
        "parameters": [_parameter(parameter) for parameter in method.signature.parameters],
        "returns": None if returns is None else _plain(returns),
    }


def _parameter(parameter: inspect.Parameter) -> dict[str, Any]:
    has_default = parameter.default is not inspect.Parameter.empty
    is_annotated = parameter.annotation is not inspect.Parameter.empty
    return {
        "name": _plain(parameter.name),
        "kind": parameter.kind.name.lower(),
        "annotation": _plain(parameter.annotation) if is_annotated else None,
        "default": _plain(bounded_repr(parameter.default)) if has_default else None,
        "required": not has_default and parameter.kind not in _VARIABLE,
    }
