"""What the durable queues of a cluster keep, read without taking anything from them."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from ...bus import Message
from ...errors import NotFoundError, ProtocolError
from ...identifier import Identifier
from ...runtime.log import Log
from ..batch import Batch

if TYPE_CHECKING:
    # It needs the extra nats, and users name these classes without it.
    from ...nats.jetstream import JetStream

__all__ = ["DurableHistory", "KeptMessage"]

logger = Log("berrymq_rpc.exchange")

#: Records that are asked for at a time. Each has up to 1 MiB unless NATS is set otherwise.
AHEAD = 16

#: All subjects of a stream.
ALL = ">"


class KeptMessage(Message):
    """A message that JetStream keeps for durable queues.

    Attributes:
        sequence: its number in the cluster's stream. Those that were published together have one.
        time: when it was stored, by the server's clock.
    """

    __slots__ = ("_origin", "sequence", "time")

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        origin: str,
        sequence: int,
        time: datetime,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self._origin = origin
        self.sequence = sequence
        self.time = time

    @property
    def origin(self) -> str:
        """The name of the node that has sent it."""
        return self._origin


class HistoryHost(Protocol):
    """What a history needs of the durable queues of its cluster."""

    js: "JetStream"

    def unpack(self, payload: bytes) -> tuple[Batch, list[tuple[Any, ...]]]:
        """Read a payload."""

    async def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop of the connection."""


class DurableHistory:
    """Messages that are kept, oldest first: ``async for message in node.durable_history(since)``.

    A loop ends at the last that was kept when it began; a further one goes on from there. Each
    record is a request of its own, of which some are under way together.

    Args:
        host: the durable queues.
        stream: that of the cluster.
        place: the cluster, for errors.
        since: the time, or the number of the first message.

    Attributes:
        position: the number of the next message; ``None`` before the first loop.
        missing: how many older messages than the first that is kept were meant, where `since` is a
            number. For a time, 1 if there were older ones, which may have been meant.
    """

    def __init__(self, host: HistoryHost, stream: str, place: str, since: datetime | int) -> None:
        self._host = host
        self._stream = stream
        self._place = place
        self._since = since
        self.position: int | None = None
        self.missing = 0

    def __aiter__(self) -> AsyncIterator[KeptMessage]:
        return self._read()

    async def _read(self) -> AsyncIterator[KeptMessage]:
        first, last = await self._bounds()
        if self.position is None:
            self.position = await self._start(first, last)
        while self.position <= last:
            numbers = range(self.position, min(self.position + AHEAD, last + 1))
            for found in await asyncio.gather(*map(self._record, numbers)):
                if found is None or int(found["seq"]) > last:
                    # What was there is gone.
                    self.position = last + 1
                    return
                # Where numbers are missing, several requests have the same answer.
                if int(found["seq"]) >= self.position:
                    self.position = int(found["seq"]) + 1
                    for message in self._messages(found):
                        yield message

    async def _bounds(self) -> tuple[int, int]:
        info = await self._host.call(self._host.js.stream(self._stream))
        if info is None:
            raise NotFoundError(
                f"no durable queue of {self._place} keeps messages: open one first, such as "
                'Queue("job:*", durable="workers")'
            )
        state = info["state"]
        return int(state.get("first_seq", 0)), int(state.get("last_seq", 0))

    async def _start(self, first: int, last: int) -> int:
        since = self._since
        if not isinstance(since, datetime):
            self.missing = max(0, min(first, last + 1) - since)
            return max(first, since)
        low, high = first, last + 1
        # The times of a stream never go back.
        while low < high:
            middle = (low + high) // 2
            found = await self._record(middle)
            if found is None or _time_of(found) >= since:
                high = middle
            else:
                low = int(found["seq"]) + 1
        if low == first and first > 1:
            self.missing = 1
        return low

    async def _record(self, sequence: int) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._host.call(
            self._host.js.message(self._stream, sequence, ALL)
        )
        return found

    def _messages(self, found: dict[str, Any]) -> list[KeptMessage]:
        try:
            batch, messages = self._host.unpack(b64decode(found.get("data", "")))
            time, sequence = _time_of(found), int(found["seq"])
            return [
                KeptMessage(
                    Identifier(identifier).require_exportable(),
                    tuple(args),
                    dict(rest[0]) if rest else {},
                    origin=batch.source[0],
                    sequence=sequence,
                    time=time,
                )
                for identifier, args, *rest in messages
            ]
        except (ProtocolError, ValueError, TypeError) as error:
            logger.warning("a message of %s is malformed: %.200s", self._stream, error)
            return []


def _time_of(found: dict[str, Any]) -> datetime:
    """When a record was stored.

    Raises:
        ValueError: it does not say so.
    """
    time = datetime.fromisoformat(str(found.get("time")))
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
