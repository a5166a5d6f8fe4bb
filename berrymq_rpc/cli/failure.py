"""How the command fails: its exit codes, and what becomes of each error."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

from ..errors import (
    ConnectionLostError,
    Error,
    NotFoundError,
    OverloadedError,
    RPCTimeoutError,
    ServiceClosedError,
)
from .diagnosis import diagnosis
from .values import printable

__all__ = ["Absent", "Failed", "Late", "OutputClosed", "nobody", "talking_to"]


class Failed(click.ClickException):
    """The peer refused, or the method that it ran raised: exit code 1.

    Args:
        text: what went wrong; escapes are put for what is not printable.
    """

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(printable(text, lines=True))


class Absent(Failed):
    """Nobody answers at the endpoint, or who did is gone: exit code 3."""

    exit_code = 3


class Late(Failed):
    """The time is over, and no message came, or no answer: exit code 4."""

    exit_code = 4


class OutputClosed(Exception):
    """Nobody reads standard output any more, as ``head`` when it has seen enough."""


async def nobody(endpoint: str) -> Absent:
    """What to say when nobody answers at an endpoint."""
    return Absent(f"nobody answers at {endpoint}: {await diagnosis(endpoint)}")


@asynccontextmanager
async def talking_to(endpoint: str, *, connecting: bool = False) -> AsyncIterator[None]:
    """Whatever a peer answers within it, or fails to, ends the command with a text and a code.

    Only what is asked of the peer belongs inside: a peer can raise most of Python's exceptions.

    Args:
        endpoint: where the peer is.
        connecting: whether it is the first that is asked of the peer.
    """
    try:
        yield
    except (click.ClickException, OutputClosed):
        raise
    except ConnectionLostError as error:
        if connecting:
            raise await nobody(endpoint) from error
        raise Absent(f"{endpoint} is gone: {error}") from error
    except RPCTimeoutError as error:
        raise Late(f"{endpoint} does not answer: {error}") from error
    except NotFoundError as error:
        raise Failed(f"who answers at {endpoint} is no node: {error}") from error
    except (OverloadedError, ServiceClosedError) as error:
        raise Failed(f"{endpoint} refuses: {error}") from error
    except Error as error:
        raise Failed(f"{endpoint}: {error}") from error
    except Exception as error:
        raise Failed(f"{endpoint}: {type(error).__name__}: {error}") from error
