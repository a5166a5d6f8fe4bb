"""The JSON-RPC listeners that ``berrymq bridge`` and ``berrymq serve`` open, and their options."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from ..jsonrpc.bridge import Bridge
from .arguments import listening_endpoint, socket_address
from .failure import Failed
from .output import Output

__all__ = ["Listeners", "listener_options", "open_listeners"]


class Listeners(NamedTuple):
    """The listeners to open.

    Args:
        http, tcp: addresses.
        zeromq: endpoints.
        token: the bearer token that HTTP clients must send.
        origins: pages that may post and open a WebSocket.
        hosts: further host names that HTTP clients may use.
        insecure: whether listeners may bind beyond loopback without authentication.
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

    def checked(self) -> "Listeners":
        """Return it, if no option is for HTTP clients where there are none.

        Raises:
            click.UsageError: a token, say, protects only HTTP listeners, and there is none.
        """
        if self.http:
            return self
        if self.token is not None:
            source = click.get_current_context().get_parameter_source("token")
            if source is not ParameterSource.ENVIRONMENT:
                raise click.UsageError("--token protects HTTP listeners alone: give --http as well")
            # It may be meant for other commands.
            click.echo("BERRYMQ_TOKEN is not used: there is no --http", err=True)
        for option, values in (("--origin", self.origins), ("--host", self.hosts)):
            if values:
                raise click.UsageError(f"{option} is for HTTP listeners: give --http as well")
        return self


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
                "host, port 0 any free port.",
            ),
            click.option(
                "--tcp",
                metavar="ADDRESS",
                type=socket_address,
                multiple=True,
                help="Serve JSON-RPC over TCP there, one JSON text per line.",
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
                help='What HTTP clients must send as "Authorization: Bearer ...", or as the '
                "password of Basic. In the variable BERRYMQ_TOKEN, other users of this host "
                "cannot see it.",
            ),
            click.option(
                "--origin",
                "origins",
                multiple=True,
                help="A page that may post and open the WebSocket, such as https://example.org.",
            ),
            click.option(
                "--host",
                "hosts",
                multiple=True,
                help="A further host name that HTTP clients may use.",
            ),
        )
    ):
        function = option(function)
    return function


@asynccontextmanager
async def open_listeners(target: Any, listeners: Listeners, output: Output) -> AsyncIterator[None]:
    """Serve `target` with them while it is entered; write where they listen."""
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
