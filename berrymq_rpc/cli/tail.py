"""``berrymq tail``: the messages of a node as they come."""

import asyncio
import sys

import click

from ..bus import Bus, Empty, Message
from ..errors import ConnectionLostError, RPCTimeoutError, ServiceClosedError
from ..exchange import Node, QueueConnection
from .arguments import endpoint_argument, exportable_identifier, wait_option
from .failure import talking_to
from .log import show_log
from .message_line import write_message
from .output import Output

__all__ = ["tail"]

#: Seconds for which the node keeps the queue when this process is gone, or the line is down.
TTL = 60.0

#: Seconds between two attempts at a node that is closing, and so refuses at once.
PAUSE = 0.2


@click.command()
@endpoint_argument
@click.argument("identifier", type=exportable_identifier, default="*@*:*")
@click.option("--json", "as_json", is_flag=True, help="Write each message as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Say nothing on standard error while it works.")
@wait_option
def tail(endpoint: str, identifier: str, as_json: bool, quiet: bool, wait: float) -> None:
    """Write the messages of a node as they come.

    IDENTIFIER chooses them; without it all are shown. Ctrl-C ends it. When the node is gone it
    waits for it to come back, and says so on standard error.
    """
    asyncio.run(_tail(endpoint, identifier, as_json, quiet, wait))


async def _tail(endpoint: str, identifier: str, as_json: bool, quiet: bool, wait: float) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr)
    show_log(notes, lines_of_nodes=False)
    bus = Bus()
    if not quiet:

        def lost(message: Message) -> None:
            notes.line((f"{endpoint} is gone; waiting for it to come back", "yellow"))

        def restored(message: Message) -> None:
            notes.line((f"{endpoint} is back; what was sent meanwhile may be missing", "green"))

        bus.regist_function("connection:lost", lost)
        bus.regist_function("connection:restored", restored)
    async with Node(bus=bus, connect_timeout=wait) as node:
        async with talking_to(endpoint, connecting=True):
            connection = await node.connect_via_queue(identifier, endpoint, TTL)
        async with connection, output.watched():
            if not quiet:
                notes.line((f"following {identifier} at {endpoint}", "dim"))
            while True:
                async with talking_to(endpoint):
                    message = await _next(connection)
                write_message(output, message, as_json=as_json)


async def _next(connection: QueueConnection) -> Message:
    """The next message, however often the line breaks before it comes."""
    while True:
        try:
            return await connection.get()
        except (ConnectionLostError, RPCTimeoutError, ServiceClosedError, Empty):
            # The connection makes itself anew, and tells the bus.
            await asyncio.sleep(PAUSE)
