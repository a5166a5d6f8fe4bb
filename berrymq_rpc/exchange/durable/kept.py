"""Which subjects durable queues keep, as far as this process knows."""

import asyncio
from typing import Any

from ...errors import ConnectionLostError, NotFoundError
from ...nats.connection import Connection
from ...nats.jetstream import JetStream, covers
from ...nats.stored_publisher import TIMEOUT
from .streams import filters_of

__all__ = ["KeptSubjects"]

#: Seconds for which JetStream may be absent: a server that was just started reads its streams.
ABSENCE = 5.0

#: Seconds for which a queue that keeps a subject is believed to be there.
KNOWN_FOR = 10.0

#: Subjects that are remembered.
MAX_KNOWN = 10_000

#: Seconds between attempts to ask JetStream, while there is none.
PAUSE = 0.1


class KeptSubjects:
    """Asks JetStream which subjects queues keep, and remembers the answer for some seconds.

    Args:
        connection: to NATS.
        js: JetStream.
        stream: of the queues.

    Attributes:
        known: subjects and patterns that queues keep, each believed until a time.
    """

    def __init__(self, connection: Connection, js: JetStream, stream: str) -> None:
        self._connection = connection
        self._js = js
        self._stream = stream
        self.known: dict[str, float] = {}
        #: What is being asked just now, for all who want to know it.
        self._asking: dict[str, asyncio.Task[bool]] = {}
        self._is_closed = False

    async def has(self, subject: str) -> bool:
        """Whether a durable queue keeps a subject; waits while there is no server.

        Raises:
            ConnectionLostError: there was none for a minute.
            NotFoundError: its JetStream does not come.
        """
        if self._believes(subject):
            return True
        asking = self._asking.get(subject)
        if asking is None:
            asking = asyncio.create_task(self._ask(subject), name=f"who keeps {subject}")
            self._asking[subject] = asking
            asking.add_done_callback(lambda task: self._answered(subject, task))
        return await asyncio.shield(asking)

    def note(self, patterns: list[str]) -> None:
        """Note what a queue that was declared just now keeps."""
        until = self._connection.loop.time() + KNOWN_FOR
        self.known.update(dict.fromkeys(patterns, until))

    def forget(self) -> None:
        """Ask anew: a queue was deleted."""
        self.known.clear()

    def close(self) -> None:
        """Wait for no server any more."""
        self._is_closed = True

    async def wait_closed(self) -> None:
        """Wait until nothing is asked any more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _believes(self, subject: str) -> bool:
        now = self._connection.loop.time()
        if self.known.get(subject, 0.0) > now:
            return True
        for known, until in self.known.items():
            if until > now and covers(known, subject):
                if len(self.known) < MAX_KNOWN:
                    self.known[subject] = until
                return True
        return False

    def _answered(self, subject: str, task: asyncio.Task[bool]) -> None:
        if self._asking.get(subject) is task:
            del self._asking[subject]
        if not task.cancelled():
            # Those who asked may all be gone.
            task.exception()

    async def _ask(self, subject: str) -> bool:
        consumers = await self._consumers_of(subject)
        until = self._connection.loop.time() + KNOWN_FOR
        self.known = {
            pattern: until for each in consumers for pattern in filters_of(each.get("config"))
        }
        return any(covers(known, subject) for known in self.known)

    async def _consumers_of(self, subject: str) -> list[dict[str, Any]]:
        """The queues, if the stream has a subject."""
        loop = self._connection.loop
        began = loop.time()
        while True:
            waited = loop.time() - began
            try:
                if await self._js.keeps(self._stream, subject):
                    return await self._js.consumers(self._stream)
                return []
            except ConnectionLostError:
                if waited > TIMEOUT or self._is_closed:
                    raise
            except NotFoundError:
                if not self._connection.server_info.get("jetstream"):
                    return []
                # A server that was just started reads its streams.
                if waited > ABSENCE:
                    raise
            await asyncio.sleep(PAUSE)
