"""What a handler may know of the call that it serves: `berrymq_rpc.rpc.context`."""

from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ..errors import Error
from .proxy import Namespace

if TYPE_CHECKING:
    from .call import Call
    from .connection import Connection
    from .dispatcher import _SyncCalls
    from .inbound_call import InboundCall

__all__ = ["Context", "Peer", "context", "current"]

#: The call that is being served in this task, thread or callback.
current: ContextVar["InboundCall | _SyncCalls | None"] = ContextVar(
    "berrymq_rpc call", default=None
)


class Peer:
    """The other side of a connection, which may be called as a client calls a server.

    It belongs to the event loop: a ``thread=True`` method that uses it gets a `RuntimeError`.

    Attributes:
        identity: text that names this connection, for logs; a peer that connects again gets
            another.
        rpc: ``await peer.rpc.namespace.method(...)``.
        notify: ``peer.notify.method(...)``, one way.
    """

    __slots__ = ("_connection", "identity", "notify", "rpc")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.identity = connection.identity
        self.rpc: Namespace[Call] = Namespace(self._call)
        self.notify: Namespace[None] = Namespace(self._notify)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        return self._checked().call(method, args, kwargs, None)

    def _notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._checked().notify(method, args, kwargs)

    def _checked(self) -> "Connection":
        connection = self._connection
        if get_ident() != connection.thread:
            raise RuntimeError(
                "the peer may be called in the thread of its event loop alone: make the method "
                "async, or use loop.call_soon_threadsafe"
            )
        return connection

    @property
    def address(self) -> str | None:
        """The IP address of the host that it is at.

        An empty text for a peer that can only be of this host (``ipc://``, ``mem://``); ``None``
        where it is not known.
        """
        port = self._connection.port
        return None if port is None else port.address(self._connection.key)

    @property
    def scheme(self) -> str:
        """How it may be called back where it gives a host and a port.

        It is ``"tcp"``, or ``"http"`` where it has come through the HTTP door of a bridge.
        """
        port = self._connection.port
        return "tcp" if port is None else port.scheme(self._connection.key)

    @property
    def can_be_called(self) -> bool:
        """Whether it can be sent more than answers; one that posts to an HTTP door cannot."""
        return self._connection.session.can_be_pushed

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> "Call":
        """Call a method by a name that need not be an identifier."""
        return self._call(method, args, kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash(id(self._connection))

    def __repr__(self) -> str:
        return f"<Peer {self.identity}>"


class Context:
    """One call that is being served.

    Attributes:
        peer: who calls.
        method: the full name of the method.
    """

    __slots__ = ("_running", "method", "peer")

    def __init__(self, running: "InboundCall") -> None:
        self._running = running
        self.method = running.method.name
        self.peer = running.connection.peer

    @property
    def deadline(self) -> float | None:
        """Seconds left until the caller gives up; ``None`` when it waits for ever."""
        return self._running.time_left()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more.

        A coroutine is cancelled then; a method that runs on a thread has to look.
        """
        return self._running.cancelled

    def on_delivery(self, callback: Callable[[bool], object]) -> None:
        """Ask to be told whether the result reached the caller.

        Args:
            callback: called once on the event loop, with ``True`` when the caller has
                acknowledged the result, or ``False`` when it went away or gave up before, when
                the method failed, and when nobody waits for a result (a notification).

        Peers that speak another dialect than the native one acknowledge nothing: for them it is
        called with ``True`` when the result has been sent.

        Raises:
            Error: the method is a stream, which has no result.
        """
        if self._running.is_stream:
            raise Error("on_delivery is for methods with a result, and this one is a stream")
        self._running.on_delivery = callback


def context() -> Context:
    """The call that is being served.

    Raises:
        Error: not called by a handler, or by a task or callback that a plain (not ``async``)
            handler left behind, as its call is over then.
    """
    running = current.get()
    if running is None:
        raise Error("rpc.context() is for handlers: no call is being served here")
    return Context(running.snapshot())
