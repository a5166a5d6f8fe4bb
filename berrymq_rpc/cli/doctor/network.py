"""Names, addresses and ports: the checks that come first at each endpoint of TCP."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple, TypeAlias

from ...runtime.daemon_executor import DaemonExecutor
from .check import Check, failed, milliseconds, ok, warning

__all__ = ["Opened", "Place", "connect", "opened", "reach", "resolve"]

#: What starts a node at a place.
NODE_START = "A node is started there with: berrymq serve --bind tcp://{place}"

#: What is read from and written to.
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

#: Addresses of one name that are tried.
MAX_ADDRESSES = 8

_UNREACHABLE = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL))


class Place(NamedTuple):
    """An address of a host, and its port."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an address of IPv6."""
        return ":" in self.host

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


class Opened(NamedTuple):
    """What came of connecting to the addresses of a name.

    Args:
        checks: those of the address and the port.
        place: the first that accepts connections; ``None`` if none does.
    """

    checks: list[Check]
    place: Place | None


async def resolve(host: str, port: int, timeout: float) -> tuple[Check, list[Place]]:
    """Look the host's name up."""
    with contextlib.suppress(ValueError):
        kind = "IPv6" if ipaddress.ip_address(host).version == 6 else "IPv4"
        return ok("name", f"{host} is an address of {kind}", addresses=[host]), [Place(host, port)]
    loop = asyncio.get_running_loop()
    # A resolver may hang for longer than this command, whose end would wait for its thread.
    executor = DaemonExecutor(1, "berrymq_rpc names")
    try:
        async with asyncio.timeout(timeout):
            found = await loop.run_in_executor(executor, _addresses, host, port)
    except TimeoutError:
        advice = "does this host reach its name server? An address in place of the name needs none"
        return failed("name", f"{host} was not resolved within {timeout:g} s", advice), []
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == socket.EAI_AGAIN:
            advice = "does this host reach its name server, and is the name spelt right?"
            return failed("name", f"no name server says what {host} is", advice), []
        reason = error.strerror if isinstance(error, OSError) else str(error)
        advice = "is it spelt right? If it is a name of your network, does this host know it?"
        return failed("name", f"the host {host} is unknown ({reason})", advice), []
    finally:
        executor.shutdown(wait=False)
    addresses = list(dict.fromkeys(found))[:MAX_ADDRESSES]
    text = f"{host} is {', '.join(addresses)}"
    return ok("name", text, addresses=addresses), [Place(each, port) for each in addresses]


def _addresses(host: str, port: int) -> list[str]:
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def reach(
    host: str, port: int, timeout: float, start: str = NODE_START
) -> AsyncIterator[Check | Place]:
    """Check name, address and port; yield the place last, if there is one that answers.

    Args:
        host: a name or an address.
        port: of it.
        timeout: seconds for each check.
        start: what starts there what is looked for, with ``{place}`` in it.
    """
    check, places = await resolve(host, port, timeout)
    yield check
    if not places:
        return
    found = await connect(places, timeout, start)
    for check in found.checks:
        yield check
    if found.place is not None:
        yield found.place


async def connect(places: list[Place], timeout: float, start: str = NODE_START) -> Opened:
    """Connect to each address, at the same time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    problems = await asyncio.gather(*(_try(place, timeout) for place in places))
    elapsed = loop.time() - began
    good = [place for place, problem in zip(places, problems, strict=True) if problem is None]
    bad = {
        place: problem
        for place, problem in zip(places, problems, strict=True)
        if problem is not None
    }
    if good:
        return Opened(_reached(good, bad, elapsed), good[0])
    refused = [
        place for place, problem in bad.items() if isinstance(problem, ConnectionRefusedError)
    ]
    if refused:
        place = refused[0]
        address = ok("address", f"{place.host} answers", addresses=[each.host for each in refused])
        return Opened([address, _nothing_listens(place, start)], None)
    place, problem = next(iter(bad.items()))
    if isinstance(problem, TimeoutError):
        silent = failed(
            "address",
            f"{place} does not answer within {timeout:g} s",
            "is the host up? A firewall on the way that drops packets looks the same: have it let "
            f"port {place.port} through",
        )
        return Opened([silent], None)
    unreachable = isinstance(problem, OSError) and problem.errno in _UNREACHABLE
    advice = (
        f"this host has no way to an address of {'IPv6' if place.is_ipv6 else 'IPv4'} such as "
        "this: check its network, its route and its VPN. A firewall may say so too"
        if unreachable
        else "is the address right?"
    )
    return Opened([failed("address", f"{place}: {_reason(problem)}", advice)], None)


def _reached(good: list[Place], bad: dict[Place, BaseException], seconds: float) -> list[Check]:
    hosts = [place.host for place in good]
    text = f"{', '.join(hosts)} answers" if len(hosts) == 1 else f"{', '.join(hosts)} answer"
    address = ok("address", text, addresses=hosts)
    if bad:
        others = ", ".join(f"{place.host} ({_reason(problem)})" for place, problem in bad.items())
        kinds = {place.is_ipv6 for place in bad} - {place.is_ipv6 for place in good}
        advice = (
            "programs that try these first connect later, or not at all: have the server listen at "
            "them too, or write the address that answers"
        )
        # A server of this host that listens at 127.0.0.1 alone is the usual one.
        is_usual = kinds == {True} and all(isinstance(each, OSError) for each in bad.values())
        check = ok if is_usual else warning
        more = {} if is_usual else {"advice": advice}
        address = check("address", f"{text}; {others} not", addresses=hosts, **more)
    port = ok(
        "port",
        f"port {good[0].port} is open (connected in {milliseconds(seconds)})",
        seconds=round(seconds, 6),
    )
    return [address, port]


def _nothing_listens(place: Place, start: str) -> Check:
    return failed(
        "port",
        f"no server is listening on port {place.port} of {place.host}",
        f"is it running, and is the port right? {start.format(place=place, port=place.port)}",
    )


def _reason(problem: BaseException) -> str:
    if isinstance(problem, TimeoutError):
        return "no answer"
    number = problem.errno if isinstance(problem, OSError) else None
    return os.strerror(number).lower() if number else str(problem)


async def _try(place: Place, timeout: float) -> BaseException | None:
    try:
        async with asyncio.timeout(timeout), opened(place):
            return None
    except (OSError, TimeoutError) as error:
        return error


@contextlib.asynccontextmanager
async def opened(place: Place | str) -> AsyncIterator[Streams]:
    """A connection to an address, or to the path of a socket, for as long as this is entered."""
    if isinstance(place, str):
        # An abstract socket, of which libzmq writes the first byte as "@".
        path = f"\0{place[1:]}" if place.startswith("@") else place
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection(place.host, place.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
