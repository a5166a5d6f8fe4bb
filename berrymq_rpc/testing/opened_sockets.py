"""The sockets that are opened while a test runs: `OpenedSockets`.

They are noted as they are made. To look for them among all objects (`gc.get_objects`) would hold a
second reference to each tuple that another thread is making, which fails there.
"""

import functools
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["OpenedSockets"]

_lock = threading.Lock()
_recording: list["OpenedSockets"] = []
#: The classes whose objects are noted, and their own `__init__`.
_own: dict[type, Callable[..., None]] = {}


class OpenedSockets:
    """Notes the sockets of Python and of pyzmq that are made between `start` and `stop`."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Any]] = []

    def start(self) -> None:
        """Note sockets from now on."""
        with _lock:
            if not _recording:
                _note_new_ones()
            _recording.append(self)

    def stop(self) -> None:
        """Note no more."""
        with _lock:
            if self in _recording:
                _recording.remove(self)
            if not _recording:
                for kind, own in _own.items():
                    kind.__init__ = own  # type: ignore[misc]
                _own.clear()

    def add(self, one: Any) -> None:
        """Note a socket."""
        self._made.append(weakref.ref(one))

    def still_open(self) -> list[Any]:
        """Those that are open now."""
        made = [reference() for reference in self._made]
        return [one for one in made if one is not None and _is_open(one)]


def _note_new_ones() -> None:
    # Here: it takes long, and nothing of the kit needs it before.
    import zmq

    kinds: tuple[Any, ...] = (socket.socket, zmq.Socket)
    for kind in kinds:
        _own[kind] = kind.__init__
        kind.__init__ = _noting(kind.__init__)


def _noting(own: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(own)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        own(self, *args, **kwargs)
        for recorder in [*_recording]:
            recorder.add(self)

    return init


def _is_open(one: Any) -> bool:
    return one.fileno() != -1 if isinstance(one, socket.socket) else not one.closed
