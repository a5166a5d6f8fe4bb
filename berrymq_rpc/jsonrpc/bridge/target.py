"""What stands behind the listeners: a handler's methods in this process, or a remote server's."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...errors import ConnectionLostError, GenericError, OverloadedError, ServiceClosedError
from ...rpc.client import Client
from ...rpc.connection import Connection
from ...rpc.describe import describe
from ...rpc.dispatcher import Dispatcher
from ...rpc.inbound import Inbound
from ...rpc.method_table import HandlerTable
from ...rpc.options import SLOW_HANDLER, ServerOptions
from ...rpc.transport.port import Key, Port
from ...rpc.wire.codec import Codec
from ...rpc.wire.exception_codec import Failure
from ...rpc.wire.exception_codec import describe as describe_failure
from ...rpc.wire.limits import Limits
from ...rpc.wire.record import CALL, NOTIFY, InboundEvent
from ..dialect import JSONRPCSession
from ..error_objects import to_error
from ..items import RPCResponse
from ..message import IncomingRequest

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["ClientTarget", "HandlerTarget", "Link", "Target"]


class Link(ABC):
    """One peer's way to the target."""

    @abstractmethod
    def serve(self, calls: Sequence[IncomingRequest], size: int) -> None:
        """Serve calls that arrived in a text of `size` bytes. Never raises."""

    @abstractmethod
    def take(self, responses: Sequence[RPCResponse]) -> None:
        """Take the peer's answers to calls of this side."""

    @abstractmethod
    def close(self, reason: str) -> None:
        """The peer is gone: stop what runs for it."""

    def stop_waiting(self) -> None:
        """End what waits for something that need not come, as this side closes."""

    @abstractmethod
    def cancel_calls(self) -> None:
        """The peer does not wait any more: stop its calls, and let its notifications go on."""

    @property
    @abstractmethod
    def in_progress(self) -> int:
        """How many of the peer's calls run or wait for their turn."""


class Target(ABC):
    """What the listeners lead to."""

    @abstractmethod
    def link(self, peer: "Peer") -> Link:
        """A way to it for a peer that has come."""

    @abstractmethod
    async def describe(self) -> dict[str, Any]:
        """What it offers, as `Client.describe` answers it.

        Raises:
            Exception: it cannot be asked now.
        """

    def stop(self, reason: str) -> None:
        """Refuse further calls, for `reason`."""

    def close(self) -> None:
        """Free what it holds."""


# -- a handler in this process ---------------------------------------------------------------


class _PeerPort(Port):
    """The listeners' peers as those of one port: each is its own key."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        return ()

    @property
    def notices_loss(self) -> bool:
        return True

    def send(self, key: Key, frames: Sequence[Any]) -> bool:
        peer: Peer = key  # type: ignore[assignment]
        return peer.push(bytes(frames[-1]))

    def queued_bytes(self, key: Key) -> int:
        peer: Peer = key  # type: ignore[assignment]
        return peer.queued_bytes()

    def address(self, key: Key) -> str | None:
        peer: Peer = key  # type: ignore[assignment]
        return peer.address

    def scheme(self, key: Key) -> str:
        peer: Peer = key  # type: ignore[assignment]
        return peer.scheme

    def disconnect(self, key: Key) -> None:
        peer: Peer = key  # type: ignore[assignment]
        peer.lost("this side has ended the connection")

    def close(self) -> None:
        """Nothing is open: the listeners close themselves."""

    async def wait_closed(self) -> None:
        """Return: there is nothing to wait for."""


class _Session(JSONRPCSession):
    """A session whose texts are read by the listener."""

    def _check_open(self) -> None:
        if not self.can_be_pushed:
            raise ServiceClosedError("the peer can be answered, and not called")
        super()._check_open()

    def _first_window(self) -> int:
        # Without one, all that is to be sent is checked.
        return super()._first_window() if self.can_be_pushed else 0

    def take_responses(self, responses: Sequence[RPCResponse], now: float) -> None:
        """Take the peer's answers."""
        for response in responses:
            self._take_response(response, now)
        self._release(now)


class HandlerTarget(Target):
    """A handler's methods.

    Args:
        table: what it exports.
        limits: the bounds of calls in flight.
        log_exceptions: log what handlers raise.
        send_traceback: send the text of tracebacks to callers.
    """

    def __init__(
        self,
        table: HandlerTable,
        limits: Limits,
        *,
        log_exceptions: bool = False,
        send_traceback: bool = False,
        slow_handler: float = SLOW_HANDLER,
        threads: int | None = None,
    ) -> None:
        self.table = table
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._port = _PeerPort()
        self.dispatcher = Dispatcher(
            table,
            ServerOptions(
                limits=limits,
                slow_handler=slow_handler,
                log_exceptions=log_exceptions,
                send_traceback=send_traceback,
                threads=threads,
            ),
            # Says which arguments of an exception can travel; `to_error` does the rest.
            Codec(),
        )

    def link(self, peer: "Peer") -> "HandlerLink":
        session = _Session(self.limits, {})
        session.can_be_pushed = peer.can_be_pushed
        connection = Connection(session, self._port, peer, self._loop)
        session.connected(0.0)
        return HandlerLink(connection, Inbound(connection, self.dispatcher))

    async def describe(self) -> dict[str, Any]:
        return describe(self.table)

    def stop(self, reason: str) -> None:
        self.dispatcher.closing = reason

    def close(self) -> None:
        self.dispatcher.close()


class HandlerLink(Link):
    """One peer's calls of the handler, and calls back to the peer."""

    def __init__(self, connection: Connection, inbound: Inbound) -> None:
        self._connection = connection
        self._inbound = inbound

    def serve(self, calls: Sequence[IncomingRequest], size: int) -> None:
        self._inbound.message_bytes = size
        incoming: list[InboundEvent] = [
            (NOTIFY, None, asked.method, asked.args, asked.kwargs, None)
            if asked.is_notification
            else (CALL, asked, asked.method, asked.args, asked.kwargs, None)
            for asked in calls
        ]
        self._inbound.dispatch(incoming, monotonic())
        self._connection.flush_soon()

    def take(self, responses: Sequence[RPCResponse]) -> None:
        session = self._connection.session
        assert isinstance(session, _Session)
        session.take_responses(responses, monotonic())
        self._connection.schedule_flush()

    def close(self, reason: str) -> None:
        self._connection.lost(ConnectionLostError(reason))

    def stop_waiting(self) -> None:
        self._inbound.stop_waiting()

    def cancel_calls(self) -> None:
        for call in list(self._inbound.running.values()):
            if call.id is not None:
                call.cancel()

    @property
    def in_progress(self) -> int:
        return self._inbound.in_progress


# -- a remote server -------------------------------------------------------------------------


class ClientTarget(Target):
    """The methods of the server that a client is connected to.

    Args:
        client: the client; it stays its owner's.
        limits: the bounds of calls in flight.
    """

    def __init__(self, client: Client, limits: Limits) -> None:
        self.client = client
        self.limits = limits
        self.codec = Codec()
        self.closing: str | None = None

    def link(self, peer: "Peer") -> "ClientLink":
        return ClientLink(self)

    async def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = await self.client.describe()
        return described

    def stop(self, reason: str) -> None:
        self.closing = reason


class ClientLink(Link):
    """One peer's calls of the remote server."""

    def __init__(self, target: ClientTarget) -> None:
        self._target = target
        self._calls: dict[asyncio.Future[Any], IncomingRequest] = {}

    def serve(self, calls: Sequence[IncomingRequest], size: int) -> None:
        for asked in calls:
            try:
                self._serve(asked)
            except Exception as error:
                self._fail(asked, error)

    def _serve(self, asked: IncomingRequest) -> None:
        if self._target.closing is not None:
            raise ServiceClosedError(self._target.closing)
        client = self._target.client
        if asked.is_notification:
            client.pool.notify(asked.method, asked.args, asked.kwargs)
            return
        limit = self._target.limits.max_waiting
        if len(self._calls) >= limit:
            raise OverloadedError(f"max_waiting={limit:,} calls are in flight")
        call = client.call(asked.method, *asked.args, **asked.kwargs)
        self._calls[call] = asked
        call.add_done_callback(self._answered)

    def _answered(self, call: "asyncio.Future[Any]") -> None:
        asked = self._calls.pop(call, None)
        if asked is None:
            if not call.cancelled():
                # Its peer is gone; asyncio is told that somebody has looked.
                call.exception()
            return
        try:
            asked.result(call.result())
        except asyncio.CancelledError:
            self._fail(asked, ConnectionLostError("the call was cancelled"))
        except Exception as error:
            self._fail(asked, error)

    def _fail(self, asked: IncomingRequest, error: Exception) -> None:
        if asked.is_notification:
            return
        if isinstance(error, GenericError):
            # As the server told it.
            failure = Failure(error.exc_type, tuple(error.arguments), error.exc_repr)
        else:
            failure = describe_failure(error, self._target.codec)
        asked.error(to_error(failure))

    def take(self, responses: Sequence[RPCResponse]) -> None:
        """Nothing was asked of the peer."""

    def close(self, reason: str) -> None:
        calls, self._calls = self._calls, {}
        for call in calls:
            call.cancel()

    def cancel_calls(self) -> None:
        self.close("")

    @property
    def in_progress(self) -> int:
        return len(self._calls)
