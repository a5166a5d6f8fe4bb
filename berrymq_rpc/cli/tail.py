"""``berrymq tail``: show the messages of a node, or of a cluster, as they arrive."""

import asyncio
import sys

import click

from ..bus import AsyncQueue, Bus, Empty, Message
from ..errors import AuthenticationError, ConnectionLostError, RPCTimeoutError, ServiceClosedError
from ..exchange import Node, QueueConnection
from ..security import Security
from .arguments import (
    exportable_identifier,
    is_cluster,
    json_option,
    place_argument,
    wait_option,
)
from .cluster import ClusterOptions, Visit, cluster_options
from .failure import peer_errors
from .keys import client_keys, without_keys
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["tail"]

#: Seconds for which the node keeps the queue while the connection is down.
TTL = 60.0

#: Messages of a cluster that wait to be shown; the oldest are dropped, and a warning says so.
MAX_WAITING = 10_000

#: Seconds between two attempts: a node that is closing refuses at once.
PAUSE = 0.2


@click.command()
@place_argument
@click.argument("identifier", type=exportable_identifier, default="*@*:*")
@json_option("Write each message as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Report nothing on standard error while it works.")
@cluster_options
@wait_option
@nats_options()
@client_keys
def tail(
    endpoint: str,
    identifier: str,
    as_json: bool,
    quiet: bool,
    cluster: ClusterOptions,
    wait: float,
    security: Security | None,
) -> None:
    """Show the messages of a node, or of a cluster, as they arrive.

    IDENTIFIER selects them; without it all are shown. Ctrl-C ends it. When the connection to the
    node is lost it waits for the node to come back, and reports both on standard error; so it does
    with a cluster, such as nats://host:4222. It ends where it is refused.
    """
    if is_cluster(endpoint):
        without_keys(security)
        asyncio.run(_tail_cluster(endpoint, identifier, as_json, quiet, cluster, wait))
        return
    asyncio.run(_tail(endpoint, identifier, as_json, quiet, wait, security, cluster.insecure))


async def _tail(
    endpoint: str,
    identifier: str,
    as_json: bool,
    quiet: bool,
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr, as_json=as_json)
    show_log(notes, exchange=False)
    bus = Bus()
    if not quiet:
        _report_losses(bus, endpoint, notes)
    async with Node(bus=bus, connect_timeout=wait, security=security, insecure=insecure) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_via_queue(identifier, endpoint, TTL)
        async with connection, output.watched():
            if not quiet:
                notes.note("following", f"following {identifier} at {endpoint}")
            while True:
                async with peer_errors(endpoint):
                    message = await _next(connection)
                output.message(message, as_json=as_json)


async def _tail_cluster(
    place: str, identifier: str, as_json: bool, quiet: bool, options: ClusterOptions, wait: float
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr, as_json=as_json)
    show_log(notes, exchange=False, security=False)
    async with Visit.to(place, options, wait) as visit:
        if not quiet:
            _report_losses(visit.bus, place, notes)
            visit.bus.regist_function("connection:missed", lambda message: _missed(notes, message))
        with AsyncQueue(identifier, maxsize=MAX_WAITING, bus=visit.bus) as queue:
            await visit.settled(wait)
            if not quiet:
                notes.note("following", f"following {identifier} at {place} ({options.namespace})")
            async with output.watched():
                while True:
                    message = await visit.unless_refused(queue.get())
                    if not visit.is_own(message):
                        output.message(message, as_json=as_json)


def _report_losses(bus: Bus, endpoint: str, notes: Output) -> None:
    def lost(message: Message) -> None:
        notes.note("lost", f"connection to {endpoint} lost; waiting for it to come back", "yellow")

    def restored(message: Message) -> None:
        notes.note(
            "restored",
            f"connection to {endpoint} restored; messages sent meanwhile may be missing",
            "green",
        )

    bus.regist_function("connection:lost", lost)
    bus.regist_function("connection:restored", restored)


def _missed(notes: Output, message: Message) -> None:
    count, origin = message.kwargs.get("count"), message.kwargs.get("origin")
    text = f"{count} messages of {origin} were missed"
    notes.note("missed", text, "yellow", count=count, origin=origin)


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
