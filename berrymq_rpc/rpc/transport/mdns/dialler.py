"""A client's port that finds its servers on the local network, and connects to them by ``tcp://``."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from ....common.backoff import Backoff
from ....endpoint import Endpoint
from ....errors import AuthenticationError
from .. import zeromq
from ..port import Buffer, Credentials, Key, Port, PortHandler, PortOptions
from .browser import Browser
from .interfaces import nearest_first, own_addresses
from .service import Service

__all__ = ["MdnsPort"]

#: Seconds between two looks at how the attempts to connect are doing.
LOOK = 0.5

#: Seconds that an address has for a connection, before the server's next one is tried.
ADDRESS_TIME = 1.5

#: Seconds for which an address is left alone that could not be reached, and one that refused this
#: side. Of the address and not of the server: whoever makes up many servers must not have this side
#: knock at one address many times.
UNREACHED = 2.0
REFUSED = 5.0

#: Seconds in which who is there has answered: no error says before that there is no other server.
GATHER = 1.0

#: Seconds without a server until the network is asked again: the first and the longest.
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 30.0


class _Attempt(PortHandler):
    """The way to one server: connected, or on its way."""

    def __init__(self, owner: "MdnsPort", service: Service, place: str) -> None:
        self._owner = owner
        self.service = service
        #: The address that is tried.
        self.place = place
        self.port: Port | None = None
        self.key: Key | None = None
        #: When the attempt at this address began, or the connection was lost.
        self.since = owner.loop.time()
        #: Events that came while the port opened.
        self._early: list[Callable[[], object]] = []

    def opened(self, port: Port) -> None:
        """The port is open."""
        self.port = port
        early, self._early = self._early, []
        for event in early:
            event()

    def has_room(self, peers: int) -> bool:
        return self._owner.handler.has_room(peers)

    def peer_connected(self, key: Key) -> None:
        if self.port is None:
            self._early.append(partial(self.peer_connected, key))
            return
        self.key = key
        self._owner.connected(self, key)

    def message_received(self, key: Key, frames: Sequence[bytes]) -> None:
        if self.port is None:
            self._early.append(partial(self.message_received, key, frames))
            return
        self._owner.handler.message_received(key, frames)

    def message_refused(self, key: Key, reason: str) -> None:
        self._owner.handler.message_refused(key, reason)

    def authentication_failed(self, error: AuthenticationError) -> None:
        self._owner.refused(self, error)

    def servers_full(self, reason: str | None) -> None:
        self._owner.handler.servers_full(reason)

    def read_complete(self) -> None:
        self._owner.handler.read_complete()

    def peer_lost(self, key: Key, reason: str, *, at_once: bool = False) -> None:
        if self.port is None:
            self._early.clear()
            return
        self.key = None
        self.since = self._owner.loop.time()
        self._owner.lost(key, reason, at_once)


class MdnsPort(Port):
    """A port with a connection to each of some servers, up to `PortOptions.max_servers`.

    Args:
        endpoint: ``mdns://name``.
        handler: is called on the running event loop.
        options: those of the connections, `max_servers` and `avoided_services`.
        browser: makes what looks for the servers.
    """

    def __init__(
        self,
        endpoint: str,
        handler: PortHandler,
        options: PortOptions,
        browser: type[Browser] = Browser,
    ) -> None:
        self._endpoint = endpoint
        self._name = Endpoint.parse(endpoint).path
        self.handler = handler
        self._options = options
        self.loop = asyncio.get_running_loop()
        self._browser = browser(self._name, self._look_soon)
        #: By the servers' ids.
        self._attempts: dict[str, _Attempt] = {}
        #: By the keys of the connections.
        self._connected: dict[Key, _Attempt] = {}
        #: Until when an address is left alone.
        self._cooling: dict[str, float] = {}
        #: How many attempts may begin until when, so that no flood of names is one of connections.
        self._attempts_left = options.max_servers
        self._attempts_until = 0.0
        #: What the last server said that has refused this side since there was a connection.
        self._refusal: AuthenticationError | None = None
        #: What opens and closes ports.
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._closed = asyncio.Event()
        self._pause = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._began = self.loop.time()
        self._ask_at = self._began + self._pause.next()
        self._timer: asyncio.TimerHandle | None = None
        self._browser.start()
        self._plan(LOOK)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (self._endpoint,)

    @property
    def notices_loss(self) -> bool:
        return True

    @property
    def trouble(self) -> str | None:
        if self._connected:
            return None
        if self._browser.problem is not None:
            return f"services cannot be looked for on the local network: {self._browser.problem}"
        if not self._browser.services:
            return (
                f"no service {self._name!r} is announced on the local network: is one running with "
                f"announce={self._name!r}? `berrymq find` lists what is there"
            )
        return f"what is announced as {self._name!r} cannot be reached"

    # -- which servers ---------------------------------------------------------------------

    def _plan(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._is_closing else self.loop.call_later(seconds, self._look)

    def _look_soon(self) -> None:
        self._plan(0.0)

    def _look(self) -> None:
        """End the attempts that lead nowhere, and begin others."""
        now = self.loop.time()
        services = self._browser.services
        for known, attempt in list(self._attempts.items()):
            if attempt.key is not None:
                continue
            service = services.get(known)
            if service is None:
                self._end(attempt)
            elif service.endpoints != attempt.service.endpoints:
                # It has moved.
                self._end(attempt)
            elif now - attempt.since > ADDRESS_TIME:
                # Its next address is tried, or another server.
                self._cooling[attempt.place] = now + UNREACHED
                self._end(attempt)
        self._cooling = {place: end for place, end in self._cooling.items() if end > now}
        if now >= self._attempts_until:
            self._attempts_until = now + LOOK
            self._attempts_left = self._options.max_servers
        candidates = self._candidates()
        random.shuffle(candidates)
        for service in candidates:
            if len(self._attempts) >= self._options.max_servers or not self._attempts_left:
                break
            self._begin(service)
        if not self._connected:
            self._report_refusal()
            if now >= self._ask_at:
                self._ask_at = now + self._pause.next()
                self._browser.look_again()
        self._plan(LOOK)

    def _candidates(self) -> list[Service]:
        avoided = self._options.avoided_services
        return [
            service
            for known, service in self._browser.services.items()
            if known not in self._attempts and known not in avoided and self._places(service)
        ]

    def _places(self, service: Service) -> list[str]:
        """The addresses of a server that may be tried now."""
        tried = {attempt.place for attempt in self._attempts.values()}
        return [e for e in service.endpoints if e not in self._cooling and e not in tried]

    def _begin(self, service: Service) -> None:
        """Try the best address of a server."""
        places = self._places(service)
        if not places:
            # Another server was begun that says it has the same.
            return
        self._attempts_left -= 1
        attempt = self._attempts[service.id] = _Attempt(self, service, _nearest(places))
        self._keep(self._open(attempt), "mdns dial")

    def _keep(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = self.loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, attempt: _Attempt) -> None:
        try:
            port = await zeromq.dial(attempt.place, attempt, self._options)
        except OSError:
            # An address that this host cannot use: the next is tried when its time is over.
            return
        if self._attempts.get(attempt.service.id) is attempt and not self._is_closing:
            attempt.opened(port)
        else:
            port.close()
            await port.wait_closed()

    def _end(self, attempt: _Attempt) -> None:
        if self._attempts.get(attempt.service.id) is attempt:
            del self._attempts[attempt.service.id]
        if attempt.port is not None:
            attempt.port.close()
            self._keep(attempt.port.wait_closed(), "mdns close")

    def _report_refusal(self) -> None:
        """Have the calls that wait fail, if all servers that were found refuse this side."""
        error = self._refusal
        if (
            error is not None
            and self.loop.time() - self._began > GATHER
            and not self._attempts
            and not self._candidates()
        ):
            self._refusal = None
            self.handler.authentication_failed(error)

    # -- what the attempts report --------------------------------------------------------

    def connected(self, attempt: _Attempt, key: Key) -> None:
        """A server has been reached."""
        self._connected[key] = attempt
        self._refusal = None
        self._pause.reset()
        self.handler.peer_connected(key)

    def lost(self, key: Key, reason: str, at_once: bool) -> None:
        """A connection was lost; its port tries to restore it."""
        self._connected.pop(key, None)
        self._ask_at = self.loop.time() + self._pause.next()
        self.handler.peer_lost(key, reason, at_once=at_once)

    def refused(self, attempt: _Attempt, error: AuthenticationError) -> None:
        """A server refuses this side, or is not who it has to be: others are tried."""
        if attempt.key is None:
            self._refusal = error
            self._cooling[attempt.place] = self.loop.time() + REFUSED
            # Not within a call of its port.
            self.loop.call_soon(self._end, attempt)
            self._look_soon()

    # -- the port ------------------------------------------------------------------------

    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        attempt = self._connected.get(key)
        return attempt is not None and attempt.port is not None and attempt.port.send(key, frames)

    def queued_bytes(self, key: Key) -> int:
        port = self._port_of(key)
        return 0 if port is None else port.queued_bytes(key)

    def all_queued_bytes(self) -> int:
        ports = [attempt.port for attempt in self._attempts.values()]
        return sum(port.all_queued_bytes() for port in ports if port is not None)

    def address(self, key: Key) -> str | None:
        port = self._port_of(key)
        return None if port is None else port.address(key)

    def credentials(self, key: Key) -> Credentials | None:
        port = self._port_of(key)
        return None if port is None else port.credentials(key)

    def disconnect(self, key: Key) -> None:
        port = self._port_of(key)
        attempt = self._connected.pop(key, None)
        if attempt is not None and port is not None:
            port.disconnect(key)
            attempt.key = None
            attempt.since = self.loop.time()

    def _port_of(self, key: Key) -> Port | None:
        attempt = self._connected.get(key)
        return None if attempt is None else attempt.port

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._browser.stop()
        for attempt in list(self._attempts.values()):
            self._end(attempt)

        self._finishing = self.loop.create_task(self._finish(), name="mdns end")
        self._finishing.add_done_callback(lambda _: self._closed.set())

    async def _finish(self) -> None:
        await self._browser.wait_stopped()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def wait_closed(self) -> None:
        await self._closed.wait()


def _nearest(places: list[str]) -> str:
    """The address to try first."""
    own = []
    if len(places) > 1:
        with contextlib.suppress(OSError):
            own = own_addresses()
    return nearest_first(places, own)[0]
