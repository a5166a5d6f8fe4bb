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

import click

from ..bus import Bus, Message
from ..exchange import Node
from ..security import CurveServer, Security
from .arguments import listening_endpoint
from .failure import Failed, peer_errors
from .keys import in_options, server_keys
from .listeners import Listeners, listener_options, open_listeners
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
@click.option("--name", help="The node's name, known to other nodes.  [default: a random one]")
@click.option(
    "--insecure", is_flag=True, help="Allow --bind beyond this host, without authentication."
)
@click.option(
    "--show/--no-show",
    default=None,
    help="Show the messages that arrive.  [default: on a terminal]",
)
@click.option("--json", "as_json", is_flag=True, help="Show each message as one line of JSON.")
@click.option(
    "--hello",
    is_flag=True,
    help="Send the node a first message over the network, as a test.",
)
@listener_options
@server_keys
def serve(
    endpoints: tuple[str, ...],
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
    tls: SSLContext | None,
    security: Security | None,
) -> None:
    """Run a node, through which processes exchange messages.

    Its first line says where it listens. Ctrl-C or SIGTERM ends it, with exit code 0.
    """
    output = Output(sys.stdout)
    show_log(Output(sys.stderr))
    shows = output.is_terminal or as_json if show is None else show
    if isinstance(security, CurveServer) and len(security.keys) > max(1, len(endpoints)):
        raise click.UsageError("several --key want a --bind each")
    if hello and security is not None:
        raise click.UsageError("--hello comes without a key, and this node wants one")
    listeners = Listeners(
        http, tcp, zeromq, token, origins, hosts, insecure, tls, security
    ).checked()
    asyncio.run(
        _serve(output, endpoints, name, insecure, shows, as_json, hello, listeners, security)
    )


async def _serve(
    output: Output,
    endpoints: tuple[str, ...],
    name: str | None,
    insecure: bool,
    shows: bool,
    as_json: bool,
    hello: bool,
    listeners: Listeners,
    security: Security | None,
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
        await _start(output, endpoints, bus, name, insecure, security) as node,
        output.watched(),
        AsyncExitStack() as stack,
    ):
        if listeners:
            await stack.enter_async_context(open_listeners(node, listeners, output))
        _welcome(output, node, shows, security)
        if hello:
            await _greet(node)
        await stop.wait()
    if failures:
        raise failures[0]
    output.line("The node has ended.")


async def _start(
    output: Output,
    endpoints: tuple[str, ...],
    bus: Bus,
    name: str | None,
    insecure: bool,
    security: Security | None,
) -> Node:
    """Start a node at the endpoints, or at the first free port."""
    if endpoints:
        try:
            return await Node(
                endpoints, bus, name=name, insecure=insecure, security=security
            ).start()
        except ValueError as error:
            raise click.UsageError(in_options(error)) from error
        except OSError as error:
            raise Failed(f"the node cannot start: {error}") from error
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        try:
            node = await Node((HOST, port), bus, name=name, security=security).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise Failed(f"the node cannot start: {error}") from error
        if port != FIRST_PORT:
            output.line(f"Port {FIRST_PORT} is in use; {port} is the next free port.")
        return node
    raise Failed(f"no port is free from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}")


def _welcome(output: Output, node: Node, shows: bool, security: Security | None) -> None:
    output.line("The node is at ", (", ".join(node.endpoints), "bold green"))
    berrymq, endpoint = _own_command(), node.endpoints[0]
    keys = ""
    if isinstance(security, CurveServer):
        public = shlex.quote(security.keys[0].public)
        keys = f" --key YOURS.key_secret --server-key {public}"
    example = f'{berrymq} send {endpoint} greeting:hello "your words"{keys}'
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
