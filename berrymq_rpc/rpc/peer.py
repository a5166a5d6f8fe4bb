"""The other side of a connection, as handlers and clients call it."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from threading import get_ident
from typing import Any

from ..common.tracing import Tracing
from ..endpoint import host_key
from .call import Call
from .connection import Connection
from .options import CallOptions
from .proxy import Namespace
from .tracing import begin_call, follow
from .transport.port import Credentials

__all__ = ["Peer"]

#: What a handler waits for has no limit of its own: see `Peer.with_timeout`.
DEFAULT_OPTIONS = CallOptions()


class Peer:
    """The other side of a connection, which may be called as a client calls a server.

    It belongs to the event loop: a ``thread=True`` method that uses it gets a `RuntimeError`.

    Attributes:
        identity: text that names this connection, for logs; a peer that connects again gets
            another.
        rpc: ``await peer.rpc.namespace.method(...)``.
        notify: ``peer.notify.method(...)``, one way.
    """

    __slots__ = ("_connection", "_options", "_tracing", "identity", "notify", "rpc")

    def __init__(
        self,
        connection: Connection,
        options: CallOptions = DEFAULT_OPTIONS,
        tracing: Tracing | None = None,
    ) -> None:
        self._connection = connection
        self._options = options
        self._tracing = tracing
        self.identity = connection.identity
        self.rpc: Namespace[Call] = Namespace(self._call)
        self.notify: Namespace[None] = Namespace(self._notify)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        connection, options = self._checked(), self._options
        if self._tracing is None:
            return connection.call(method, args, kwargs, options)
        span, options = begin_call(self._tracing, method, connection.session.dialect, options)
        return follow(span, connection.call(method, args, kwargs, options))

    def _notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        connection, options = self._checked(), self._options
        if self._tracing is None:
            connection.notify(method, args, kwargs)
            return
        span, options = begin_call(self._tracing, method, connection.session.dialect, options)
        try:
            connection.notify(method, args, kwargs, options.metadata)
        except BaseException as error:
            span.end(error)
            raise
        span.end()

    def _checked(self) -> Connection:
        connection = self._connection
        if get_ident() != connection.thread:
            raise RuntimeError(
                "the peer may be called only in the thread of its event loop: make the method "
                "async, or use loop.call_soon_threadsafe"
            )
        return connection

    @property
    def address(self) -> str | None:
        """The IP address of the host that it is at.

        An empty text for a peer that can only be on this host (``ipc://``, ``mem://``); ``None``
        where it is not known.
        """
        port = self._connection.port
        return None if port is None else port.address(self._connection.key)

    @property
    def key(self) -> str | None:
        """Its public key, which it has proved to have; ``None`` where keys are not asked for."""
        credentials = self._credentials()
        return None if credentials is None else credentials.key

    @property
    def user(self) -> str | None:
        """The name that goes with its key (see `CurveServer`), its token or its certificate."""
        credentials = self._credentials()
        return None if credentials is None else credentials.user

    def _credentials(self) -> Credentials | None:
        port = self._connection.port
        return None if port is None else port.credentials(self._connection.key)

    @property
    def scheme(self) -> str:
        """How it may be called back where it gives a host and a port.

        It is ``"tcp"``, or ``"http"`` where it has come through the HTTP listener of a bridge.
        """
        port = self._connection.port
        return "tcp" if port is None else port.scheme(self._connection.key)

    @property
    def can_be_called(self) -> bool:
        """Whether it can be sent more than answers, as a REQ socket or HTTP POST cannot."""
        return self._connection.session.can_be_pushed

    @property
    def takes_bytes(self) -> bool:
        """Whether bytes can be sent to it, as they cannot in JSON."""
        return self._connection.session.dialect != "jsonrpc"

    def with_timeout(self, timeout: float | None) -> "Peer":
        """Return the same peer, called with a timeout; at first there is none.

        Args:
            timeout: seconds for each call, and for each item of a stream; ``None`` for no limit.
                When they are over, the call fails with `RPCTimeoutError` and is cancelled there.

        Raises:
            TypeError, ValueError: `timeout` is not a number of seconds above 0.
        """
        return Peer(self._connection, replace(self._options, timeout=timeout), self._tracing)

    @property
    def timeout(self) -> float | None:
        """Seconds for each call, or ``None``."""
        return self._options.timeout

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Call:
        """Call a method by a name that need not be an identifier."""
        return self._call(method, args, kwargs)

    @property
    def account(self) -> Hashable:
        """An object that is the same for all that one bound for each peer counts together.

        It stands for the user or the key; where there is none, for the connection, or for plain
        HTTP for the host (see `endpoint.host_key`).
        """
        credentials = self._credentials()
        if credentials is not None:
            return credentials.user or credentials.key
        if self.is_request:
            return "http", host_key(self.address)
        return self._connection.account

    @property
    def owner(self) -> Hashable:
        """Its key, else its user, to which its tokens belong; ``None`` if it has proved neither."""
        credentials = self._credentials()
        if credentials is None:
            return None
        return credentials.key or ("user", credentials.user)

    @property
    def is_request(self) -> bool:
        """Whether it is one request over HTTP, which is over with its answer."""
        return self.scheme == "http" and not self.can_be_called

    def on_lost(self, callback: Callable[[], object]) -> None:
        """Have a function called when the connection is over, for whatever reason.

        Args:
            callback: called once, on the event loop. One that is given twice is called once.
        """
        self._checked().on_lost(callback)

    def forget_on_lost(self, callback: Callable[[], object]) -> None:
        """Undo `on_lost`; nothing happens if it is not there."""
        self._connection.forget_on_lost(callback)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and other._connection is self._connection

    def __hash__(self) -> int:
        return hash(id(self._connection))

    def __repr__(self) -> str:
        return f"<Peer {self.identity}>"
