"""A client for programs and threads without asyncio."""

import asyncio
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import RPCTimeoutError
from ..runtime.loop_thread import LoopThread
from ..runtime.meter import Meter
from .call import Call
from .client import open_client
from .dispatcher import DESCRIBE
from .proxy import Namespace, no_attribute
from .stream import Usage

__all__ = ["SyncClient"]

#: What errors about streams advise.
USAGE = Usage("client.rpc", "client.stream")

_HELD = (
    "This call held the event loop of its thread: whatever runs in that loop, such as the server, "
    "could not answer meanwhile. Use rpc.open_client in a loop."
)


def _runs_here() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class SyncClient:
    """A client whose calls block until their result is there. Any thread may use it.

    ::

        with rpc.SyncClient(connect="tcp://127.0.0.1:5555", timeout=5.0) as client:
            print(client.rpc.math.add(1, 2))

    It runs an event loop on a thread of its own, so several threads can have calls in
    flight at the same time.

    Args:
        connect: endpoint or endpoints of servers.
        timeout: seconds for each call, and for each item of a stream; ``None`` for no limit.
        options: as for `open_client`. Methods of a ``handler`` run on the client's thread.

    Attributes:
        rpc: ``client.rpc.namespace.method(1, key=2)`` returns the result.
        notify: the same, one way; returns once it is handed over to be sent.
        stream: ``for item in client.stream.namespace.method(1)`` iterates over a stream. Leaving
            the loop ends the stream.

    Raises:
        TypeError, ValueError, OSError: as `open_client` does.

    Calls raise what those of a `Client` raise. One that is interrupted by Ctrl-C is cancelled
    at the server.
    """

    def __init__(
        self, *, connect: Any = None, timeout: float | None = None, **options: Any
    ) -> None:
        self._loop_thread = LoopThread("client")
        try:
            self._client = self._loop_thread.run(
                open_client(connect=connect, timeout=timeout, **options)
            )
        except BaseException:
            self._loop_thread.close()
            raise
        self._options = self._client.options
        self._make_names()

    def _make_names(self) -> None:
        self.rpc: Namespace[Any] = Namespace(self._call)
        self.notify: Namespace[None] = Namespace(self._notify)
        self.stream: Namespace[Iterator[Any]] = Namespace(self._stream)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self._loop_thread.run(self._start(method, args, kwargs))
        except RPCTimeoutError as error:
            if _runs_here():
                error.add_note(_HELD)
            raise

    async def _start(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await self._send(method, args, kwargs)

    def _send(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        call = self._client.pool.call(method, args, kwargs, self._options)
        call.usage = USAGE
        return call

    def _notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        async def notify() -> None:
            self._client.pool.notify(method, args, kwargs)

        self._loop_thread.run(notify())

    def _stream(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Generator[Any, None, None]:
        async def begin() -> Call:
            return self._send(method, args, kwargs).read()

        # Sent now, not at the first item, as every call is.
        return self._items(self._loop_thread.run(begin()))

    def _items(self, call: Call) -> Generator[Any, None, None]:
        try:
            while True:
                try:
                    item = self._loop_thread.run(call.__anext__())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            # Without waiting for it: collection may come here, in any thread and at the very end.
            self._loop_thread.call_soon(call.cancel)

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method by its full name, which need not be an identifier."""
        return self._call(method, args, kwargs)

    def describe(self) -> dict[str, Any]:
        """Ask what the server offers; see `Client.describe`."""
        described: dict[str, Any] = self._call(DESCRIBE, (), {})
        return described

    def with_timeout(self, timeout: float | None) -> "SyncClient":
        """Return a client that shares this one's connections but has another timeout."""
        other = object.__new__(type(self))
        other._loop_thread = self._loop_thread
        other._client = self._client
        other._options = replace(self._options, timeout=timeout)
        other._make_names()
        return other

    @property
    def metrics(self) -> Meter | None:
        """What counts its calls, or ``None``."""
        return self._client.metrics

    def statistics(self) -> dict[str, int]:
        """Counts, as `Client.statistics` gives them.

        Raises:
            ServiceClosedError: it is closed.
        """

        async def count() -> dict[str, int]:
            return self._client.statistics()

        return self._loop_thread.run(count())

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses that it connects to or is bound to."""
        return self._client.endpoints

    def close(self) -> None:
        """Close the connections and end the thread. Calls of other threads fail."""
        self._loop_thread.close(self._finish)

    async def _finish(self) -> None:
        self._client.close()
        await self._client.wait_closed()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __enter__(self) -> "SyncClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SyncClient {', '.join(self.endpoints)}>"
