"""Messages to a peer that takes them one by one and answers each: berryMQ 0.3 over HTTP."""

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

from ..errors import OverloadedError, ServiceClosedError
from .status import OK

__all__ = ["SerialSender"]

logger = logging.getLogger("berrymq_rpc.exchange")

#: Messages that wait here; the link keeps the rest.
MAX_WAITING = 100

#: Seconds between two attempts to send a message: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class SerialSender:
    """Sends messages in order, each when the one before was answered, and again if need be.

    A message whose answer did not come may have arrived: there it may come twice.

    Args:
        client: calls the peer.
        name: what to call the peer in logs.
        token: what the peer knows the connection by.
    """

    def __init__(self, client: Any, name: str, token: str) -> None:
        self._client = client
        self._name = name
        self._token = token
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._is_closed = False
        #: Set when the peer does not know the token any more.
        self.forgotten = asyncio.Event()
        self._start()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"send to {self._name}")

    def renew(self, token: str) -> None:
        """The peer knows the connection by another token: what waits goes there."""
        self._token = token
        if self.forgotten.is_set() and not self._is_closed:
            self.forgotten.clear()
            self._start()

    def notify(self, method: str, token: str, *arguments: Any) -> None:
        """Take one call, to be made in its turn, with the token that is known then.

        Raises:
            OverloadedError: as many wait as may.
            ServiceClosedError: it is closed, or the peer has forgotten the connection.
        """
        if self._is_closed or self.forgotten.is_set():
            raise ServiceClosedError(f"{self._name} takes no more messages on this connection")
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(f"{MAX_WAITING} messages wait for {self._name}")
        self._waiting.append((method, *arguments))
        self._filled.set()
        self._emptied.clear()

    async def drain(self, timeout: float) -> None:
        """Wait until the peer has taken all, for so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._emptied.wait()

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
                method, *arguments = self._waiting[0]
                status = await self._client.call(method, self._token, *arguments)
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
            if not self._waiting:
                self._emptied.set()
