"""Where a subscription's messages come from: this process's bus, or a queue at a remote node."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...bus import AsyncQueue, Bus, Empty
from ...errors import ProtocolError, ServiceClosedError
from ...identifier import Identifier
from ...rpc import Client

__all__ = ["BusSource", "RemoteSource", "Sent", "Source"]

#: Seconds for which a remote node keeps the queue of a subscription whose bridge is gone.
TTL = 60.0

#: Seconds that a remote node waits for a message before it is asked again.
WAIT = 20.0

#: Seconds after which a remote node that is not there is asked again.
PAUSE = 0.5


class Sent(NamedTuple):
    """One message.

    Args:
        id: what it is about.
        args, kwargs: its arguments.
    """

    id: str
    args: Any
    kwargs: Any


class Source(ABC):
    """Messages of one identifier, in order.

    Attributes:
        dropped: how many were dropped, as they came faster than they were taken.
    """

    dropped: int

    @abstractmethod
    async def next(self) -> Sent | None:
        """The next message, once there is one; ``None`` when there are none any more."""

    @abstractmethod
    def close(self) -> None:
        """Keep no further messages."""


class BusSource(Source):
    """The messages of a bus.

    Args:
        size: how many wait at most.
    """

    def __init__(self, identifier: Identifier, bus: Bus, size: int) -> None:
        self._queue = AsyncQueue(identifier, maxsize=size, bus=bus)

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """How many were dropped."""
        return self._queue.dropped

    async def next(self) -> Sent | None:
        while True:
            try:
                message = await self._queue.get()
            except Empty:
                return None
            # What is local stays here, whatever wildcards the peer has given.
            if not message.name.startswith("_"):
                return Sent(message.id, message.args, message.kwargs)

    def close(self) -> None:
        self._queue.close()


class RemoteSource(Source):
    """The messages of a remote node, by a queue that it keeps. Made by `open`."""

    def __init__(self, identifier: Identifier, client: Client) -> None:
        self.dropped = 0
        self._identifier = identifier
        self._client = client
        self._token: str | None = None
        self._closing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Ask for the queue.

        Raises:
            NotFoundError: who answers is no node.
            Exception: as the node's function does.
        """
        token = await self._client.rpc.connect_via_queue(self._identifier.id_str(), TTL)
        self._token = str(token)

    async def next(self) -> Sent | None:
        waiting = self._client.with_timeout(2 * WAIT)
        while True:
            try:
                if self._token is None:
                    # What was sent meanwhile is gone, and nobody knows how much.
                    await self.open()
                answer = await waiting.rpc.get(self._token, True, WAIT)
            except ServiceClosedError:
                if not self._client.is_serving():
                    return None
                await asyncio.sleep(PAUSE)
                continue
            except (ConnectionError, TimeoutError):
                await asyncio.sleep(PAUSE)
                continue
            if isinstance(answer, Mapping):
                self.dropped += int(answer.get("dropped", 0))
                return Sent(answer["id"], answer["args"], answer["kwargs"])
            if answer == "invalid token":
                self._token = None
            elif answer != "timeout":
                raise ProtocolError("the remote node has answered with no message")

    def close(self) -> None:
        if self._token is not None and self._client.is_serving():
            self._closing = asyncio.create_task(self._close(self._token))

    async def _close(self, token: str) -> None:
        # What the node holds it frees by itself when the time is over.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(WAIT):
                await self._client.rpc.close_connection(token)
