"""Arguments and options of the command line, read and checked before anything is sent."""

import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, NoReturn

import click

from ..endpoint import Endpoint, host_and_port
from ..identifier import Identifier
from ..nats.options import NatsEndpoint, is_nats, nats_of, settings_of
from ..nats.subject import checked_name
from ..rpc.transport import endpoints_of

__all__ = [
    "ArgumentsCommand",
    "cluster_address",
    "connecting_endpoint",
    "endpoint_argument",
    "exportable_identifier",
    "is_cluster",
    "json_option",
    "listening_endpoint",
    "moment",
    "parse_arguments",
    "parse_value",
    "place_argument",
    "place_to_meet",
    "queue_name",
    "seconds",
    "socket_address",
    "some_seconds",
    "wait_option",
]

LOOPBACK = "127.0.0.1"

_NEGATIVE_NUMBER = re.compile(r"-[0-9.]")


def listening_endpoint(text: str, *, connecting: bool = False) -> str:
    """An endpoint to listen at; one of NATS without a password in its text."""
    try:
        (endpoint,) = endpoints_of(text, "endpoint", connecting=connecting)
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("endpoint: ")) from None
    if is_nats(endpoint):
        return endpoint
    if Endpoint.parse(text).scheme == "mem":
        raise click.BadParameter(f"{text!r} is within one process: write tcp:// or ipc://")
    return text


def connecting_endpoint(text: str) -> str:
    """An endpoint to connect to."""
    return listening_endpoint(text, connecting=True)


def place_to_meet(text: str) -> str:
    """The endpoint of a node, or the address of a cluster: one of NATS without a service."""
    if is_nats(text):
        try:
            settings = nats_of(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
        if settings.address.service is None:
            return NatsEndpoint(settings)
    return connecting_endpoint(text)


def is_cluster(endpoint: str) -> bool:
    """Whether an endpoint is a cluster, and not a node or a server."""
    return is_nats(endpoint) and settings_of(endpoint).address.service is None


def cluster_address(text: str) -> str:
    """The address of a cluster."""
    endpoint = place_to_meet(text)
    if not is_cluster(endpoint):
        raise click.BadParameter(
            f"{endpoint} is not a cluster: write nats://host:4222, without a service"
        )
    return endpoint


def socket_address(text: str) -> tuple[str, int]:
    """``host:port``, ``:port`` or a port; the default host is this one."""
    try:
        return host_and_port(text, LOOPBACK)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def exportable_identifier(text: str) -> str:
    """An identifier that may leave the process."""
    try:
        return Identifier(text).require_exportable().id_str()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def queue_name(text: str) -> str:
    """The name of a durable queue."""
    try:
        return checked_name(text, "a durable queue")
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def seconds(text: str) -> float:
    """A number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"{text!r} is not a number of seconds (0 or more)")
    return number


def some_seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        number = seconds(text)
    except click.BadParameter:
        raise click.BadParameter(f"{text!r} is not a number of seconds above 0") from None
    if not number:
        raise click.BadParameter("more than 0 seconds are needed")
    return number


#: Seconds of each unit of a time that has passed.
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGO = re.compile(r"(\d{1,9})([smhd])")
_NUMBER = re.compile(r"\d{1,18}")


def moment(text: str) -> datetime | int:
    """A time in the past, such as ``2026-11-28T10:00`` or ``15m`` ago, or a message's number.

    A time without a time zone is one of this host.
    """
    if _NUMBER.fullmatch(text) and int(text):
        return int(text)
    now = datetime.now().astimezone()
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        time = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time such as 2026-11-28T10:00 or 15m, and no number of a message"
        ) from None
    if time > now:
        raise click.BadParameter(f"{text} is in the future")
    return time


place_argument = click.argument("endpoint", type=place_to_meet)
endpoint_argument = click.argument("endpoint", type=connecting_endpoint)
wait_option = click.option(
    "--wait",
    type=some_seconds,
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    help="Seconds to wait for the peer to appear.",
)


def json_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--json``: the command gets `as_json`. Its errors are JSON too, by `entry`.

    Args:
        help: what is written as JSON, as a sentence.
    """
    return click.option("--json", "as_json", is_flag=True, help=help)


class ArgumentsCommand(click.Command):
    """A command whose arguments may be negative numbers. It has no one-letter options."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {
            name
            for parameter in self.get_params(ctx)
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
        for argument in takewhile(lambda argument: argument != "--", args):
            name = argument.partition("=")[0]
            if name[:1] != "-" or name == "-" or _NEGATIVE_NUMBER.match(name) or name in known:
                continue
            # Not sent as text: it is more likely a misspelt option.
            raise click.UsageError(
                f"No such option: {name}. Put -- before arguments that begin with -.", ctx
            )
        return super().parse_args(ctx, args)


def parse_value(text: str) -> Any:
    """Read a value as JSON; text that is not JSON is the value itself."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text
    except RecursionError:
        raise click.UsageError(f"nested too deeply: {text[:40]}...") from None


def parse_arguments(texts: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional arguments, and those that were written ``name=value``.

    Raises:
        click.UsageError: a name was given twice.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            args.append(parse_value(text))
        elif name in kwargs:
            raise click.UsageError(f"{name}= was given twice")
        else:
            kwargs[name] = parse_value(value)
    return args, kwargs


def _refuse_constant(name: str) -> NoReturn:
    # NaN and Infinity, which Python's reader takes, are not JSON.
    raise ValueError(name)
