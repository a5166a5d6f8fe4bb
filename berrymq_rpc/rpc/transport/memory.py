"""The transport `mem://name` within one process.

* A name has at most one listener and any number of diallers, each on an event loop and in a thread
  of its own if need be. A dialler has at most one connection at a time. When that is lost, the
  dialler makes another one, with a new key, as soon as there is a listener.
* A connection has two ends, each of a port. What one end sends or does is put into the inbox of the
  port at the other end, so that a loss comes after what was sent before it. The port's event loop
  hands it to the handler in a later turn; the lock is not held then.
* What is sent becomes bytes that cannot be changed any more.
* A port whose event loop was closed under it is gone. Its peers notice when they next send.
* One lock guards the state of all names, connections and ports.
* What a test sets to go wrong is not here: `berrymq_rpc.testing.link_faults` hooks into a `Name`.
"""

import asyncio
import contextvars
import errno
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias
from weakref import WeakValueDictionary

from .port import Buffer, Key, Port, PortHandler, PortOptions

__all__ = ["End", "LinkHook", "MemoryPort", "Name", "Side", "dial", "find_name", "listen", "lock"]

Side: TypeAlias = Literal["dialler", "listener"]

#: Seconds. Without a pause, a listener that refuses its peers and a dialler that comes back would
#: keep both loops busy for nothing.
RECONNECT_PAUSE = 0.01

_WILDCARD = "mem://*"

#: Reentrant: an event loop that turns out to be closed when an inbox is filled ends that port,
#: which fills the inboxes of its peers.
lock = threading.RLock()

_keys = itertools.count(1)
_free_numbers = itertools.count(1)


async def listen(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Listen on a name.

    Args:
        endpoint: `mem://name`; `mem://*` for a free name, which `Port.endpoints` has.
        handler: is called on the running event loop, in a later turn of it.
        options: `max_frame` bounds what peers send here; `heartbeat` has no effect.

    Raises:
        OSError: `EADDRINUSE`, a port of this process listens on the name.
        ValueError: the endpoint is malformed.
    """
    with lock:
        name = _free_name() if endpoint == _WILDCARD else find_name(endpoint)
        if name.listener is not None and name.listener.loop.is_closed():
            name.listener.shut("the peer's event loop was closed")
        if name.listener is not None:
            message = f"{endpoint} is in use: this process listens there already. Take another name"
            raise OSError(errno.EADDRINUSE, message)
        port = name.listener = MemoryPort(name, "listener", handler, options)
        name.connect_all()
    return port


async def dial(endpoint: str, handler: PortHandler, options: PortOptions) -> Port:
    """Connect to a name, now or as soon as there is a listener, and again after each loss.

    Args:
        endpoint: `mem://name`.
        handler: is called on the running event loop, in a later turn of it.
        options: `max_frame` bounds what the peer sends here; `heartbeat` has no effect.

    Raises:
        ValueError: the endpoint is malformed, or is the wildcard.
    """
    with lock:
        name = find_name(endpoint)
        port = MemoryPort(name, "dialler", handler, options)
        name.diallers[port] = None
        name.connect(port)
    return port


class LinkHook(Protocol):
    """What a test may change about the connections of a name. Called under the lock."""

    @property
    def is_broken(self) -> bool:
        """Whether diallers cannot connect."""

    @property
    def is_silent(self) -> bool:
        """Whether a port that leaves cannot tell its peers."""

    def due(self) -> float:
        """When what is sent now arrives, on the monotonic clock; 0 for at once."""

    def copies(self, end: "End", frames: tuple[bytes, ...]) -> int:
        """How many copies of a message from an end are put under way."""

    def is_frozen(self, port: "MemoryPort") -> bool:
        """Whether a port reads nothing and keeps what it sends."""

    def holds_disconnect(self, end: "End") -> bool:
        """Whether the port of an end is frozen, and the end's peer learns it later."""

    def port_closing(self, port: "MemoryPort") -> None:
        """A port is about to close: it is frozen no longer."""


class End:
    """One port's side of a connection.

    It is open until its own port leaves, or the loss is on its way to its port.
    """

    __slots__ = ("is_open", "key", "other", "port", "queued")

    other: "End"

    def __init__(self, key: Key, port: "MemoryPort") -> None:
        self.key = key
        self.port = port
        self.is_open = True
        #: Bytes that were sent here and that the other end's handler has not been handed.
        self.queued = 0

    def lose(self, reason: str, due: float = 0.0) -> None:
        """Let the port know, after all that is in its inbox, that the peer is gone."""
        self.is_open = False
        self.port.put(_Lost(due, self, reason))

    def leave(self, reason: str) -> None:
        """Give the connection up, and let the other end know."""
        self.is_open = False
        hook = self.port.name.hook
        if self.other.is_open and (hook is None or not hook.is_silent):
            self.other.lose(reason, self.port.name.due())

    def handed_over(self, size: int) -> None:
        """Count bytes as no longer queued: they were delivered or dropped."""
        self.queued -= size
        if not self.queued and self.port.is_closed:
            self.port.finish_if_sent()


class _Connected(NamedTuple):
    """There is a peer. Events are due at a time of the monotonic clock, or at once if it is 0."""

    due: float
    end: End


class _Message(NamedTuple):
    """Frames for an end, and their bytes altogether."""

    due: float
    end: End
    frames: tuple[bytes, ...]
    size: int


class _Lost(NamedTuple):
    """The peer is gone."""

    due: float
    end: End
    reason: str


_Event: TypeAlias = _Connected | _Message | _Lost


class Name:
    """One address: the ports that listen and dial, and what connects them."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.listener: MemoryPort | None = None
        # A dict and not a set: diallers connect in the order in which they came.
        self.diallers: dict[MemoryPort, None] = {}
        #: Set by a test.
        self.hook: LinkHook | None = None

    def due(self) -> float:
        """When what is sent now arrives, on the monotonic clock; 0 for at once."""
        return 0.0 if self.hook is None else self.hook.due()

    def ends(self) -> list[End]:
        """The ends of all connections whose loss has not been reported to a handler."""
        ports = [*self.diallers] if self.listener is None else [self.listener, *self.diallers]
        return [end for port in ports for end in port.ends.values()]

    def connect_all(self) -> None:
        """Connect all diallers that are not connected."""
        for dialler in [*self.diallers]:
            self.connect(dialler)

    def connect(self, dialler: "MemoryPort") -> None:
        """Connect one dialler, if it is not connected and there is a listener."""
        listener = self.listener
        if listener is None or listener.is_frozen:
            return
        if self.hook is not None and self.hook.is_broken:
            return
        if any(end.is_open for end in dialler.ends.values()):
            return
        key = next(_keys)
        far, near = End(key, listener), End(key, dialler)
        far.other, near.other = near, far
        # Either port may turn out to have lost its event loop. The other then hears of both the
        # connection and its loss, or of neither.
        listener.ends[key] = far
        listener.put(_Connected(0.0, far))
        if near.is_open:
            dialler.ends[key] = near
            dialler.put(_Connected(0.0, near))


# Weak: a name is forgotten with its last port, closed or collected.
_names: WeakValueDictionary[str, Name] = WeakValueDictionary()


def find_name(endpoint: str) -> Name:
    """The name of an endpoint, made if it is not there. Called under the lock.

    Raises:
        ValueError: the endpoint is malformed, or is the wildcard.
    """
    scheme, _, name = endpoint.partition("://")
    if scheme != "mem" or name in ("", "*"):
        raise ValueError(f"not an address such as mem://name: {endpoint!r}")
    return _names.setdefault(endpoint, Name(endpoint))


def _free_name() -> Name:
    while True:
        name = find_name(f"mem://{next(_free_numbers)}")
        if name.listener is None and not name.diallers:
            return name


class MemoryPort(Port):
    """A listener or a dialler. What is not a method of `Port` is used under the lock."""

    def __init__(self, name: Name, side: Side, handler: PortHandler, options: PortOptions) -> None:
        self.name = name
        self.side: Side = side
        self.loop = asyncio.get_running_loop()
        self.ends: dict[Key, End] = {}
        self.is_closed = False
        self._handler = handler
        self._options = options
        # A handler must not see the context variables of the task that sent it something.
        self._context = contextvars.copy_context()
        self._inbox: deque[_Event] = deque()
        self._delivery_scheduled = False
        self._delivery_timer: asyncio.TimerHandle | None = None
        self._left: list[End] = []
        self._linger_timer: asyncio.TimerHandle | None = None
        self._finished = asyncio.Event()

    @property
    def endpoints(self) -> tuple[str, ...]:
        return (self.name.endpoint,)

    @property
    def notices_loss(self) -> bool:
        """False: a peer that is frozen or behind a silent network looks like an idle one."""
        return False

    @property
    def is_frozen(self) -> bool:
        """Whether a test has stopped it."""
        hook = self.name.hook
        return hook is not None and hook.is_frozen(self)

    def send(self, key: Key, frames: Sequence[Buffer]) -> bool:
        message = tuple(
            frame if type(frame) is bytes else bytes(memoryview(frame)) for frame in frames
        )
        if not message:
            raise ValueError("a message has at least one frame")
        with lock:
            end = self.ends.get(key)
            if end is None or not end.is_open:
                return False
            self.transmit(end, message)
            return end.is_open

    def transmit(self, end: End, frames: tuple[bytes, ...]) -> None:
        """Put a message under way to the peer."""
        hook = self.name.hook
        receiver = end.other
        message = _Message(self.name.due(), receiver, frames, sum(map(len, frames)))
        for _ in range(1 if hook is None else hook.copies(end, frames)):
            if end.is_open:
                end.queued += message.size
                receiver.port.put(message)

    def queued_bytes(self, key: Key) -> int:
        with lock:
            end = self.ends.get(key)
            return 0 if end is None else end.queued

    def address(self, key: Key) -> str | None:
        return ""

    def disconnect(self, key: Key) -> None:
        """Forget a peer, and let it know. A dialler connects again after a short pause."""
        with lock:
            end = self.ends.pop(key, None)
            if end is None:
                return
            hook = self.name.hook
            if hook is None or not hook.holds_disconnect(end):
                end.other.port.discard(end.other)
                end.leave("the peer ended the connection")
            self._connect_later()

    def close(self) -> None:
        """Let the peers know, after what was sent, and wait up to `linger` for them to read it.

        What they have not read then is not lost: it is with the receiver. The handler is not
        called any more. The name is free at once.
        """
        with lock:
            if self.is_closed:
                return
            if self.name.hook is not None:
                self.name.hook.port_closing(self)
            self.shut("the peer closed the connection")
            self._linger_timer = self.loop.call_later(self._options.linger, self.finish)
            self.finish_if_sent()

    async def wait_closed(self) -> None:
        await self._finished.wait()

    def shut(self, reason: str) -> None:
        """Leave the name and all peers, and drop what was not handed to the handler yet."""
        self.is_closed = True
        if self.name.listener is self:
            self.name.listener = None
        self.name.diallers.pop(self, None)
        for event in self._inbox:
            if isinstance(event, _Message):
                event.end.other.handed_over(event.size)
        self._inbox.clear()
        self._left = [*self.ends.values()]
        self.ends.clear()
        for end in self._left:
            end.leave(reason)

    def finish_if_sent(self) -> None:
        """Let `wait_closed` return once the peers have read what was sent."""
        if not any(end.queued for end in self._left):
            self.call(self.finish)

    def finish(self) -> None:
        """Let `wait_closed` return; runs on the port's loop."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self._finished.set()

    def put(self, event: _Event) -> None:
        """Put an event into the inbox, and have the port's loop look there."""
        self._inbox.append(event)
        self.wake()

    def discard(self, end: End) -> None:
        """Drop the messages under way to an end of this port, unless the port is frozen."""
        if self.is_frozen:
            return
        kept: deque[_Event] = deque()
        for event in self._inbox:
            if isinstance(event, _Message) and event.end is end:
                end.other.handed_over(event.size)
            else:
                kept.append(event)
        self._inbox = kept

    def call(self, callback: Callable[[], None]) -> bool:
        """Call back on the port's loop; `False` if that is closed."""
        try:
            if self.loop is _running_loop():
                self.loop.call_soon(callback, context=self._context)
            else:
                self.loop.call_soon_threadsafe(callback, context=self._context)
        except RuntimeError:
            return False
        return True

    def wake(self) -> None:
        """Have the port's loop look into the inbox."""
        # A loop that was closed never runs what it was asked to.
        if self._delivery_scheduled and not self.loop.is_closed():
            return
        self._delivery_scheduled = True
        if not self.call(self._deliver):
            self.shut("the peer's event loop was closed")

    def _connect_later(self) -> None:
        """Runs on the port's loop."""
        if self.side == "dialler":
            self.loop.call_later(RECONNECT_PAUSE, self._connect)

    def _connect(self) -> None:
        with lock:
            if not self.is_closed:
                self.name.connect(self)

    def _deliver(self) -> None:
        """Hand over what has arrived by now; runs on the port's loop.

        What the handler causes to arrive meanwhile is left to a later turn, or two ports on one
        loop could keep it forever.
        """
        with lock:
            self._delivery_scheduled = False
            if self._delivery_timer is not None:
                self._delivery_timer.cancel()
                self._delivery_timer = None
            arrived = len(self._inbox)
        has_message = False
        try:
            for _ in range(arrived):
                event = self._next_event()
                if event is None:
                    break
                key = event.end.key
                if isinstance(event, _Message):
                    has_message = True
                    self._handler.message_received(key, event.frames)
                elif isinstance(event, _Connected):
                    self._handler.peer_connected(key)
                else:
                    self._handler.peer_lost(key, event.reason)
            if has_message and not self.is_closed:
                self._handler.read_complete()
        finally:
            with lock:
                self._deliver_later()

    def _next_event(self) -> _Event | None:
        """Take the next event for the handler, if it is due."""
        with lock:
            while self._inbox and not self.is_frozen:
                event = self._inbox[0]
                if event.due and event.due > time.monotonic():
                    break
                self._inbox.popleft()
                end = event.end
                if isinstance(event, _Message):
                    end.other.handed_over(event.size)
                if self.ends.get(end.key) is not end:
                    continue
                if isinstance(event, _Message) and self._is_refused(event):
                    continue
                if isinstance(event, _Lost):
                    del self.ends[end.key]
                    self._connect_later()
                return event
            return None

    def _is_refused(self, message: _Message) -> bool:
        """Break the connection over a frame that is too large, as libzmq does."""
        largest = max(map(len, message.frames))
        limit = self._options.max_frame
        if largest <= limit:
            return False
        self.discard(message.end)
        for end in (message.end, message.end.other):
            if end.is_open:
                end.lose(f"a frame of {largest} bytes is over the receiver's limit of {limit}")
        return True

    def _deliver_later(self) -> None:
        if not self._inbox or self.is_frozen:
            return
        wait = self._inbox[0].due - time.monotonic()
        if wait <= 0:
            self.wake()
        else:
            self._delivery_timer = self.loop.call_later(wait, self._deliver, context=self._context)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
