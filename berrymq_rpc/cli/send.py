"""``berrymq send``: send one message to a node."""

import asyncio

import click

from ..bus import Bus
from ..exchange import Node
from ..security import Security
from .arguments import (
    ArgumentsCommand,
    endpoint_argument,
    exportable_identifier,
    parse_arguments,
    wait_option,
)
from .failure import Failed, peer_errors
from .keys import client_keys

__all__ = ["send"]


@click.command(cls=ArgumentsCommand)
@endpoint_argument
@click.argument("identifier", type=exportable_identifier)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT | NAME=VALUE]...")
@wait_option
@client_keys
def send(
    endpoint: str,
    identifier: str,
    arguments: tuple[str, ...],
    wait: float,
    security: Security | None,
) -> None:
    """Send a message to a node.

    The node delivers it to its followers there. Arguments are read as JSON; what is not JSON is
    text: 3, true, '{"a": [1]}', words. To send text that looks like something else, quote it as
    JSON: '"3"', '"a=b"'.
    """
    args, kwargs = parse_arguments(arguments)
    asyncio.run(_send(endpoint, identifier, args, kwargs, wait, security))


async def _send(
    endpoint: str,
    identifier: str,
    args: list[object],
    kwargs: dict[str, object],
    wait: float,
    security: Security | None,
) -> None:
    async with Node(bus=Bus(), connect_timeout=wait, security=security) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_oneway(endpoint)
        async with connection, peer_errors(endpoint):
            status = await connection.send_message(identifier, *args, **kwargs)
            if status != "ok":
                raise Failed(f"{endpoint} refuses the message: {status}")
