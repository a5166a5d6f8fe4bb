"""``berrymq get``: wait for the next messages of a node, or of a cluster."""

import asyncio
import sys

import click

from ..bus import AsyncQueue, Bus, Empty, Message
from ..bus.queues import ACK_WAIT, TRIES
from ..exchange import Node
from ..security import Security
from .arguments import (
    exportable_identifier,
    is_cluster,
    json_option,
    place_argument,
    queue_name,
    seconds,
    wait_option,
)
from .cluster import ClusterOptions, Visit, cluster_errors, cluster_options
from .failure import TimedOut, peer_errors
from .keys import client_keys, without_keys
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["get"]

#: Seconds for which the node keeps the queue after this process has gone.
TTL = 30.0


@click.command()
@place_argument
@click.argument("identifier", type=exportable_identifier)
@click.option(
    "--timeout",
    type=seconds,
    metavar="SECONDS",
    help="Seconds to wait for each message.  [default: no limit]",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many messages."
)
@click.option(
    "--shared",
    is_flag=True,
    help="Share one queue with all others that use --shared: each message goes to one of them.",
)
@click.option(
    "--durable",
    type=queue_name,
    metavar="NAME",
    help="Take them from the durable queue of a cluster that has this name; it is made if there is "
    "none.",
)
@json_option("Write each message as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Do not announce on standard error that it waits.")
@cluster_options
@wait_option
@nats_options()
@client_keys
def get(
    endpoint: str,
    identifier: str,
    timeout: float | None,
    count: int,
    shared: bool,
    durable: str | None,
    as_json: bool,
    quiet: bool,
    cluster: ClusterOptions,
    wait: float,
    security: Security | None,
) -> None:
    """Wait for the next messages of a node, or of a cluster.

    They are written to standard output. It receives what is sent after "waiting" has appeared on
    standard error, or what a durable queue keeps. The exit code is 4 if the messages do not come in
    time.
    """
    if is_cluster(endpoint):
        without_keys(security)
        if shared:
            raise click.UsageError(
                "what several processes share in a cluster is a durable queue: give --durable NAME"
            )
        asyncio.run(
            _get_from_cluster(
                endpoint, identifier, timeout, count, durable, as_json, quiet, cluster, wait
            )
        )
        return
    if durable is not None:
        raise click.UsageError("--durable is for a cluster: an address such as nats://host:4222")
    asyncio.run(
        _get(
            endpoint,
            identifier,
            timeout,
            count,
            shared,
            as_json,
            quiet,
            wait,
            security,
            cluster.insecure,
        )
    )


async def _get(
    endpoint: str,
    identifier: str,
    timeout: float | None,
    count: int,
    shared: bool,
    as_json: bool,
    quiet: bool,
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr, as_json=as_json)
    show_log(notes, exchange=False)
    async with Node(bus=Bus(), connect_timeout=wait, security=security, insecure=insecure) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_via_queue(identifier, endpoint, TTL, shared=shared)
        async with connection, output.watched():
            if not quiet:
                notes.note("waiting", f"waiting for {identifier} at {endpoint}")
            for number in range(count):
                async with peer_errors(endpoint):
                    try:
                        message = await connection.get(timeout=timeout)
                    except Empty:
                        raise TimedOut(_timed_out(identifier, timeout, number, count)) from None
                output.message(message, as_json=as_json)


async def _get_from_cluster(
    place: str,
    identifier: str,
    timeout: float | None,
    count: int,
    durable: str | None,
    as_json: bool,
    quiet: bool,
    options: ClusterOptions,
    wait: float,
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr, as_json=as_json)
    show_log(notes, exchange=False, security=False)
    async with Visit.to(place, options, wait) as visit:
        with cluster_errors(place):
            if durable is None:
                queue = AsyncQueue(identifier, bus=visit.bus)
            else:
                queue = await visit.unless_refused(_open_durable(visit, identifier, durable))
        with queue:
            await visit.settled(wait)
            async with output.watched():
                if not quiet:
                    notes.note(
                        "waiting", f"waiting for {identifier} at {place} ({options.namespace})"
                    )
                for number in range(count):
                    with cluster_errors(place):
                        try:
                            message = await visit.unless_refused(_next(visit, queue, timeout))
                        except Empty:
                            raise TimedOut(_timed_out(identifier, timeout, number, count)) from None
                    output.message(message, as_json=as_json)
                    if durable is not None:
                        with cluster_errors(place):
                            # It was written: nobody needs it again.
                            await message.ack(confirm=True)


async def _open_durable(visit: Visit, identifier: str, name: str) -> AsyncQueue:
    """Open a durable queue with the settings that it has, if it is there."""
    for known in await visit.node.durable_queues():
        if known.name == name and known.identifier:
            tries, ack_wait = known.tries, known.ack_wait
            break
    else:
        tries, ack_wait = TRIES, ACK_WAIT
    queue = AsyncQueue(identifier, durable=name, tries=tries, ack_wait=ack_wait, bus=visit.bus)
    await queue.ready()
    return queue


async def _next(visit: Visit, queue: AsyncQueue, timeout: float | None) -> Message:
    """Return the next message that another node has sent."""
    try:
        async with asyncio.timeout(timeout):
            while visit.is_own(message := await queue.get()):
                pass
            return message
    except TimeoutError:
        raise Empty from None


def _timed_out(identifier: str, timeout: float | None, number: int, count: int) -> str:
    of = f" ({number} of {count} came)" if count > 1 else ""
    return f"no message {identifier} within {timeout:g} s{of}"
