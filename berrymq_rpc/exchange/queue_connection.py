"""A node's connection to a queue at another node: style 03."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Self

from ..bus import Empty, Message
from ..common.coroutine_wrapper import CoroutineWrapper
from ..errors import Error, ProtocolError, ServiceClosedError
from ..identifier import Identifier
from ..rpc import Call, Client
from ..runtime.log import Log
from .connection import Connection, Keeper
from .status import INVALID_TOKEN, OK, TIMEOUT
from .validation import keywords_of, positional_of

__all__ = ["Getting", "PulledMessage", "QueueConnection", "QueuedMessage"]

logger = Log("berrymq_rpc.exchange")


class QueuedMessage(Message):
    """What messages from a queue at another node have in common."""

    __slots__ = ("_dropped", "_origin", "_redelivered", "_retained")

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        origin: str,
        redelivered: bool,
        dropped: int = 0,
        retained: bool = False,
    ) -> None:
        super().__init__(identifier, args, kwargs)
        self._origin = origin
        self._redelivered = redelivered
        self._dropped = dropped
        self._retained = retained

    @property
    def retained(self) -> bool:
        """Whether it was sent before the queue was opened, and the node's bus has kept it."""
        return self._retained

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


class PulledMessage(QueuedMessage):
    """A message from a queue at another node.

    If the queue has an ``ack_wait``, it goes back there unless it is acknowledged::

        async with await queue.get() as message:
            await work(message)

    acknowledges it at a good end and refuses it at an exception.
    """

    __slots__ = ("_connection", "_is_settled", "_number", "_token")

    def __init__(
        self,
        identifier: Identifier,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        origin: str,
        redelivered: bool,
        dropped: int = 0,
        retained: bool = False,
        connection: "QueueConnection | None" = None,
        token: str | None = None,
        number: int | None = None,
    ) -> None:
        super().__init__(
            identifier,
            args,
            kwargs,
            origin=origin,
            redelivered=redelivered,
            dropped=dropped,
            retained=retained,
        )
        self._connection = connection
        self._token = token
        self._number = number
        self._is_settled = False

    async def ack(self) -> bool:
        """Acknowledge it: the work is done, and the node forgets it.

        Returns:
            Whether it was still this consumer's. If not, it has gone back, as ``ack_wait`` has
            passed or the connection was lost meanwhile: another consumer gets it or has got it. A
            warning is logged.

        Raises:
            ValueError: the queue has no ``ack_wait``: the message was acknowledged on receipt.
            RPCTimeoutError: the node did not answer in time; it may have forgotten the message.
            ConnectionLostError: the node is gone, and the message has gone back if it lives.
            ServiceClosedError: the connection was closed, and the message has gone back.
        """
        return await self._settle("acknowledge")

    async def nak(self, delay: float = 0.0) -> bool:
        """Refuse it: it goes back to the queue, for any consumer.

        Args:
            delay: seconds after which it is there again.

        Returns, Raises:
            As `ack`.
        """
        return await self._settle("refuse", delay)

    async def in_progress(self) -> bool:
        """Begin its ``ack_wait`` again, as the work takes longer. Returns and raises as `ack`."""
        if self._connection is None or self._number is None:
            raise _not_acknowledged()
        return await self._connection.settle("in_progress", self)

    async def _settle(self, name: str, *args: Any) -> bool:
        if self._connection is None or self._number is None:
            raise _not_acknowledged()
        settled = await self._connection.settle(name, self, *args)
        self._is_settled = True
        return settled

    async def __aenter__(self) -> Self:
        if self._connection is not None and self._number is None:
            # Not lost: the next `get` has it.
            self._connection.put_back(self)
            raise _not_acknowledged()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self._is_settled:
            return
        if kind is None:
            await self.ack()
            return
        try:
            await self.nak()
        except (OSError, Error) as error:
            # The exception of the work is the one to raise, and it goes back by itself.
            logger.warning("%s: could not be refused: %r", self.id, error)


def _not_acknowledged() -> ValueError:
    return ValueError(
        "the queue acknowledges messages on receipt: give connect_via_queue an ack_wait"
    )


class Getting(CoroutineWrapper[PulledMessage]):
    """What `QueueConnection.get` returns: to be awaited, or for ``async with``."""

    __slots__ = ("_is_acknowledged", "_message")

    def __init__(
        self, coroutine: Coroutine[Any, Any, PulledMessage], is_acknowledged: bool
    ) -> None:
        super().__init__(coroutine)
        self._is_acknowledged = is_acknowledged
        self._message: PulledMessage | None = None

    async def __aenter__(self) -> PulledMessage:
        if not self._is_acknowledged:
            self._coroutine.close()
            raise _not_acknowledged()
        message = await self._coroutine
        self._message = await message.__aenter__()
        return self._message

    async def __aexit__(self, *exc: Any) -> None:
        message, self._message = self._message, None
        if message is not None:
            await message.__aexit__(*exc)


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
        ack_wait: float | None = None,
        tries: int | None = None,
    ) -> None:
        super().__init__(keeper, endpoint, client, ttl, timeout, on_close)
        self._identifier = identifier
        self._shared = shared
        self._ack_wait = ack_wait
        self._tries = tries
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

    def get(self, block: bool = True, timeout: float | None = None) -> Getting:
        """Take the oldest message from the queue: ``await queue.get()``.

        With an ``ack_wait``, ``async with queue.get() as message:`` acknowledges it at a good end
        and refuses it at an exception; it is a `ValueError` without one.

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
            ConnectionLostError: the peer is gone, or did not appear in time.
            ServiceClosedError: this connection was closed, or the peer is closing.
        """
        return Getting(self._get(block, timeout), self._ack_wait is not None)

    async def _get(self, block: bool, timeout: float | None) -> PulledMessage:
        if block and timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds from 0 on, not {timeout}")
        while self._returned and not self.closed:
            message = self._returned.popleft()
            if message._number is None or await self._is_ours(message):
                return message
        if not block:
            return self._message(await self._ask("get_nowait"))
        # The answer has as much time as any other, after the time for which the peer waits.
        limit = None if timeout is None else timeout + self._timeout
        client = self._client.with_timeout(limit)
        return self._message(await self._ask("get", True, timeout, client=client))

    async def _is_ours(self, message: PulledMessage) -> bool:
        """Whether a message that waited here has not gone back meanwhile."""
        try:
            return await message.in_progress()
        except BaseException:
            self._returned.appendleft(message)
            raise

    def get_nowait(self) -> Getting:
        """Take the oldest message, or raise `Empty`; otherwise as `get`."""
        return self.get(block=False)

    async def settle(self, name: str, message: PulledMessage, *args: Any) -> bool:
        """Tell the node what became of a message. For `PulledMessage`, whose `ack` says more."""
        if self._is_closed:
            raise ServiceClosedError(
                f"the connection to {self._endpoint} is closed: open a new one"
            )
        # Not by the next token: another queue does not know the message.
        answer = await self._client.call(name, message._token, message._number, *args)
        if answer == OK:
            return True
        logger.warning(
            "%s from %s: %s arrived too late: the queue has taken the message back (%s)",
            message.id,
            self._endpoint,
            name,
            answer,
        )
        return False

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
        # Left out where they say nothing: a peer need not know them.
        further: tuple[Any, ...] = ()
        if self._ack_wait is not None or self._tries is not None:
            further = (self._shared, self._ack_wait, self._tries)
        elif self._shared:
            further = (True,)
        connect = self._client.rpc.connect_via_queue
        return str(await connect(self._identifier.id_str(), self._ttl, *further))

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
                retained=bool(answer.get("retained", False)),
                connection=self,
                token=self._token,
                number=None if self._ack_wait is None else answer["number"],
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ProtocolError(f"{self._endpoint} answered with a malformed message") from error
