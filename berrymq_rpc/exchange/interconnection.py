"""A node's connections to other nodes in style 01: messages in both directions."""

import uuid
from collections.abc import Callable
from typing import Any

from ..errors import ParametersError
from ..rpc import AttrHandler, Client, Peer, method
from .bundle import read_envelope
from .connection import Connection
from .functions import ExportedFunctions, take_single
from .line import Wire
from .status import INVALID_TOKEN, OK
from .switchboard import Switchboard

__all__ = ["IncomingMessages", "Interconnection"]

#: Seconds that the peer has, at closing, to confirm what was sent before.
FAREWELL = 1.0


class IncomingMessages(AttrHandler):
    """What the peer of an interconnection may call: it sends its messages here."""

    def __init__(self, switchboard: Switchboard, endpoint: str) -> None:
        self._switchboard = switchboard
        self.line = switchboard.line(endpoint)
        #: That of the interconnection, chosen here before the peer is asked for one.
        self.token: str | None = None

    def leaf(self) -> None:
        """The peer is no node that numbers its messages."""
        self._switchboard.leaf(self.line)

    @method
    def send_message(
        self, token: str, identifier: str, args: Any = (), kwargs: Any = None, envelope: Any = None
    ) -> str:
        """Publish a message here; as in ExportedFunctions."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        take_single(self._switchboard, self.line, identifier, args, kwargs, envelope)
        return OK

    @method
    def send_messages(self, token: str, envelope: Any, messages: Any, frames: Any = ()) -> str:
        """Take messages that are to reach all nodes; as in ExportedFunctions."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        self._switchboard.take(self.line, read_envelope(envelope, messages, frames))
        return OK


class Interconnection(Connection):
    """Style 01: both nodes carry all messages to each other, and to all that are behind them.

    While the line is down, messages are kept up to a bound, on both sides; what the peer had not
    confirmed when it broke is sent again, and doubles are dropped.
    """

    style = "01"

    def __init__(
        self,
        incoming: IncomingMessages,
        functions: ExportedFunctions,
        name: str,
        endpoint: str,
        client: Client,
        ttl: float,
        timeout: float,
        closed: Callable[[Connection], object],
        callback: str | None = None,
    ) -> None:
        super().__init__(endpoint, client, ttl, timeout, closed)
        self._incoming = incoming
        self._functions = functions
        self._name = name
        self._line = incoming.line
        self._callback = callback
        #: The connection by which messages go.
        self._channel: Peer | None = None
        #: Whether the peer takes messages that are numbered.
        self._is_node = True

    @property
    def dropped(self) -> int:
        """How many messages were not carried, as too many waited or the peer did not take them."""
        return self._line.dropped

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent, or for the peer to confirm them."""
        return len(self._line)

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until the peer has confirmed all that was sent so far.

        Who sends faster than the peer takes, and awaits this now and then, loses nothing.

        Args:
            timeout: seconds; ``None``: as long as it takes.

        Returns:
            Whether it has; false if the time is over or the connection was closed before.
        """
        return await self._line.drain(timeout)

    async def close(self) -> None:
        if self._line.is_up:
            await self._line.drain(FAREWELL)
        self._line.close()
        self._expect_nothing(self._token)
        await super().close()

    async def _register(self) -> str:
        # Known before the answer: the peer's messages may come with it.
        token = str(uuid.uuid4())
        if self._callback is None:
            self._incoming.token = token
        else:
            self._functions.expect(self._line, token, self._ttl)
        try:
            given = await self._ask_for(token)
        except BaseException:
            self._expect_nothing(token)
            raise
        if given != token:
            # A peer that chooses one of its own.
            self._incoming.token = str(given)
        self._open_line(str(given))
        return str(given)

    async def _ask_for(self, token: str) -> Any:
        arguments = (self._callback, token, self._ttl)
        try:
            return await self._client.rpc.interconnect(*arguments, self._name)
        except ParametersError:
            # One that knows no nodes: messages go there without their numbers.
            self._is_node = False
            self._incoming.leaf()
            return await self._client.rpc.interconnect(*arguments)

    def _expect_nothing(self, token: str | None) -> None:
        """The peer does not send, or call back, with that token any more."""
        if self._callback is not None and token is not None:
            self._functions.close_connection(token)

    def _open_line(self, token: str) -> None:
        peer = self._client.peer
        # Without one, the connection is lost already: it is opened with the next.
        if peer is not None:
            self._channel = peer
            self._line.open(peer, Wire.to_peer(peer, token, self._is_node))

    def _line_up(self) -> None:
        super()._line_up()
        if self._token is not None:
            self._open_line(self._token)

    def _line_down(self, error: Exception) -> None:
        super()._line_down(error)
        self._line.cut(self._channel)

    def _forget_token(self) -> None:
        self._line.cut(self._channel)
        self._expect_nothing(self._token)
        super()._forget_token()
