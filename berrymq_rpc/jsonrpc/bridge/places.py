"""The places and bytes of a bridge's listeners: how many connections there may be, of whom.

A connection has a place from when it is accepted until its socket is closed: while TLS is agreed
on, between two requests, and while it is served. Each host has a share of the places and of the
bytes, and all hosts together have a bound. When there is no place left, a connection that is idle
gives way: one that is between two requests, or has not sent its first one whole. It is the oldest
of the host that has most, so that a host which holds many cannot keep others out. To a connection
of the same host only one gives way that has been idle for a while.

Bytes are those of texts that have not arrived whole, and those that wait to be sent. Over a bound,
the connection that has most of them is closed, of the host that has most.
"""

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from ...endpoint import host_key

__all__ = ["NO_FILES_LEFT", "NoPlaceError", "Place", "PlaceBounds", "Places"]


#: Seconds that a connection has to send its request before another of the same host takes its
#: place.
IDLE_TIME = 1.0

#: Why a peer is refused where the process or the system has no file for its connection.
NO_FILES_LEFT = "no files left"


class NoPlaceError(Exception):
    """There is no place for a further connection; the text says which bound is reached."""


class PlaceBounds(NamedTuple):
    """How much connections may take.

    Args:
        max_places: connections at one time.
        max_host_places: those of one host.
        max_bytes: bytes of texts that have not arrived whole or wait to be sent.
        max_host_bytes: those of one host.
    """

    max_places: int
    max_host_places: int
    max_bytes: int
    max_host_bytes: int


class Place:
    """The place of one connection.

    Attributes:
        size: bytes that are held for it.
        evict: closes the connection, which is idle or has too many bytes.
    """

    __slots__ = ("_host", "_host_key", "_incoming", "_is_idle", "_places", "evict", "size")

    def __init__(self, places: "Places", host: "_Host", evict: Callable[[], object]) -> None:
        self._places = places
        self._host: _Host | None = host
        self._host_key = host.key
        self._is_idle = True
        self._incoming = 0
        self.size = 0
        self.evict = evict

    @property
    def host(self) -> str:
        """What counts as the host of the connection."""
        return self._host_key

    @property
    def is_idle(self) -> bool:
        """Whether it may be closed to make room."""
        return self._is_idle

    @property
    def has_partial_text(self) -> bool:
        """Whether a text has begun to arrive."""
        return self._incoming > 0

    def busy(self) -> None:
        """It is served now, and does not give way."""
        if self._is_idle:
            self._is_idle = False
            if self._host is not None:
                del self._host.idle[self]

    def idle(self) -> None:
        """It is served no more."""
        if not self._is_idle:
            self._is_idle = True
            if self._host is not None:
                self._host.idle[self] = self._places.clock()

    def received(self, size: int) -> None:
        """Count bytes that have arrived."""
        self._incoming += size
        self.resize(size)

    def taken(self, size: int | None = None) -> None:
        """Count bytes that have arrived as taken; ``None`` for all of them."""
        size = self._incoming if size is None else min(size, self._incoming)
        self._incoming -= size
        self.resize(-size)

    def resize(self, size: int) -> None:
        """Add to the bytes that are held for the connection, or take from them."""
        if self._host is None or not size:
            return
        self.size += size
        self._host.size += size
        self._places.size += size
        if size > 0:
            self._places.bound_bytes(self._host)

    def release(self) -> None:
        """Give the place back: the connection is closed. Can be called again."""
        host, self._host = self._host, None
        if host is not None:
            host.all.discard(self)
            host.idle.pop(self, None)
            host.size -= self.size
            self._places.released(host, self.size)


class _Host:
    """The connections of one host.

    Attributes:
        all: the places.
        idle: those that may give way, each with the time since when, the oldest first.
        size: their bytes.
    """

    __slots__ = ("all", "idle", "key", "size")

    def __init__(self, key: str) -> None:
        self.key = key
        self.all: set[Place] = set()
        self.idle: dict[Place, float] = {}
        self.size = 0


class Places:
    """The places of all listeners.

    Args:
        bounds: how much they may take.
        elsewhere: how many peers there are that hold no place here: those over ZeroMQ.
        clock: seconds that never go back.

    Attributes:
        count: connections that have a place.
        size: bytes that are held for them.
        closed: how many were closed to make room, or for their bytes.
    """

    def __init__(
        self,
        bounds: PlaceBounds,
        elsewhere: Callable[[], int],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.clock = clock
        self._bounds = bounds
        self._elsewhere = elsewhere
        self._hosts: dict[str, _Host] = {}
        self.count = 0
        self.size = 0
        self.closed = 0

    def take(
        self, address: str | None, evict: Callable[[], object], *, is_short: bool = False
    ) -> Place:
        """Take a place for a new connection, which is idle.

        Args:
            address: where it comes from.
            evict: closes it.
            is_short: whether there is no room for a further one, however many there are.

        Raises:
            NoPlaceError: there is none left, and none that gives way.
        """
        bounds = self._bounds
        key = host_key(address)
        host = self._hosts.get(key) or _Host(key)
        if len(host.all) >= bounds.max_host_places:
            if not self._close_idle(host, for_itself=True):
                raise NoPlaceError(f"max_host_peers={bounds.max_host_places:,} is reached")
        elif is_short or self.count + self._elsewhere() >= bounds.max_places:
            crowded = max(
                (each for each in self._hosts.values() if each.idle),
                key=lambda each: len(each.all),
                default=None,
            )
            if crowded is None or len(crowded.all) <= len(host.all):
                crowded = host
            if not self._close_idle(crowded, for_itself=crowded is host):
                full = f"max_peers={bounds.max_places:,} is reached"
                raise NoPlaceError(NO_FILES_LEFT if is_short else full)
        place = Place(self, host, evict)
        host.all.add(place)
        host.idle[place] = self.clock()
        self._hosts[key] = host
        self.count += 1
        return place

    def _close_idle(self, host: _Host, *, for_itself: bool) -> bool:
        """Close the oldest idle connection of a host; return whether there was one."""
        place = next(iter(host.idle), None)
        if place is None or (for_itself and self.clock() - host.idle[place] < IDLE_TIME):
            return False
        self._close(place)
        return True

    def _close(self, place: Place) -> None:
        self.closed += 1
        place.release()
        place.evict()

    def bound_bytes(self, host: _Host) -> None:
        """Close connections until the bounds in bytes hold again, after a host got more."""
        bounds = self._bounds
        while host.size > bounds.max_host_bytes:
            self._close(max(host.all, key=_size))
        while self.size > bounds.max_bytes:
            self._close(max(max(self._hosts.values(), key=_size).all, key=_size))

    def released(self, host: _Host, size: int) -> None:
        """A place was given back, with its bytes."""
        self.count -= 1
        self.size -= size
        if not host.all:
            self._hosts.pop(host.key, None)


def _size(holder: Place | _Host) -> int:
    return holder.size
