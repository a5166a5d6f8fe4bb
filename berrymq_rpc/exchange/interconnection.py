"""A node's connections to other nodes in style 01: messages in both directions."""

import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from ..errors import ParametersError
from ..rpc import AttrHandler, Client, Peer, method
from .batch import parse_batch
from .carrier import Carrier
from .connection import Connection, Keeper, StreamKeeper
from .functions import ExportedFunctions
from .link import Link
from .mesh import Mesh
from .status import INVALID_TOKEN, OK
from .validation import keywords_of, positional_of

__all__ = ["IncomingMessages", "Interconnection", "LinkKeeper", "StreamLinkKeeper"]

#: Seconds that the peer has, at closing, to acknowledge what was sent before.
FAREWELL = 1.0


class IncomingMessages(AttrHandler):
    """What the peer of an interconnection may call: it sends its messages here."""

    def __init__(self, mesh: Mesh, endpoint: str, user: str | None = None) -> None:
        self._mesh = mesh
        self._user = user
        self.link = mesh.add_link(endpoint, user=user)
        self.link.on_change = self._link_changed
        self.link.ask_retained()
        #: The interconnection's token, chosen here before the peer is asked for one.
        self.token: str | None = None

    def set_leaf(self) -> None:
        """Note that the peer is not a node that numbers its messages."""
        self._mesh.set_leaf(self.link)

    async def introduce(
        self, call: Callable[..., Any], token: str, *, in_text: bool = False
    ) -> None:
        """Tell the peer about this node, and hold the peer's will; as `Wills.introduce`."""
        await self._mesh.wills.introduce(call, token, self.link, self._user, in_text=in_text)

    def _link_changed(self, is_up: bool) -> None:
        wills = self._mesh.wills
        if is_up:
            wills.reached(self.link)
        else:
            wills.lost(self.link)

    @method
    def send_message(
        self, token: str, identifier: str, args: Any = (), kwargs: Any = None, envelope: Any = None
    ) -> str:
        """Publish a message here; as in ExportedFunctions."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        self._mesh.receive_single(
            self.link, identifier, positional_of(args), keywords_of(kwargs), envelope
        )
        return OK

    @method
    def send_messages(self, token: str, envelope: Any, messages: Any, frames: Any = ()) -> str:
        """Take messages that are to reach all nodes; as in ExportedFunctions."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        self._mesh.receive(self.link, parse_batch(envelope, messages, frames))
        return OK

    @method
    def ask_retained(self, token: str) -> str:
        """Send what this node retains to the caller; as in ExportedFunctions."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        self._mesh.retained.answer(self.link)
        return OK

    @method
    def send_retained(self, token: str, envelope: Any, messages: Any, frames: Any = ()) -> str:
        """Take what another node retains; as in ExportedFunctions."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        self._mesh.receive_retained(self.link, envelope, messages, frames)
        return OK


class LinkKeeper(Keeper, Protocol):
    """Keeps an interconnection known to its peer, and gives its link a carrier."""

    async def register(self) -> str:
        """Ask the peer for a connection, and open the link; return the token."""

    async def finish(self, timeout: float) -> None:
        """Send what is left, for `timeout` seconds at most, and nothing after it."""


class StreamLinkKeeper:
    """A `LinkKeeper` of a peer that is called over one connection and has streams.

    Args:
        client: calls the peer.
        ttl: seconds for which each side keeps the connection when the other is gone.
        incoming: takes the peer's messages, and has the link.
        functions: take them instead, with a `callback`.
        name: this node's name.
        callback: the endpoint at which the peer is to call back, if it is to.
        key: the peer's public key, with which it has to call back.
    """

    def __init__(
        self,
        client: Client,
        ttl: float,
        incoming: IncomingMessages,
        functions: ExportedFunctions,
        name: str,
        callback: str | None,
        key: str | None = None,
    ) -> None:
        self._key = key
        self._client = client
        self._ttl = ttl
        self._incoming = incoming
        self._functions = functions
        self._name = name
        self._callback = callback
        self._stream = StreamKeeper(client)
        #: The peer by the connection that carries the messages.
        self._channel: Peer | None = None
        #: Whether the peer takes messages that are numbered.
        self._is_node = True

    async def register(self) -> str:
        # Known before the answer: the peer's messages may come with it.
        token = str(uuid.uuid4())
        if self._callback is None:
            self._incoming.token = token
        else:
            self._functions.expect(self._incoming.link, token, self._ttl, self._key)
        try:
            given = await self._ask_for(token)
            if self._is_node:
                await self._incoming.introduce(self._client.call, str(given))
        except BaseException:
            self._expect_nothing(token)
            raise
        if given != token:
            # The peer has chosen a token of its own.
            self._incoming.token = str(given)
        self._attach(str(given))
        return str(given)

    async def _ask_for(self, token: str) -> Any:
        arguments = (self._callback, token, self._ttl)
        if self._is_node:
            try:
                return await self._client.rpc.interconnect(*arguments, self._name)
            except ParametersError:
                # Its function takes no name, so it is not a node: messages go there without
                # numbers.
                self._is_node = False
                self._incoming.set_leaf()
        return await self._client.rpc.interconnect(*arguments)

    async def keep(self, token: str) -> AsyncGenerator[None, None]:
        try:
            async with aclosing(self._stream.keep(token)) as confirmations:
                async for confirmation in confirmations:
                    yield confirmation
                    self._attach(token)
        finally:
            self._incoming.link.cut(self._channel)

    def forget(self, token: str) -> None:
        self._incoming.link.cut(self._channel)
        self._expect_nothing(token)

    async def finish(self, timeout: float) -> None:
        """Do nothing: what the link has sent is acknowledged."""

    def _expect_nothing(self, token: str) -> None:
        """The peer does not call back with that token any more."""
        if self._callback is not None:
            self._functions.close_connection(token)

    def _attach(self, token: str) -> None:
        peer = self._client.peer
        # Without one, the connection is lost already: the link is opened with the next.
        if peer is not None:
            self._channel = peer
            self._incoming.link.open(peer, Carrier.to_peer(peer, token, self._is_node))


class Interconnection(Connection):
    """Style 01: both nodes carry all messages to each other, and to all nodes behind them.

    While the link is down, both sides keep messages up to a bound. What the peer had not
    acknowledged is sent again, and duplicates are dropped.
    """

    style = "01"

    def __init__(
        self,
        link: Link,
        keeper: LinkKeeper,
        endpoint: str,
        client: Client,
        ttl: float,
        timeout: float,
        on_close: Callable[[Connection], object],
    ) -> None:
        super().__init__(keeper, endpoint, client, ttl, timeout, on_close)
        self._link = link
        self._link_keeper = keeper

    @property
    def dropped(self) -> int:
        """How many messages were not carried, as too many waited or the peer refused them."""
        return self._link.dropped

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent, or for the peer's acknowledgement."""
        return len(self._link)

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until the peer has acknowledged everything that was sent so far.

        A sender that is faster than the peer loses nothing if it awaits this now and then.

        Args:
            timeout: seconds; ``None`` for no limit.

        Returns:
            Whether it has; false if the time is over or the connection was closed before.
        """
        return await self._link.drain(timeout)

    async def close(self) -> None:
        if not self.closed:
            self._is_closing = True
            if self._link.is_up:
                await self._link.drain(FAREWELL)
            await self._link_keeper.finish(FAREWELL)
            self._link.close()
            if self._token is not None:
                self._link_keeper.forget(self._token)
        await super().close()

    async def _register(self) -> str:
        return await self._link_keeper.register()
