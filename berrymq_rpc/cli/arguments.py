"""What the command line gives, read and checked before anybody is asked."""

import json
import math
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NoReturn

import click

from ..identifier import Identifier
from ..rpc.transport import endpoints_of, is_memory

__all__ = [
    "ArgumentsCommand",
    "arguments_of",
    "connecting_endpoint",
    "endpoint_argument",
    "exportable_identifier",
    "listening_endpoint",
    "seconds",
    "value_of",
    "wait_option",
]

_NEGATIVE_NUMBER = re.compile(r"-[0-9.]")


def listening_endpoint(text: str) -> str:
    """An endpoint to listen at."""
    try:
        endpoints_of(text, "endpoint")
    except ValueError as error:
        if "://" not in text and ":" in text:
            raise click.BadParameter(f"{text!r} is not an endpoint: write tcp://{text}") from None
        raise click.BadParameter(str(error).removeprefix("endpoint: ")) from None
    if is_memory(text):
        raise click.BadParameter(f"{text!r} is within one process: write tcp:// or ipc://")
    return text


def connecting_endpoint(text: str) -> str:
    """An endpoint to connect to."""
    if listening_endpoint(text).startswith("tcp://") and text.endswith((":*", ":0")):
        raise click.BadParameter(f"{text!r} has no port to connect to")
    return text


def exportable_identifier(text: str) -> str:
    """An identifier that may leave its process."""
    try:
        return Identifier(text).require_exportable().id_str()
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def seconds(text: str) -> float:
    """A number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"{text!r} is no number of seconds from 0 on")
    return number


endpoint_argument = click.argument("endpoint", type=connecting_endpoint)
wait_option = click.option(
    "--wait",
    type=seconds,
    metavar="SECONDS",
    default=5.0,
    show_default=True,
    help="Seconds for the peer to appear.",
)


class ArgumentsCommand(click.Command):
    """A command whose arguments may be negative numbers. It has no one-letter options."""

    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        for argument in takewhile(lambda argument: argument != "--", args):
            name = argument.partition("=")[0]
            if name[:1] != "-" or name == "-" or _NEGATIVE_NUMBER.match(name) or name in known:
                continue
            # Not sent as text: it is more likely to be an option that was misspelt.
            raise click.UsageError(
                f"No such option: {name}. Put -- before arguments that begin with -.", ctx
            )
        return super().parse_args(ctx, args)


def value_of(text: str) -> Any:
    """The value that a text stands for: read as JSON, or else the text itself."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text
    except RecursionError:
        raise click.UsageError(f"nested too deeply: {text[:40]}...") from None


def arguments_of(texts: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """The positional arguments, and those that were written ``name=value``.

    Raises:
        click.UsageError: a name was given twice.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            args.append(value_of(text))
        elif name in kwargs:
            raise click.UsageError(f"{name}= was given twice")
        else:
            kwargs[name] = value_of(value)
    return args, kwargs


def _no_constant(name: str) -> NoReturn:
    # Python takes NaN and Infinity for JSON; JSON does not.
    raise ValueError(name)
