"""One subscription of a peer: it sends the messages of a source as notifications."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from ...errors import ServiceClosedError
from ...rpc.connection import Connection
from ...runtime.log import Log
from .message_source import MessageSource
from .write_queue import ROOM

__all__ = ["Subscription"]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Seconds between two checks whether a peer has read what is queued for it.
CONGESTION_PAUSE = 0.01


class Subscription:
    """One subscription. It ends when it is closed, or its peer is gone.

    Args:
        source: where its messages come from.
        connection: that of the peer.
        host: what counts as the host of the peer; see `places.host_key`.

    Attributes:
        id: names it to the peer.
    """

    def __init__(self, source: MessageSource, connection: Connection, host: str) -> None:
        self.id = uuid.uuid4().hex
        self.connection = connection
        self.host = host
        self._source = source
        self._unwritable = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """How many messages were dropped because too many waited, or could not be written."""
        return self._source.dropped + self._unwritable

    def start(self, on_ended: Callable[["Subscription"], object]) -> None:
        """Send the messages as they come.

        Args:
            on_ended: called when no more will be sent, unless it was closed.
        """
        self._task = asyncio.create_task(self._run(on_ended), name=f"subscription {self.id}")

    def close(self) -> None:
        """Stop sending."""
        self._source.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self, on_ended: Callable[["Subscription"], object]) -> None:
        try:
            await self._send()
        except Exception:
            logger.exception("a subscription failed")
        on_ended(self)

    async def _send(self) -> None:
        connection = self.connection
        reported = 0
        while (sent := await self._source.next()) is not None:
            await _room(connection)
            params: dict[str, Any] = {
                "subscription": self.id,
                "id": sent.id,
                "args": sent.args,
                "kwargs": sent.kwargs,
            }
            if sent.retained:
                params["retained"] = True
            dropped = self.dropped
            if dropped > reported:
                params["dropped"] = dropped - reported
            try:
                connection.notify("message", (), params)
            except ServiceClosedError:
                return
            except Exception as error:
                self._count_unwritable(sent.id, error)
                continue
            reported = dropped
            connection.flush()

    def _count_unwritable(self, identifier: str, error: Exception) -> None:
        self._unwritable += 1
        logger.warning(
            "message %s cannot be encoded for a subscriber (%d so far): %s",
            identifier,
            self._unwritable,
            error,
        )


async def _room(connection: Connection) -> None:
    """Wait until the peer has read most of what was sent to it."""
    port = connection.port
    assert port is not None
    while port.queued_bytes(connection.key) > ROOM:
        await asyncio.sleep(CONGESTION_PAUSE)
