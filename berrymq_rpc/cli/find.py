"""``berrymq find``: list what is announced on the local network."""

import asyncio
import sys
from typing import Any

import click

from .arguments import json_option, some_seconds
from .failure import Failed
from .output import VALUE, Output, show_log

__all__ = ["find"]


@click.command()
@json_option("Write one line of JSON: an array of objects.")
@click.option(
    "--wait",
    type=some_seconds,
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    help="Seconds to look.",
)
def find(as_json: bool, wait: float) -> None:
    """List what is announced on the local network.

    Those are what was started with announce=NAME, or berrymq serve --announce NAME. Each can be
    used as mdns://NAME. None of what they say is proved: keys decide who is trusted.
    """
    show_log(Output(sys.stderr, as_json=as_json))
    output = Output(sys.stdout)
    try:
        found = asyncio.run(_find(wait))
    except OSError as error:
        raise Failed(f"the local network cannot be searched: {error}") from error
    if as_json:
        output.json(found)
        return
    if not found:
        raise Failed(f"nothing was announced within {wait:g} s. Give --wait more, or see the log")
    for each in found:
        output.line(
            (f"mdns://{each['name']}", "bold cyan"),
            f"  {each['kind']}",
            ("  wants keys" if each["keys"] else "  no keys", VALUE),
            (f"  {each['version']}" if each["version"] else "", "dim"),
        )
        for endpoint in each["endpoints"]:
            output.line(("    " + endpoint, "dim"))


async def _find(seconds: float) -> list[dict[str, Any]]:
    # Here, as it needs zeroconf.
    from ..rpc.transport.mdns.browser import find

    return [
        {
            "name": service.name,
            "kind": service.kind,
            "endpoints": list(service.endpoints),
            "keys": service.has_keys,
            "version": service.version,
        }
        for service in await find(seconds)
    ]
