"""Accept connections, also when the process has no files left.

asyncio's own servers call the event loop's exception handler then for each connection that waits,
again and again, which is megabytes of log a second; and the connections wait in vain. Here a file
is kept in reserve: it is given up for a moment, so that the connection can be accepted and closed.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl as ssl_module
from collections.abc import Callable

from ...runtime.log import Log

__all__ = ["Acceptor"]

logger = Log("berrymq_rpc.jsonrpc.bridge")

#: Connections that are accepted in one turn of the event loop.
BURST = 64

#: Seconds before the next attempt when accepting fails and the reserve does not help.
PAUSE = 1.0

#: The process or the system has no file left.
_NO_FILES = frozenset((errno.EMFILE, errno.ENFILE))

#: Errors of the connection that would be accepted next, which Linux reports here.
_OF_CONNECTION = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
    )
    if hasattr(errno, name)
)


class Acceptor:
    """Listens at one host and port, and makes a protocol of each connection.

    Args:
        protocol: makes the protocol of a connection.
        backlog: connections that wait to be accepted.
        ssl: of a server with TLS.

    Attributes:
        refused: how many connections were closed at once, as there were no files left.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        backlog: int,
        ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        self.refused = 0
        self._protocol = protocol
        self._backlog = backlog
        self._ssl = ssl
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._reserve: int | None = None
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}
        #: Connections that are accepted and not yet their protocol's; TLS has a handshake before.
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, with the real port."""
        host, port = self._sockets[0].getsockname()[:2]
        return host, port

    async def open(self, host: str, port: int) -> None:
        """Begin to listen, at all addresses of a host.

        Args:
            host: a name or an address; empty for all addresses of this host.
            port: 0 for any.

        Raises:
            OSError: it cannot be bound.
        """
        found = await self._loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                if self._sockets:
                    # Where any will do, the same one at all addresses.
                    address = (address[0], self.address[1], *address[2:])
                bound = socket.create_server(address, family=family, backlog=self._backlog)
                bound.setblocking(False)
                self._sockets.append(bound)
            self._reserve = os.open(os.devnull, os.O_RDONLY)
        except BaseException:
            self.close()
            raise
        for bound in self._sockets:
            self._loop.add_reader(bound, self._accept, bound)

    def close(self) -> None:
        """Accept no more. Connections whose handshake is not over end."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for bound in self._sockets:
            self._loop.remove_reader(bound)
            bound.close()
        self._sockets.clear()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the connections whose handshake was not over have ended."""
        if self._opening:
            await asyncio.wait(self._opening)

    # -- connections -----------------------------------------------------------------------

    def _accept(self, bound: socket.socket) -> None:
        for _ in range(BURST):
            try:
                connection, _ = bound.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OF_CONNECTION:
                    continue
                if error.errno in _NO_FILES and self._reserve is not None:
                    self._refuse(bound)
                    continue
                logger.warning("connections wait to be accepted: %s", error)
                self._pause(bound)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._open(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _refuse(self, bound: socket.socket) -> None:
        """Accept a connection in the place of the reserve, and close it."""
        assert self._reserve is not None
        os.close(self._reserve)
        self._reserve = None
        with contextlib.suppress(OSError):
            connection, _ = bound.accept()
            connection.close()
            self.refused += 1
            logger.warning("no files left: %d connections refused so far", self.refused)
        # Another thread may have taken the place meanwhile.
        with contextlib.suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _pause(self, bound: socket.socket) -> None:
        self._loop.remove_reader(bound)
        self._timers[bound] = self._loop.call_later(PAUSE, self._resume, bound)

    def _resume(self, bound: socket.socket) -> None:
        del self._timers[bound]
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._loop.add_reader(bound, self._accept, bound)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._ssl)
        except Exception as error:
            # The peer has gone, or its handshake failed.
            logger.debug("a connection was not opened: %r", error)
            connection.close()
        except BaseException:
            connection.close()
            raise
