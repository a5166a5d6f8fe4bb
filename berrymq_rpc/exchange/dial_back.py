"""Dial back: carry a link's messages to a peer that has given its address."""

import asyncio
import contextlib
import ipaddress
import socket
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from ..common.backoff import Backoff
from ..endpoint import Endpoint, endpoint_of, without_password
from ..errors import AuthenticationError, ConnectionLostError, ServiceClosedError
from ..jsonrpc.http import HTTPClient, is_url
from ..nats.address import NATS_SCHEMES
from ..rpc import Client
from ..rpc.options import ClientOptions
from ..rpc.transport import TRANSPORTS
from ..runtime.log import Log
from .carrier import Carrier
from .link import Link
from .peer_client import open_peer_client
from .serial_sender import SerialSender
from .status import OK

__all__ = ["Allowed", "DialBack", "Target", "addresses_of", "allowed_target"]

logger = Log("berrymq_rpc.exchange")

#: Where nodes may be called back: only at the caller's address, anywhere, or at these hosts too.
Allowed: TypeAlias = bool | Collection[str]

#: The schemes that can be called back.
SCHEMES = (*(scheme for scheme in TRANSPORTS if scheme not in NATS_SCHEMES), "http", "https")

#: Seconds between two attempts: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: The longest pause where the peer refuses this side: each attempt is a line in its log.
LONGEST_REFUSED = 5.0

#: Seconds that a peer has to show that it still knows its token.
CHECK_PATIENCE = 1.0


class Target(NamedTuple):
    """Where a peer is called back.

    Args:
        endpoint: the endpoint.
        address: the IP address that its host stands for, if it has a name and that was checked. A
            name may stand for another address a moment later.
    """

    endpoint: str
    address: str | None = None

    @property
    def places(self) -> frozenset[tuple[str, int]]:
        """The address and port that are dialled, if it has them."""
        endpoint = Endpoint.parse(self.endpoint)
        return frozenset(((self.address or endpoint.host, endpoint.port),) if endpoint.port else ())


class DialBack:
    """The way to a peer that listens at an address of its own; restored when it is lost.

    Args:
        target: where the peer listens.
        token: identifies the connection to the peer.
        link: the link to the peer.
        takes_batches: whether the peer is a node that numbers messages.
        options: of the clients that it opens, but for the endpoint.
        own_tokens: tokens that the node's own `close_connection` sets to true.
        on_own: called if the node itself is at the other end; it ends the connection.
        key: the public key that the peer has come with, and has to have where it listens.
    """

    def __init__(
        self,
        target: Target,
        token: str,
        link: Link,
        takes_batches: bool,
        options: ClientOptions,
        own_tokens: dict[str, bool],
        on_own: Callable[[], object],
        key: str | None = None,
    ) -> None:
        self._endpoint = target.endpoint
        self._address = target.address
        self._token = token
        self._link = link
        self._takes_batches = takes_batches
        self._options = options
        self._own_tokens = own_tokens
        self._on_own = on_own
        #: Over HTTP: set to have the peer asked now whether it knows the token.
        self._look = asyncio.Event()
        #: Those who wait for the answer.
        self._looking: list[asyncio.Future[None]] = []
        self._key = key
        self._task = asyncio.create_task(self._keep(), name=f"call back {target.endpoint}")

    def close(self) -> None:
        """Stop calling back. See `wait_closed`."""
        self._task.cancel()

    @property
    def is_closed(self) -> bool:
        """Whether `close` is over."""
        return self._task.done()

    async def wait_closed(self) -> None:
        """Wait until `close` is over."""
        await asyncio.wait((self._task,))

    async def check(self) -> None:
        """Have the link cut if the peer is gone, where only a call shows that: over HTTP.

        It takes `CHECK_PATIENCE` seconds at most.
        """
        if not self._link.is_up or not is_url(self._endpoint) or self._task.done():
            return
        looked = asyncio.get_running_loop().create_future()
        self._looking.append(looked)
        self._look.set()
        await asyncio.wait((looked,), timeout=CHECK_PATIENCE)

    async def _keep(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        refused = Backoff(LONGEST_PAUSE, LONGEST_REFUSED)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            least = 0.0
            try:
                async with await open_peer_client(
                    self._endpoint, self._options, address=self._address, server=self._key
                ) as client:
                    if await self._is_own(client):
                        logger.warning(
                            "%s is this node itself, so it is not called back", self._endpoint
                        )
                        self._on_own()
                        return
                    if not isinstance(client, HTTPClient):
                        await self._use(client)
                    elif self._takes_batches:
                        await self._use_url(client)
                    else:
                        await self._use_http(client)
            except AuthenticationError as error:
                logger.warning("calling back %s: %s", self._endpoint, error)
                least = refused.next(loop.time() - began)
            except Exception as error:
                logger.debug("calling back %s: %r", self._endpoint, error)
            finally:
                self._link.cut(self)
                self._looked()
            await asyncio.sleep(max(least, backoff.next(loop.time() - began)))

    async def _is_own(self, client: Any) -> bool:
        """Whether this node itself is at the other end.

        Another peer does not know the token that it is asked to forget.
        """
        token = str(uuid.uuid4())
        self._own_tokens[token] = False
        try:
            await client.call("close_connection", token)
        except (ConnectionLostError, ServiceClosedError):
            raise
        except Exception as error:
            # It may have no such function.
            logger.debug("calling back %s: %r", self._endpoint, error)
        finally:
            is_own = self._own_tokens.pop(token)
        return is_own

    async def _use(self, client: Client) -> None:
        """Carry the link's messages until the peer has forgotten the token."""
        down = asyncio.Event()
        self._link.on_down = down.set
        if not self._takes_batches:
            # It has no function that would show whether it is there.
            self._link.open(self, Carrier.to_server(client, self._token))
            await down.wait()
            return
        stream = client.with_timeout(None).rpc.keep_alive((self._token,))
        async for statuses in stream:
            peer = client.peer
            if statuses.get(self._token) != OK or peer is None:
                return
            self._link.open(self, Carrier.to_peer(peer, self._token, True))

    async def _use_url(self, client: HTTPClient) -> None:
        """Carry the link's messages to a node until an answer shows that it is gone."""
        look = self._look
        self._link.on_down = look.set
        while await client.call("send_messages", self._token, None, "") == OK:
            self._looked()
            self._link.open(self, Carrier.to_url(client, self._token))
            look.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.limits.heartbeat):
                    await look.wait()

    async def _use_http(self, client: HTTPClient) -> None:
        """Carry the link's messages until the peer has forgotten the token."""
        sender = SerialSender(client, self._endpoint, self._token)
        try:
            self._link.open(self, Carrier.to_http(client, self._token, sender.notify))
            await sender.forgotten.wait()
        finally:
            sender.close()

    def _looked(self) -> None:
        looking, self._looking = self._looking, []
        for looked in looking:
            if not looked.done():
                looked.set_result(None)


async def allowed_target(
    addr: Any, caller: str | None, allowed: Allowed, scheme: str = "tcp"
) -> Target:
    """Check where to call back.

    Args:
        addr: what the caller has given: an endpoint or (host, port).
        caller: the caller's own address, an empty text for one of this host, or ``None`` if it is
            not known.
        allowed: which other addresses are allowed.
        scheme: of the endpoint that (host, port) stands for.

    Raises:
        TypeError, ValueError: it is not an address, or not allowed.
    """
    text = endpoint_of(tuple(addr) if isinstance(addr, list) else addr)
    if not isinstance(addr, str):
        text = scheme + text.removeprefix("tcp")
    if text.partition("://")[0] not in SCHEMES:
        shown = without_password(text)
        raise ValueError(
            f"{shown!r} is not an endpoint to call back: its scheme must be one of {SCHEMES}"
        )
    endpoint = Endpoint.parse(text)
    # What was checked is what is dialled, as it was understood here.
    text = str(endpoint)
    if not endpoint.host:
        # What is within a process is reached by a peer of that process, which has no address.
        is_own = caller == "" or (endpoint.scheme == "ipc" and _is_loopback(caller))
        if allowed is True or is_own:
            return Target(text)
        raise ValueError(f"{text} is not the caller's own host: see callback_allowed")
    if not endpoint.port or (endpoint.scheme == "tcp" and endpoint.path):
        raise ValueError(
            f"{text!r} is not an endpoint to call back: it needs a port, and tcp:// has no path"
        )
    if allowed is True or (not isinstance(allowed, bool) and endpoint.host in allowed):
        return Target(text)
    for address in await addresses_of(endpoint.host):
        if caller is not None and (
            _same(address, caller) or (caller == "" and _is_loopback(address))
        ):
            if endpoint.scheme == "tcp":
                return Target(str(replace(endpoint, host=address)))
            # An HTTP server and its certificate are known by the name.
            return Target(text, address)
    raise ValueError(
        f"{text} is not the caller's own address, so it is not called back there: see "
        "callback_allowed"
    )


async def addresses_of(host: str) -> list[str]:
    """The IP addresses of a host, which may be one itself.

    Raises:
        ValueError: it has none.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [host]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{host!r} is not a host: {error}") from None
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
    """Parse an address; unpack an IPv4 address that is mapped to IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed if mapped is None else mapped
