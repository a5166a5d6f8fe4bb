"""The command: what is checked of which endpoint, and how it is shown."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import click

from ...endpoint import Endpoint
from ...nats.options import is_nats, nats_of
from ..arguments import connecting_endpoint, json_option, place_to_meet, some_seconds
from ..client import insecure_option
from ..keys import key_files
from ..nats_options import nats_options
from ..output import Output, show_log
from .check import Check, Status
from .files import key_checks

__all__ = ["doctor"]

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red"}
_WEB = ("http", "https", "ws", "wss")

#: The columns of status and name.
_WIDTH = 9


def _endpoint(text: str) -> str:
    """Any address that something of this package may be at."""
    scheme = text.partition("://")[0]
    if scheme in _WEB:
        try:
            # The paths and ports of ws:// are those of http://.
            Endpoint.parse("http" + text.removeprefix("ws").removeprefix("http")).require_port()
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        return text
    return place_to_meet(text) if is_nats(text) else connecting_endpoint(text)


@click.command()
@click.argument("endpoint", type=_endpoint, required=False)
@click.option(
    "--timeout",
    type=some_seconds,
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="Seconds for each check at most.",
)
@click.option(
    "--token",
    envvar="BERRYMQ_TOKEN",
    help="The token of a bridge; or the variable BERRYMQ_TOKEN.",
)
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The authority of the certificate of https:// or wss://.",
)
@json_option("Write each check as one line of JSON.")
@insecure_option
@nats_options()
@key_files
def doctor(
    endpoint: str | None,
    timeout: float,
    token: str | None,
    ca: str | None,
    as_json: bool,
    insecure: bool,
    key: str | None,
    server_key: str | None,
) -> None:
    """Find out what is wrong with an endpoint, or here.

    ENDPOINT is that of a node, server, cluster or bridge: tcp://, ipc://, mdns://, nats://,
    http://, https://, ws:// or wss://. Each line is a check: ok, warning or failed, and what to do.
    Without ENDPOINT it checks what is installed here. The exit code is 1 if a check failed.
    """
    output = Output(sys.stdout)
    notes = Output(sys.stderr, as_json=as_json)
    # What the library logs about a peer that it cannot talk with is said by a check.
    show_log(notes, exchange=False, security=False)
    keys, security = key_checks(key, server_key)
    is_web = endpoint is not None and endpoint.partition("://")[0] in _WEB
    if keys and (endpoint is None or is_web or is_nats(endpoint)):
        raise click.UsageError("--key and --server-key are for tcp://, ipc:// and mdns://")
    if ca is not None and not is_web:
        raise click.UsageError("--ca is for https:// and wss://")
    is_bad = any(check.status is Status.FAILED for check in keys)
    found = asyncio.run(
        _show(
            keys,
            None if is_bad else _checks(endpoint, timeout, token, ca, insecure, security),
            output,
            as_json,
        )
    )
    worst = [check for check in found if check.status is not Status.OK]
    bad = [check for check in worst if check.status is Status.FAILED]
    if not as_json:
        output.line(_summary(len(bad), len(worst) - len(bad)))
    if bad:
        sys.exit(1)


def _checks(
    endpoint: str | None,
    timeout: float,
    token: str | None,
    ca: str | None,
    insecure: bool,
    security: Any,
) -> AsyncIterator[Check]:
    from importlib.metadata import version

    own = version("berrymq-rpc")
    if endpoint is None:
        from .installation import examine_installation

        return examine_installation(own)
    if is_nats(endpoint):
        from .nats_server import examine_nats

        return examine_nats(nats_of(endpoint), timeout, insecure)
    if endpoint.partition("://")[0] in _WEB:
        from .web import examine_web

        return examine_web(endpoint, token, ca, timeout)
    if endpoint.startswith("mdns://"):
        from .announced import examine_announced

        return examine_announced(endpoint, security, timeout, own)
    from .zeromq import examine

    return examine(endpoint, security, timeout, own)


async def _show(
    first: list[Check], later: AsyncIterator[Check] | None, output: Output, as_json: bool
) -> list[Check]:
    found = []

    def show(check: Check) -> None:
        found.append(check)
        _write(check, output, as_json)

    for check in first:
        show(check)
    if later is not None:
        async with output.watched():
            async for check in later:
                show(check)
    return found


def _write(check: Check, output: Output, as_json: bool) -> None:
    if as_json:
        output.json(check.as_object())
        return
    output.line(
        (f"{check.status:<{_WIDTH}}", _STYLES[check.status]),
        (f"{check.name:<{_WIDTH}} ", "bold"),
        check.text,
    )
    if check.advice is not None:
        output.line((f"{'':<{2 * _WIDTH + 1}}{check.advice}", "cyan"))


def _summary(failures: int, warnings: int) -> tuple[str, str]:
    if failures:
        checks = "1 check" if failures == 1 else f"{failures} checks"
        return f"{checks} failed.", _STYLES[Status.FAILED]
    if warnings:
        several = "1 warning" if warnings == 1 else f"{warnings} warnings"
        return f"All works, with {several}.", _STYLES[Status.WARNING]
    return "All is well.", _STYLES[Status.OK]
