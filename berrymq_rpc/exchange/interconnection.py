"""A node's connections to other nodes in style 01: messages in both directions."""

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from ..bus import Bus
from ..rpc import AttrHandler, Client, method
from .connection import Connection
from .delivery import deliver
from .forwarding import Forwarding
from .status import INVALID_TOKEN, OK

__all__ = ["IncomingMessages", "Interconnection"]


class IncomingMessages(AttrHandler):
    """What the peer of an interconnection may call: it sends its messages here."""

    def __init__(self, bus: Bus, endpoint: str) -> None:
        self._bus = bus
        self._endpoint = endpoint
        #: That of the interconnection, chosen here before the peer is asked for one.
        self.token: str | None = None

    @method
    def send_message(self, token: str, identifier: str, args: Any = (), kwargs: Any = None) -> str:
        """Publish a message here."""
        if self.token is None or token != self.token:
            return INVALID_TOKEN
        deliver(self._bus, identifier, args, kwargs, self._endpoint)
        return OK


class Interconnection(Connection):
    """Style 01: both sides carry all messages of their own to each other.

    Each carries what was sent in its process, or by a caller that is no node; not what came over
    another interconnection. While the line is down, messages are kept up to a bound, on both
    sides; what was under way when it broke is lost.
    """

    def __init__(
        self,
        bus: Bus,
        incoming: IncomingMessages,
        endpoint: str,
        client: Client,
        ttl: float,
        timeout: float,
        closed: Callable[[Connection], object],
    ) -> None:
        super().__init__(endpoint, client, ttl, timeout, closed)
        self._incoming = incoming
        self._forwarding = Forwarding(bus, endpoint)

    @property
    def dropped(self) -> int:
        """How many messages were not carried, as too many waited or they could not travel."""
        return self._forwarding.dropped + self._forwarding.refused

    async def close(self) -> None:
        self._forwarding.close()
        await super().close()

    async def _register(self) -> str:
        # Known before the answer: the peer's messages may come with it.
        self._incoming.token = str(uuid.uuid4())
        token = str(await self._client.rpc.interconnect(None, self._incoming.token, self._ttl))
        self._open_line(token)
        return token

    def _open_line(self, token: str) -> None:
        self._forwarding.open(token, partial(self._client.notify.send_message, token))

    def _line_up(self) -> None:
        super()._line_up()
        if self._token is not None:
            self._open_line(self._token)

    def _line_down(self, error: Exception) -> None:
        super()._line_down(error)
        self._forwarding.cut(self._token)

    def _forget_token(self) -> None:
        self._forwarding.cut(self._token)
        super()._forget_token()
