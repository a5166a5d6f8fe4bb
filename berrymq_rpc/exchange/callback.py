"""Calling back: the line to a peer that says where it listens, and not over its own connection."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Collection
from typing import Any, TypeAlias

from ..endpoint import endpoint_of
from ..jsonrpc.http import HTTPClient, is_url, open_http_client
from ..rpc import Client, open_client
from .line import Line, Wire
from .sender import Sender
from .status import OK

__all__ = ["Allowed", "Callback", "allowed_endpoint"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Where nodes may be called back: nowhere but at the caller's, anywhere, or at these hosts too.
Allowed: TypeAlias = bool | Collection[str]

SCHEMES = ("tcp", "ipc", "mem", "http", "https")

#: Those of a host and a port.
_OF_HOSTS = ("tcp", "http", "https")

#: Seconds between two attempts: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Callback:
    """The way to a peer that listens at an address of its own: made again when it was lost.

    Args:
        endpoint: where the peer listens.
        token: what the peer knows the connection by.
        line: what goes there.
        takes_bundles: whether the peer is a node that numbers messages.
    """

    def __init__(self, endpoint: str, token: str, line: Line, takes_bundles: bool) -> None:
        self._endpoint = endpoint
        self._token = token
        self._line = line
        self._takes_bundles = takes_bundles
        self._task = asyncio.create_task(self._keep(), name=f"call back {endpoint}")

    def close(self) -> None:
        """Call no more."""
        self._task.cancel()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if is_url(self._endpoint):
                    async with await open_http_client(self._endpoint, version="1.0") as elder:
                        await self._use_elder(elder)
                else:
                    async with await open_client(connect=self._endpoint) as client:
                        await self._use(client)
            except Exception as error:
                logger.debug("calling back %s: %r", self._endpoint, error)
            finally:
                self._line.cut(self)
            if loop.time() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _use(self, client: Client) -> None:
        """Let the line's messages go there until the peer does not want them any more."""
        down = asyncio.Event()
        self._line.on_down = down.set
        if not self._takes_bundles:
            # It knows nothing that would tell whether it is there.
            self._line.open(self, Wire.to_server(client, self._token))
            await down.wait()
            return
        stream = client.with_timeout(None).rpc.keep_alive((self._token,))
        async for statuses in stream:
            peer = client.peer
            if statuses.get(self._token) != OK or peer is None:
                return
            self._line.open(self, Wire.to_peer(peer, self._token, True))

    async def _use_elder(self, client: HTTPClient) -> None:
        sender = Sender(client, self._endpoint, self._token)
        try:
            # Its `call` is for bundles, of which such a peer gets none.
            wire = Wire(self._token, client.call, sender.notify, False)  # type: ignore[arg-type]
            self._line.open(self, wire)
            await sender.forgotten.wait()
        finally:
            sender.close()


async def allowed_endpoint(
    addr: Any, caller: str | None, allowed: Allowed, scheme: str = "tcp"
) -> str:
    """Where to call back.

    Args:
        addr: what the caller has given: an endpoint or (host, port).
        caller: the caller's own address, an empty text for one of this host, or ``None`` if it is
            not known.
        allowed: what else is allowed.
        scheme: of the endpoint that (host, port) stands for.

    Returns:
        The endpoint. The host is the very address that was looked at, not a name that may stand
        for another one a moment later.

    Raises:
        TypeError, ValueError: it is no address, or not allowed.
    """
    endpoint = endpoint_of(tuple(addr) if isinstance(addr, list) else addr)
    if not isinstance(addr, str):
        endpoint = scheme + endpoint.removeprefix("tcp")
    scheme, _, rest = endpoint.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"{endpoint!r} is not an endpoint that can be called back: {SCHEMES}")
    if allowed is True:
        return endpoint
    if scheme not in _OF_HOSTS:
        if caller == "" or _is_loopback(caller):
            return endpoint
        raise ValueError(f"{endpoint} is not the caller's own host: see callback_allowed")
    rest, slash, path = rest.partition("/")
    host, _, port = rest.rpartition(":")
    port += slash + path
    host = host.strip("[]")
    if not isinstance(allowed, bool) and host in allowed:
        return endpoint
    for address in await _addresses_of(host):
        if caller is not None and (
            _same(address, caller) or (caller == "" and _is_loopback(address))
        ):
            return (
                f"{scheme}://[{address}]:{port}"
                if ":" in address
                else f"{scheme}://{address}:{port}"
            )
    raise ValueError(
        f"{endpoint} is not the caller's own address, so it is not called back there: see "
        "callback_allowed"
    )


async def _addresses_of(host: str) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{host!r} is no host: {error}") from None
    return [str(address[0]) for *_, address in found]


def _same(one: str, other: str) -> bool:
    try:
        return _plain(one) == _plain(other)
    except ValueError:
        return False


def _is_loopback(address: str | None) -> bool:
    try:
        return address is not None and _plain(address).is_loopback
    except ValueError:
        return False


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address, without what IPv6 puts around one of IPv4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed if mapped is None else mapped
