"""Messages to a peer that takes them one by one and answers each: berryMQ 0.3 over HTTP."""

import asyncio
import logging
from collections import deque
from typing import Any

from ..errors import OverloadedError, ServiceClosedError
from .status import OK

__all__ = ["Sender"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Messages that wait here; the line keeps the rest.
MAXIMUM_WAITING = 100

#: Seconds between two attempts to send a message: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Sender:
    """Sends messages in order, each when the one before was answered, and again if need be.

    A message whose answer did not come may have arrived: there it may come twice.

    Args:
        client: calls the peer.
        name: what to call the peer in logs.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._filled = asyncio.Event()
        self._is_closed = False
        #: Set when the peer does not know the token any more.
        self.forgotten = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"send to {name}")

    def notify(self, method: str, *arguments: Any) -> None:
        """Take one call, to be made in its turn.

        Raises:
            OverloadedError: as many wait as may.
            ServiceClosedError: it is closed, or the peer has forgotten the connection.
        """
        if self._is_closed or self.forgotten.is_set():
            raise ServiceClosedError(f"{self._name} takes no more messages on this connection")
        if len(self._waiting) >= MAXIMUM_WAITING:
            raise OverloadedError(f"{MAXIMUM_WAITING} messages wait for {self._name}")
        self._waiting.append((method, *arguments))
        self._filled.set()

    def close(self) -> None:
        """Send nothing more."""
        self._is_closed = True
        self._task.cancel()
        if self._waiting:
            logger.warning("%s: %d messages were not sent", self._name, len(self._waiting))

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            try:
                status = await self._client.call(*self._waiting[0])
            except (ConnectionError, TimeoutError, OverloadedError) as error:
                logger.debug("%s: %r; trying again", self._name, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            except Exception as error:
                # A receiver there has raised it, or it would be refused the next time as well.
                logger.warning("%s did not take a message: %.200s", self._name, error)
                status = OK
                if isinstance(error, ServiceClosedError):
                    self.forgotten.set()
                    return
            pause = FIRST_PAUSE
            if status != OK:
                self.forgotten.set()
                return
            self._waiting.popleft()
