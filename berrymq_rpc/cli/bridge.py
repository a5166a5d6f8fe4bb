"""``berrymq bridge``: open a server or node to peers that speak JSON-RPC."""

import asyncio
import signal
import sys
from ssl import SSLContext

import click

from .. import rpc
from ..security import Security
from .arguments import connecting_endpoint, wait_option
from .failure import peer_errors
from .keys import bridge_keys
from .listeners import Listeners, listener_options, open_listeners
from .output import Output, show_log

__all__ = ["bridge"]


@click.command()
@click.option(
    "--connect",
    "endpoint",
    metavar="ENDPOINT",
    type=connecting_endpoint,
    required=True,
    help="Where the server or node listens.",
)
@listener_options
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Seconds for each call.  [default: no limit]",
)
@click.option(
    "--insecure", is_flag=True, help="Allow listeners beyond this host without authentication."
)
@wait_option
@bridge_keys
def bridge(
    endpoint: str,
    http: tuple[tuple[str, int], ...],
    tcp: tuple[tuple[str, int], ...],
    zeromq: tuple[str, ...],
    token: str | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    tls: SSLContext | None,
    timeout: float | None,
    insecure: bool,
    wait: float,
    security: Security | None,
    listener_security: Security | None,
) -> None:
    """Open a server or node to peers that speak JSON-RPC.

    Its first lines say where it listens. Ctrl-C or SIGTERM ends it, with exit code 0.
    """
    listeners = Listeners(
        http, tcp, zeromq, token, origins, hosts, insecure, tls, listener_security
    ).checked()
    if not listeners:
        raise click.UsageError("nothing to open: give --http :8080, --tcp or --zeromq")
    if listener_security is not None and not zeromq:
        raise click.UsageError("--authorized is for ZeroMQ listeners: give --zeromq as well")
    show_log(Output(sys.stderr))
    asyncio.run(_bridge(Output(sys.stdout), endpoint, listeners, timeout, wait, security))


async def _bridge(
    output: Output,
    endpoint: str,
    listeners: Listeners,
    timeout: float | None,
    wait: float,
    security: Security | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with await rpc.open_client(
        connect=endpoint, timeout=timeout, connect_timeout=wait, security=security
    ) as client:
        async with peer_errors(endpoint, connecting=True):
            await client.describe()
        async with open_listeners(client, listeners, output), output.watched():
            await stop.wait()
    output.line("The bridge has ended.")
