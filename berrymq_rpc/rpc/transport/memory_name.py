"""Who is at the two sides of a `mem://` address, and what connects them.

* A name has at most one listener and any number of diallers. A dialler has at most one connection
  at a time. When it is lost, the dialler makes another one, with a new key, as soon as there is
  somebody to connect to.
* A connection has two ends, each of a port. What an end sends or does is put into the inbox of the
  port at the other end.
* One lock guards the state of all names, connections and ports.
"""

import itertools
import threading
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from .port import Key

if TYPE_CHECKING:
    from .memory_port import MemoryPort

__all__ = ["Connected", "End", "Event", "Lost", "Message", "Name", "Side", "find_name", "lock"]

Side: TypeAlias = Literal["dialler", "listener"]

#: Reentrant: an event loop that turns out to be closed when an inbox is filled ends that port,
#: which fills the inboxes of its peers.
lock = threading.RLock()

_keys = itertools.count(1)


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
        #: Bytes that were sent here and that the other end's owner has not been handed.
        self.queued = 0

    def lose(self, reason: str, due: float = 0.0) -> None:
        """Let the port know, after all that is in its inbox, that the peer is gone."""
        self.is_open = False
        self.port.put(Lost(due, self, reason))

    def leave(self, reason: str) -> None:
        """Give the connection up; the other end hears of it unless the network is silent."""
        self.is_open = False
        name = self.port.name
        if self.other.is_open and not name.is_silent:
            self.other.lose(reason, name.due())

    def handed_over(self, size: int) -> None:
        """Count bytes as no longer queued: they were delivered, or never will be."""
        self.queued -= size
        if not self.queued and self.port.is_closed:
            self.port.finish_if_sent()


class Connected(NamedTuple):
    """There is a peer. Events are due at a time of the monotonic clock, or at once if it is 0."""

    due: float
    end: End


class Message(NamedTuple):
    """Frames for an end, and their bytes altogether."""

    due: float
    end: End
    frames: tuple[bytes, ...]
    size: int


class Lost(NamedTuple):
    """The peer is gone."""

    due: float
    end: End
    reason: str


Event: TypeAlias = Connected | Message | Lost


class Name:
    """One address: who listens, who dials, and what a test has set to go wrong."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.listener: MemoryPort | None = None
        # A dict and not a set: diallers connect in the order in which they came.
        self.diallers: dict[MemoryPort, None] = {}
        self.delay = 0.0
        self.is_down = False
        self.is_silent = False
        self.drops: dict[Side, int] = {"dialler": 0, "listener": 0}
        self.duplicates: dict[Side, int] = {"dialler": 0, "listener": 0}

    def due(self) -> float:
        """When what is sent now arrives, on the monotonic clock; 0 for at once."""
        return time.monotonic() + self.delay if self.delay else 0.0

    def ends(self) -> list[End]:
        """The ends of all connections that an owner has not been told the loss of."""
        ports = [*self.diallers] if self.listener is None else [self.listener, *self.diallers]
        return [end for port in ports for end in port.ends.values()]

    def cut(self, reason: str) -> None:
        """Drop what is under way on each connection, and tell both ends of the loss."""
        for end in self.ends():
            end.port.discard(end)
            if end.is_open:
                end.lose(reason)

    def connect_all(self) -> None:
        for dialler in [*self.diallers]:
            self.connect(dialler)

    def connect(self, dialler: "MemoryPort") -> None:
        """Connect one dialler, if it is not connected and there is somebody to connect to."""
        listener = self.listener
        if listener is None or listener.is_frozen or self.is_down or self.is_silent:
            return
        if any(end.is_open for end in dialler.ends.values()):
            return
        key = next(_keys)
        far, near = End(key, listener), End(key, dialler)
        far.other, near.other = near, far
        # Either port may turn out to have lost its event loop. The other then hears of both the
        # connection and its loss, or of neither.
        listener.ends[key] = far
        listener.put(Connected(0.0, far))
        if near.is_open:
            dialler.ends[key] = near
            dialler.put(Connected(0.0, near))


# Weak: a name is forgotten with its last port, closed or collected, and its faults with it.
_names: WeakValueDictionary[str, Name] = WeakValueDictionary()


def find_name(endpoint: str) -> Name:
    """The name of an endpoint, made if it is not there. Called under the lock."""
    return _names.setdefault(endpoint, Name(endpoint))
