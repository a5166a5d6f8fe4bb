"""What adapters have in common: where they send, and how they end."""

import atexit
import sys
import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ...identifier import WILDCARD, Identifier
from ...runtime.fork import OwnerProcess
from ..bus import Bus
from ..decorators import with_action
from ..default import default_bus
from ..log import logger

if TYPE_CHECKING:
    import asyncio

__all__ = ["Adapter", "running_loop"]

#: Seconds that closing waits for the thread, which a receiver may hold.
PATIENCE = 5.0

#: The same at the exit of the interpreter.
EXIT_PATIENCE = 1.0


class Adapter:
    """Sends messages until it is closed: on the event loop where it was made, or on a thread.

    Args:
        name: the name of its messages, with a namespace perhaps; they differ in their actions.
        bus: the bus to send to; ``None`` for the default one.
        example: how it is made, for errors.

    Raises:
        ValueError: `name` is not a name: it has an action, or is a wildcard.
        TypeError: `name` is not text.
    """

    def __init__(self, name: Identifier | str, bus: Bus | None, example: str) -> None:
        identifier = Identifier(name)
        if identifier.action != WILDCARD:
            raise ValueError(
                f"{str(identifier)!r} has an action, which is given: write {example}, with a name"
            )
        if WILDCARD in (identifier.name, identifier.namespace):
            raise ValueError(f"{str(identifier)!r} is a wildcard: write {example}, with a name")
        self._identifier = identifier
        self._bus = default_bus if bus is None else bus
        self._owner = OwnerProcess(type(self).__name__)
        self._stop = threading.Event()
        self._loop = running_loop()
        self._thread: threading.Thread | None = None
        _open.add(self)

    @property
    def name(self) -> str:
        """The name of its messages, with the namespace if there is one."""
        return str(self._identifier).partition(":")[0]

    @property
    def closed(self) -> bool:
        """Whether it sends nothing more, as it was closed or this is the child of a fork."""
        loop = self._loop
        return (
            self._stop.is_set()
            or not self._owner.is_this
            or (loop is not None and loop.is_closed())
        )

    def close(self) -> None:
        """Send nothing more. Any thread, and a receiver, may call it, and call it again.

        Waits until a message that is being sent has reached its receivers, for 5 seconds at most;
        on an event loop, and in a receiver of its own, it does not wait. In the child of a fork it
        does nothing.
        """
        if not self._owner.is_this:
            return
        self._end()
        thread = self._thread
        if thread is None or thread is threading.current_thread() or running_loop() is not None:
            return
        if not sys.is_finalizing():
            self._join(thread, PATIENCE)

    async def aclose(self) -> None:
        """Close it, and wait for its end as `close` does without blocking the event loop.

        If it is cancelled, it is closed nevertheless.
        """
        self.close()
        thread = self._thread
        if not self._owner.is_this or thread is None or thread is threading.current_thread():
            return
        import asyncio

        end = asyncio.get_running_loop().time() + PATIENCE
        while thread.is_alive() and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.005)
        self._join(thread, 0.0)

    def _end(self) -> None:
        """Stop what sends."""
        self._stop.set()
        _open.discard(self)

    def _join(self, thread: threading.Thread, patience: float) -> None:
        thread.join(patience)
        if thread.is_alive():
            logger.warning("%r was closed, but a receiver of its message has not ended", self)

    def _start_thread(self) -> None:
        self._thread = threading.Thread(
            target=self._work, name=f"berrymq_rpc {type(self).__name__}", daemon=True
        )
        self._thread.start()

    def _work(self) -> None:
        """What the thread does."""
        raise NotImplementedError

    def _action(self, action: str) -> Identifier:
        return with_action(self._identifier, action)

    def _send(self, identifier: Identifier, argument: Any) -> None:
        """Send a message; on a thread, nothing that a receiver raises ends it."""
        if self._loop is not None:
            self._bus.twitter(identifier, argument)
            return
        try:
            self._bus.twitter(identifier, argument)
        except BaseException:
            if not self._owner.is_this:
                # The child of a fork ends, of which this is the only thread.
                raise
            # A receiver that calls sys.exit, for one.
            logger.exception("%r: a receiver ended it, and it goes on", self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


_open: "weakref.WeakSet[Adapter]" = weakref.WeakSet()


def _end_all() -> None:
    """Stop all at the exit of the interpreter, while threads can still end."""
    ending = [adapter for adapter in list(_open) if adapter._owner.is_this]
    for adapter in ending:
        adapter._stop.set()
    for adapter in ending:
        if adapter._thread is not None:
            adapter._thread.join(EXIT_PATIENCE)


# After those of the bus, so that it comes before them: what was sent is still received.
atexit.register(_end_all)


def running_loop() -> "asyncio.AbstractEventLoop | None":
    """The event loop that runs in this thread."""
    # A program without asyncio need not import it; it takes some 30 ms.
    if "asyncio" not in sys.modules:
        return None
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
