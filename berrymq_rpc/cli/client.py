"""The client of a command that calls a server."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import click

from .. import rpc
from ..errors import AuthenticationError
from ..security import Security
from .failure import Failed, refused
from .keys import client_keys, in_options
from .nats_options import nats_options

__all__ = ["client_options", "insecure_option", "opened_client"]

insecure_option = click.option(
    "--insecure",
    is_flag=True,
    help="Use a NATS server on another host that lets everybody in, or send it a password plainly.",
)


def client_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a client: the command gets `security` and `insecure`."""
    return insecure_option(nats_options()(client_keys(function)))


@asynccontextmanager
async def opened_client(
    endpoint: str,
    *,
    timeout: float | None,
    wait: float,
    security: Security | None,
    insecure: bool,
    dialect: str = "native",
) -> AsyncIterator[rpc.Client]:
    """A client for as long as this is entered.

    Args:
        endpoint: where the server is.
        timeout: seconds for each call; ``None`` for no limit.
        wait: seconds for the server to appear.
        security: the keys, if it wants any.
        insecure: whether a NATS server may get a password without TLS.
        dialect: the language to speak.

    Raises:
        click.UsageError: the arguments contradict each other.
        Failed: there can be no client.
    """
    try:
        client = await rpc.open_client(
            connect=endpoint,
            timeout=timeout,
            connect_timeout=wait,
            dialect=dialect,
            security=security,
            insecure=insecure,
        )
    except ValueError as error:
        raise click.UsageError(in_options(error)) from error
    except AuthenticationError as error:
        raise refused(endpoint, error) from error
    except (OSError, ModuleNotFoundError) as error:
        raise Failed(str(error)) from error
    async with client:
        yield client
