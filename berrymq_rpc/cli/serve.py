"""``berrymq serve``: run a node."""

import asyncio
import errno
import os
import shlex
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from ssl import SSLContext
from typing import Any

import click

from ..bus import Bus, Message
from ..errors import AuthenticationError, ConnectionLostError, Error
from ..exchange import Node
from ..nats.options import settings_of
from ..security import CurveServer, Security
from .arguments import cluster_address, json_option, listening_endpoint
from .cluster import DEFAULT_NAMESPACE, namespace_option
from .failure import Failed, Refused, Unreachable, peer_errors, reason_of
from .keys import in_options, server_keys
from .listeners import Listeners, listener_options, open_listeners
from .nats_options import nats_options
from .output import Output, show_log

__all__ = ["serve"]

HOST, FIRST_PORT, PORTS_TRIED = "127.0.0.1", 5555, 100

#: The identifier of the message that --hello sends.
HELLO = "berrymq:hello"


@click.command()
@click.option(
    "--bind",
    "endpoints",
    metavar="ENDPOINT",
    type=listening_endpoint,
    multiple=True,
    help="Where to listen; may be given several times. A port of * is any free "
    f"one.  [default: tcp://{HOST}:{FIRST_PORT}, or the next free port]",
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    type=cluster_address,
    help="Join a cluster, such as nats://host:4222. Without --bind the node has no other address.",
)
@namespace_option
@click.option(
    "--announce",
    metavar="NAME",
    help="Let others on the local network find the node at mdns://NAME.",
)
@click.option("--name", help="The node's name, known to other nodes.  [default: a random one]")
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow --bind beyond this host without authentication, and a NATS server there that lets "
    "everybody in.",
)
@click.option(
    "--show/--no-show",
    default=None,
    help="Show the messages that arrive.  [default: on a terminal]",
)
@json_option("Show each message, and where it listens, as one line of JSON.")
@click.option(
    "--hello",
    is_flag=True,
    help="Send the node a first message over the network, as a test.",
)
@listener_options
@click.option(
    "--http-write",
    is_flag=True,
    help="Let the page of --http, which shows what runs, also send messages and call methods.",
)
@nats_options("cluster")
@server_keys
def serve(
    endpoints: tuple[str, ...],
    cluster: str | None,
    namespace: str,
    announce: str | None,
    name: str | None,
    insecure: bool,
    show: bool | None,
    as_json: bool,
    hello: bool,
    http: tuple[tuple[str, int], ...],
    tcp: tuple[tuple[str, int], ...],
    zeromq: tuple[str, ...],
    token: str | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    metrics: bool,
    http_write: bool,
    tls: SSLContext | None,
    security: Security | None,
) -> None:
    """Run a node, through which processes exchange messages.

    Its first line says where it listens. Ctrl-C or SIGTERM ends it, with exit code 0.
    """
    output = Output(sys.stdout, as_json=as_json)
    show_log(Output(sys.stderr, as_json=as_json))
    shows = output.is_terminal or as_json if show is None else show
    if isinstance(security, CurveServer) and len(security.keys) > max(1, len(endpoints)):
        raise click.UsageError("several --key want a --bind each")
    if hello and security is not None:
        raise click.UsageError("--hello comes without a key, and this node wants one")
    if cluster is None and namespace != DEFAULT_NAMESPACE:
        raise click.UsageError("--namespace is for a cluster: give --cluster nats://host:4222")
    if hello and cluster is not None and not endpoints:
        raise click.UsageError("--hello is for a node with an address: give --bind")
    listeners = Listeners(
        http,
        tcp,
        zeromq,
        token,
        origins,
        hosts,
        insecure,
        tls,
        security,
        metrics=metrics,
        page=True,
        page_write=http_write,
    ).checked()
    options: dict[str, Any] = {"name": name, "security": security, "namespace": namespace}
    if announce is not None:
        if not endpoints:
            raise click.UsageError("--announce is for what others can reach: give --bind")
        options["announce"] = announce
    if cluster is not None:
        options["cluster"] = settings_of(cluster)
    asyncio.run(_serve(output, endpoints, options, insecure, shows, as_json, hello, listeners))


async def _serve(
    output: Output,
    endpoints: tuple[str, ...],
    options: dict[str, Any],
    insecure: bool,
    shows: bool,
    as_json: bool,
    hello: bool,
    listeners: Listeners,
) -> None:
    stop = asyncio.Event()
    failures: list[Exception] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bus = Bus()

    def show(message: Message) -> None:
        # The bus would log an exception and continue.
        try:
            output.message(message, as_json=as_json)
        except Exception as error:
            failures.append(error)
            stop.set()

    if shows:
        bus.regist_function("*@*:*", show)
    async with (
        await _start(output, endpoints, bus, options, insecure) as node,
        output.watched(),
        AsyncExitStack() as stack,
    ):
        if listeners:
            await stack.enter_async_context(open_listeners(node, listeners, output))
        _ready(output, node, options)
        if not as_json:
            _welcome(output, node, shows, options)
        if hello:
            await _greet(node)
        await stop.wait()
    if failures:
        raise failures[0]
    output.event("ended", "The node has ended.")


async def _start(
    output: Output,
    endpoints: tuple[str, ...],
    bus: Bus,
    options: dict[str, Any],
    insecure: bool,
) -> Node:
    """Start a node at the endpoints and in the cluster, or at the first free port."""
    if endpoints or "cluster" in options:
        try:
            return await Node(endpoints or None, bus, insecure=insecure, **options).start()
        except ValueError as error:
            raise click.UsageError(in_options(error)) from error
        except AuthenticationError as error:
            raise Refused(f"the node cannot start: {error}", reason=reason_of(error)) from error
        except ConnectionLostError as error:
            raise Unreachable(f"the node cannot start: {error}") from error
        except (Error, OSError, ModuleNotFoundError) as error:
            raise Failed(f"the node cannot start: {error}") from error
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        try:
            node = await Node((HOST, port), bus, **options).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise Failed(f"the node cannot start: {error}") from error
        if port != FIRST_PORT:
            text = f"Port {FIRST_PORT} is in use; {port} is the next free port."
            output.event("port in use", text, port=FIRST_PORT)
        return node
    raise Failed(f"no port is free from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}")


def _ready(output: Output, node: Node, options: dict[str, Any]) -> None:
    """Say where the node is, for a person and for programs."""
    cluster, namespace = options.get("cluster"), options["namespace"]
    if output.as_json:
        place = None if cluster is None else str(cluster)
        output.event(
            "ready",
            name=node.name,
            endpoints=list(node.endpoints),
            cluster=place,
            namespace=None if place is None else namespace,
        )
        return
    if node.endpoints:
        output.line("The node is at ", (", ".join(node.endpoints), "bold green"))
    if cluster is not None:
        output.line("The node is in the cluster ", (str(cluster), "bold green"), f" ({namespace})")


def _welcome(output: Output, node: Node, shows: bool, options: dict[str, Any]) -> None:
    """Say what a person may do next."""
    cluster, security, namespace = options.get("cluster"), options["security"], options["namespace"]
    rest = ""
    endpoint = str(cluster)
    if node.endpoints:
        announced = options.get("announce")
        endpoint = node.endpoints[0] if announced is None else f"mdns://{announced}"
        if isinstance(security, CurveServer):
            public = shlex.quote(security.keys[0].public)
            rest = f" --key YOURS.key_secret --server-key {public}"
    elif namespace != DEFAULT_NAMESPACE:
        rest = f" --namespace {namespace}"
    example = f'{_own_command()} send {endpoint} greeting:hello "your words"{rest}'
    output.line("Send it a message from a second terminal: ", (example, "cyan"))
    where = "Messages appear here. " if shows else ""
    output.line(f"{where}Ctrl-C ends the node.")


async def _greet(node: Node) -> None:
    """Send the node a message as any other process would."""
    endpoint = node.endpoints[0]
    async with (
        peer_errors(endpoint, connecting=True),
        Node(bus=Bus()) as visitor,
        await visitor.connect_oneway(endpoint) as connection,
    ):
        await connection.send_message(HELLO, "This came over the network: the node works.")


def _own_command() -> str:
    """Return what to type in a shell in this directory to run this command."""
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program) == "__main__.py":
        return f"{_nearby(sys.executable)} -m berrymq_rpc"
    name = os.path.basename(program)
    found = shutil.which(name)
    if found is not None and os.path.realpath(found) == os.path.realpath(program):
        return name
    return _nearby(program)


def _nearby(path: str) -> str:
    """Quote the path for a shell; make it relative if it is below the current directory."""
    relative = os.path.relpath(path)
    return shlex.quote(path if relative.startswith(os.pardir) else relative)
