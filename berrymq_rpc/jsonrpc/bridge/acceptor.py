"""Accept the connections of a listener, as far as there are places and files for them.

asyncio's own servers call the event loop's exception handler when the process has no files left,
for each connection that waits, again and again; and the connections wait in vain. Here the last
files are left to the rest of the process, and one is kept in reserve: it is given up for a moment,
so that a connection can be accepted and refused.
"""

import asyncio
import errno
import os
import socket
import ssl as ssl_module
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ...endpoint import host_key
from ...rpc.transport.binding import bind_error
from ...runtime.log import Log
from .places import NO_FILES_LEFT, NoPlaceError, Place, Places

if sys.platform != "win32":
    import resource

__all__ = ["REFUSAL_TIMEOUT", "Acceptor", "Handshakes"]

logger = Log("berrymq_rpc.jsonrpc.bridge")
audit = Log("berrymq_rpc.security")

#: Connections that wait to be accepted, and those that are accepted in one turn of the event loop.
BACKLOG = 1024
BURST = 64

#: Files that are left to the rest of the process: the last ones are not given to connections. Some
#: are taken for a moment, by a connection that waits for the file of one that gives way, and by a
#: refused peer that may still read why.
FILES_IN_RESERVE = 8
MAX_MOVING = 2

#: Seconds until accepting goes on when there is not even a file for a refusal.
PAUSE = 1.0

#: Seconds that TLS has to be agreed on. Browsers that are far away need less than two.
HANDSHAKE_TIMEOUT = 10.0

#: Connections that agree on TLS at one time, of one host and of all: asyncio has 350 KB for each.
#: Further ones wait with nothing but their sockets.
HOST_HANDSHAKES = 20
HANDSHAKES = 200

#: Seconds that a peer has to end TLS.
CLOSE_TIMEOUT = 1.0

#: Seconds within which a connection that gives way is closed.
MOVE_TIMEOUT = 2.0

#: Seconds that a peer has to read why it is refused; and how many peers are waited for here.
REFUSAL_TIMEOUT = 1.0
MAX_REFUSED = 4

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


class Handshakes:
    """Bounds how many connections agree on TLS at one time, of one host and of all."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(HANDSHAKES)
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(HOST_HANDSHAKES)
        )
        self._users: defaultdict[str, int] = defaultdict(int)

    async def run(self, address: str, connect: Callable[[], Awaitable[None]]) -> None:
        """Await what `connect` returns when it is the turn of this host."""
        key = host_key(address)
        self._users[key] += 1
        try:
            # The host's first, so that one which has many is never in the others' way.
            async with self._hosts[key], self._all:
                await connect()
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._hosts[key]


class _Connecting:
    """A connection that was accepted, until its protocol has it.

    Args:
        is_short: whether another connection gives way for it, whose file it then takes.
    """

    def __init__(
        self, acceptor: "Acceptor", accepted: socket.socket, address: str, is_short: bool
    ) -> None:
        self._acceptor = acceptor
        self._accepted = accepted
        self._address = address
        self._is_short = is_short
        self._is_handed_over = False
        self._place: Place | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, place: Place) -> None:
        self._place = place
        self._task = self._acceptor.loop.create_task(self._run(place))
        self._acceptor.tasks.add(self._task)
        self._task.add_done_callback(self._done)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, place: Place) -> None:
        acceptor = self._acceptor
        if self._is_short:
            await self._leave_reserve()
        if acceptor.ssl is None:
            await self._connect(place)
        else:
            await acceptor.handshakes.run(
                self._address,
                partial(
                    self._connect,
                    place,
                    ssl=acceptor.ssl,
                    ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                    ssl_shutdown_timeout=CLOSE_TIMEOUT,
                ),
            )

    async def _leave_reserve(self) -> None:
        """Take the file of the connection that gives way, once it is closed.

        Raises:
            NoPlaceError: it was not closed in time.
        """
        acceptor = self._acceptor
        end = acceptor.loop.time() + MOVE_TIMEOUT
        pause = 0.0
        while self._accepted.fileno() >= _files_for_connections():
            if acceptor.loop.time() > end:
                raise NoPlaceError(NO_FILES_LEFT)
            await asyncio.sleep(pause)
            # One that is aborted is closed within a few turns.
            pause = min(0.01, pause + 0.001)
            self._move()
        acceptor.moved(self)

    def _move(self) -> None:
        try:
            # It has the lowest number that is free.
            moved = self._accepted.dup()
        except OSError:
            return
        moved.setblocking(False)
        if moved.fileno() < self._accepted.fileno():
            self._accepted, moved = moved, self._accepted
        moved.close()

    async def _connect(self, place: Place, **options: Any) -> None:
        # From here on the event loop closes the socket, whatever happens.
        self._is_handed_over = True
        await self._acceptor.loop.connect_accepted_socket(
            partial(self._acceptor.new_protocol, place), self._accepted, **options
        )

    def _done(self, task: asyncio.Task[None]) -> None:
        self._acceptor.tasks.discard(task)
        self._acceptor.moved(self)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            return
        assert self._place is not None
        self._place.release()
        if isinstance(error, NoPlaceError):
            self._acceptor.refuse(self._accepted, str(error))
            return
        if not self._is_handed_over:
            self._accepted.close()
        if isinstance(error, ssl_module.SSLError) and "CERTIFICATE" in str(error.reason):
            audit.warning("a peer at %s refused: %s", self._address, error.reason)
        elif isinstance(error, OSError):
            logger.debug("a peer at %s has not connected: %r", self._address, error)
        elif error is not None:
            logger.error("a peer at %s could not connect", self._address, exc_info=error)


class Acceptor:
    """The listening sockets of one listener.

    Args:
        places: of all listeners.
        handshakes: of all listeners.
        new_protocol: makes the protocol of an accepted connection. It calls `Place.release` when
            the connection is lost, and sets `Place.evict` when it is made.
        on_refused: called with the reason for which a connection is refused.
        refusal: makes what a refused peer is sent, without TLS, of the reason.
        ssl: speaks TLS.
    """

    def __init__(
        self,
        places: Places,
        handshakes: Handshakes,
        new_protocol: Callable[[Place], asyncio.Protocol],
        *,
        on_refused: Callable[[str], object],
        refusal: Callable[[str], bytes],
        ssl: ssl_module.SSLContext | None,
    ) -> None:
        self._places = places
        self.handshakes = handshakes
        self.new_protocol = new_protocol
        self._on_refused = on_refused
        self._refusal = refusal
        self.ssl = ssl
        self.loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        #: Connections that are not made yet.
        self.tasks: set[asyncio.Task[None]] = set()
        #: Sockets of peers that may still read why they were refused.
        self._refused: dict[socket.socket, asyncio.TimerHandle] = {}
        #: An open file, closed when no other is left: a peer can be refused with it.
        self._spare: int | None = None
        self._pauses: set[asyncio.TimerHandle] = set()
        #: Connections that have files of the reserve until others have given way, and the sockets
        #: that accept no more until one of them has.
        self.moving: set[_Connecting] = set()
        self._waiting: set[socket.socket] = set()

    async def open(self, host: str, port: int) -> tuple[Any, ...]:
        """Begin to listen at all addresses of a host.

        Returns:
            The first address.

        Raises:
            OSError: one of them cannot be bound.
        """
        found = await self.loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                if self._sockets:
                    # All of them have the port that the first one got.
                    address = (address[0], self._sockets[0].getsockname()[1], *address[2:])
                self._sockets.append(_listening(family, address))
        except BaseException:
            self.close()
            raise
        self._fill_spare()
        for listening in self._sockets:
            self.loop.add_reader(listening, self._accept, listening)
        address = self._sockets[0].getsockname()
        return tuple(address)

    # -- accepting -------------------------------------------------------------------------

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BURST):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OF_CONNECTION:
                    continue
                if error.errno in _NO_FILES and self._refuse_with_spare(listening):
                    return
                logger.warning("connections wait to be accepted: %s", error)
                self._pause(listening)
                return
            self._take(accepted, str(address[0]))
            if len(self.moving) >= MAX_MOVING:
                self.loop.remove_reader(listening)
                self._waiting.add(listening)
                return

    def moved(self, connecting: _Connecting) -> None:
        """Accept again, as a connection is not in the reserve any more."""
        self.moving.discard(connecting)
        for listening in self._waiting:
            self.loop.add_reader(listening, self._accept, listening)
        self._waiting.clear()

    def _take(self, accepted: socket.socket, address: str) -> None:
        accepted.setblocking(False)
        # Where one waits for a file, a file that is free is not for another.
        is_short = bool(self.moving) or accepted.fileno() >= _files_for_connections()
        connecting = _Connecting(self, accepted, address, is_short)
        try:
            place = self._places.take(address, connecting.cancel, is_short=is_short)
        except NoPlaceError as error:
            # The last of the reserve are not for those that may still read why.
            is_last = accepted.fileno() >= _files_for_connections() + FILES_IN_RESERVE // 2
            self.refuse(accepted, str(error), at_once=is_last)
        else:
            if is_short:
                self.moving.add(connecting)
            connecting.start(place)

    # -- refusing --------------------------------------------------------------------------

    def refuse(self, refused: socket.socket, reason: str, *, at_once: bool = False) -> None:
        """Say why to a peer, as far as it can be said, and close the connection."""
        self._on_refused(reason)
        try:
            if self.ssl is None:
                refused.send(self._refusal(reason))
                refused.shutdown(socket.SHUT_WR)
                # What is unread when a socket is closed makes the peer drop what it has got.
                refused.recv(1 << 16)
        except OSError:
            # It does not wait for an answer, or has sent nothing yet.
            at_once = at_once or self.ssl is not None
        if at_once or self.ssl is not None or len(self._refused) >= MAX_REFUSED:
            refused.close()
        else:
            self._refused[refused] = self.loop.call_later(
                REFUSAL_TIMEOUT, self._close_refused, refused
            )

    def _close_refused(self, refused: socket.socket) -> None:
        self._refused.pop(refused).cancel()
        refused.close()

    def _refuse_with_spare(self, listening: socket.socket) -> bool:
        """Refuse all peers that wait when no file is left; return whether that could be done."""
        if self._spare is None:
            self._fill_spare()
        while self._spare is not None:
            os.close(self._spare)
            self._spare = None
            try:
                accepted, _ = listening.accept()
            except OSError as error:
                if error.errno not in _NO_FILES:
                    self._fill_spare()
                    return True
            else:
                accepted.setblocking(False)
                self.refuse(accepted, NO_FILES_LEFT, at_once=True)
            self._fill_spare()
        return False

    def _fill_spare(self) -> None:
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._spare = None

    def _pause(self, listening: socket.socket) -> None:
        self.loop.remove_reader(listening)

        def go_on() -> None:
            self._pauses.discard(timer)
            self.loop.add_reader(listening, self._accept, listening)

        timer = self.loop.call_later(PAUSE, go_on)
        self._pauses.add(timer)

    # -- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no more connections; those that were made stay."""
        for timer in self._pauses:
            timer.cancel()
        self._pauses.clear()
        self._waiting.clear()
        for listening in self._sockets:
            self.loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for refused in list(self._refused):
            self._close_refused(refused)
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    async def wait_closed(self) -> None:
        """End the connections that are not made yet, and wait for that."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _listening(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has its own socket.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise bind_error(f"{address[0]} port {address[1]}", error) from None
    except BaseException:
        made.close()
        raise
    return made


def _files_for_connections() -> float:
    """The number of the first file that is left to the rest of the process.

    A new file has the lowest number that is free: one with this number has all before it in use.
    """
    if sys.platform == "win32":
        return float("inf")
    bound, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if bound == resource.RLIM_INFINITY else bound - FILES_IN_RESERVE
