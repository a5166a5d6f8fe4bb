"""Peers that are nothing but a socket of pyzmq's, and say whatever a test wants them to."""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import zmq

from berrymq_rpc import rpc

#: The header of an aiozmq.rpc call: a prefix of two numbers, the id, the time. An answer has
#: whether it is an error, too.
REQUEST = struct.Struct("=HHLd")
RESPONSE = struct.Struct("=HHLd?")

#: The pairs of all clients and of all servers, where a test has keys.
KEYS: tuple[rpc.KeyPair, rpc.KeyPair] | None = None

CALL, RESULT, ERROR, CANCEL, END, CLOSED = 1, 4, 5, 6, 13, 14


def record(*fields: Any) -> bytes:
    """One record of the native dialect."""
    return msgpack.packb(fields, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def head(count: int, clock: int = 5) -> bytes:
    """What stands before the records of a native message."""
    return b"\xc1bq\x01" + struct.pack(">QBI", clock, 0xDD, count)


def native_message(*records: bytes) -> list[bytes]:
    return [head(len(records)) + b"".join(records)]


def plain_call(call_id: int, method: str | bytes, *args: Any) -> list[bytes]:
    """A call of the dialect of aiozmq.rpc."""
    name = method if isinstance(method, bytes) else method.encode("utf-8", "surrogatepass")
    return [REQUEST.pack(1, 2, call_id, 0.0), name, msgpack.packb(args), b"\x80"]


class Dealer:
    """A client."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.send = socket.send_multipart

    def calls(self, count: int) -> list[tuple[Any, ...]]:
        """The next calls of the server, as records."""
        return self._records((CALL,), count)

    def native_answers(self, count: int) -> list[tuple[Any, ...]]:
        """The next last words, as records."""
        return self._records((RESULT, ERROR, END, CLOSED), count)

    def _records(self, kinds: tuple[int, ...], count: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        while len(found) < count:
            frames = self.socket.recv_multipart()
            for fields in msgpack.unpackb(
                frames[0][12:], strict_map_key=False, use_list=False, unicode_errors="surrogatepass"
            ):
                if fields[0] in kinds:
                    found.append(fields)
        return found

    def plain_answers(self, count: int) -> list[tuple[int, bool, Any]]:
        """The next answers: id, whether it is an error, what it is."""
        found = []
        for _ in range(count):
            header, data = self.socket.recv_multipart()
            _, _, call_id, _, is_error = RESPONSE.unpack(header)
            found.append((call_id, is_error, msgpack.unpackb(data, strict_map_key=False)))
        return found


def give_keys(socket: Any, pair: rpc.KeyPair) -> None:
    socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret.encode()


def bind(enemy: Any) -> int:
    """Bind the socket of a server to a free port. With keys it lets in every client."""
    if KEYS is not None:
        give_keys(enemy, KEYS[1])
        enemy.curve_server = True
    port: int = enemy.bind_to_random_port("tcp://127.0.0.1")
    return port


@contextlib.contextmanager
def dealer(
    endpoint: str, timeout: float = 10.0, linger: float = 2.0, *, unread: int = 1000
) -> Iterator[Dealer]:
    """A client of `endpoint` that waits for `timeout` seconds for an answer, or to send.

    Its socket takes in about `unread` messages before they are read; 0 for any number.
    """
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = int(linger * 1000)
        socket.rcvtimeo = socket.sndtimeo = int(timeout * 1000)
        socket.rcvhwm = unread
        # What it sends waits here, however much that is.
        socket.sndhwm = 0
        if KEYS is not None:
            give_keys(socket, KEYS[0])
            socket.curve_serverkey = KEYS[1].public.encode()
        socket.connect(endpoint)
        yield Dealer(socket)
