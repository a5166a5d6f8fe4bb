"""``berrymq methods``: what a server offers."""

import asyncio
import sys

import click

from .arguments import endpoint_argument, wait_option
from .description import described_at
from .output import VALUE, Output

__all__ = ["methods"]


@click.command()
@endpoint_argument
@click.option(
    "--json", "as_json", is_flag=True, help="Write one line of JSON: an array of objects."
)
@wait_option
def methods(endpoint: str, as_json: bool, wait: float) -> None:
    """List what a server or node offers.

    Each method with its signature and its docstring.
    """
    output = Output(sys.stdout)
    answer, found = asyncio.run(described_at(endpoint, wait))
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
