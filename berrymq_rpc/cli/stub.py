"""``berrymq stub``: types for what a server offers."""

import asyncio
import sys

import click

from .arguments import endpoint_argument, wait_option
from .description import described_at
from .output import Output
from .stub_source import check_class_name, stub_source

__all__ = ["stub"]


@click.command()
@endpoint_argument
@click.option("--name", default="Server", show_default=True, help="The name of the class.")
@wait_option
def stub(endpoint: str, name: str, wait: float) -> None:
    """Write types for what a server offers.

    They are a Python module on standard output. A type checker and an editor know the server's
    methods then: cast(Server, client.rpc).
    """
    try:
        check_class_name(name)
    except ValueError as error:
        raise click.UsageError(f"--name: {error}") from error
    _, found = asyncio.run(described_at(endpoint, wait))
    Output(sys.stdout).text(stub_source(found, name, endpoint))
