"""``berrymq queues``: the durable queues of a cluster, and their dead letters."""

import asyncio
import sys

import click

from ..exchange.durable.info import DurableQueueInfo
from .arguments import cluster_address, json_option, queue_name, wait_option
from .cluster import ClusterOptions, Visit, cluster_errors, cluster_options
from .failure import Failed
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["queues"]


@click.command()
@click.argument("endpoint", type=cluster_address, metavar="ADDRESS")
@click.option(
    "--replay",
    type=queue_name,
    metavar="NAME",
    help="Send the dead letters of this queue again, to all queues that keep them.",
)
@click.option(
    "--delete", type=queue_name, metavar="NAME", help="Delete this queue, with what it keeps."
)
@json_option("Write each queue, or what was done, as one line of JSON.")
@cluster_options
@wait_option
@nats_options()
def queues(
    endpoint: str,
    replay: str | None,
    delete: str | None,
    as_json: bool,
    cluster: ClusterOptions,
    wait: float,
) -> None:
    """List the durable queues of a cluster.

    ADDRESS is where NATS is, such as nats://127.0.0.1:4222. The columns are the queue's name, what
    it keeps, how many messages wait, how many are being worked on, and how many processes ask for
    more just now.
    """
    if replay is not None and delete is not None:
        raise click.UsageError("--replay and --delete are two commands: give one of them")
    asyncio.run(_queues(endpoint, replay, delete, as_json, cluster, wait))


async def _queues(
    place: str,
    replay: str | None,
    delete: str | None,
    as_json: bool,
    options: ClusterOptions,
    wait: float,
) -> None:
    output = Output(sys.stdout, as_json=as_json)
    show_log(Output(sys.stderr, as_json=as_json), exchange=False, security=False)
    async with Visit.to(place, options, wait) as visit:
        with cluster_errors(place):
            if replay is not None:
                count = await visit.unless_refused(visit.node.replay_dead(replay))
                letters = "dead letter" if count == 1 else "dead letters"
                text = f"{count} {letters} of {replay} sent again"
                output.event("replayed", text, queue=replay, count=count)
            elif delete is not None:
                if not await visit.unless_refused(visit.node.delete_durable_queue(delete)):
                    raise Failed(f"{place}: there is no durable queue {delete}")
                output.event("deleted", f"{delete} deleted", queue=delete)
            else:
                _list(await visit.unless_refused(visit.node.durable_queues()), output, as_json)


def _list(found: list[DurableQueueInfo], output: Output, as_json: bool) -> None:
    for queue in found:
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
