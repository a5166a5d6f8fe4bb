"""``berrymq tail``: show the messages of a node as they arrive."""

import asyncio
import sys

import click

from ..bus import Bus, Empty, Message
from ..errors import AuthenticationError, ConnectionLostError, RPCTimeoutError, ServiceClosedError
from ..exchange import Node, QueueConnection
from ..security import Security
from .arguments import endpoint_argument, exportable_identifier, wait_option
from .failure import peer_errors
from .keys import client_keys
from .output import Output, show_log

__all__ = ["tail"]

#: Seconds for which the node keeps the queue while the connection is down.
TTL = 60.0

#: Seconds between two attempts: a node that is closing refuses at once.
PAUSE = 0.2


@click.command()
@endpoint_argument
@click.argument("identifier", type=exportable_identifier, default="*@*:*")
@click.option("--json", "as_json", is_flag=True, help="Write each message as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Report nothing on standard error while it works.")
@wait_option
@client_keys
def tail(
    endpoint: str,
    identifier: str,
    as_json: bool,
    quiet: bool,
    wait: float,
    security: Security | None,
) -> None:
    """Show the messages of a node as they arrive.

    IDENTIFIER selects them; without it all are shown. Ctrl-C ends it. When the connection to the
    node is lost it waits for the node to come back, and reports both on standard error. It ends
    where the node refuses its key.
    """
    asyncio.run(_tail(endpoint, identifier, as_json, quiet, wait, security))


async def _tail(
    endpoint: str,
    identifier: str,
    as_json: bool,
    quiet: bool,
    wait: float,
    security: Security | None,
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr)
    show_log(notes, exchange=False)
    bus = Bus()
    if not quiet:

        def lost(message: Message) -> None:
            notes.line((f"connection to {endpoint} lost; waiting for it to come back", "yellow"))

        def restored(message: Message) -> None:
            notes.line(
                (
                    f"connection to {endpoint} restored; messages sent meanwhile may be missing",
                    "green",
                )
            )

        bus.regist_function("connection:lost", lost)
        bus.regist_function("connection:restored", restored)
    async with Node(bus=bus, connect_timeout=wait, security=security) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_via_queue(identifier, endpoint, TTL)
        async with connection, output.watched():
            if not quiet:
                notes.line((f"following {identifier} at {endpoint}", "dim"))
            while True:
                async with peer_errors(endpoint):
                    message = await _next(connection)
                output.message(message, as_json=as_json)


async def _next(connection: QueueConnection) -> Message:
    """Return the next message, however often the connection is lost before it comes."""
    while True:
        try:
            return await connection.get()
        except AuthenticationError:
            # It would be refused until somebody authorizes its key again.
            raise
        except (ConnectionLostError, RPCTimeoutError, ServiceClosedError, Empty):
            # The connection restores itself, and reports it on the bus.
            await asyncio.sleep(PAUSE)
