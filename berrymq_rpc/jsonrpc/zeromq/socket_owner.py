"""The base of servers and clients: owns a socket, with its context, timeout and logger."""

import logging
from contextlib import ExitStack
from typing import Any

import zmq

from ...nats.options import is_nats
from ...rpc.transport.curve import secure
from ...runtime.fork import OwnerProcess
from ...runtime.log import Log
from ...security import CurveServer, Security, checked_security

__all__ = ["CLOSE_LINGER", "SocketOwner", "logger"]

logger = _logger = logging.getLogger("berrymq_rpc.jsonrpc.zeromq")

#: Milliseconds for which a closed socket still sends what is queued.
CLOSE_LINGER = 1000

#: A text up to this many times as large as allowed is answered with an error; the sender of a
#: larger one is disconnected.
_ANSWERED_SIZE = 4


class SocketOwner:
    """Owns one socket.

    Raises:
        ValueError: the endpoint is at NATS.

    Attributes:
        endpoint: its address; of a server, with the real port.
        timeout: milliseconds.
        context: the `zmq.Context` that the socket belongs to.
        socket: the socket. It belongs to the thread that runs or calls.
        logger: where it logs.
        security: who may connect, and how this side proves who it is; ``None`` for neither.
    """

    #: The kind of socket where none is given.
    default_socket_type: int
    _kind = "client"
    socket: Any = None
    #: Releases what the open socket uses; closed after it.
    _resources: ExitStack

    def __init__(
        self,
        endpoint: str,
        socket_type: int | None,
        timeout: int | None,
        context: zmq.Context[Any] | None,
        logger: logging.Logger | None,
        max_size: int,
        security: Security | None,
    ) -> None:
        if is_nats(endpoint):
            raise ValueError(
                "an address of NATS is not an endpoint of ZeroMQ: write tcp://host:port. For calls "
                "over NATS there are rpc.open_client and rpc.start_server"
            )
        self.endpoint = endpoint
        self.socket_type = socket_type or self.default_socket_type
        self.timeout = timeout
        self.context = context or zmq.Context.instance()
        self.logger = _logger if logger is None else logger
        self._log = Log(self.logger)
        self._owner = OwnerProcess(self._kind)
        self.max_size = max_size
        self.security = checked_security(security)
        if isinstance(security, CurveServer) and len(security.keys) > 1:
            raise ValueError(
                f"{len(security.keys)} keys for one endpoint: open one for each key, at endpoints "
                "of their own"
            )

    def _new_socket(self) -> Any:
        """A new socket with its keys; `_resources` is closed once it is."""
        socket = self.context.socket(self.socket_type)
        try:
            release = secure(socket, self.security, loop=None, endpoint=self.endpoint)
        except BaseException:
            socket.close(0)
            raise
        self._resources = ExitStack()
        if release is not None:
            self._resources.callback(release)
        # A peer that is gone must not keep the context from terminating.
        socket.linger = CLOSE_LINGER
        socket.maxmsgsize = _ANSWERED_SIZE * self.max_size
        return socket
