"""A node's connection to a queue at another node: style 03."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from ..bus import Empty, Message
from ..errors import ProtocolError
from ..identifier import Identifier
from ..rpc import Call, Client
from .connection import Connection, Keeper
from .status import INVALID_TOKEN, TIMEOUT
from .validation import keywords_of, positional_of

__all__ = ["PulledMessage", "QueueConnection"]


class PulledMessage(Message):
    """A message from a queue at another node."""

    __slots__ = ("_dropped", "_origin", "_redelivered")

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        origin: str,
        redelivered: bool,
        dropped: int = 0,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self._origin = origin
        self._redelivered = redelivered
        self._dropped = dropped

    @property
    def origin(self) -> str:
        """The endpoint of the node that kept it."""
        return self._origin

    @property
    def redelivered(self) -> bool:
        """Whether the node has sent it before, to a consumer that did not confirm it.

        That consumer may have handled it.
        """
        return self._redelivered

    @property
    def dropped(self) -> int:
        """How many messages the queue has dropped between its previous message and this one.

        It was full, or they could not be sent.
        """
        return self._dropped


class QueueConnection(Connection):
    """Style 03: the peer keeps messages in a queue until this side gets them.

    When the peer has forgotten the connection, what its queue held is gone, unless others share it.
    """

    style = "03"

    def __init__(
        self,
        identifier: Identifier,
        keeper: Keeper,
        endpoint: str,
        client: Client,
        ttl: float,
        timeout: float,
        on_close: Callable[[Connection], object],
        shared: bool = False,
    ) -> None:
        super().__init__(keeper, endpoint, client, ttl, timeout, on_close)
        self._identifier = identifier
        self._shared = shared
        #: Calls of `get` that are waiting, in the order in which they were made.
        self._calls: dict[Call, None] = {}
        #: Messages that came as their `get` was cancelled.
        self._returned: deque[PulledMessage] = deque()

    @property
    def identifier(self) -> Identifier:
        """Which messages the queue keeps."""
        return self._identifier

    @property
    def gets_waiting(self) -> int:
        """How many calls of `get` wait here."""
        return len(self._calls)

    async def get(self, block: bool = True, timeout: float | None = None) -> PulledMessage:
        """Take the oldest message from the queue.

        Args:
            block: whether to wait for one.
            timeout: seconds to wait; ``None`` for as long as it takes.

        Returns:
            The message. No other caller gets it. When this is cancelled, no message is lost; it
            goes back to the queue's head, or, if it had come already, to the next `get` of this
            connection.

        Raises:
            Empty: there is none, or the time to wait is over.
            ValueError: `timeout` is negative.
            RPCTimeoutError: the peer did not answer in time.
            ConnectionLostError: the peer is gone, or did not come in time.
            ServiceClosedError: this connection was closed, or the peer is closing.
        """
        if block and timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds from 0 on, not {timeout}")
        if self._returned and not self.closed:
            return self._returned.popleft()
        if not block:
            return self._message(await self._ask("get_nowait"))
        # The answer has as much time as any other, after the time for which the peer waits.
        limit = None if timeout is None else timeout + self._timeout
        client = self._client.with_timeout(limit)
        return self._message(await self._ask("get", True, timeout, client=client))

    async def get_nowait(self) -> PulledMessage:
        """Take the oldest message, or raise `Empty`; otherwise as `get`."""
        return await self.get(block=False)

    def put_back(self, message: PulledMessage) -> None:
        """Give an unused message of `get` to the next `get` of this connection."""
        for call in self._calls:
            if not call.done():
                # It gets this one; what the peer may be sending goes back to the queue there.
                call.connection.cancel(call.id)
                call.set_result(message)
                return
        self._returned.append(message)

    async def _register(self) -> str:
        # Left out where it says nothing: a peer need not know it.
        shared = (True,) if self._shared else ()
        connect = self._client.rpc.connect_via_queue
        return str(await connect(self._identifier.id_str(), self._ttl, *shared))

    def _times_out(self, name: str, args: tuple[Any, ...]) -> bool:
        # A `get` without limit cannot time out.
        return name == "get_nowait" or (name == "get" and args[1] is not None)

    async def _answer(self, name: str, call: Call) -> Any:
        # Over HTTP it is not a `Call`, and a message that comes as it is cancelled is lost: such a
        # peer sends it once.
        if name not in ("get", "get_nowait") or not isinstance(call, Call):
            return await call
        self._calls[call] = None
        try:
            return await call
        except asyncio.CancelledError:
            if call.done() and not call.cancelled() and call.exception() is None:
                # It has come, and was confirmed to the peer.
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
        if isinstance(answer, list | tuple) and len(answer) == 3:
            # From berryMQ 0.3.
            answer = dict(zip(("id", "args", "kwargs"), answer, strict=True))
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
            raise ProtocolError(f"{self._endpoint} answered with a malformed message") from error
