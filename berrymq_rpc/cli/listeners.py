"""The listeners that ``berrymq bridge`` and ``berrymq serve`` open, and their options."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import click

from ..jsonrpc.bridge import Bridge
from .arguments import listening_endpoint
from .failure import Failed
from .output import Output

__all__ = ["Listeners", "listener_options", "opened", "socket_address"]

HOST = "127.0.0.1"
MAX_PORT = 65_535


class Listeners(NamedTuple):
    """What listeners there are to be.

    Args:
        http, tcp: addresses.
        zeromq: endpoints.
        token: what HTTP clients have to show.
        origins: pages that may use the HTTP listener.
        hosts: names by which it may be called.
        insecure: whether listeners may be open beyond this host without authentication.
    """

    http: tuple[tuple[str, int], ...]
    tcp: tuple[tuple[str, int], ...]
    zeromq: tuple[str, ...]
    token: str | None
    origins: tuple[str, ...]
    hosts: tuple[str, ...]
    insecure: bool

    def __bool__(self) -> bool:
        return bool(self.http or self.tcp or self.zeromq)


def socket_address(text: str) -> tuple[str, int]:
    """``host:port``, ``:port`` or a port; the host is this one where there is none."""
    host, _, port = text.rpartition(":")
    if port == "*":
        port = "0"
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and int(port) <= MAX_PORT):
        raise click.BadParameter(f"{text!r} is no address: write :8080 or host:8080")
    return host.strip("[]") or HOST, int(port)


def listener_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of listeners: the arguments of `Listeners`, but for ``insecure``."""
    for option in reversed(
        (
            click.option(
                "--http",
                metavar="ADDRESS",
                type=socket_address,
                multiple=True,
                help="Serve JSON-RPC over HTTP and WebSocket there: :8080 is port 8080 of this "
                "host, port 0 any free one.",
            ),
            click.option(
                "--tcp",
                metavar="ADDRESS",
                type=socket_address,
                multiple=True,
                help="Serve JSON-RPC over TCP there, a JSON text a line.",
            ),
            click.option(
                "--zeromq",
                metavar="ENDPOINT",
                type=listening_endpoint,
                multiple=True,
                help="Serve JSON-RPC over ZeroMQ there.",
            ),
            click.option(
                "--token",
                envvar="BERRYMQ_TOKEN",
                help='What HTTP clients have to send as "Authorization: Bearer ...". In the '
                "variable BERRYMQ_TOKEN, others on this host do not see it.",
            ),
            click.option(
                "--origin",
                "origins",
                multiple=True,
                help="A page that may open the WebSocket, such as https://example.org.",
            ),
            click.option(
                "--host",
                "hosts",
                multiple=True,
                help="A further name by which HTTP clients call this host.",
            ),
        )
    ):
        function = option(function)
    return function


@asynccontextmanager
async def opened(target: Any, listeners: Listeners, output: Output) -> AsyncIterator[None]:
    """Open them, and say where they are."""
    async with Bridge(target, title="berrymq") as bridge:
        try:
            for host, port in listeners.http:
                url = await bridge.serve_http(
                    host,
                    port,
                    token=listeners.token,
                    origins=listeners.origins,
                    hosts=listeners.hosts,
                    insecure=listeners.insecure,
                )
                socket = url.replace("http", "ws", 1) + "/ws"
                output.line(
                    "JSON-RPC over HTTP at ", (url, "bold green"), ", WebSocket at ", socket
                )
            for host, port in listeners.tcp:
                url = await bridge.serve_tcp(host, port, insecure=listeners.insecure)
                output.line("JSON-RPC over TCP at ", (url, "bold green"))
            for endpoint in listeners.zeromq:
                url = await bridge.serve_zeromq(endpoint, insecure=listeners.insecure)
                output.line("JSON-RPC over ZeroMQ at ", (url, "bold green"))
        except ValueError as error:
            text = str(error).replace("pass insecure=True", "give --insecure")
            raise click.UsageError(text) from error
        except (OSError, ModuleNotFoundError) as error:
            raise Failed(f"the bridge cannot start: {error}") from error
        yield
