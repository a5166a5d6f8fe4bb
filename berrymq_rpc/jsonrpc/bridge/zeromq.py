"""The ZeroMQ listener: a ROUTER for DEALER and REQ peers, a JSON text in the last frame.

The frames before it, the empty one of a REQ among them, are sent back before the answer. A text
that the peer has not asked for goes the way of its last one.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from ...rpc.transport import transport_for
from ...rpc.transport.port import Key, Port, PortOptions
from ...rpc.wire.limits import Limits
from .listener import Listener
from .outbox import ROOM
from .peer import CONGESTION_PAUSE, Desk, Peer

__all__ = ["ZeroMQListener"]

logger = logging.getLogger("berrymq_rpc.jsonrpc.bridge")

#: Frames of the way back: proxies add one each; more is an attack.
MAX_ROUTE = 16


class ZeroMQListener(Listener):
    """Serves peers that speak ZeroMQ. Made by `open`."""

    def __init__(self, desk: Desk, limits: Limits) -> None:
        self._desk = desk
        self._limits = limits
        self._port: Port | None = None
        self._peers: dict[Key, Peer] = {}
        #: The way back of each peer's last message.
        self._routes: dict[Key, tuple[bytes, ...]] = {}
        self._is_closing = False

    async def open(self, endpoint: str) -> None:
        """Begin to listen.

        Raises:
            OSError: the endpoint cannot be bound.
        """
        options = PortOptions(heartbeat=self._limits.heartbeat, max_frame=self._desk.max_size)
        self._port = await transport_for(endpoint).listen(endpoint, self, options)
        self.url = self._port.endpoints[0]

    async def close(self, grace: float) -> None:
        self._is_closing = True
        for peer in list(self._peers.values()):
            peer.lost("this side is closing")
        self._peers.clear()
        if self._port is not None:
            self._port.close()
            await self._port.wait_closed()

    # -- what the port tells (`rpc.transport.port.PortHandler`) -------------------------------

    def peer_connected(self, key: Key) -> None:
        """Nothing is said to a peer that has not spoken."""

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        assert self._port is not None
        if self._is_closing:
            return
        route = tuple(frames[:-1])
        if len(route) > MAX_ROUTE or (route and route[-1]):
            self._refuse(key)
            return
        peer = self._peers.get(key)
        if peer is None:
            if self._desk.is_full():
                self._desk.turn_away(frames[-1], partial(self._send, key, route))
                return
            peer = self._peers[key] = self._new_peer(key)
        if self._port.queued_bytes(key) > 2 * self._limits.max_queued_bytes:
            # It asks and asks, and reads no answer.
            self._port.disconnect(key)
            self.peer_lost(key, "the peer does not read its answers")
            return
        self._routes[key] = route
        peer.receive(frames[-1], partial(self._send, key, route))

    def message_refused(self, key: Key, reason: str) -> None:
        self._refuse(key)

    def read_complete(self) -> None:
        """Answers leave as they are made."""

    def peer_lost(self, key: Key, reason: str) -> None:
        peer = self._peers.pop(key, None)
        self._routes.pop(key, None)
        if peer is not None:
            peer.lost(reason)

    # -- peers -----------------------------------------------------------------------------

    def _new_peer(self, key: Key) -> Peer:
        port = self._port
        assert port is not None

        async def room() -> None:
            while port.queued_bytes(key) > ROOM:
                await asyncio.sleep(CONGESTION_PAUSE)

        return Peer(
            self._desk,
            address=port.address(key),
            send=partial(self._push, key),
            queued=partial(port.queued_bytes, key),
            room=room,
        )

    def _send(self, key: Key, route: tuple[bytes, ...], text: bytes) -> bool:
        assert self._port is not None
        return self._port.send(key, (*route, text))

    def _push(self, key: Key, text: bytes) -> bool:
        return self._send(key, self._routes.get(key, ()), text)

    def _refuse(self, key: Key) -> None:
        if self._desk.malformed.add():
            logger.warning("a ZeroMQ peer has sent what is no JSON-RPC message: %.40r", key)
