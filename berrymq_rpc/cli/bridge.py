"""``berrymq bridge``: open a server, node or cluster to peers that speak JSON-RPC."""

import asyncio
import signal
import sys
from ssl import SSLContext

import click

from ..security import Security
from .arguments import is_cluster, json_option, place_to_meet, wait_option
from .client import opened_client
from .cluster import ClusterOptions, Visit, cluster_options
from .failure import peer_errors
from .keys import bridge_keys, without_keys
from .listeners import Listeners, listener_options, open_listeners
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["bridge"]


@click.command()
@click.option(
    "--connect",
    "endpoint",
    metavar="ENDPOINT",
    type=place_to_meet,
    required=True,
    help="Where the server or node listens; or a cluster, such as nats://host:4222.",
)
@listener_options
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Seconds for each call.  [default: no limit]",
)
@json_option("Write where it listens as lines of JSON.")
@cluster_options
@wait_option
@nats_options()
@bridge_keys
def bridge(
    endpoint: str,
    http: tuple[tuple[str, int], ...],
    tcp: tuple[tuple[str, int], ...],
    zeromq: tuple[str, ...],
    token: str | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    metrics: bool,
    tls: SSLContext | None,
    timeout: float | None,
    as_json: bool,
    cluster: ClusterOptions,
    wait: float,
    security: Security | None,
    listener_security: Security | None,
) -> None:
    """Open a server, node or cluster to peers that speak JSON-RPC.

    Its first lines say where it listens. Ctrl-C or SIGTERM ends it, with exit code 0.
    """
    listeners = Listeners(
        http, tcp, zeromq, token, origins, hosts, cluster.insecure, tls, listener_security, metrics
    ).checked()
    if not listeners:
        raise click.UsageError("nothing to open: give --http :8080, --tcp or --zeromq")
    if listener_security is not None and not zeromq:
        raise click.UsageError("--authorized is for ZeroMQ listeners: give --zeromq as well")
    show_log(Output(sys.stderr, as_json=as_json))
    output = Output(sys.stdout, as_json=as_json)
    if is_cluster(endpoint):
        without_keys(security)
        if timeout is not None:
            raise click.UsageError("--timeout is for the calls of a server or node")
        asyncio.run(_bridge_cluster(output, endpoint, listeners, cluster, wait))
        return
    asyncio.run(_bridge(output, endpoint, listeners, timeout, wait, security, cluster.insecure))


async def _bridge(
    output: Output,
    endpoint: str,
    listeners: Listeners,
    timeout: float | None,
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    stop = _stop_at_signals()
    async with opened_client(
        endpoint, timeout=timeout, wait=wait, security=security, insecure=insecure
    ) as client:
        async with peer_errors(endpoint, connecting=True):
            await client.describe()
        async with open_listeners(client, listeners, output), output.watched():
            await stop.wait()
    output.event("ended", "The bridge has ended.")


async def _bridge_cluster(
    output: Output, place: str, listeners: Listeners, options: ClusterOptions, wait: float
) -> None:
    stop = _stop_at_signals()
    async with Visit.to(place, options, wait) as visit:
        await visit.settled(wait)
        async with open_listeners(visit.node, listeners, output), output.watched():
            await stop.wait()
    output.event("ended", "The bridge has ended.")


def _stop_at_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
