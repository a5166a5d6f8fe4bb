"""``berrymq call``: call one method."""

import asyncio
import sys
from typing import Any

import click

from .. import rpc
from ..security import Security
from .arguments import (
    ArgumentsCommand,
    endpoint_argument,
    json_option,
    parse_arguments,
    seconds,
    wait_option,
)
from .client import client_options, opened_client
from .failure import Failed, TimedOut, Unreachable, refused, unreachable
from .output import Output, show_log

__all__ = ["call"]


@click.command(cls=ArgumentsCommand)
@endpoint_argument
@click.argument("method")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT | NAME=VALUE]...")
@click.option(
    "--timeout",
    type=seconds,
    metavar="SECONDS",
    help="Seconds for the answer, or for each item of a stream.  [default: no limit]",
)
@json_option("Write JSON on a terminal too.")
@click.option(
    "--dialect",
    type=click.Choice(["native", "aiozmq"]),
    default="native",
    show_default=True,
    help="Use aiozmq for a plain aiozmq.rpc server.",
)
@wait_option
@client_options
def call(
    endpoint: str,
    method: str,
    arguments: tuple[str, ...],
    timeout: float | None,
    as_json: bool,
    dialect: str,
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    """Call a method of a server or node.

    METHOD is a full name such as namespace.method. The result is one line of JSON; on a terminal
    it is shown in Python's notation. The items of a stream are written as they arrive. Arguments
    are read as for "send".
    """
    args, kwargs = parse_arguments(arguments)
    if timeout == 0:
        raise click.UsageError("--timeout must be above 0 seconds")
    output = Output(sys.stdout)
    show_log(Output(sys.stderr, as_json=as_json), security=False)
    asyncio.run(
        _call(
            output,
            endpoint,
            method,
            args,
            kwargs,
            timeout,
            as_json,
            dialect,
            wait,
            security,
            insecure,
        )
    )


async def _call(
    output: Output,
    endpoint: str,
    method: str,
    args: list[Any],
    kwargs: dict[str, Any],
    timeout: float | None,
    as_json: bool,
    dialect: str,
    wait: float,
    security: Security | None,
    insecure: bool,
) -> None:
    def write(value: Any) -> None:
        if as_json or not output.is_terminal:
            output.json(value)
        else:
            output.pretty(value)

    async with (
        opened_client(
            endpoint,
            timeout=timeout,
            wait=wait,
            dialect=dialect,
            security=security,
            insecure=insecure,
        ) as client,
        output.watched(),
    ):
        running = _sent(client, method, args, kwargs)
        try:
            value = await running
        except rpc.ProtocolError as error:
            # Either it is a stream, or the first item raises this again.
            problem: Exception = error
        except Exception as error:
            raise await _failed(error, running, endpoint) from error
        else:
            write(value)
            return
        items = aiter(running)
        while True:
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise await _failed(error, running, endpoint) from problem
            write(item)


def _sent(client: rpc.Client, method: str, args: list[Any], kwargs: dict[str, Any]) -> rpc.Call:
    running = client.call(method, *args, **kwargs)
    if running.done():
        # Nothing was sent: what the peer answers comes later.
        error = running.exception()
        if isinstance(error, TypeError | ValueError | OverflowError):
            raise click.UsageError(f"the arguments cannot be sent: {error}") from error
    return running


async def _failed(error: Exception, running: rpc.Call, endpoint: str) -> Failed:
    """Describe the exception that the method raised, or why there is no answer."""
    method = running.method
    if isinstance(error, rpc.AuthenticationError | rpc.PermissionDeniedError):
        return refused(endpoint, error)
    if isinstance(error, rpc.ConnectionLostError):
        if error.sent is False:
            return await unreachable(endpoint, error)
        return Unreachable(_with_progress(error), sent=error.sent)
    if isinstance(error, rpc.RPCTimeoutError):
        return TimedOut(_with_progress(error), sent=error.sent)
    name = error.exc_type if isinstance(error, rpc.GenericError) else type(error).__name__
    return Failed(_text(error, method, endpoint), exception=name)


def _text(error: Exception, method: str, endpoint: str) -> str:
    if isinstance(error, rpc.NotFoundError):
        text = str(error)
        stop = "" if text.endswith("?") else "."
        return f"{text}{stop} List its methods with: berrymq methods {endpoint}"
    if isinstance(error, rpc.ParametersError):
        # The text begins with the method's signature.
        return str(error)
    if isinstance(error, rpc.Error) and not isinstance(error, rpc.GenericError):
        # A text with its progress names the method.
        return f"{method}: {error}" if error.progress is None else _with_progress(error)
    kind = "" if isinstance(error, rpc.GenericError) else f"{type(error).__name__}: "
    notes = getattr(error, "__notes__", ())
    return "\n".join([f"{method} raised {kind}{error}", *map(str, notes)])


def _with_progress(error: rpc.Error) -> str:
    """Add to the error's text whether the method may have begun, where that is known."""
    if error.sent is None:
        return str(error)
    return f"{error}. The method {'may have begun' if error.sent else 'has not begun'}."
