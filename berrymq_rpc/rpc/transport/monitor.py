"""The events of a socket's monitor, by which libzmq reports what becomes of its connections."""

import struct
from typing import Any

import zmq

__all__ = [
    "ACCEPTED",
    "BROKEN_OFF",
    "CONNECTED",
    "CONNECTION_EVENTS",
    "LOST",
    "REFUSED",
    "RETRIED",
    "STOPPED",
    "read_event",
]

#: Its value is the file number of the new connection.
ACCEPTED = zmq.Event.ACCEPTED
CONNECTED = zmq.Event.HANDSHAKE_SUCCEEDED
#: Also in the handshake: the server closed it.
LOST = zmq.Event.DISCONNECTED
RETRIED = zmq.Event.CONNECT_RETRIED
#: Its value is ZAP's status.
REFUSED = zmq.Event.HANDSHAKE_FAILED_AUTH
#: The handshake of the connection that the next event reports as lost was not finished. It is not
#: reported of all that end so.
BROKEN_OFF = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
STOPPED = zmq.Event.MONITOR_STOPPED

#: Without HANDSHAKE_FAILED_PROTOCOL: where somebody listens to it, libzmq 4.3.5 reports by it each
#: message that cannot be decrypted, and loses the error's number meanwhile. It keeps the
#: connection, and aborts the process ("!_io_error") when that ends.
CONNECTION_EVENTS = CONNECTED | LOST | RETRIED | REFUSED

_EVENT = struct.Struct("=Hi")


def read_event(monitor: Any) -> tuple[int, int]:
    """Read the next event and its value: a file number or a status.

    Raises:
        zmq.ZMQError: there is none.
    """
    event, value = _EVENT.unpack(monitor.recv_multipart(zmq.NOBLOCK)[0])
    return event, value
