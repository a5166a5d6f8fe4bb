"""Where a subscription's messages come from: for a bridge before a node, a queue at that node."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...errors import ProtocolError, ServiceClosedError
from ...identifier import Identifier
from ...rpc import Client

__all__ = ["MessageSource", "RemoteSource", "Sent"]

#: Seconds for which a remote node keeps the queue of a subscription whose bridge is gone.
TTL = 60.0

#: Seconds that each request to a remote node waits for a message.
WAIT = 20.0

#: Seconds between two requests to a remote node that does not answer.
PAUSE = 0.5


class Sent(NamedTuple):
    """One message.

    Args:
        id: what it is about.
        args, kwargs: its arguments.
        retained: whether it was sent before the subscription began.
    """

    id: str
    args: Any
    kwargs: Any
    retained: bool = False


class MessageSource(ABC):
    """Messages of one identifier, in order.

    Attributes:
        dropped: how many were dropped because they came faster than they were taken.
    """

    dropped: int

    @abstractmethod
    async def next(self) -> Sent | None:
        """Wait for the next message; ``None`` when no more will come."""

    @abstractmethod
    def close(self) -> None:
        """Stop collecting messages."""


class RemoteSource(MessageSource):
    """The messages of a remote node, by a queue that it keeps. Made by `open`."""

    def __init__(self, identifier: Identifier, client: Client) -> None:
        self.dropped = 0
        self._identifier = identifier
        self._client = client
        self._token: str | None = None
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Ask for the queue. If this is cancelled, the queue is closed when the node has opened it.

        Raises:
            NotFoundError: the server is not a node.
            ServiceClosedError: this source was closed meanwhile.
            Exception: as the node's function does.
        """
        opening = asyncio.ensure_future(
            self._client.rpc.connect_via_queue(self._identifier.id_str(), TTL)
        )
        try:
            token = str(await asyncio.shield(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(self._opened_in_vain)
            raise
        if self._is_closed:
            self._close_soon(token)
            raise ServiceClosedError("the subscription was closed")
        self._token = token

    def _opened_in_vain(self, opening: "asyncio.Future[Any]") -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._close_soon(str(opening.result()))

    async def next(self) -> Sent | None:
        waiting = self._client.with_timeout(2 * WAIT)
        while True:
            try:
                if self._token is None:
                    # The messages sent meanwhile are lost, and cannot be counted.
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
                retained = bool(answer.get("retained", False))
                return Sent(answer["id"], answer["args"], answer["kwargs"], retained)
            if answer == "invalid token":
                self._token = None
            elif answer != "timeout":
                raise ProtocolError("the remote node did not answer get() with a message")

    def close(self) -> None:
        self._is_closed = True
        token, self._token = self._token, None
        if token is not None:
            self._close_soon(token)

    def _close_soon(self, token: str) -> None:
        if self._client.is_serving():
            task = asyncio.get_running_loop().create_task(self._close(token))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _close(self, token: str) -> None:
        # Without it the node frees the queue when its TTL is over.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(WAIT):
                await self._client.rpc.close_connection(token)
