"""The only module that imports `aiozmq`. It makes the import work where it would fail.

`aiozmq` 1.0.0 was written before two names left asyncio:

* ``asyncio.unix_events.SafeChildWatcher``, gone in Python 3.14. ``aiozmq.core`` imports it by name,
  for an event loop policy that nothing here uses.
* ``asyncio.AbstractEventLoopPolicy``, deprecated since 3.14 and gone in 3.16. ``aiozmq.core`` makes
  a subclass of it while it is imported, which fails where warnings are errors.

What is missing is put in place for this import alone and taken away again; the warnings that this
import raises are silenced for this import alone. ``aiozmq.rpc`` is not imported: its protocol is
spoken by the dialect in `berrymq_rpc.rpc.wire`, and it raises more warnings.
"""

import asyncio
import sys
import warnings
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

# Imported before the warnings are silenced, so that those of pyzmq are not hidden.
import zmq  # noqa: F401

__all__ = ["ZmqProtocol", "ZmqTransport"]


def _names_taken_for_granted() -> list[tuple[ModuleType, str]]:
    names: list[tuple[ModuleType, str]] = [(asyncio, "AbstractEventLoopPolicy")]
    if sys.platform != "win32":
        from asyncio import unix_events

        names.append((unix_events, "SafeChildWatcher"))
    return names


@contextmanager
def _names_in_place() -> Iterator[None]:
    with warnings.catch_warnings():
        # Asking asyncio 3.14 whether it has the policy warns already.
        warnings.simplefilter("ignore", DeprecationWarning)
        missing = [
            (module, name)
            for module, name in _names_taken_for_granted()
            if not hasattr(module, name)
        ]
        for module, name in missing:
            setattr(module, name, type(name, (), {}))
        try:
            yield
        finally:
            for module, name in missing:
                delattr(module, name)


if TYPE_CHECKING:
    # aiozmq has no type hints. These are its classes, as far as this package uses them.

    class _SocketEvent(NamedTuple):
        event: int
        value: int
        endpoint: str

    class ZmqTransport(asyncio.BaseTransport):
        def write(self, data: Iterable[Any]) -> None: ...
        def abort(self) -> None: ...
        def getsockopt(self, option: int) -> Any: ...
        def setsockopt(self, option: int, value: int | bytes | str) -> None: ...
        def set_write_buffer_limits(
            self, high: int | None = None, low: int | None = None
        ) -> None: ...
        def get_write_buffer_limits(self) -> tuple[int, int]: ...
        def get_write_buffer_size(self) -> int: ...
        def pause_reading(self) -> None: ...
        def resume_reading(self) -> None: ...
        def bind(self, endpoint: str) -> asyncio.Future[str]: ...
        def unbind(self, endpoint: str) -> asyncio.Future[None]: ...
        def bindings(self) -> Set[str]: ...
        def connect(self, endpoint: str) -> asyncio.Future[str]: ...
        def disconnect(self, endpoint: str) -> asyncio.Future[None]: ...
        def connections(self) -> Set[str]: ...
        async def enable_monitor(self, events: int | None = None) -> None: ...
        async def disable_monitor(self) -> None: ...

    class ZmqProtocol(asyncio.BaseProtocol):
        # Any: the transport hands on whatever its socket's recv_multipart() answers.
        def msg_received(self, data: Any) -> None: ...
        def event_received(self, event: _SocketEvent) -> None: ...

else:
    with _names_in_place():
        from aiozmq import ZmqProtocol, ZmqTransport
