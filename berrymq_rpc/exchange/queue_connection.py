"""A node's connection to a queue at another node: style 03."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from ..bus import Empty
from ..errors import ProtocolError
from ..identifier import Identifier
from ..rpc import Call, Client
from .connection import Connection
from .delivery import keywords_of, positional_of
from .pulled_message import PulledMessage
from .status import INVALID_TOKEN, TIMEOUT

__all__ = ["QueueConnection"]


class QueueConnection(Connection):
    """Style 03: the peer keeps messages in a queue until this side gets them.

    When the peer has forgotten the connection, what its queue held is gone, unless others share it.
    """

    style = "03"

    def __init__(
        self,
        identifier: Identifier,
        endpoint: str,
        client: Client,
        ttl: float,
        timeout: float,
        closed: Callable[[Connection], object],
        shared: bool = False,
    ) -> None:
        super().__init__(endpoint, client, ttl, timeout, closed)
        self._identifier = identifier
        self._shared = shared
        #: Calls of `get` that wait here, in the order in which they were made.
        self._calls: dict[Call, None] = {}
        #: Messages whose `get` was cancelled as they came.
        self._returned: deque[PulledMessage] = deque()

    @property
    def identifier(self) -> Identifier:
        """Which messages the queue keeps."""
        return self._identifier

    async def get(self, block: bool = True, timeout: float | None = None) -> PulledMessage:
        """Take the oldest message from the queue.

        Args:
            block: whether to wait for one.
            timeout: seconds to wait; ``None`` for as long as it takes.

        Returns:
            The message. It is for this caller alone. When this is cancelled, no message is lost.
            It goes back to the queue's head, or, if it had come already, to the next `get` of this
            connection.

        Raises:
            Empty: there is none and it does not wait, or its time is over.
            ValueError: `timeout` is negative.
            RPCTimeoutError: the peer did not answer in time.
            ConnectionLostError: the peer is gone, or did not come in time.
            ServiceClosedError: this connection was closed, or the peer is closing.
        """
        if block and timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is a number of seconds, not {timeout}")
        if self._returned and not self.closed:
            return self._returned.popleft()
        if not block:
            return self._message(await self._ask("get_nowait"))
        # The peer's answer has as long as any other's, after the time for which it waits.
        limit = None if timeout is None else timeout + self._timeout
        client = self._client.with_timeout(limit)
        return self._message(await self._ask("get", True, timeout, client=client))

    async def get_nowait(self) -> PulledMessage:
        """Take the oldest message, or raise `Empty`; otherwise as `get`."""
        return await self.get(block=False)

    def put_back(self, message: PulledMessage) -> None:
        """Return a message that `get` gave, and that was not looked at, to the next `get` here."""
        for call in self._calls:
            if not call.done():
                # It gets this one; what the peer may be sending it goes back to the queue there.
                call.connection.cancel(call.id)
                call.set_result(message)
                return
        self._returned.append(message)

    async def _register(self) -> str:
        # Not said to a peer that need not know of it.
        shared = (True,) if self._shared else ()
        connect = self._client.rpc.connect_via_queue
        return str(await connect(self._identifier.id_str(), self._ttl, *shared))

    def _times_out(self, name: str, args: tuple[Any, ...]) -> bool:
        # A `get` without limit has no time that could be over.
        return name == "get_nowait" or (name == "get" and args[1] is not None)

    async def _answer(self, name: str, call: Call) -> Any:
        if name not in ("get", "get_nowait"):
            return await call
        self._calls[call] = None
        try:
            return await call
        except asyncio.CancelledError:
            if call.done() and not call.cancelled() and call.exception() is None:
                # It has come, and the peer was told so.
                with contextlib.suppress(Empty, ProtocolError):
                    self.put_back(self._message(call.result()))
            raise
        finally:
            self._calls.pop(call, None)

    def _message(self, answer: Any) -> PulledMessage:
        if isinstance(answer, PulledMessage):
            return answer
        if answer in (TIMEOUT, INVALID_TOKEN):
            raise Empty
        try:
            return PulledMessage(
                Identifier(answer["id"]),
                positional_of(answer["args"]),
                keywords_of(answer["kwargs"]),
                origin=self._endpoint,
                redelivered=bool(answer.get("redelivered", False)),
                dropped=int(answer.get("dropped", 0)),
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ProtocolError(f"{self._endpoint} has answered with no message") from error
