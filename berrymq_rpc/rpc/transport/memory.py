"""The transport `mem://name` within one process, and the faults that a test puts on it.

A name has at most one listener and any number of diallers, each on an event loop and in a thread
of its own if need be. `memory_name` says what connects them, `memory_port` how messages get across.
"""

import errno
import itertools

from .memory_name import Name, Side, find_name, lock
from .memory_port import MemoryPort
from .port import Port, PortHandler, PortOptions

__all__ = ["Faults", "dial", "faults", "listen"]

_WILDCARD = "mem://*"

_free_numbers = itertools.count(1)


async def listen(endpoint: str, owner: PortHandler, options: PortOptions) -> Port:
    """Listen on a name.

    Args:
        endpoint: `mem://name`; `mem://*` for a free name, which `Port.endpoints` tells.
        owner: is called on the running event loop, in a later turn of it.
        options: `max_frame` bounds what peers send here; `heartbeat` has no effect.

    Raises:
        OSError: `EADDRINUSE`, a port of this process listens on the name.
        ValueError: the endpoint is no `mem://name`.
    """
    with lock:
        name = _free_name() if endpoint == _WILDCARD else _name(endpoint)
        if name.listener is not None and name.listener.loop.is_closed():
            name.listener.shut("the peer's event loop was closed")
        if name.listener is not None:
            message = f"a port of this process listens on {endpoint} already"
            raise OSError(errno.EADDRINUSE, message)
        port = name.listener = MemoryPort(name, "listener", owner, options)
        name.connect_all()
    return port


async def dial(endpoint: str, owner: PortHandler, options: PortOptions) -> Port:
    """Connect to a name, now or as soon as somebody listens, and again after each loss.

    Args:
        endpoint: `mem://name`.
        owner: is called on the running event loop, in a later turn of it.
        options: `max_frame` bounds what the peer sends here; `heartbeat` has no effect.

    Raises:
        ValueError: the endpoint is no `mem://name`, or is the wildcard.
    """
    with lock:
        name = _name(endpoint)
        port = MemoryPort(name, "dialler", owner, options)
        name.diallers[port] = None
        name.connect(port)
    return port


def faults(endpoint: str) -> "Faults":
    """The faults of one name, whether somebody uses the name yet or not.

    They last as long as the object, or any port of the name, is kept. A test does best with a name
    of its own.

    Args:
        endpoint: `mem://name`.

    Raises:
        ValueError: the endpoint is no `mem://name`, or is the wildcard.
    """
    with lock:
        return Faults(_name(endpoint))


class Faults:
    """A test instrument: what goes wrong between the listener of one name and its diallers.

    `faults` makes it. All methods act at once, and may be called from any thread. What is under
    way is what was sent and has not been handed to the owner at the other side.
    """

    def __init__(self, name: Name) -> None:
        self._name = name

    @property
    def delay(self) -> float:
        """Seconds that a message or a close is under way, in each direction.

        The order is kept: once it is set to less, later messages wait for earlier ones.
        """
        return self._name.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"a delay is 0 seconds or more, not {seconds!r}")
        with lock:
            self._name.delay = seconds

    def drop(self, count: int = 1, *, towards: Side) -> None:
        """Lose the next `count` messages that are sent towards one side."""
        with lock:
            self._name.drops[towards] += count

    def duplicate(self, count: int = 1, *, towards: Side) -> None:
        """Deliver the next `count` messages that are sent towards one side twice."""
        with lock:
            self._name.duplicates[towards] += count

    def cut(self) -> None:
        """Break each connection: what is under way is lost, both ends are told.

        The diallers connect again by themselves, unless the name is down.
        """
        with lock:
            self._name.cut("the connection was cut")

    def down(self) -> None:
        """`cut`, and let no dialler connect until `up`."""
        with lock:
            self._name.is_down = True
            self._name.cut("the network is down")

    def up(self) -> None:
        """End what `down` began: the diallers connect."""
        with lock:
            self._name.is_down = False
            self._name.connect_all()

    def silence(self) -> None:
        """Cut the network so that nobody is told: what is under way or sent is swallowed.

        Neither a close nor a new connection gets through until `restore`.
        """
        with lock:
            self._name.is_silent = True
            for end in self._name.ends():
                end.port.discard(end)

    def restore(self) -> None:
        """End what `silence` began.

        What was swallowed is gone. Who still believes in a peer that went away is told now.
        """
        with lock:
            self._name.is_silent = False
            for end in self._name.ends():
                if end.is_open and not end.other.is_open:
                    end.lose("the peer went away while the network was cut")
            self._name.connect_all()

    def freeze(self) -> None:
        """Stop the listener as SIGSTOP does: it reads nothing, and what it sends stays with it.

        Everything is kept until `thaw`, also what peers sent that have given up meanwhile.
        Diallers that come now are connected then.

        Raises:
            LookupError: nobody listens.
        """
        with lock:
            self._listener().is_frozen = True

    def thaw(self) -> None:
        """End what `freeze` began. Nothing happens where nothing is frozen."""
        with lock:
            if self._name.listener is not None:
                self._name.listener.thaw()
                self._name.connect_all()

    def kill(self) -> None:
        """End the listener as SIGKILL does: its owner hears nothing any more, its peers are told.

        What it had sent arrives. The name is free at once.

        Raises:
            LookupError: nobody listens.
        """
        with lock:
            listener = self._listener()
            listener.shut("the peer was killed")
            listener.call(listener.finish)

    def _listener(self) -> MemoryPort:
        if self._name.listener is None:
            raise LookupError(f"nobody listens on {self._name.endpoint}")
        return self._name.listener


def _name(endpoint: str) -> Name:
    scheme, separator, name = endpoint.partition("://")
    if scheme != "mem" or not separator or name in ("", "*"):
        raise ValueError(f"not an address such as mem://name: {endpoint!r}")
    return find_name(endpoint)


def _free_name() -> Name:
    while True:
        name = find_name(f"mem://{next(_free_numbers)}")
        if name.listener is None and not name.diallers:
            return name
