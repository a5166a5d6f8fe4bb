"""The answer to ``rpc.discover``: an OpenRPC document of what a server offers."""

import enum
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .docstring import parameter_descriptions
from .schema import Schema, default_of, is_plain, schema_of
from .type_schema import TypeSchemas, signature_of

__all__ = ["OPENRPC_VERSION", "openrpc_document"]

#: The version of the specification.
OPENRPC_VERSION = "1.3.2"

_VARIABLE = frozenset(("var_positional", "var_keyword"))

_TYPES = TypeSchemas()


def openrpc_document(
    methods: Iterable[dict[str, Any]],
    *,
    title: str,
    version: str,
    url: str | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, Any]:
    """Make the document.

    Args:
        methods: as `Client.describe` gives them. Streams are left out: JSON-RPC has none.
        title, version: of the service.
        url: where it is, if that is known.
        functions: those of methods of this process by the methods' names; their annotations say
            more than the texts of a description.
    """
    functions = functions or {}
    document: dict[str, Any] = {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": title, "version": version},
        "methods": [
            _method(method, functions.get(method["name"]))
            for method in methods
            if method["kind"] != "stream" and method["name"]
        ],
    }
    if url is not None:
        document["servers"] = [{"name": "this", "url": url}]
    return document


def _method(method: dict[str, Any], function: Callable[..., Any] | None) -> dict[str, Any]:
    doc = method["doc"].strip()
    parameters = method["parameters"]
    structure = _structure(parameters)
    left_out = {*_VARIABLE, "keyword_only"} if structure == "by-position" else _VARIABLE
    listed = [each for each in parameters if each["kind"] not in left_out]
    descriptions = parameter_descriptions(doc)
    signature = inspect.Signature() if function is None else signature_of(function)
    made: dict[str, Any] = {"name": method["name"]}
    if doc:
        summary, _, rest = doc.partition("\n\n")
        made["summary"] = " ".join(summary.split())
        if rest:
            made["description"] = doc
    # Required ones come first, as the specification demands. In Python they do anyway, but for
    # keyword-only ones, whose order does not matter.
    listed.sort(key=lambda parameter: not parameter["required"])
    made["params"] = [
        _parameter(each, signature.parameters.get(each["name"]), descriptions) for each in listed
    ]
    made["paramStructure"] = structure
    made["result"] = {
        "name": "result",
        "schema": _schema(signature.return_annotation, method["returns"]),
    }
    # OpenRPC has no field for parameters that take any number of arguments.
    for each in parameters:
        if each["kind"] in _VARIABLE:
            made[f"x-{each['kind'].replace('_', '-')}"] = each["name"]
    return made


def _parameter(
    parameter: dict[str, Any],
    local: inspect.Parameter | None,
    descriptions: Mapping[str, str],
) -> dict[str, Any]:
    name = parameter["name"]
    annotation = inspect.Parameter.empty if local is None else local.annotation
    schema = _schema(annotation, parameter["annotation"])
    if parameter["default"] is not None:
        try:
            schema["default"] = _default(local, parameter["default"])
        except ValueError:
            schema["description"] = f"default: {parameter['default']}"
    made = {"name": name, "required": parameter["required"], "schema": schema}
    if name in descriptions:
        made["description"] = descriptions[name]
    return made


def _schema(annotation: Any, text: str | None) -> Schema:
    """The schema of an annotation, or of its text where it is that of another process."""
    found = {} if annotation is inspect.Parameter.empty else _TYPES.of(annotation)
    return found or schema_of(text)


def _default(local: inspect.Parameter | None, text: str) -> Any:
    default = None if local is None else local.default
    if isinstance(default, enum.Enum) and is_plain(default.value):
        return default.value
    return default_of(text)


def _structure(parameters: list[dict[str, Any]]) -> str:
    kinds = {parameter["kind"] for parameter in parameters}
    if "positional_only" in kinds:
        return "by-position"
    if "keyword_only" in kinds:
        # No call by position gives all of them.
        return "by-name"
    return "by-position" if "var_positional" in kinds else "either"
