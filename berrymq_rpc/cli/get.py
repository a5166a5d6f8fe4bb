"""``berrymq get``: wait for the next messages of a node."""

import asyncio
import sys

import click

from ..bus import Bus, Empty
from ..exchange import Node
from ..security import Security
from .arguments import endpoint_argument, exportable_identifier, seconds, wait_option
from .failure import TimedOut, peer_errors
from .keys import client_keys
from .output import Output, show_log

__all__ = ["get"]

#: Seconds for which the node keeps the queue after this process has gone.
TTL = 30.0


@click.command()
@endpoint_argument
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
@click.option("--json", "as_json", is_flag=True, help="Write each message as one line of JSON.")
@click.option("--quiet", is_flag=True, help="Do not announce on standard error that it waits.")
@wait_option
@client_keys
def get(
    endpoint: str,
    identifier: str,
    timeout: float | None,
    count: int,
    shared: bool,
    as_json: bool,
    quiet: bool,
    wait: float,
    security: Security | None,
) -> None:
    """Wait for the next messages of a node.

    They are written to standard output. It receives what is sent after "waiting" has appeared on
    standard error. The exit code is 4 if the messages do not come in time.
    """
    asyncio.run(_get(endpoint, identifier, timeout, count, shared, as_json, quiet, wait, security))


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
) -> None:
    output, notes = Output(sys.stdout), Output(sys.stderr)
    show_log(notes, exchange=False)
    async with Node(bus=Bus(), connect_timeout=wait, security=security) as node:
        async with peer_errors(endpoint, connecting=True):
            connection = await node.connect_via_queue(identifier, endpoint, TTL, shared=shared)
        async with connection, output.watched():
            if not quiet:
                notes.line((f"waiting for {identifier} at {endpoint}", "dim"))
            for number in range(count):
                async with peer_errors(endpoint):
                    try:
                        message = await connection.get(timeout=timeout)
                    except Empty:
                        raise TimedOut(_timed_out(identifier, timeout, number, count)) from None
                output.message(message, as_json=as_json)


def _timed_out(identifier: str, timeout: float | None, number: int, count: int) -> str:
    of = f" ({number} of {count} came)" if count > 1 else ""
    return f"no message {identifier} within {timeout:g} s{of}"
