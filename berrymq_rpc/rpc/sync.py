"""A client for programs and threads without asyncio."""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Coroutine, Generator, Iterator
from typing import Any, TypeVar

from ..errors import Error, ServiceClosedError
from .argument import checked_timeout
from .call import Call
from .client import Client, open_client
from .dispatcher import DESCRIBE
from .proxy import Namespace

__all__ = ["SyncClient"]

T = TypeVar("T")

_CLOSED = "the client is closed"


class SyncClient:
    """A client whose calls block until their result is there. Any thread may use it.

    ::

        with rpc.SyncClient(connect="tcp://127.0.0.1:5555", timeout=5.0) as client:
            print(client.rpc.math.add(1, 2))

    It runs an event loop on a thread of its own, so calls of several threads are under way at
    the same time.

    Args:
        connect: endpoint or endpoints of servers.
        timeout: seconds for each call, and for each item of a stream; ``None`` for no limit.
        options: as for `open_client`. Methods of a ``handler`` run on the client's thread.

    Attributes:
        rpc: ``client.rpc.namespace.method(1, key=2)`` returns the result.
        notify: the same, one way; returns when it is handed over to be sent.
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
        self._timeout = checked_timeout(timeout)
        self._background = _Background()
        try:
            self._client = self._background.run(
                open_client(connect=connect, timeout=timeout, **options)
            )
        except BaseException:
            self._background.stop()
            raise
        self._make_names()

    def _make_names(self) -> None:
        self.rpc: Namespace[Any] = Namespace(self._call)
        self.notify: Namespace[None] = Namespace(self._notify)
        self.stream: Namespace[Iterator[Any]] = Namespace(self._stream)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._background.run(self._start(method, args, kwargs))

    async def _start(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return await self._client.pool.call(method, args, kwargs, self._timeout)

    def _notify(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        async def notify() -> None:
            self._client.pool.notify(method, args, kwargs)

        self._background.run(notify())

    def _stream(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Generator[Any, None, None]:
        async def begin() -> Call:
            return self._client.pool.call(method, args, kwargs, self._timeout).__aiter__()

        # Sent now, not at the first item, as every call is.
        return self._items(self._background.run(begin()))

    def _items(self, call: Call) -> Generator[Any, None, None]:
        try:
            while True:
                try:
                    item = self._background.run(call.__anext__())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._background.run_if_alive(call.aclose())

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
        other._background = self._background
        other._client = self._client
        other._timeout = checked_timeout(timeout)
        other._make_names()
        return other

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses that it connects to or is bound to."""
        return self._client.endpoints

    def close(self) -> None:
        """Close the connections and end the thread. Calls of other threads fail."""
        self._background.close(self._client)

    def __enter__(self) -> "SyncClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SyncClient {', '.join(self.endpoints)}>"


class _Background:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self._process = os.getpid()
        #: Held while something is handed to the loop: nothing is once `_closed` is set. One
        #: thread may take it twice, as a stream may be collected, and so ended, at any point.
        self._lock = threading.RLock()
        self._closed = False
        self._closing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="berrymq_rpc client", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it gives."""
        problem = self._problem()
        if problem is not None:
            coroutine.close()
            raise problem
        with self._lock:
            if self._closed:
                coroutine.close()
                raise ServiceClosedError(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ServiceClosedError(_CLOSED) from None
        except BaseException:
            # Ctrl-C in the waiting thread, or the outcome itself, which this leaves alone.
            future.cancel()
            raise

    def run_if_alive(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine unless there is nothing left to run it for."""
        if self._problem() is None:
            with contextlib.suppress(ServiceClosedError):
                self.run(coroutine)
        else:
            coroutine.close()

    def _problem(self) -> Exception | None:
        if self._process != os.getpid():
            return Error("this client was opened before a fork: open a client in each process")
        if self._closed:
            return ServiceClosedError(_CLOSED)
        if threading.get_ident() == self._thread.ident:
            return RuntimeError("a handler of this client would wait for itself: make it async")
        return None

    def close(self, client: Client) -> None:
        """Close the client, then the loop. Nothing happens the second time."""
        if isinstance(problem := self._problem(), RuntimeError):
            raise problem
        if self._process != os.getpid():
            return
        with self._closing:
            if not self._closed:
                self.stop(client)

    def stop(self, client: Client | None = None) -> None:
        """End what runs on the loop, the loop and its thread."""
        with self._lock:
            self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(_finish(client), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _finish(client: Client | None) -> None:
    if client is not None:
        client.close()
        await client.wait_closed()
    # Calls of other threads that have just come, and would wait for ever.
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
