"""What to check when nobody answers at an endpoint: one look at it, without ZeroMQ."""

import asyncio
import socket

__all__ = ["diagnosis"]

#: Seconds for one look, twice at most: the user has waited for the peer already.
PATIENCE = 1.0

#: With this byte ZeroMQ begins, before it is asked anything.
ZEROMQ_BEGINS = b"\xff"


async def diagnosis(endpoint: str) -> str:
    """Say why nobody answers there, and what to check.

    Args:
        endpoint: ``tcp://host:port`` or ``ipc://path``.
    """
    scheme, _, place = endpoint.partition("://")
    what = f"socket {place}"
    try:
        async with asyncio.timeout(PATIENCE):
            if scheme == "ipc":
                path = f"\0{place[1:]}" if place.startswith("@") else place
                reader, writer = await asyncio.open_unix_connection(path)
            else:
                host, _, port = place.rpartition(":")
                host = host.strip("[]")
                what = f"port {port} of {host}"
                reader, writer = await asyncio.open_connection(host, int(port))
    except TimeoutError:
        return f"no answer at all from {what}: is the host on, and is there a firewall?"
    except socket.gaierror:
        return f"no host of that name is known: is {host!r} right?"
    except FileNotFoundError:
        return f"there is no {what}. Is the node running? Start one there with: {_serve(endpoint)}"
    except ConnectionRefusedError:
        return (
            f"nothing listens at {what}. Is the node running? Start one there with: "
            f"{_serve(endpoint)}"
        )
    except (OSError, ValueError) as error:
        return f"{error}: is the address right?"
    try:
        async with asyncio.timeout(PATIENCE):
            said = await reader.read(1)
    except (TimeoutError, OSError):
        said = b""
    finally:
        writer.transport.abort()
    if said == ZEROMQ_BEGINS:
        return (
            "something that speaks ZeroMQ listens there, but does not answer as berrymq_rpc does: "
            "is it one, and is it of a version that this one understands?"
        )
    if said:
        return "what listens there does not speak ZeroMQ: is the port right?"
    return "what listens there says nothing: is it frozen, or is the port another program's?"


def _serve(endpoint: str) -> str:
    return f"berrymq serve --bind {endpoint}"
