"""``berrymq send``: send one message to a node, or to a cluster."""

import asyncio
import sys

import click

from ..bus import Bus
from ..exchange import Node
from ..security import Security
from .arguments import (
    ArgumentsCommand,
    exportable_identifier,
    is_cluster,
    json_option,
    parse_arguments,
    place_argument,
    wait_option,
)
from .cluster import ClusterOptions, Visit, cluster_errors, cluster_options
from .failure import Failed, Refused, peer_errors
from .keys import client_keys, without_keys
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["send"]

#: How the subjects of requests to JetStream begin.
JETSTREAM = "$JS."


@click.command(cls=ArgumentsCommand)
@place_argument
@click.argument("identifier", type=exportable_identifier)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT | NAME=VALUE]...")
@click.option(
    "--durable/--no-durable",
    default=None,
    help="To a cluster: fail unless a durable queue keeps the message, or do not ask whether one "
    "does.  [default: wait until those that do have it]",
)
@json_option("Write one line of JSON when the message was accepted.")
@cluster_options
@wait_option
@nats_options()
@client_keys
def send(
    endpoint: str,
    identifier: str,
    arguments: tuple[str, ...],
    durable: bool | None,
    as_json: bool,
    cluster: ClusterOptions,
    wait: float,
    security: Security | None,
) -> None:
    """Send a message to a node, or to a cluster.

    A node delivers it to its followers there; a cluster, such as nats://host:4222, to all nodes
    that follow it, and to the durable queues that keep it.

    Arguments are read as JSON; what is not JSON is text: 3, true, '{"a": [1]}', words. To send text
    that looks like something else, quote it as JSON: '"3"', '"a=b"'.
    """
    args, kwargs = parse_arguments(arguments)
    notes = Output(sys.stderr, as_json=as_json)
    show_log(notes, exchange=not is_cluster(endpoint), security=False)
    if is_cluster(endpoint):
        without_keys(security)
        asyncio.run(_publish(endpoint, identifier, args, kwargs, durable, cluster, wait))
    elif durable is not None:
        raise click.UsageError("--durable is for a cluster: an address such as nats://host:4222")
    else:
        asyncio.run(_send(endpoint, identifier, args, kwargs, wait, security, cluster.insecure))
    if as_json:
        output = Output(sys.stdout, as_json=True)
        output.event("sent", endpoint=str(endpoint), id=identifier, args=args, kwargs=kwargs)


async def _publish(
    place: str,
    identifier: str,
    args: list[object],
    kwargs: dict[str, object],
    durable: bool | None,
    options: ClusterOptions,
    wait: float,
) -> None:
    async with Visit.to(place, options, wait) as visit:
        try:
            with cluster_errors(place):
                await visit.unless_refused(
                    visit.bus.publish(identifier, *args, durable=durable, **kwargs)
                )
        except Refused as refusal:
            if durable is None and JETSTREAM in refusal.message:
                raise Refused(
                    f"{refusal.message}. With --no-durable it is not asked whether a durable queue "
                    "keeps the message",
                    reason="permission",
                ) from refusal
            raise
        await visit.settled(wait)


async def _send(
    endpoint: str,
    identifier: str,
    args: list[object],
    kwargs: dict[str, object],
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    async with Node(bus=Bus(), connect_timeout=wait, security=security, insecure=insecure) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_oneway(endpoint)
        async with connection, peer_errors(endpoint):
            status = await connection.send_message(identifier, *args, **kwargs)
            if status != "ok":
                raise Failed(f"{endpoint} refuses the message: {status}")
