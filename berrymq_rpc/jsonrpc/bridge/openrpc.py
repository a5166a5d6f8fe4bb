"""The answer to ``rpc.discover``: an OpenRPC document of what a server offers."""

from collections.abc import Iterable
from typing import Any

from .schema import default_of, schema_of

__all__ = ["OPENRPC_VERSION", "openrpc_document"]

#: The version of the specification.
OPENRPC_VERSION = "1.3.2"

_VARIABLE = frozenset(("var_positional", "var_keyword"))


def openrpc_document(
    methods: Iterable[dict[str, Any]], *, title: str, version: str, url: str | None = None
) -> dict[str, Any]:
    """Make the document.

    Args:
        methods: as `Client.describe` gives them. Streams are left out: JSON-RPC has none.
        title, version: of the service.
        url: where it is, if that is known.
    """
    document: dict[str, Any] = {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": title, "version": version},
        "methods": [_method(method) for method in methods if method["kind"] != "stream"],
    }
    if url is not None:
        document["servers"] = [{"name": "this", "url": url}]
    return document


def _method(method: dict[str, Any]) -> dict[str, Any]:
    doc = method["doc"].strip()
    parameters = method["parameters"]
    named = [each for each in parameters if each["kind"] not in _VARIABLE]
    made: dict[str, Any] = {"name": method["name"]}
    if doc:
        summary, _, rest = doc.partition("\n\n")
        made["summary"] = " ".join(summary.split())
        if rest:
            made["description"] = doc
    # Required ones come first, as the specification demands. In Python they do anyway, but for
    # keyword-only ones, whose order does not matter.
    made["params"] = [_parameter(each) for each in sorted(named, key=lambda p: not p["required"])]
    made["paramStructure"] = _structure(parameters)
    made["result"] = {"name": "result", "schema": schema_of(method["returns"])}
    for each in parameters:
        # OpenRPC has no field for parameters that take any number of arguments.
        if each["kind"] in _VARIABLE:
            made[f"x-{each['kind'].replace('_', '-')}"] = each["name"]
    return made


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    schema = schema_of(parameter["annotation"])
    if parameter["default"] is not None:
        try:
            schema["default"] = default_of(parameter["default"])
        except ValueError:
            schema["description"] = f"default: {parameter['default']}"
    return {"name": parameter["name"], "required": parameter["required"], "schema": schema}


def _structure(parameters: list[dict[str, Any]]) -> str:
    kinds = {parameter["kind"] for parameter in parameters}
    if "keyword_only" in kinds or "var_keyword" in kinds:
        required = [p for p in parameters if p["kind"] == "keyword_only" and p["required"]]
        if required:
            return "by-name"
    if "positional_only" in kinds or "var_positional" in kinds:
        return "by-position"
    return "either"
