"""Send messages one by one, each when the one before was answered: to berryMQ 0.3 over HTTP."""

import asyncio
import contextlib
from typing import Any

from ..common.backoff import Backoff
from ..common.bounded import Bounded, Overflow
from ..errors import OverloadedError, ServiceClosedError
from ..runtime.log import Log
from .status import OK

__all__ = ["SerialSender"]

logger = Log("berrymq_rpc.exchange")

#: Messages that wait here; the link keeps the rest.
MAX_WAITING = 100

#: Seconds between two attempts to send a message: the first pause, and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class SerialSender:
    """Sends messages in order, each when the one before was answered, and again if need be.

    A message whose answer did not come may have arrived: the peer may get it twice.

    Args:
        client: calls the peer.
        name: what to call the peer in logs.
        token: what the peer knows the connection by.
    """

    def __init__(self, client: Any, name: str, token: str) -> None:
        self._client = client
        self._name = name
        self._token = token
        self._waiting: Bounded[tuple[Any, ...]] = Bounded(MAX_WAITING, overflow=Overflow.REFUSE)
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._is_closed = False
        #: Set when the peer does not know the token any more.
        self.forgotten = asyncio.Event()
        self._start()

    def _start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"send to {self._name}")

    def forget(self) -> None:
        """Stop sending: the peer does not know the token any more."""
        self._task.cancel()
        self.forgotten.set()

    def renew(self, token: str) -> None:
        """Send what waits with another token, by which the peer knows the connection now."""
        self._token = token
        if self.forgotten.is_set() and not self._is_closed:
            self.forgotten.clear()
            self._start()

    def notify(self, method: str, token: str, *arguments: Any) -> None:
        """Queue one call, to be made in its turn with the token that is valid then.

        Raises:
            OverloadedError: too many messages wait.
            ServiceClosedError: it is closed, or the peer has forgotten the connection.
        """
        if self._is_closed or self.forgotten.is_set():
            raise ServiceClosedError(f"{self._name} accepts no more messages on this connection")
        if not self._waiting.put((method, *arguments)):
            raise OverloadedError(f"{MAX_WAITING} messages wait for {self._name}")
        self._filled.set()
        self._emptied.clear()

    async def drain(self, timeout: float) -> None:
        """Wait until the peer has taken all messages, for `timeout` seconds at most."""
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
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            try:
                method, *arguments = self._waiting.peek()
                status = await self._client.call(method, self._token, *arguments)
            except (ConnectionError, TimeoutError, OverloadedError) as error:
                logger.debug("%s: %r; trying again", self._name, error)
                await asyncio.sleep(backoff.next())
                continue
            except Exception as error:
                # A receiver there has raised it, or it would be refused the next time as well.
                logger.warning("%s rejected a message: %.200s", self._name, error)
                status = OK
                if isinstance(error, ServiceClosedError):
                    self.forgotten.set()
                    return
            backoff.reset()
            if status != OK:
                self.forgotten.set()
                return
            self._waiting.get()
            if not self._waiting:
                self._emptied.set()
