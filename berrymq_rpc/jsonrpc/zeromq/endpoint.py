"""What servers and clients share: a context, a logger, and how a socket is made and ends."""

import logging
from typing import Any

import zmq

__all__ = ["CLOSE_LINGER", "Endpoint", "logger"]

logger = _logger = logging.getLogger("berrymq_rpc.jsonrpc.zeromq")

#: Milliseconds that what was sent has to leave when an endpoint is closed, or its context ends.
CLOSE_LINGER = 1000

#: A text may be so many times as large as allowed and still be answered with an error; the sender
#: of a larger one is disconnected.
_ANSWERED_SIZE = 4


class Endpoint:
    """One end of a connection, with one socket.

    Attributes:
        endpoint: its address; the real one, where a server was given a wildcard.
        timeout: milliseconds.
        context: the `zmq.Context` that the socket belongs to.
        socket: the socket. It belongs to the thread that runs or calls.
        logger: where it logs.
    """

    #: The kind of socket where none is given.
    default_socket_type: int
    socket: Any = None

    def __init__(
        self,
        endpoint: str,
        socket_type: int | None,
        timeout: int | None,
        context: zmq.Context[Any] | None,
        logger: logging.Logger | None,
        max_size: int,
    ) -> None:
        self.endpoint = endpoint
        self.socket_type = socket_type or self.default_socket_type
        self.timeout = timeout
        self.context = context or zmq.Context.instance()
        self.logger = _logger if logger is None else logger
        self.max_size = max_size

    def _new_socket(self) -> Any:
        socket = self.context.socket(self.socket_type)
        # Never for ever, whatever becomes of the peer.
        socket.linger = CLOSE_LINGER
        socket.maxmsgsize = _ANSWERED_SIZE * self.max_size
        return socket
