"""``berrymq queues``: the durable queues of a cluster, and their dead letters."""

import asyncio
import sys

import click

from ..bus import Bus
from ..errors import (
    AuthenticationError,
    ConnectionLostError,
    Error,
)
from ..exchange import Node
from ..nats.address import NatsAddress
from ..nats.subject import checked_name
from .arguments import wait_option
from .failure import Failed, Refused, Unreachable
from .output import Output, show_log

__all__ = ["queues"]


def nats_address(text: str) -> str:
    """An address of NATS."""
    try:
        NatsAddress.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return text


def queue_name(text: str) -> str:
    """The name of a namespace or of a durable queue."""
    try:
        return checked_name(text, "a queue or namespace")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("address", type=nats_address)
@click.option(
    "--namespace",
    type=queue_name,
    default="default",
    show_default=True,
    help="The namespace of the cluster.",
)
@click.option(
    "--replay",
    type=queue_name,
    metavar="NAME",
    help="Send the dead letters of this queue again, to all queues that keep them.",
)
@click.option(
    "--delete", type=queue_name, metavar="NAME", help="Delete this queue, with what it keeps."
)
@click.option("--json", "as_json", is_flag=True, help="Write each queue as one line of JSON.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Connect to a server on another host that lets everybody in, or send a password plainly.",
)
@wait_option
def queues(
    address: str,
    namespace: str,
    replay: str | None,
    delete: str | None,
    as_json: bool,
    insecure: bool,
    wait: float,
) -> None:
    """List the durable queues of a cluster.

    ADDRESS is where NATS is, such as nats://127.0.0.1:4222. The columns are the queue's name, what
    it keeps, how many messages wait, how many are being worked on, and how many processes ask for
    more just now.
    """
    asyncio.run(_queues(address, namespace, replay, delete, as_json, insecure, wait))


async def _queues(
    address: str,
    namespace: str,
    replay: str | None,
    delete: str | None,
    as_json: bool,
    insecure: bool,
    wait: float,
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr)
    show_log(notes, exchange=False)
    shown = str(NatsAddress.parse(address))
    node = Node(
        bus=Bus(), cluster=address, namespace=namespace, connect_timeout=wait, insecure=insecure
    )
    try:
        async with node:
            if replay is not None:
                count = await node.replay_dead(replay)
                output.line(f"{count} dead letters of {replay} sent again")
            elif delete is not None:
                if not await node.delete_durable_queue(delete):
                    raise Failed(f"{shown}: there is no durable queue {delete}")
                output.line(f"{delete} deleted")
            else:
                await _list(node, output, as_json)
    except AuthenticationError as error:
        raise Refused(str(error)) from error
    except ConnectionLostError as error:
        raise Unreachable(str(error)) from error
    except (Error, ValueError) as error:
        raise Failed(f"{shown}: {error}") from error


async def _list(node: Node, output: Output, as_json: bool) -> None:
    for queue in await node.durable_queues():
        if as_json:
            output.json(queue._asdict())
            continue
        output.line(
            (queue.name, "bold"),
            "  ",
            (queue.identifier or "?", "cyan"),
            f"  {queue.waiting} waiting",
            f"  {queue.unacknowledged} being worked on",
            f"  {queue.consumers} consumers",
        )
