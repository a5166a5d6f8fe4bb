"""How a command fails: its exit codes, its error messages, and a diagnosis of a silent endpoint."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click

from ..endpoint import Endpoint
from ..errors import (
    AuthenticationError,
    ConnectionLostError,
    Error,
    NotFoundError,
    PermissionDeniedError,
    RPCTimeoutError,
)
from ..rpc.transport import finds_several
from .values import printable

__all__ = [
    "Failed",
    "OutputClosed",
    "Refused",
    "TimedOut",
    "Unreachable",
    "diagnose",
    "error_object",
    "peer_errors",
    "reason_of",
    "refused",
    "unreachable",
]

#: Seconds for each of the two steps of a diagnosis: the user has already waited for the peer.
PATIENCE = 1.0

#: The first byte that a ZeroMQ socket sends, before it is asked anything.
ZEROMQ_GREETING = b"\xff"


class Failed(click.ClickException):
    """The peer refused, or the method that it ran raised an exception: exit code 1.

    Args:
        text: what went wrong; characters that are not printable are escaped.
        fields: what else the error says as JSON.
    """

    exit_code = 1

    def __init__(self, text: str, **fields: Any) -> None:
        super().__init__(printable(text, lines=True))
        self.fields = fields


class Unreachable(Failed):
    """No peer answers at the endpoint, or the connection was lost: exit code 3."""

    exit_code = 3


class TimedOut(Failed):
    """No message, or no answer, came in time: exit code 4."""

    exit_code = 4


class Refused(Failed):
    """The peer refuses this side's key, or does not let its user do this: exit code 5."""

    exit_code = 5

    def __init__(self, text: str, *, reason: str) -> None:
        super().__init__(text, reason=reason)


#: The word that each exit code has in an error as JSON.
WORDS = {1: "failed", 2: "usage", 3: "unreachable", 4: "timeout", 5: "refused"}


def error_object(error: click.ClickException) -> dict[str, Any]:
    """What is written of an error as JSON: a word that stays, the text, the exit code, and more."""
    return {
        "error": WORDS[error.exit_code],
        "message": error.format_message(),
        "exit_code": error.exit_code,
        **getattr(error, "fields", {}),
    }


class OutputClosed(Exception):
    """The reader of standard output has closed it, as ``head`` does when it has seen enough."""


@asynccontextmanager
async def peer_errors(endpoint: str, *, connecting: bool = False) -> AsyncIterator[None]:
    """Turn any exception raised within it into a `Failed` with a text and an exit code.

    Only requests to the peer belong inside: a peer can raise most of Python's exceptions.

    Args:
        endpoint: where the peer is.
        connecting: whether this is the first request to the peer.
    """
    try:
        yield
    except (click.ClickException, OutputClosed):
        raise
    except (AuthenticationError, PermissionDeniedError) as error:
        raise refused(endpoint, error) from error
    except ConnectionLostError as error:
        if connecting:
            raise await unreachable(endpoint, error) from error
        raise Unreachable(_with_endpoint(endpoint, error)) from error
    except RPCTimeoutError as error:
        raise TimedOut(_with_endpoint(endpoint, error)) from error
    except NotFoundError as error:
        raise Failed(f"the server at {endpoint} is not a node: {error}") from error
    except Error as error:
        raise Failed(_with_endpoint(endpoint, error)) from error
    except ModuleNotFoundError as error:
        raise Failed(str(error)) from error
    except Exception as error:
        raise Failed(f"{endpoint}: {type(error).__name__}: {error}") from error


def _with_endpoint(endpoint: str, error: Error) -> str:
    # The text of an error that knows its call begins with the endpoint.
    return f"{endpoint}: {error}" if error.progress is None else str(error)


#: What to do about a refusal, where the library's words are about its arguments.
_ADVICE = {
    "keys wanted": "the server wants keys: give --key and --server-key",
    "no keys": "the server has no key: leave --key and --server-key away, if you trust the network",
    "handshake": "the server closed the handshake: either --server-key is not its key, or it "
    "cannot check keys at the moment (its log says why)",
}


def refused(endpoint: str, error: Error) -> Refused:
    """Describe a refusal, in the words of the command's options."""
    reason = reason_of(error)
    advice = _ADVICE.get(reason)
    text = _with_endpoint(endpoint, error) if advice is None else f"{endpoint}: {advice}"
    return Refused(text, reason=reason)


def reason_of(error: Error) -> str:
    """The reason of a refusal, in one of the words that `errors.AuthenticationError` has."""
    return getattr(error, "reason", None) or "permission"


async def unreachable(endpoint: str, error: Error) -> Unreachable:
    """Describe an endpoint where no peer answers, with a diagnosis.

    Args:
        error: what the call failed with. Where the peer is behind NATS, it knows why.
    """
    if finds_several(endpoint):
        text = _with_endpoint(endpoint, error)
    else:
        text = f"no peer answers at {endpoint}: {await diagnose(endpoint)}"
    return Unreachable(f"{text}\nFind out more with: berrymq doctor {endpoint}")


async def diagnose(endpoint: str) -> str:
    """Connect once, without ZeroMQ, and say why no peer answers there and what to check.

    Args:
        endpoint: ``tcp://host:port`` or ``ipc://path``.
    """
    address = Endpoint.parse(endpoint)
    if address.scheme == "ipc":
        place = f"socket {address.path}"
    else:
        place = f"port {address.port} of {address.host}"
    hint = f"Is the node running? Start one there with: berrymq serve --bind {endpoint}"
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await _open(address)
    except TimeoutError:
        return f"{place} does not respond: is the host up, and does a firewall block the port?"
    except socket.gaierror:
        return f"the host {address.host!r} is unknown: is its name right?"
    except FileNotFoundError:
        return f"{place} does not exist. {hint}"
    except ConnectionRefusedError:
        return f"no server is listening on {place}. {hint}"
    except (OSError, ValueError) as error:
        return f"{error}: is the address right?"
    try:
        async with asyncio.timeout(PATIENCE):
            first_byte = await reader.read(1)
    except (TimeoutError, OSError):
        first_byte = b""
    finally:
        writer.transport.abort()
    if first_byte == ZEROMQ_GREETING:
        return (
            "a ZeroMQ socket is listening there, but it does not answer as berrymq_rpc does: is it "
            "a node or server, and of a compatible version?"
        )
    if first_byte:
        return "the program that listens there does not use ZeroMQ: is the port right?"
    return (
        "the program that listens there sends nothing: is it frozen, or does the port belong to "
        "another program?"
    )


async def _open(address: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.scheme != "ipc":
        return await asyncio.open_connection(address.host, address.port)
    # An abstract socket, of which libzmq writes the first byte as "@".
    path = f"\0{address.path[1:]}" if address.path.startswith("@") else address.path
    return await asyncio.open_unix_connection(path)
