"""The JSON-RPC listeners that ``berrymq bridge`` and ``berrymq serve`` open, and their options."""

import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from ..jsonrpc.bridge import Bridge
from ..security import Security
from .arguments import listening_endpoint, socket_address
from .completion import completes_files
from .failure import Failed
from .keys import in_options
from .output import Output

__all__ = ["Listeners", "listener_options", "open_listeners"]


class Listeners(NamedTuple):
    """The listeners to open.

    Args:
        http, tcp: addresses.
        zeromq: endpoints.
        token: the bearer token that HTTP clients must send, and those of TCP first.
        origins: pages that may post and open a WebSocket.
        hosts: further host names that HTTP clients may use.
        insecure: whether listeners may bind beyond loopback without authentication.
        tls: makes HTTP and TCP TLS.
        security: who may connect over ZeroMQ.
        metrics: whether HTTP listeners have ``/metrics``.
        page: whether HTTP listeners have a page that shows what runs.
        page_write: whether it may send messages and call methods.
    """

    http: tuple[tuple[str, int], ...]
    tcp: tuple[tuple[str, int], ...]
    zeromq: tuple[str, ...]
    token: str | None
    origins: tuple[str, ...]
    hosts: tuple[str, ...]
    insecure: bool
    tls: ssl.SSLContext | None = None
    security: Security | None = None
    metrics: bool = False
    page: bool = False
    page_write: bool = False

    def __bool__(self) -> bool:
        return bool(self.http or self.tcp or self.zeromq)

    def checked(self) -> "Listeners":
        """Return it, if no option is for HTTP clients where there are none.

        Raises:
            click.UsageError: a name of a host, say, is for HTTP listeners, and there is none.
        """
        if self.http:
            return self
        if not self.tcp:
            if self.tls is not None:
                raise click.UsageError("--certificate is for --http and --tcp: give one of them")
            if self.token is not None:
                source = click.get_current_context().get_parameter_source("token")
                if source is not ParameterSource.ENVIRONMENT:
                    raise click.UsageError("--token is for --http and --tcp: give one of them")
                # It may be meant for other commands.
                as_json = click.get_current_context().params["as_json"]
                notes = Output(sys.stderr, as_json=as_json)
                text = "BERRYMQ_TOKEN is not used: there is no --http or --tcp"
                notes.note("token", text, "yellow")
        given = (
            ("--origin", self.origins),
            ("--host", self.hosts),
            ("--metrics", self.metrics),
            ("--http-write", self.page_write),
        )
        for option, values in given:
            if values:
                raise click.UsageError(f"{option} is for HTTP listeners: give --http as well")
        return self


def listener_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of listeners: the arguments of `Listeners`, but ``insecure``, ``security``.

    Three of them, for the names of files, make ``tls``.
    """
    function = _with_tls(function)
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
                help="Serve JSON-RPC over ZeroMQ there; with --authorized for those keys alone.",
            ),
            click.option(
                "--token",
                envvar="BERRYMQ_TOKEN",
                help='What HTTP clients must send as "Authorization: Bearer ...", or as the '
                "password of Basic, and those of TCP first, by the method authorize. In the "
                "variable BERRYMQ_TOKEN, other users of this host cannot see it.",
            ),
            click.option(
                "--certificate",
                metavar="FILE",
                shell_complete=completes_files(),
                help="Speak TLS over HTTP and TCP, with this certificate.",
            ),
            click.option(
                "--certificate-key",
                metavar="FILE",
                shell_complete=completes_files(),
                help="The secret key of the certificate.",
            ),
            click.option(
                "--client-ca",
                metavar="FILE",
                shell_complete=completes_files(),
                help="Let in only clients with a certificate of this authority.",
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
            click.option(
                "--metrics",
                is_flag=True,
                help="Answer /metrics for Prometheus at --http, with the token if there is one.",
            ),
        )
    ):
        function = option(function)
    return function


def _with_tls(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def command(
        *,
        certificate: str | None,
        certificate_key: str | None,
        client_ca: str | None,
        **options: Any,
    ) -> Any:
        return function(**options, tls=_context(certificate, certificate_key, client_ca))

    return command


def _context(
    certificate: str | None, certificate_key: str | None, client_ca: str | None
) -> ssl.SSLContext | None:
    if certificate is None:
        if certificate_key is not None or client_ca is not None:
            raise click.UsageError("--certificate-key and --client-ca want --certificate")
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(certificate, certificate_key)
    except OSError as error:
        raise click.UsageError(f"the certificate cannot be used: {error}") from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def open_listeners(target: Any, listeners: Listeners, output: Output) -> AsyncIterator[None]:
    """Serve `target` with them while it is entered; write where they listen."""
    async with Bridge(target, title="berrymq", security=listeners.security) as bridge:
        try:
            for host, port in listeners.http:
                url = await bridge.serve_http(
                    host,
                    port,
                    ssl=listeners.tls,
                    token=listeners.token,
                    origins=listeners.origins,
                    hosts=listeners.hosts,
                    insecure=listeners.insecure,
                    metrics=listeners.metrics,
                    page=listeners.page,
                    page_write=listeners.page_write,
                )
                socket = url.replace("http", "ws", 1) + "/ws"
                output.event(
                    "listening",
                    *("JSON-RPC over HTTP at ", (url, "bold green"), ", WebSocket at ", socket),
                    protocol="http",
                    url=url,
                    websocket=socket,
                )
                if listeners.metrics:
                    parts = "Metrics for Prometheus are at ", (f"{url}/metrics", "bold green")
                    output.event("metrics", *parts, url=f"{url}/metrics")
                if listeners.page:
                    parts = "What runs is shown in a browser at ", (url, "bold green")
                    output.event("page", *parts, url=url)
            for host, port in listeners.tcp:
                url = await bridge.serve_tcp(
                    host,
                    port,
                    ssl=listeners.tls,
                    token=listeners.token,
                    insecure=listeners.insecure,
                )
                parts = "JSON-RPC over TCP at ", (url, "bold green")
                output.event("listening", *parts, protocol="tcp", url=url)
            for endpoint in listeners.zeromq:
                url = await bridge.serve_zeromq(endpoint, insecure=listeners.insecure)
                parts = "JSON-RPC over ZeroMQ at ", (url, "bold green")
                output.event("listening", *parts, protocol="zeromq", url=url)
        except ValueError as error:
            text = (
                in_options(error)
                .replace("Give token= and ssl=", "Give --token and --certificate")
                .replace("Give ssl=", "Give --certificate")
                .replace(
                    "Give token=, or ask for client certificates", "Give --token or --client-ca"
                )
            )
            raise click.UsageError(text) from error
        except (OSError, ModuleNotFoundError) as error:
            raise Failed(f"the bridge cannot start: {error}") from error
        yield
