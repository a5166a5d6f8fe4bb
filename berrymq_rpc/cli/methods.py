"""``berrymq methods``: list what a server offers. `stub` reads it as well.

A server's description is checked before it is used: a peer can answer with anything.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from ..security import Security
from .arguments import endpoint_argument, json_option, wait_option
from .client import client_options, opened_client
from .failure import Failed, peer_errors
from .output import VALUE, Output, show_log

__all__ = ["Method", "Parameter", "fetch_methods", "methods", "parse_methods"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method; the fields are those of `rpc.Client.describe`."""

    name: str
    kind: str
    annotation: str | None
    default: str | None
    required: bool


@dataclass(frozen=True)
class Method:
    """One method; the fields are those of `rpc.Client.describe`."""

    name: str
    signature: str
    doc: str
    kind: str
    parameters: tuple[Parameter, ...]
    returns: str | None

    @property
    def is_stream(self) -> bool:
        """Whether it yields items one by one."""
        return self.kind == "stream"


@click.command()
@endpoint_argument
@json_option("Write one line of JSON: an array of objects.")
@wait_option
@client_options
def methods(
    endpoint: str, as_json: bool, wait: float, security: Security | None, insecure: bool
) -> None:
    """List what a server or node offers.

    Each method is shown with its signature and its docstring.
    """
    output = Output(sys.stdout)
    answer, found = asyncio.run(fetch_methods(endpoint, wait, security, insecure, as_json))
    if as_json:
        output.json(answer)
        return
    for number, method in enumerate(found):
        if number:
            output.line()
        namespace, dot, name = method.name.rpartition(".")
        output.line(
            (namespace + dot, "cyan"),
            (name, "bold cyan"),
            (method.signature, VALUE),
            *(("  ", ("stream", "magenta")) if method.is_stream else ()),
        )
        for line in method.doc.splitlines():
            output.line(("    " + line if line else "", "dim"))


async def fetch_methods(
    endpoint: str,
    wait: float,
    security: Security | None = None,
    insecure: bool = False,
    as_json: bool = False,
) -> tuple[Any, list[Method]]:
    """Ask a server for its methods.

    Args:
        endpoint: where it is.
        wait: seconds for it to appear, and again for its answer.
        security: the keys, if it wants any.
        insecure: whether a NATS server may get a password without TLS.
        as_json: whether the log is written as JSON.

    Returns:
        The methods as the server describes them, and parsed.

    Raises:
        Failed: it does not answer, or its answer is malformed.
    """
    show_log(Output(sys.stderr, as_json=as_json), security=False)
    limit = max(wait, 1.0)
    async with (
        opened_client(
            endpoint, timeout=wait + limit, wait=wait, security=security, insecure=insecure
        ) as client,
        peer_errors(endpoint, connecting=True),
    ):
        answer = await client.describe()
    try:
        return answer["methods"], parse_methods(answer)
    except (LookupError, TypeError) as error:
        raise Failed(f"{endpoint} sent a malformed description of its methods") from error


def parse_methods(answer: Any) -> list[Method]:
    """Read the answer of `rpc.Client.describe`.

    Raises:
        LookupError, TypeError: it is malformed.
    """
    return [_method(entry) for entry in _maps(answer["methods"])]


def _method(entry: Any) -> Method:
    return Method(
        name=_text(entry["name"]),
        signature=_text(entry["signature"]),
        doc=_text(entry["doc"]),
        kind=_text(entry["kind"]),
        parameters=tuple(_parameter(each) for each in _maps(entry["parameters"])),
        returns=_optional_text(entry["returns"]),
    )


def _parameter(entry: Any) -> Parameter:
    return Parameter(
        name=_text(entry["name"]),
        kind=_text(entry["kind"]),
        annotation=_optional_text(entry["annotation"]),
        default=_optional_text(entry["default"]),
        required=entry["required"] is True,
    )


def _maps(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
        raise TypeError("not an array of maps")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)
